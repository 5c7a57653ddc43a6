/* The footer of a TZif file: a POSIX TZ string with the hours of RFC 8536 (-167 to 167). */
#ifndef DR_COMMON_ZONE_INTERNAL_H
#define DR_COMMON_ZONE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

enum { ZONE_DAY = 86400, ZONE_OFFSET_MAX = 26 * 3600 };

struct zone_when {
    enum { ZONE_JULIAN, ZONE_DAY_OF_YEAR, ZONE_WEEKDAY } kind;
    int day; /* 1..365 without 29 February; 0..365; 0..6 */
    int month, week;
    int32_t time; /* of the wall clock, seconds after midnight */
};

struct zone_rule {
    bool set, summer;            /* no footer; no daylight saving */
    int32_t standard, daylight;  /* seconds east of UTC */
    struct zone_when begin, end; /* of daylight saving */
};

/* false: not a TZ string. "" leaves the rule unset. */
bool zone_rule_parse(const char *text, struct zone_rule *out);
int32_t zone_rule_offset(const struct zone_rule *r, int64_t utc_s);
int64_t zone_rule_next(const struct zone_rule *r, int64_t utc_s); /* INT64_MAX: no change */

#endif
