/* Writing msgpack into a bounded buffer, shortest forms (msgpack-c's packer), and showing msgpack
 * as JSON. A writer checks buf->failed once, at its end. Any thread. */
#ifndef DR_COMMON_WIRE_PACK_H
#define DR_COMMON_WIRE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

void dr_pack_map(struct dr_buf *b, size_t pairs);
void dr_pack_array(struct dr_buf *b, size_t count);
/* Bytes that are no UTF-8 become U+FFFD. */
void dr_pack_str(struct dr_buf *b, const char *s, size_t len);
void dr_pack_text(struct dr_buf *b, const char *s); /* NUL-terminated str */
void dr_pack_pair(struct dr_buf *b, const char *key, const char *value);
void dr_pack_bin(struct dr_buf *b, const void *bytes, size_t len);
void dr_pack_uint(struct dr_buf *b, uint64_t v);
void dr_pack_int(struct dr_buf *b, int64_t v);
void dr_pack_double(struct dr_buf *b, double v);
void dr_pack_bool(struct dr_buf *b, bool v);
void dr_pack_nil(struct dr_buf *b);

/* Any one value as JSON: bin as hex text, non-finite floats as null. MALFORMED for what is no
 * msgpack, TOO_BIG when out is full. Meant for what workers wrote (results, dead letters). */
enum dr_rc dr_wire_to_json(const void *raw, size_t len, struct dr_buf *out,
                           struct dr_err *err) DR_MUST_CHECK;

#endif
