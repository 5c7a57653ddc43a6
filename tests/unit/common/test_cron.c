/* common/cron: what is accepted, what comes next, and a walk through every minute as the judge. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/civil.h"
#include "common/cron.h"
#include "common/str.h"
#include "tests/unit/common/zones.h"

static struct dr_cron parsed(const char *text)
{
    struct dr_cron c;
    struct dr_err err = {0};
    if (dr_cron_parse(text, &c, &err))
        fail_msg("%s: %s [%s=%s]", text, err.msg, err.field, err.value);
    return c;
}

static int64_t at(const char *text)
{
    int64_t ms;
    assert_true(dr_parse_time(text, &ms));
    return ms / 1000;
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *cron, *field, *value;
    } bad[] = {
        {"", "cron", ""},
        {"* * * *", "cron", "* * * *"},
        {"* * * * * *", "cron", "* * * * * *"},
        {"@reboot", "cron", "@reboot"},
        {"@Daily", "cron", "@Daily"},
        {"60 * * * *", "minute", "60"},
        {"-1 * * * *", "minute", "-1"},
        {"1-0 * * * *", "minute", "1-0"},
        {"*/0 * * * *", "minute", "*/0"},
        {"*/60 * * * *", "minute", "*/60"},
        {"5/15 * * * *", "minute", "5/15"},
        {"1,,2 * * * *", "minute", "1,,2"},
        {"1, * * * *", "minute", "1,"},
        {"** * * * *", "minute", "**"},
        {"1-2-3 * * * *", "minute", "1-2-3"},
        {"*/1/2 * * * *", "minute", "*/1/2"},
        {"007 * * * *", "minute", "007"},
        {"mon * * * *", "minute", "mon"},
        {"0 24 * * *", "hour", "24"},
        {"0 0 0 * *", "day", "0"},
        {"0 0 32 * *", "day", "32"},
        {"0 0 * 13 *", "month", "13"},
        {"0 0 * janu *", "month", "janu"},
        {"0 0 * * 8", "weekday", "8"},
        {"0 0 * * sat-mon", "weekday", "sat-mon"},
        {"0 0 30 2 *", "day", "30"},
        {"0 0 31 4,6,9,11 *", "day", "31"},
        {"0 0 30-31 feb */2", "day", "30-31"},
    };
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        struct dr_cron c;
        struct dr_err err = {0};
        if (dr_cron_parse(bad[i].cron, &c, &err) != DR_E_INVALID)
            fail_msg("accepted: %s", bad[i].cron);
        assert_string_equal(err.field, bad[i].field);
        assert_string_equal(err.value, bad[i].value);
    }
    char longer[400];
    memset(longer, '1', sizeof longer);
    memcpy(longer + sizeof longer - 10, " * * * *\0", 10);
    struct dr_cron c;
    assert_int_equal(dr_cron_parse(longer, &c, NULL), DR_E_INVALID);
}

static void what_comes_next(void **state)
{
    (void)state;
    static const struct {
        const char *cron, *zone, *after, *next;
    } cases[] = {
        {"*/15 * * * *", "UTC", "2025-01-01T00:00:00Z", "2025-01-01T00:15:00Z"},
        {"0 2 * * *", "UTC", "2025-01-01T01:59:59Z", "2025-01-01T02:00:00Z"},
        {"0 2 * * *", "UTC", "2025-01-01T02:00:00Z", "2025-01-02T02:00:00Z"},
        {"\t0  2 \t* *  * ", "UTC", "2025-01-01T02:00:00Z", "2025-01-02T02:00:00Z"},
        {"@hourly", "UTC", "2025-12-31T23:00:00Z", "2026-01-01T00:00:00Z"},
        {"@weekly", "UTC", "2025-01-01T00:00:00Z", "2025-01-05T00:00:00Z"},
        {"0 0 29 2 *", "UTC", "2097-01-01T00:00:00Z", "2104-02-29T00:00:00Z"},
        {"0 0 29 2 */7", "UTC", "2025-01-01T00:00:00Z", "2032-02-29T00:00:00Z"}, /* a Sunday */
        {"0 0 31 * *", "UTC", "2025-03-31T00:00:00Z", "2025-05-31T00:00:00Z"},
        {"0 0 13 * fri", "UTC", "2025-06-07T00:00:00Z", "2025-06-13T00:00:00Z"}, /* either */
        {"0 0 13 * 5", "UTC", "2025-06-13T00:00:00Z", "2025-06-20T00:00:00Z"},
        {"0 0 */2 * 5", "UTC", "2025-06-13T00:00:00Z", "2025-06-27T00:00:00Z"}, /* both: `*` */
        {"0 9-17/4 * jan-mar,DEC Mon-Fri", "UTC", "2025-03-31T17:00:00Z", "2025-12-01T09:00:00Z"},
        {"0 0 * * 5-7", "UTC", "2025-06-21T00:00:00Z", "2025-06-22T00:00:00Z"},
        {"0 0 * * fri-sun", "UTC", "2025-06-21T00:00:00Z", "2025-06-22T00:00:00Z"},
        {"0 0 * * *", "Asia/Kolkata", "2025-01-01T00:00:00Z", "2025-01-01T18:30:00Z"},
        /* spring: 02:30 does not exist on 30 March, it comes at 03:00 */
        {"30 2 * * *", "Europe/Berlin", "2025-03-29T12:00:00Z", "2025-03-30T01:00:00Z"},
        {"30 2 * * *", "Europe/Berlin", "2025-03-30T01:00:00Z", "2025-03-31T00:30:00Z"},
        {"0 * * * *", "Europe/Berlin", "2025-03-30T00:00:00Z", "2025-03-30T01:00:00Z"},
        {"0 * * * *", "Europe/Berlin", "2025-03-30T01:00:00Z", "2025-03-30T02:00:00Z"},
        {"*/30 * * * *", "Europe/Berlin", "2025-03-30T01:00:00Z", "2025-03-30T01:30:00Z"},
        /* autumn: 02:30 comes once; the second 02:00 to 03:00 is over */
        {"30 2 * * *", "Europe/Berlin", "2025-10-25T12:00:00Z", "2025-10-26T00:30:00Z"},
        {"30 2 * * *", "Europe/Berlin", "2025-10-26T00:30:00Z", "2025-10-27T01:30:00Z"},
        {"0 * * * *", "Europe/Berlin", "2025-10-26T00:00:00Z", "2025-10-26T02:00:00Z"},
        {"30 2 * * *", "Europe/Berlin", "2025-10-26T01:15:00Z", "2025-10-27T01:30:00Z"},
        {"15 2 * * *", "Australia/Lord_Howe", "2025-10-04T00:00:00Z", "2025-10-04T15:30:00Z"},
        {"0 2 * * *", "America/New_York", "2077-03-14T00:00:00Z", "2077-03-14T07:00:00Z"},
        {"0 12 * * *", "Pacific/Apia", "2011-12-30T00:00:00Z", "2011-12-30T10:00:00Z"},
        {"0 0 1 1 *", "UTC", "1969-01-01T00:00:00Z", "1970-01-01T00:00:00Z"},
    };
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct dr_cron c = parsed(cases[i].cron);
        struct dr_zone *z = test_zone(cases[i].zone);
        int64_t got = dr_cron_next(&c, z, at(cases[i].after));
        char text[DR_TIME_TEXT];
        dr_format_time(got * 1000, text);
        if (got != at(cases[i].next))
            fail_msg("%s %s after %s: %s", cases[i].cron, cases[i].zone, cases[i].after, text);
        dr_zone_free(z);
    }
    struct dr_cron c = parsed("* * * * *");
    struct dr_zone *z = test_zone("Europe/Berlin");
    assert_true(dr_cron_next(&c, z, 253402300800) == INT64_MAX);
    assert_true(dr_cron_next(&c, z, INT64_MAX) == INT64_MAX);
    assert_true(dr_cron_next(&c, z, INT64_MIN) == 0);
    dr_zone_free(z);
}

/* Numbers within a field, in a form that the parser knows: for the walk and its expression alike.
 */
static uint64_t random_field(unsigned min, unsigned max, char *out, size_t size)
{
    unsigned a = min + (unsigned)rand() % (max - min + 1),
             b = min + (unsigned)rand() % (max - min + 1);
    unsigned low = a < b ? a : b, high = a < b ? b : a, step = 1 + (unsigned)rand() % 7, from, to;
    switch (rand() % 5) {
    case 0:
        (void)snprintf(out, size, "*");
        from = min, to = max, step = 1;
        break;
    case 1:
        (void)snprintf(out, size, "*/%u", step);
        from = min, to = max;
        break;
    case 2:
        (void)snprintf(out, size, "%u", a);
        from = to = a;
        break;
    default:
        (void)snprintf(out, size, "%u-%u/%u", low, high, step);
        from = low, to = high;
    }
    uint64_t set = 0;
    for (unsigned v = from; v <= to; v += step)
        set |= 1ull << v;
    return set;
}

struct walk {
    uint64_t minute, hour, day, month, weekday;
    bool both;
};

static bool shows(const struct walk *w, int64_t local_s)
{
    int64_t days = dr_floor_div(local_s, 86400), s = local_s - days * 86400;
    struct dr_civil d = dr_civil_from_days(days);
    bool date = w->day >> d.day & 1, weekday = w->weekday >> ((dr_weekday(days) + 1) % 7) & 1;
    return s % 60 == 0 && w->minute >> (s / 60 % 60) & 1 && w->hour >> (s / 3600) & 1 &&
           w->month >> d.month & 1 && (w->both ? date && weekday : date || weekday);
}

/* Every second minute by minute: a slot is an instant at which the wall clock shows, or jumps over,
 * a minute of the expression that it has not shown before. */
static int64_t walked(const struct walk *w, const struct dr_zone *z, int64_t after, int64_t until)
{
    int64_t start = after - 3 * 86400, seen = INT64_MIN; /* the latest wall clock so far */
    for (int64_t t = start - start % 60; t <= until; t += 60) {
        int64_t local = t + dr_zone_offset(z, t);
        if (seen == INT64_MIN)
            seen = local - 60;
        bool slot = false;
        for (int64_t m = seen + 60; m <= local; m += 60)
            slot = slot || shows(w, m);
        if (local > seen)
            seen = local;
        if (slot && t > after)
            return t;
    }
    return INT64_MAX;
}

static void as_a_walk_finds_it(void **state)
{
    (void)state;
    /* days around which the clocks change, and quiet ones */
    static const struct {
        const char *zone, *day;
    } places[] = {{"UTC", "2025-02-27T00:00:00Z"},
                  {"Europe/Berlin", "2025-03-29T00:00:00Z"},
                  {"Europe/Berlin", "2025-10-25T00:00:00Z"},
                  {"Australia/Lord_Howe", "2025-10-03T12:00:00Z"},
                  {"Australia/Lord_Howe", "2026-04-03T12:00:00Z"},
                  {"Pacific/Apia", "2011-12-29T00:00:00Z"},
                  {"America/New_York", "2088-11-06T00:00:00Z"},
                  {"Africa/Casablanca", "2025-02-22T00:00:00Z"},
                  {"Asia/Kolkata", "2024-12-31T12:00:00Z"}};
    srand(7);
    unsigned compared = 0;
    for (unsigned round = 0; round < 2000; round++) {
        char f[5][32], text[256];
        struct walk w = {.minute = random_field(0, 59, f[0], sizeof f[0]),
                         .hour = random_field(0, 23, f[1], sizeof f[1]),
                         .day = random_field(1, 31, f[2], sizeof f[2]),
                         .month = random_field(1, 12, f[3], sizeof f[3]),
                         .weekday = random_field(0, 6, f[4], sizeof f[4])};
        w.both = f[2][0] == '*' || f[4][0] == '*';
        (void)snprintf(text, sizeof text, "%s %s %s %s %s", f[0], f[1], f[2], f[3], f[4]);
        struct dr_cron c;
        if (dr_cron_parse(text, &c, NULL))
            continue; /* 31 4 and the like */
        size_t p = round % CM_COUNT(places);
        struct dr_zone *z = test_zone(places[p].zone);
        int64_t after = at(places[p].day) + rand() % (2 * 86400), until = after + 3 * 86400;
        for (int64_t wanted; after < until; after = wanted) {
            wanted = walked(&w, z, after, until);
            int64_t got = dr_cron_next(&c, z, after);
            assert_true(got > after);
            if (wanted == INT64_MAX ? got <= until : got != wanted)
                fail_msg("%s in %s after %lld: %lld, the walk found %lld", text, places[p].zone,
                         (long long)after, (long long)got, (long long)wanted);
            compared += wanted != INT64_MAX;
            if (wanted != INT64_MAX && rand() % 4)
                break; /* a few steps are enough */
        }
        dr_zone_free(z);
    }
    assert_true(compared > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(refused), cmocka_unit_test(what_comes_next),
                                       cmocka_unit_test(as_a_walk_finds_it)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
