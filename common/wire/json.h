/* JSON text into msgpack: what a command line may say of arguments. Any thread. */
#ifndef DR_COMMON_WIRE_JSON_H
#define DR_COMMON_WIRE_JSON_H

#include <stddef.h>

#include "common/buf.h"
#include "common/err.h"

/* One object, RFC 8259: appends its packed pairs, without a head, and counts them. Depth and keys
 * as dr_wire_scan bounds them; numbers are integers of 64 bits, or doubles. MALFORMED says where.
 */
enum dr_rc dr_json_pairs(const char *text, size_t len, struct dr_buf *out, size_t *pairs,
                         struct dr_err *err) DR_MUST_CHECK;

#endif
