/* common/zone: offsets as Python's zoneinfo has them, wall clock to instant, hostile files. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "common/zone.h"
#include "tests/unit/common/zones.h"

/* Both sides of every change of some years: in the table, beyond it, south, half an hour, negative
 * daylight saving (Dublin), a day that never was (Apia), war time (Kolkata). */
static void as_zoneinfo(void **state)
{
    (void)state;
    static const struct {
        const char *zone;
        int64_t utc_s;
        int32_t offset;
    } cases[] = {
        {"Europe/Berlin", 1704067200, 3600},
        {"Europe/Berlin", 1711846799, 3600},
        {"Europe/Berlin", 1711846800, 7200},
        {"Europe/Berlin", 1729990799, 7200},
        {"Europe/Berlin", 1729990800, 3600},
        {"Europe/Berlin", 3786912000, 3600},
        {"Europe/Berlin", 3794173199, 3600},
        {"Europe/Berlin", 3794173200, 7200},
        {"Europe/Berlin", 3812921999, 7200},
        {"Europe/Berlin", 3812922000, 3600},
        {"America/New_York", 1735689600, -18000},
        {"America/New_York", 1741503599, -18000},
        {"America/New_York", 1741503600, -14400},
        {"America/New_York", 1762063199, -14400},
        {"America/New_York", 1762063200, -18000},
        {"America/New_York", 13569465600, -18000},
        {"America/New_York", 13575625199, -18000},
        {"America/New_York", 13575625200, -14400},
        {"America/New_York", 13596184799, -14400},
        {"America/New_York", 13596184800, -18000},
        {"Australia/Lord_Howe", 1735689600, 39600},
        {"Australia/Lord_Howe", 1743865199, 39600},
        {"Australia/Lord_Howe", 1743865200, 37800},
        {"Australia/Lord_Howe", 1759591799, 37800},
        {"Australia/Lord_Howe", 1759591800, 39600},
        {"Australia/Lord_Howe", 4070908800, 39600},
        {"Australia/Lord_Howe", 4078997999, 39600},
        {"Australia/Lord_Howe", 4078998000, 37800},
        {"Australia/Lord_Howe", 4094724599, 37800},
        {"Australia/Lord_Howe", 4094724600, 39600},
        {"Asia/Kolkata", 1735689600, 19800},
        {"America/Santiago", 2840140800, -10800},
        {"America/Santiago", 2848273199, -10800},
        {"America/Santiago", 2848273200, -14400},
        {"America/Santiago", 2861582399, -14400},
        {"America/Santiago", 2861582400, -10800},
        {"Pacific/Auckland", 2366841600, 46800},
        {"Pacific/Auckland", 2374667999, 46800},
        {"Pacific/Auckland", 2374668000, 43200},
        {"Pacific/Auckland", 2389787999, 43200},
        {"Pacific/Auckland", 2389788000, 46800},
        {"Africa/Casablanca", 1735689600, 3600},
        {"Africa/Casablanca", 1740275999, 3600},
        {"Africa/Casablanca", 1740276000, 0},
        {"Africa/Casablanca", 1743904799, 0},
        {"Africa/Casablanca", 1743904800, 3600},
        {"Pacific/Apia", 1293840000, -36000},
        {"Pacific/Apia", 1301752799, -36000},
        {"Pacific/Apia", 1301752800, -39600},
        {"Pacific/Apia", 1316872799, -39600},
        {"Pacific/Apia", 1316872800, -36000},
        {"Pacific/Apia", 1325239199, -36000},
        {"Pacific/Apia", 1325239200, 50400},
        {"Pacific/Apia", 1893456000, 46800},
        {"Europe/Dublin", 2524608000, 0},
        {"Europe/Dublin", 2531955599, 0},
        {"Europe/Dublin", 2531955600, 3600},
        {"Europe/Dublin", 2550704399, 3600},
        {"Europe/Dublin", 2550704400, 0},
        {"Asia/Kolkata", -788918400, 23400},
        {"Asia/Kolkata", -764145001, 23400},
        {"Asia/Kolkata", -764145000, 19800},
        {"UTC", 0, 0},
        {"UTC", INT64_MAX, 0},
        {"Etc/GMT+5", 1735689600, -18000},
    };
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct dr_zone *z = test_zone(cases[i].zone);
        int32_t got = dr_zone_offset(z, cases[i].utc_s);
        if (got != cases[i].offset)
            fail_msg("%s at %lld: %d", cases[i].zone, (long long)cases[i].utc_s, got);
        dr_zone_free(z);
    }
}

/* The changes of a year are where the table above has them; and none is missed between. */
static void changes_follow_each_other(void **state)
{
    (void)state;
    static const char *const names[] = {"Europe/Berlin", "Australia/Lord_Howe", "America/Santiago",
                                        "Africa/Casablanca", "Europe/Dublin"};
    for (size_t i = 0; i < CM_COUNT(names); i++) {
        struct dr_zone *z = test_zone(names[i]);
        int64_t t = 1700000000, end = 6000000000; /* 2023 to 2160: over the end of every table */
        unsigned seen = 0;
        while (t < end) {
            int64_t next = dr_zone_next_change(z, t);
            assert_true(next > t);
            if (next == INT64_MAX)
                break;
            for (int64_t s = t; s < next; s += (next - t) / 8 + 1)
                assert_int_equal(dr_zone_offset(z, s), dr_zone_offset(z, t));
            assert_int_equal(dr_zone_offset(z, next - 1), dr_zone_offset(z, t));
            seen++;
            t = next;
        }
        assert_true(seen >= 100);
        dr_zone_free(z);
    }
    struct dr_zone *z = test_zone("UTC");
    assert_true(dr_zone_next_change(z, 0) == INT64_MAX);
    dr_zone_free(z);
}

static int64_t at(const char *text)
{
    int64_t ms;
    assert_true(dr_parse_time(text, &ms));
    return ms / 1000;
}

static void wall_clock_to_instant(void **state)
{
    (void)state;
    static const struct {
        const char *zone, *local, *utc;
    } cases[] = {
        {"UTC", "2025-01-02T03:04:05Z", "2025-01-02T03:04:05Z"},
        {"Europe/Berlin", "2025-01-02T03:00:00Z", "2025-01-02T02:00:00Z"},
        {"Europe/Berlin", "2025-03-30T01:59:59Z", "2025-03-30T00:59:59Z"},
        {"Europe/Berlin", "2025-03-30T02:00:00Z", "2025-03-30T01:00:00Z"}, /* skipped hour */
        {"Europe/Berlin", "2025-03-30T02:30:00Z", "2025-03-30T01:00:00Z"},
        {"Europe/Berlin", "2025-03-30T03:00:00Z", "2025-03-30T01:00:00Z"},
        {"Europe/Berlin", "2025-10-26T02:00:00Z", "2025-10-26T00:00:00Z"}, /* the first of two */
        {"Europe/Berlin", "2025-10-26T02:30:00Z", "2025-10-26T00:30:00Z"},
        {"Europe/Berlin", "2025-10-26T03:00:00Z", "2025-10-26T02:00:00Z"},
        {"America/New_York", "2077-03-14T02:15:00Z", "2077-03-14T07:00:00Z"}, /* beyond the table */
        {"Australia/Lord_Howe", "2025-10-05T02:15:00Z", "2025-10-04T15:30:00Z"},
        {"Pacific/Apia", "2011-12-30T12:00:00Z", "2011-12-30T10:00:00Z"}, /* a skipped day */
        {"Africa/Casablanca", "2025-02-23T02:30:00Z", "2025-02-23T01:30:00Z"},
        {"Asia/Kolkata", "2025-06-01T00:00:00Z", "2025-05-31T18:30:00Z"},
    };
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct dr_zone *z = test_zone(cases[i].zone);
        int64_t got = dr_zone_resolve(z, at(cases[i].local));
        if (got != at(cases[i].utc))
            fail_msg("%s %s: %lld", cases[i].zone, cases[i].local, (long long)got);
        dr_zone_free(z);
    }
    struct dr_zone *z = test_zone("Europe/Berlin"); /* what no one asks must not hang or overflow */
    (void)dr_zone_resolve(z, INT64_MAX);
    (void)dr_zone_resolve(z, INT64_MIN);
    (void)dr_zone_next_change(z, INT64_MIN);
    assert_int_equal(dr_zone_offset(z, INT64_MIN), 3208); /* local mean time */
    dr_zone_free(z);
}

/* A rule whose summer begins on the day after the last of the year: found by the fuzzer. */
static void a_change_may_lie_in_the_next_year(void **state)
{
    (void)state;
    static const unsigned char head[44] = {'T', 'Z', 'i', 'f', '2'};
    unsigned char file[88 + 6 + 32] = {0};
    static const char footer[] = "\nABC1DEF,365,0\n";
    memcpy(file, head, 44);
    memcpy(file + 44, head, 44);
    file[44 + 39] = 1; /* one type, of offset 0 */
    memcpy(file + 94, footer, sizeof footer - 1);
    struct dr_zone *z = NULL;
    assert_int_equal(dr_zone_parse(file, 94 + sizeof footer - 1, &z, NULL), DR_OK);
    int64_t t = at("2100-01-01T00:00:00Z");
    assert_int_equal(dr_zone_offset(z, t - 1), 0);
    assert_int_equal(dr_zone_offset(z, t), 0);
    assert_int_equal(dr_zone_next_change(z, t - 1), at("2100-01-01T02:00:00Z"));
    assert_int_equal(dr_zone_offset(z, at("2100-01-01T02:00:00Z")), -3600);
    assert_int_equal(dr_zone_offset(z, at("2100-01-01T03:00:00Z")), 0);
    dr_zone_free(z);
}

static void names_stay_inside(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "/etc/passwd",
                                      "../passwd",
                                      "Europe/../../passwd",
                                      ".",
                                      "Europe//Berlin",
                                      "Europe/",
                                      "Europe",
                                      "Europe/Berlin ",
                                      "zone.tab",
                                      "Mars/Base",
                                      "-a",
                                      "Europe/Ber\nlin",
                                      "tzdata/zi",
                                      "right/Europe/Berlin/x"};
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        struct dr_zone *z = NULL;
        struct dr_err err = {0};
        if (dr_zone_open(bad[i], &z, &err) != DR_E_CONFIG)
            fail_msg("accepted: %s", bad[i]);
        assert_string_equal(err.field, "zone");
        assert_null(z);
    }
}

/* A file of one type and a footer, to be damaged. */
static size_t small(unsigned char *out, const char *footer, int32_t offset)
{
    unsigned char *p = out;
    for (int block = 0; block < 2; block++) {
        memset(p, 0, 44);
        memcpy(p, "TZif2", 5);
        if (block) {
            dr_put_u32be(p + 36, 1);
            dr_put_u32be(p + 40, 4);
            dr_put_u32be(p + 44, (uint32_t)offset);
            memcpy(p + 48, "\0\0ABC", 6);
            p += 10;
        }
        p += 44;
    }
    return (size_t)(p - out) + (size_t)snprintf((char *)p, 100, "\n%s\n", footer);
}

static enum dr_rc parse(const unsigned char *bytes, size_t len)
{
    struct dr_zone *z = NULL;
    unsigned char *exact = malloc(len + 1); /* the address sanitizer sees its end */
    memcpy(exact, bytes, len);
    enum dr_rc rc = dr_zone_parse(exact, len, &z, NULL);
    if (!rc)
        (void)dr_zone_resolve(z, 1700000000);
    dr_zone_free(z);
    free(exact);
    return rc;
}

static void footers(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "UTC0",
                                       "<+0330>-3:30",
                                       "CET-1CEST,M3.5.0,M10.5.0/3",
                                       "EST5EDT4,0/0,J365/25",
                                       "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
                                       "IST-1GMT0,M10.5.0,M3.5.0/1",
                                       "AAA-24:59:59"};
    static const char *const bad[] = {"X",
                                      "AB1",
                                      "CET",
                                      "CET-1CEST",
                                      "CET-1CEST,M3.5.0",
                                      "CET-25",
                                      "CET-1CEST,M13.5.0,M10.5.0",
                                      "CET-1CEST,M3.6.0,M10.5.0",
                                      "CET-1CEST,M3.5.7,M10.5.0",
                                      "CET-1CEST,J0,J365",
                                      "CET-1CEST,366,1",
                                      "CET-1:60",
                                      "<+01-1",
                                      "CET-1CEST,M3.5.0/168,M10.5.0",
                                      "UTC0 ",
                                      "CET-1CEST,M3.5.0,M10.5.0,",
                                      "UTC99999999999999999999"};
    unsigned char file[256];
    for (size_t i = 0; i < CM_COUNT(good); i++)
        if (parse(file, small(file, good[i], 3600)))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < CM_COUNT(bad); i++)
        if (parse(file, small(file, bad[i], 3600)) != DR_E_MALFORMED)
            fail_msg("accepted: %s", bad[i]);
    struct dr_zone *z = NULL; /* summer for ever: the end of a year is the beginning of the next */
    assert_int_equal(dr_zone_parse(file, small(file, "EST5EDT4,0/0,J365/25", 0), &z, NULL), DR_OK);
    for (int64_t t = 1735689600; t < 1735689600 + 366 * 86400; t += 3600)
        assert_int_equal(dr_zone_offset(z, t), -14400);
    dr_zone_free(z);
}

static void damaged_files(void **state)
{
    (void)state;
    unsigned char file[8192], copy[8192];
    size_t len = small(file, "UTC0", 90000);
    assert_int_equal(parse(file, len), DR_OK);
    assert_int_equal(parse(file, small(file, "UTC0", 26 * 3600 + 1)), DR_E_MALFORMED);
    assert_int_equal(parse(file, small(file, "UTC0", INT32_MIN)), DR_E_MALFORMED);
    FILE *f = fopen("/usr/share/zoneinfo/Europe/Berlin", "re");
    assert_non_null(f);
    len = fread(file, 1, sizeof file, f);
    (void)fclose(f);
    assert_int_equal(parse(file, len), DR_OK);
    for (size_t n = 0; n < len; n++)
        assert_int_equal(parse(file, n), DR_E_MALFORMED); /* cut off anywhere */
    for (size_t i = 0; i < len; i++)
        for (unsigned v = 0; v < 256; v += 51) { /* whatever it says now, it ends */
            memcpy(copy, file, len);
            copy[i] = (unsigned char)v;
            (void)parse(copy, len);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_zoneinfo),
                                       cmocka_unit_test(changes_follow_each_other),
                                       cmocka_unit_test(wall_clock_to_instant),
                                       cmocka_unit_test(a_change_may_lie_in_the_next_year),
                                       cmocka_unit_test(names_stay_inside),
                                       cmocka_unit_test(footers),
                                       cmocka_unit_test(damaged_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
