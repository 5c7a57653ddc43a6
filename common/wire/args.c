/* Task arguments. */
#include "common/wire/args.h"

#include <stdlib.h>
#include <string.h>

#include <msgpack.h>

#include "common/mem.h"
#include "common/str.h"
#include "common/wire/pack.h"
#include "common/wire/scan.h"

#define TEXT  DR_FIELD_TEXT
#define UINT  DR_FIELD_UINT
#define BOOL  DR_FIELD_BOOL
#define BYTES DR_FIELD_BYTES
#define ANY   DR_FIELD_ANY
const struct dr_field dr_fields[] = {
#define FIELD(lane, name, type, required, min, max, rule)                                          \
    {lane, name, type, required, min, max, rule},
#include "common/wire/fields.def"
#undef FIELD
    {NULL, NULL, ANY, false, 0, 0, NULL},
};

enum { ARGS_MAX = 16 };

struct dr_args {
    unsigned count;
    struct {
        const struct dr_field *field;
        uint64_t number;
        char *text; /* TEXT and BYTES, NUL-terminated copy */
        size_t len;
    } at[ARGS_MAX];
};

static const struct dr_field *find(const char *lane, const char *name, size_t len)
{
    for (const struct dr_field *f = dr_fields; f->lane; f++)
        if (strcmp(f->lane, lane) == 0 && strlen(f->name) == len && memcmp(f->name, name, len) == 0)
            return f;
    return NULL;
}

static bool all_in(const char *s, size_t len, const char *set)
{
    for (size_t i = 0; i < len; i++)
        if (s[i] == 0 || !strchr(set, s[i]))
            return false;
    return true;
}

bool dr_backup_id_valid(const char *id)
{
    static const char *const kinds[] = {"database", "files", "config", "full"};
    if (strlen(id) < 17 || !all_in(id, 8, "0123456789") || id[8] != 'T' ||
        !all_in(id + 9, 6, "0123456789") || id[15] != 'Z' || id[16] != '-')
        return false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t n = strlen(kinds[i]);
        if (strncmp(id + 17, kinds[i], n) == 0 && id[17 + n] == '-')
            return strlen(id + 18 + n) == 8 &&
                   all_in(id + 18 + n, 8, "abcdefghijklmnopqrstuvwxyz234567");
    }
    return false;
}

static bool one_of(const char *choices, const char *s)
{
    size_t len = strlen(s);
    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, s, n) == 0)
            return true;
        p += n + (p[n] == '|');
    }
    return false;
}

static bool text_ok(const struct dr_field *f, const char *s, size_t len)
{
    int64_t ms;
    if (len < f->min || len > f->max || strlen(s) != len)
        return false;
    if (strcmp(f->rule, "<backup-id>") == 0)
        return dr_backup_id_valid(s);
    if (strcmp(f->rule, "<backup-id-or-latest>") == 0)
        return strcmp(s, "latest") == 0 || dr_backup_id_valid(s);
    if (strcmp(f->rule, "<time>") == 0)
        return dr_parse_time(s, &ms);
    if (strcmp(f->rule, "<hash>") == 0)
        return all_in(s, len, "0123456789abcdef");
    return !f->rule[0] || one_of(f->rule, s);
}

static enum dr_rc refuse(struct dr_err *err, const char *why, const char *name, size_t name_len,
                         const char *value, size_t len)
{
    char field[64];
    struct dr_buf b;
    dr_buf_init(&b, sizeof field - 1);
    dr_buf_printf(&b, "a.%.*s", (int)(name_len > 48 ? 48 : name_len), name);
    (void)memcpy(field, b.data ? (char *)b.data : "a", b.len + 1);
    dr_buf_fini(&b);
    (void)dr_fail(err, DR_E_INVALID, "argument %s: %s", field, why);
    (void)dr_err_reason(err, why);
    return dr_err_field(err, field, value, len);
}

static enum dr_rc bad_value(struct dr_err *err, const struct dr_field *f, const msgpack_object *o)
{
    char shown[256];
    int n = msgpack_object_print_buffer(shown, sizeof shown, *o);
    return refuse(err, "value", f->name, strlen(f->name), shown,
                  n > 0 ? strnlen(shown, sizeof shown) : 0);
}

static void put(struct dr_args *a, const struct dr_field *f, uint64_t number, const char *text,
                size_t len)
{
    a->at[a->count].field = f;
    a->at[a->count].number = number;
    if (text) {
        a->at[a->count].text = dr_xalloc(len + 1);
        memcpy(a->at[a->count].text, text, len);
        a->at[a->count].len = len;
    }
    a->count++;
}

static enum dr_rc read_value(struct dr_args *a, const struct dr_field *f, const msgpack_object *o,
                             struct dr_err *err)
{
    bool ok = false;
    switch (f->type) {
    case TEXT:
        if (o->type == MSGPACK_OBJECT_STR) {
            put(a, f, 0, o->via.str.ptr, o->via.str.size);
            ok = text_ok(f, a->at[a->count - 1].text, o->via.str.size);
        }
        break;
    case BYTES:
        ok =
            o->type == MSGPACK_OBJECT_BIN && o->via.bin.size >= f->min && o->via.bin.size <= f->max;
        if (ok)
            put(a, f, 0, o->via.bin.ptr, o->via.bin.size);
        break;
    case UINT:
        ok = o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 >= f->min &&
             o->via.u64 <= f->max;
        if (ok)
            put(a, f, o->via.u64, NULL, 0);
        break;
    case BOOL:
        ok = o->type == MSGPACK_OBJECT_BOOLEAN;
        if (ok)
            put(a, f, o->via.boolean, NULL, 0);
        break;
    case ANY:
        ok = true;
        put(a, f, 0, NULL, 0);
        break;
    }
    return ok ? DR_OK : bad_value(err, f, o);
}

static enum dr_rc check_names(const char *lane, const msgpack_object_map *m, struct dr_err *err)
{
    for (const struct dr_field *f = dr_fields; f->lane; f++) {
        bool seen = !f->required || strcmp(f->lane, lane) != 0;
        for (uint32_t i = 0; i < m->size && !seen; i++)
            seen = find(lane, m->ptr[i].key.via.str.ptr, m->ptr[i].key.via.str.size) == f;
        if (!seen)
            return refuse(err, "required", f->name, strlen(f->name), "", 0);
    }
    for (uint32_t i = 0; i < m->size; i++) {
        const msgpack_object_str *key = &m->ptr[i].key.via.str;
        if (!find(lane, key->ptr, key->size))
            return refuse(err, "unknown", key->ptr, key->size, "", 0);
    }
    return DR_OK;
}

enum dr_rc dr_args_read(const char *lane, const struct msgpack_object *map, struct dr_args **out,
                        struct dr_err *err)
{
    const msgpack_object_map *m = &map->via.map; /* the scan has checked: keys are unique str */
    if (check_names(lane, m, err))
        return DR_E_INVALID;
    struct dr_args *a = dr_xalloc(sizeof *a);
    for (uint32_t i = 0; i < m->size; i++) {
        const msgpack_object_str *key = &m->ptr[i].key.via.str;
        if (read_value(a, find(lane, key->ptr, key->size), &m->ptr[i].val, err)) {
            dr_args_free(a);
            return DR_E_INVALID;
        }
    }
    *out = a;
    return DR_OK;
}

void dr_args_free(struct dr_args *a)
{
    if (!a)
        return;
    for (unsigned i = 0; i < a->count; i++)
        free(a->at[i].text);
    free(a);
}

static int position(const struct dr_args *a, const char *name)
{
    for (unsigned i = 0; a && i < a->count; i++)
        if (strcmp(a->at[i].field->name, name) == 0)
            return (int)i;
    return -1;
}

bool dr_args_has(const struct dr_args *a, const char *name)
{
    return position(a, name) >= 0;
}

const char *dr_args_str(const struct dr_args *a, const char *name)
{
    int i = position(a, name);
    return i < 0 ? NULL : a->at[i].text;
}

uint64_t dr_args_u64(const struct dr_args *a, const char *name)
{
    int i = position(a, name);
    return i < 0 ? 0 : a->at[i].number;
}

bool dr_args_bool(const struct dr_args *a, const char *name)
{
    return dr_args_u64(a, name) != 0;
}

const void *dr_args_bytes(const struct dr_args *a, const char *name, size_t *len)
{
    int i = position(a, name);
    *len = i < 0 ? 0 : a->at[i].len;
    return i < 0 ? NULL : a->at[i].text;
}

void dr_args_json(const struct dr_args *a, struct dr_buf *out)
{
    dr_buf_str(out, "{");
    for (unsigned i = 0; a && i < a->count; i++) {
        dr_buf_printf(out, "%s\"%s\":", i ? "," : "", a->at[i].field->name);
        switch (a->at[i].field->type) {
        case TEXT:
            dr_buf_json(out, a->at[i].text, a->at[i].len);
            break;
        case UINT:
            dr_buf_printf(out, "%llu", (unsigned long long)a->at[i].number);
            break;
        case BOOL:
            dr_buf_str(out, a->at[i].number ? "true" : "false");
            break;
        case BYTES:
        case ANY:
            dr_buf_str(out, "null");
            break;
        }
    }
    dr_buf_str(out, "}");
}

enum dr_rc dr_args_pack_text(const char *lane, const char *name, const char *value,
                             struct dr_buf *out, struct dr_err *err)
{
    const struct dr_field *f = find(lane, name, strlen(name));
    size_t len = strlen(value);
    uint64_t u;
    bool flag, ok = true;
    if (!f)
        return refuse(err, "unknown", name, strlen(name), value, len);
    dr_pack_text(out, name);
    switch (f->type) {
    case TEXT:
        ok = text_ok(f, value, len) && dr_utf8_valid(value, len);
        dr_pack_str(out, value, len);
        break;
    case ANY:
        ok = dr_utf8_valid(value, len);
        dr_pack_str(out, value, len);
        break;
    case BYTES:
        ok = len >= f->min && len <= f->max;
        dr_pack_bin(out, value, len);
        break;
    case UINT:
        if ((ok = dr_parse_u64(value, f->min, f->max, &u)))
            dr_pack_uint(out, u);
        break;
    case BOOL:
        if ((ok = dr_parse_bool(value, &flag)))
            dr_pack_bool(out, flag);
        break;
    }
    return ok ? DR_OK : refuse(err, "value", name, strlen(name), value, len);
}

enum dr_rc dr_args_check(const char *lane, const void *pairs, size_t len, size_t count,
                         struct dr_err *err)
{
    struct dr_buf map;
    struct dr_args *args = NULL;
    msgpack_unpacked u;
    size_t used = 0;
    dr_buf_init(&map, DR_WIRE_RAW_MAX);
    msgpack_unpacked_init(&u);
    dr_pack_map(&map, count);
    dr_buf_add(&map, len ? pairs : "", len);
    enum dr_rc rc = map.failed ? dr_fail(err, DR_E_TOO_BIG, "arguments over %zu bytes", map.max)
                               : dr_wire_scan(map.data, map.len, err);
    if (!rc &&
        msgpack_unpack_next(&u, (const char *)map.data, map.len, &used) != MSGPACK_UNPACK_SUCCESS)
        rc = dr_fail(err, DR_E_MALFORMED, "arguments");
    if (!rc)
        rc = dr_args_read(lane, &u.data, &args, err);
    dr_args_free(args);
    msgpack_unpacked_destroy(&u);
    dr_buf_fini(&map);
    return rc;
}
