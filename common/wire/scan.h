/* The pre-scan: refuses hostile msgpack before any library sees it. Allocates nothing, reads each
 * byte once, recursion is bounded by the depth limit. Any thread. */
#ifndef DR_COMMON_WIRE_SCAN_H
#define DR_COMMON_WIRE_SCAN_H

#include <stddef.h>

#include "common/err.h"

enum {
    DR_WIRE_RAW_MAX = 262144, /* bytes of a message */
    DR_WIRE_DEPTH_MAX = 8,    /* the outermost map is 1 */
    DR_WIRE_KEYS_MAX = 64,    /* of one map */
};

/* One msgpack map: keys are str and unique, text is UTF-8, no ext, nothing behind it. Else TOO_BIG
 * or MALFORMED, whose reason is one of: size depth keys truncated trailing not-a-map ext type
 * duplicate-key key-type utf8. */
enum dr_rc dr_wire_scan(const void *raw, size_t len, struct dr_err *err) DR_MUST_CHECK;

/* The bytes of the value under a key of a scanned map; NULL when the key is not there. */
const unsigned char *dr_wire_span(const void *raw, size_t len, const char *key, size_t *span);

#endif
