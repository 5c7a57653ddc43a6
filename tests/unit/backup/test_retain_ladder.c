/* The pure policy: every fixed case of anchors/dr.md 2.4. What no rule of safety touches is asked
 * through the oracle mode, zones through the plan. */
#include "tests/unit/backup/retain_kit.h"

#include "common/zone.h"
#include "worker/backup/retain_oracle.h"

struct ladder {
    int daily, weekly, monthly, yearly;
    bool oldest;
};

/* Times separated by blanks; the answer as 0 and 1, in their order. */
static const char *asked(struct ladder l, const char *now, const char *times)
{
    static char answer[64];
    struct retain_policy p = {.daily_days = l.daily,
                              .weekly_weeks = l.weekly,
                              .monthly_months = l.monthly,
                              .yearly_years = l.yearly,
                              .keep_oldest = l.oldest};
    struct dr_buf in, out;
    struct dr_err err = {0};
    char copy[2048], *save = NULL;
    size_t n = 0;
    dr_buf_init(&in, 65536);
    dr_buf_init(&out, 65536);
    (void)snprintf(copy, sizeof copy, "%s", times);
    dr_buf_str(&in, "[");
    for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save), n++)
        dr_buf_printf(&in, "%s{\"id\":\"%zu\",\"time\":\"%s\"}", n ? "," : "", n, t);
    dr_buf_str(&in, "]");
    if (retain_oracle(&p, at(now), (const char *)in.data, in.len, &out, &err))
        fail_msg("%s", err.msg);
    n = 0;
    for (const char *s = (const char *)out.data; (s = strstr(s, "\"keep\":")) != NULL; s++)
        answer[n++] = s[7] == 't' ? '1' : '0';
    answer[n] = 0;
    dr_buf_fini(&in);
    dr_buf_fini(&out);
    return answer;
}

static const struct ladder all = {7, 4, 12, 3, false}, daily = {.daily = 7},
                           weekly = {.weekly = 60}, monthly = {.monthly = 1},
                           yearly = {.yearly = 1};
#define NOW "2030-01-01T00:00:00Z"

static void the_cut_is_strict(void **state)
{
    (void)state;
    assert_string_equal(asked(daily, NOW, "2026-03-10T12:00:00Z 2026-03-03T12:00:00Z"), "10");
    assert_string_equal(asked(daily, NOW, "2026-03-10T12:00:00Z 2026-03-03T12:00:01Z"), "11");
    assert_string_equal(asked(daily, NOW, "2026-03-10T12:00:00Z 2026-03-03T12:00:00.001Z"), "11");
}

static void months_and_years_roll_over_forward(void **state)
{
    (void)state;
    /* 29 February less a year is 1 March; the item lies in another year */
    assert_string_equal(asked(yearly, NOW, "2024-02-29T10:00:00Z 2023-03-01T10:00:00Z"), "10");
    assert_string_equal(asked(yearly, NOW, "2024-02-29T10:00:00Z 2023-03-01T10:00:01Z"), "11");
    /* 31 March less a month is 3 March (2 March): February's is out, though 28 days is no month */
    assert_string_equal(asked(monthly, NOW, "2026-03-31T12:00:00Z 2026-02-28T23:59:59Z"), "10");
    assert_string_equal(asked(monthly, NOW, "2026-04-30T12:00:00Z 2026-03-31T23:59:59Z"), "11");
    struct ladder oldest = {.monthly = 1, .oldest = true};
    assert_string_equal(asked(oldest, NOW, "2026-03-31T12:00:00Z 2026-03-03T12:00:00Z"), "10");
    assert_string_equal(asked(oldest, NOW, "2026-03-31T12:00:00Z 2026-03-03T12:00:01Z"), "11");
    assert_string_equal(asked(oldest, NOW, "2024-03-31T12:00:00Z 2024-03-02T12:00:00Z"), "10");
    assert_string_equal(asked(oldest, NOW, "2024-03-31T12:00:00Z 2024-03-02T12:00:01Z"), "11");
}

static void iso_weeks_at_new_year(void **state)
{
    (void)state;
    assert_string_equal(asked(weekly, NOW,
                              "2021-01-04T00:00:00Z 2021-01-03T23:59:59Z 2020-12-31T12:00:00Z "
                              "2020-12-28T00:00:00Z 2020-12-27T23:59:59Z"),
                        "11001");
    assert_string_equal(asked(weekly, NOW,
                              "2026-01-05T00:00:00Z 2026-01-04T12:00:00Z 2025-12-29T00:00:00Z "
                              "2025-12-28T23:59:59Z"),
                        "1101");
    assert_string_equal(asked(weekly, NOW,
                              "2027-01-04T00:00:00Z 2027-01-03T12:00:00Z 2026-12-31T00:00:00Z "
                              "2026-12-28T00:00:00Z 2026-12-27T12:00:00Z"),
                        "11001");
    /* week 2026-01 and month 2026-01 are not the same thing (kopia#5096) */
    struct ladder both = {.weekly = 60, .monthly = 12};
    assert_string_equal(
        asked(both, NOW, "2026-01-20T00:00:00Z 2026-01-02T00:00:00Z 2025-12-30T00:00:00Z"), "111");
}

static void one_none_same_day_gap(void **state)
{
    (void)state;
    assert_string_equal(asked(all, NOW, ""), "");
    assert_string_equal(asked(all, NOW, "2026-01-01T00:00:00Z"), "1");
    assert_string_equal(
        asked(all, NOW, "2026-01-01T10:00:00Z 2026-01-01T11:00:00Z 2026-01-01T09:00:00Z"), "010");
    struct ladder oldest = all;
    oldest.oldest = true;
    assert_string_equal(
        asked(oldest, NOW, "2026-01-01T10:00:00Z 2026-01-01T11:00:00Z 2026-01-01T09:00:00Z"),
        "011");
    /* a gap of 366 days: no period is made up, the years remain */
    assert_string_equal(asked(all, NOW, "2026-06-02T00:00:00Z 2025-06-01T00:00:00Z"), "11");
    assert_string_equal(
        asked((struct ladder){7, 4, 12, 0, true}, NOW, "2026-06-02T00:00:00Z 2025-06-01T00:00:00Z"),
        "10");
}

static void future_ones_take_part_in_the_pure_policy(void **state)
{
    (void)state;
    /* all in the future: no anchor, every range is open */
    assert_string_equal(asked(daily, "2026-01-01T00:00:00Z",
                              "2029-01-01T00:00:00Z 2027-01-01T10:00:00Z 2027-01-01T09:00:00Z"),
                        "110");
    /* the hole that S3 closes: the one dated ahead takes the day from the real one */
    assert_string_equal(
        asked(daily, "2026-01-01T12:00:00Z", "2026-01-01T14:00:00Z 2026-01-01T11:00:00Z"), "10");
    /* the anchor lies strictly before now */
    assert_string_equal(asked(daily, "2026-01-08T00:00:00Z",
                              "2026-01-08T00:00:00Z 2026-01-07T00:00:00Z 2026-01-01T00:00:00Z"),
                        "111");
}

static void the_offset_of_each_decides_its_day(void **state)
{
    (void)state;
    /* only the period before is compared: one day kept twice, as restic does */
    assert_string_equal(
        asked(daily, NOW, "2026-05-05T23:00:00Z 2026-05-06T07:30:00+09:00 2026-05-05T22:00:00Z"),
        "111");
    assert_string_equal(asked(daily, NOW, "2026-05-05T22:30:00+01:00 2026-05-05T00:30:00+01:00"),
                        "10");
    /* year boundary far east and far west */
    assert_string_equal(asked((struct ladder){.yearly = 3}, NOW,
                              "2026-01-01T00:00:00+14:00 2025-12-31T23:59:59+14:00"),
                        "11");
    assert_string_equal(asked((struct ladder){.yearly = 3}, NOW,
                              "2025-12-31T23:59:59-12:00 2025-12-31T00:00:00-12:00"),
                        "10");
}

static void equal_seconds_with_fractions(void **state)
{
    (void)state;
    assert_string_equal(
        asked(daily, NOW, "2026-05-05T10:00:00.250Z 2026-05-05T10:00:00.750Z 2026-05-05T10:00:00Z"),
        "010");
}

static int32_t in_zone(const void *zone, int64_t utc_s)
{
    return dr_zone_offset(zone, utc_s);
}

/* A kit of one rule in a zone, with no rule of safety that would matter. */
static struct kit *zoned(struct dr_zone *z, int hours, int days, int months)
{
    struct kit *k = kit_new(NOW);
    k->policy = (struct retain_policy){
        .hourly_hours = hours, .daily_days = days, .monthly_months = months, .min_keep = 1};
    k->in.offset = in_zone;
    k->in.zone = z;
    return k;
}

static void expect(struct kit *k, const char *const *times, const char *want)
{
    for (; *times; times++)
        add(k, *times);
    assert_string_equal(decisions(k), want);
    kit_free(k);
}
#define TIMES(...)                                                                                 \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static void days_of_summer_time(void **state)
{
    (void)state;
    struct dr_zone *z = NULL;
    struct dr_err err = {0};
    if (dr_zone_open("Europe/Berlin", &z, &err))
        fail_msg("%s", err.msg);
    /* a day of 23 hours: 29 March is 28T23:00Z to 29T22:00Z; the next begins an hour earlier */
    expect(zoned(z, 0, 30, 0),
           TIMES("2026-03-29T22:00:00Z", "2026-03-29T21:59:59Z", "2026-03-28T23:00:00Z",
                 "2026-03-28T22:59:59Z"),
           "1101");
    /* a day of 25 hours: 25 October is 24T22:00Z to 25T23:00Z */
    expect(zoned(z, 0, 30, 0),
           TIMES("2026-10-25T23:00:00Z", "2026-10-25T22:59:59Z", "2026-10-24T22:00:00Z",
                 "2026-10-24T21:59:59Z"),
           "1101");
    /* the hour that comes twice is one hour, as in restic */
    expect(zoned(z, 48, 0, 0),
           TIMES("2026-10-25T02:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T00:30:00Z"), "110");
    /* seven days across the change are not 168 hours: the cut is at the same time of day */
    expect(zoned(z, 0, 7, 0), TIMES("2026-04-01T10:00:00Z", "2026-03-25T11:00:00Z"), "10");
    expect(zoned(z, 0, 7, 0), TIMES("2026-04-01T10:00:00Z", "2026-03-25T11:00:01Z"), "11");
    /* a cut at 02:30, which 29 March does not have: Go takes 03:30, 01:30Z */
    struct kit *k = zoned(z, 0, 0, 1);
    k->policy.keep_oldest = true;
    expect(k, TIMES("2026-04-29T00:30:00Z", "2026-03-29T01:30:00Z"), "10");
    k = zoned(z, 0, 0, 1);
    k->policy.keep_oldest = true;
    expect(k, TIMES("2026-04-29T00:30:00Z", "2026-03-29T01:30:01Z"), "11");
    dr_zone_free(z);
}

static void ten_thousand(void **state)
{
    (void)state;
    struct kit *k = kit_new(NOW);
    for (int i = 0; i < 10000; i++)
        add_ms(k, at("2026-06-30T12:00:00Z") - (int64_t)i * KIT_HOUR);
    plan(k);
    /* 48 hours; 7 days of which the first two or three are in them; weeks; months; a year; oldest
     */
    assert_true(k->plan->kept > 60 && k->plan->kept < 75);
    assert_true(verdict(k, &k->items[0])->keep && verdict(k, &k->items[47])->keep);
    assert_true(because(k, &k->items[9999], RETAIN_BIT(OLDEST)));
    assert_true(k->plan->kept + k->plan->given_up == 10000);
    assert_true(k->plan->delete_bytes == k->plan->given_up * 100);
    kit_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_cut_is_strict),
                                       cmocka_unit_test(months_and_years_roll_over_forward),
                                       cmocka_unit_test(iso_weeks_at_new_year),
                                       cmocka_unit_test(one_none_same_day_gap),
                                       cmocka_unit_test(future_ones_take_part_in_the_pure_policy),
                                       cmocka_unit_test(the_offset_of_each_decides_its_day),
                                       cmocka_unit_test(equal_seconds_with_fractions),
                                       cmocka_unit_test(days_of_summer_time),
                                       cmocka_unit_test(ten_thousand)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
