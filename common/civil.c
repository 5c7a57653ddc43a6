/* Calendar on day numbers, counted in eras of 400 years (146,097 days) from 1 March 0000. */
#include "common/civil.h"

enum { ERA_DAYS = 146097, EPOCH_DAYS = 719468 /* from 0000-03-01 to 1970-01-01 */ };

static bool leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

bool dr_civil_exists(int64_t year, int64_t month, int64_t day)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month >= 1 && month <= 12 && day >= 1 &&
           day <= lengths[month - 1] + (month == 2 && leap(year));
}

int64_t dr_days_from_civil(int64_t year, int64_t month, int64_t day)
{
    year += dr_floor_div(month - 1, 12);
    month -= 12 * dr_floor_div(month - 1, 12);
    if (month <= 2)
        year--; /* the leap day is the last of a year that begins in March */
    int64_t era = dr_floor_div(year, 400), of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5;
    return era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year + day - 1 -
           EPOCH_DAYS;
}

struct dr_civil dr_civil_from_days(int64_t days)
{
    days += EPOCH_DAYS;
    int64_t era = dr_floor_div(days, ERA_DAYS), of_era = days - era * ERA_DAYS;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153; /* from March */
    struct dr_civil c = {.day = (int)(of_year - (153 * month + 2) / 5 + 1),
                         .month = (int)(month + (month < 10 ? 3 : -9))};
    c.year = year + era * 400 + (c.month <= 2);
    return c;
}

int dr_weekday(int64_t days)
{
    return (int)(days + 3 - 7 * dr_floor_div(days + 3, 7));
}

void dr_iso_week(int64_t days, int64_t *iso_year, int *week)
{
    int64_t thursday = days - dr_weekday(days) + 3;
    *iso_year = dr_civil_from_days(thursday).year;
    *week = (int)((thursday - dr_days_from_civil(*iso_year, 1, 1)) / 7 + 1);
}

int64_t dr_days_back(int64_t days, int years, int months, int less_days)
{
    struct dr_civil c = dr_civil_from_days(days);
    return dr_days_from_civil(c.year - years, (int64_t)c.month - months,
                              (int64_t)c.day - less_days);
}
