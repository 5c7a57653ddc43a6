/* common/civil against the C library's calendar, day by day over eight centuries. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/civil.h"

static void every_day_from_1600_to_2400(void **state)
{
    (void)state;
    int64_t first = dr_days_from_civil(1600, 1, 1), last = dr_days_from_civil(2400, 12, 31);
    assert_int_equal(first, -135140);
    for (int64_t d = first; d <= last; d++) {
        time_t t = (time_t)(d * 86400);
        struct tm tm;
        char iso[16], want[16];
        int64_t year;
        int week;
        struct dr_civil c = dr_civil_from_days(d);
        assert_non_null(gmtime_r(&t, &tm));
        if (c.year != tm.tm_year + 1900 || c.month != tm.tm_mon + 1 || c.day != tm.tm_mday ||
            dr_weekday(d) != (tm.tm_wday + 6) % 7 ||
            dr_days_from_civil(c.year, c.month, c.day) != d)
            fail_msg("day %lld", (long long)d);
        dr_iso_week(d, &year, &week);
        (void)strftime(want, sizeof want, "%G-%V", &tm);
        (void)snprintf(iso, sizeof iso, "%04lld-%02d", (long long)year, week);
        assert_string_equal(iso, want);
    }
}

static void fields_roll_over_forward(void **state)
{
    (void)state;
    static const struct {
        int from[3], back[3], to[3]; /* back: years, months, days */
    } rows[] = {
        {{2026, 3, 31}, {0, 1, 0}, {2026, 3, 3}},   {{2024, 3, 31}, {0, 1, 0}, {2024, 3, 2}},
        {{2024, 2, 29}, {1, 0, 0}, {2023, 3, 1}},   {{2024, 2, 29}, {4, 0, 0}, {2020, 2, 29}},
        {{2026, 1, 15}, {0, 12, 0}, {2025, 1, 15}}, {{2026, 1, 31}, {0, 2, 0}, {2025, 12, 1}},
        {{2026, 1, 1}, {0, 0, 1}, {2025, 12, 31}},  {{2026, 5, 31}, {0, 3, 28}, {2026, 2, 3}},
        {{2026, 12, 31}, {0, 1, 0}, {2026, 12, 1}}, {{2026, 7, 4}, {3, 14, 400}, {2021, 3, 30}}};
    for (size_t i = 0; i < CM_COUNT(rows); i++) {
        const int *f = rows[i].from, *b = rows[i].back, *t = rows[i].to;
        int64_t got = dr_days_back(dr_days_from_civil(f[0], f[1], f[2]), b[0], b[1], b[2]);
        struct dr_civil c = dr_civil_from_days(got);
        if (c.year != t[0] || c.month != t[1] || c.day != t[2])
            fail_msg("row %zu: %lld-%d-%d", i, (long long)c.year, c.month, c.day);
    }
}

static void dates_that_exist(void **state)
{
    (void)state;
    assert_true(dr_civil_exists(2024, 2, 29) && dr_civil_exists(2000, 2, 29));
    assert_false(dr_civil_exists(2026, 2, 29) || dr_civil_exists(1900, 2, 29));
    assert_false(dr_civil_exists(2026, 4, 31) || dr_civil_exists(2026, 0, 1));
    assert_false(dr_civil_exists(2026, 13, 1) || dr_civil_exists(2026, 1, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_day_from_1600_to_2400),
                                       cmocka_unit_test(fields_roll_over_forward),
                                       cmocka_unit_test(dates_that_exist)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
