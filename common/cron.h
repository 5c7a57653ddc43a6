/* Cron expressions: five fields, or @hourly and its kin, in a time zone. Pure, any thread. */
#ifndef DR_COMMON_CRON_H
#define DR_COMMON_CRON_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/zone.h"

struct dr_cron {
    uint64_t minutes;
    uint32_t hours, days;          /* bit n: hour n, day n */
    uint32_t months, weekdays;     /* bit 1 January; bit 0 Sunday */
    bool every_day, every_weekday; /* the field begins with `*` */
};

/* minute hour day month weekday: lists of numbers, names (jan, mon), ranges and steps of `*` or a
 * range; 7 is Sunday too. @hourly @daily @midnight @weekly @monthly @yearly @annually. INVALID with
 * the field's name and value; field day for dates that never come (30 2). */
enum dr_rc dr_cron_parse(const char *text, struct dr_cron *out, struct dr_err *err) DR_MUST_CHECK;

/* The first slot after an instant, seconds since 1970. As in Vixie's cron a day matches by either
 * field where neither begins with `*`, else by both. A slot in a skipped hour comes at the end of
 * the gap, one in a repeated hour the first time only. INT64_MAX: beyond the year 9999. */
int64_t dr_cron_next(const struct dr_cron *c, const struct dr_zone *z, int64_t after_s);

#endif
