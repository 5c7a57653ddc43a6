/* Typed task arguments, checked against fields.def. One owner, any thread. */
#ifndef DR_COMMON_WIRE_ARGS_H
#define DR_COMMON_WIRE_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

enum dr_field_type { DR_FIELD_TEXT, DR_FIELD_UINT, DR_FIELD_BOOL, DR_FIELD_BYTES, DR_FIELD_ANY };

struct dr_field {
    const char *lane, *name;
    enum dr_field_type type;
    bool required;
    uint64_t min, max;
    const char *rule;
};

extern const struct dr_field dr_fields[]; /* ended by a row without a lane */

struct dr_args;
struct msgpack_object;

/* From the map `a`: required, unknown, then values. Errors: INVALID, reason required|unknown|value,
 * field "a.<name>". */
enum dr_rc dr_args_read(const char *lane, const struct msgpack_object *map, struct dr_args **out,
                        struct dr_err *err) DR_MUST_CHECK;
void dr_args_free(struct dr_args *a);
bool dr_args_has(const struct dr_args *a, const char *name);
const char *dr_args_str(const struct dr_args *a, const char *name); /* NULL when absent */
uint64_t dr_args_u64(const struct dr_args *a, const char *name);    /* 0 when absent */
bool dr_args_bool(const struct dr_args *a, const char *name);       /* false when absent */
const void *dr_args_bytes(const struct dr_args *a, const char *name, size_t *len);
/* All of them as a JSON object for people and logs: texts without control characters, of BYTES and
 * ANY only the name with null. NULL: {}. */
void dr_args_json(const struct dr_args *a, struct dr_buf *out);

/* KEY=VALUE of a command line: packs key and typed value. INVALID names the field. */
enum dr_rc dr_args_pack_text(const char *lane, const char *name, const char *value,
                             struct dr_buf *out, struct dr_err *err) DR_MUST_CHECK;
/* Packed pairs as a message would be read: INVALID names the field, MALFORMED a key that stands
 * twice. */
enum dr_rc dr_args_check(const char *lane, const void *pairs, size_t len, size_t count,
                         struct dr_err *err) DR_MUST_CHECK;
bool dr_backup_id_valid(const char *id); /* yyyymmddThhmmssZ-kind-8 base32 */

#endif
