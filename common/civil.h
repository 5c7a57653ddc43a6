/* The proleptic Gregorian calendar on day numbers: day 0 is 1970-01-01, a Thursday. Pure, any
 * thread; years from -290,000,000 to 290,000,000 without overflow. */
#ifndef DR_COMMON_CIVIL_H
#define DR_COMMON_CIVIL_H

#include <stdbool.h>
#include <stdint.h>

struct dr_civil {
    int64_t year;
    int month, day; /* from 1 */
};

bool dr_civil_exists(int64_t year, int64_t month, int64_t day);
/* Month and day out of range roll over, as in Go's time.Date: 2027-02-31 is 2027-03-03, month 0 is
 * the December before, day 0 the last of the month before. */
int64_t dr_days_from_civil(int64_t year, int64_t month, int64_t day);
struct dr_civil dr_civil_from_days(int64_t days);
int dr_weekday(int64_t days); /* 0 Monday .. 6 Sunday */
/* ISO 8601: weeks begin on Monday, week 1 is the one with the year's first Thursday. */
void dr_iso_week(int64_t days, int64_t *iso_year, int *week);
/* Go's AddDate with negative numbers: the fields are subtracted, then rolled over forward, so that
 * 31 March less a month is 3 March (2 March in a leap year). */
int64_t dr_days_back(int64_t days, int years, int months, int less_days);

/* Divided downwards: the day (or hour, ..) in which an instant lies, before 1970 too. */
static inline int64_t dr_floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}

#endif
