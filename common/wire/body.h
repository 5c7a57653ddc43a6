/* The body's own fields (all but `t` and `a`), and lookups in a scanned map. For common/wire only.
 */
#ifndef DR_COMMON_WIRE_BODY_H
#define DR_COMMON_WIRE_BODY_H

#include <msgpack.h>

#include "common/wire/envelope.h"

/* The value under a key; NULL when absent. The scan has checked that keys are unique str. */
const msgpack_object *dr_body_get(const msgpack_object_map *m, const char *key);
/* Required, unknown (where strict), values. INVALID: reason required|unknown|value, field. */
enum dr_rc dr_body_read(const msgpack_object_map *m, bool strict, struct dr_envelope *e,
                        struct dr_err *err) DR_MUST_CHECK;
bool dr_mac_equal(const unsigned char *a, const unsigned char *b); /* constant time */

#endif
