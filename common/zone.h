/* Time zones: TZif files of version 2 and later (RFC 8536) with their footer, so that the answer
 * holds beyond the table. The process's own TZ plays no part. Any thread; read-only once opened. */
#ifndef DR_COMMON_ZONE_H
#define DR_COMMON_ZONE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define DR_ZONE_NAME_MAX 64

struct dr_zone;

/* "UTC" needs no file; any other name is one below /usr/share/zoneinfo. CONFIG with field zone and
 * the name as value: not a zone name, unknown, or a file that is not a sound TZif. */
enum dr_rc dr_zone_open(const char *name, struct dr_zone **out, struct dr_err *err) DR_MUST_CHECK;
/* The bytes of a TZif file. MALFORMED. */
enum dr_rc dr_zone_parse(const void *bytes, size_t len, struct dr_zone **out,
                         struct dr_err *err) DR_MUST_CHECK;
void dr_zone_free(struct dr_zone *z); /* NULL is fine */

/* Seconds east of UTC at an instant. */
int32_t dr_zone_offset(const struct dr_zone *z, int64_t utc_s);
/* The next instant after this one at which the offset may change; INT64_MAX: never again. */
int64_t dr_zone_next_change(const struct dr_zone *z, int64_t utc_s);
/* The first instant at which the wall clock shows this time or a later one: of a time that occurs
 * twice the first, of a skipped one the end of the gap. local_s: seconds of the wall clock since
 * 1970-01-01T00:00, as if it were UTC. */
int64_t dr_zone_resolve(const struct dr_zone *z, int64_t local_s);

#endif
