/* Body fields. */
#include "common/wire/body.h"

#include <string.h>

enum rule {
    ID,
    UINT_MS,
    U32,
    ATTEMPTS,
    BACKOFF,
    TEXT128,
    BYTES_ANY,
    LANE_NAME,
    TRACE,
    HEADERS,
    MAP
};

static const struct {
    const char *name;
    enum rule rule;
} fields[] = {{"id", ID},       {"a", MAP},    {"t", TEXT128}, {"iat", UINT_MS},  {"exp", UINT_MS},
              {"nbf", UINT_MS}, {"to", U32},   {"so", U32},    {"mx", ATTEMPTS},  {"bo", BACKOFF},
              {"uq", TEXT128},  {"ut", U32},   {"rt", U32},    {"nx", BYTES_ANY}, {"nl", LANE_NAME},
              {"pa", ID},       {"tr", TRACE}, {"h", HEADERS}};
enum { FIELDS = sizeof fields / sizeof fields[0] };

const msgpack_object *dr_body_get(const msgpack_object_map *m, const char *key)
{
    size_t len = strlen(key);
    for (uint32_t i = 0; i < m->size; i++)
        if (m->ptr[i].key.via.str.size == len && memcmp(m->ptr[i].key.via.str.ptr, key, len) == 0)
            return &m->ptr[i].val;
    return NULL;
}

static bool is_uint(const msgpack_object *o, uint64_t min, uint64_t max)
{
    return o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 >= min && o->via.u64 <= max;
}

static bool headers_ok(const msgpack_object *o)
{
    if (o->type != MSGPACK_OBJECT_MAP)
        return false;
    for (uint32_t i = 0; i < o->via.map.size; i++)
        if (o->via.map.ptr[i].val.type != MSGPACK_OBJECT_STR)
            return false;
    return true;
}

static bool value_ok(enum rule rule, const msgpack_object *o)
{
    const msgpack_object_array *a = &o->via.array;
    switch (rule) {
    case ID:
        return o->type == MSGPACK_OBJECT_STR && dr_job_id_valid(o->via.str.ptr, o->via.str.size);
    case UINT_MS:
        return is_uint(o, 0, INT64_MAX / 2);
    case U32:
        return is_uint(o, 0, UINT32_MAX);
    case ATTEMPTS:
        return is_uint(o, 1, 255);
    case BACKOFF:
        return o->type == MSGPACK_OBJECT_ARRAY && a->size == 2 &&
               is_uint(&a->ptr[0], 0, UINT32_MAX) && is_uint(&a->ptr[1], 0, UINT32_MAX);
    case TEXT128:
        return o->type == MSGPACK_OBJECT_STR && o->via.str.size <= 128;
    case BYTES_ANY:
        return o->type == MSGPACK_OBJECT_BIN;
    case LANE_NAME:
        return o->type == MSGPACK_OBJECT_STR && dr_lane_find(o->via.str.ptr, o->via.str.size);
    case TRACE:
        return o->type == MSGPACK_OBJECT_BIN && o->via.bin.size == 24;
    case HEADERS:
        return headers_ok(o);
    case MAP:
        return o->type == MSGPACK_OBJECT_MAP;
    }
    return false;
}

static enum dr_rc refuse(struct dr_err *err, const char *why, const char *field, size_t len,
                         const msgpack_object *o)
{
    char name[64], shown[128];
    size_t n = len > 60 ? 60 : len;
    memcpy(name, field, n);
    name[n] = 0;
    int printed = o ? msgpack_object_print_buffer(shown, sizeof shown, *o) : 0;
    (void)dr_fail(err, DR_E_INVALID, "field %s: %s", name, why);
    (void)dr_err_reason(err, why);
    return dr_err_field(err, name, shown, printed > 0 ? strnlen(shown, sizeof shown) : 0);
}

static uint64_t number(const msgpack_object_map *m, const char *key, uint64_t absent)
{
    const msgpack_object *o = dr_body_get(m, key);
    return o ? o->via.u64 : absent;
}

static void take(const msgpack_object_map *m, struct dr_envelope *e)
{
    const msgpack_object *id = dr_body_get(m, "id"), *bo = dr_body_get(m, "bo");
    memcpy(e->id, id->via.str.ptr, id->via.str.size);
    e->iat_ms = (int64_t)number(m, "iat", 0);
    e->exp_ms = (int64_t)number(m, "exp", 0);
    e->nbf_ms = (int64_t)number(m, "nbf", 0);
    e->hard_s = number(m, "to", 0);
    e->soft_s = number(m, "so", 0);
    e->result_ttl_s = number(m, "rt", 0);
    e->attempts = (unsigned)number(m, "mx", e->lane->attempts);
    e->backoff_base_ms = bo ? bo->via.array.ptr[0].via.u64 : 5000;
    e->backoff_cap_ms = bo ? bo->via.array.ptr[1].via.u64 : 300000;
}

static int find(const msgpack_object_str *key)
{
    for (int i = 0; i < FIELDS; i++)
        if (strlen(fields[i].name) == key->size && memcmp(fields[i].name, key->ptr, key->size) == 0)
            return i;
    return -1;
}

enum dr_rc dr_body_read(const msgpack_object_map *m, bool strict, struct dr_envelope *e,
                        struct dr_err *err)
{
    static const char *const required[] = {"id", "a", "iat"}; /* iat where strict */
    for (size_t i = 0; i < 2u + strict; i++)
        if (!dr_body_get(m, required[i]))
            return refuse(err, "required", required[i], strlen(required[i]), NULL);
    for (uint32_t i = 0; i < m->size && strict; i++)
        if (find(&m->ptr[i].key.via.str) < 0)
            return refuse(err, "unknown", m->ptr[i].key.via.str.ptr, m->ptr[i].key.via.str.size,
                          &m->ptr[i].val);
    for (int i = 0; i < FIELDS; i++) {
        const msgpack_object *o = dr_body_get(m, fields[i].name);
        if (o && !value_ok(fields[i].rule, o))
            return refuse(err, "value", fields[i].name, strlen(fields[i].name), o);
    }
    if (dr_body_get(m, "nx") && !dr_body_get(m, "nl"))
        return refuse(err, "required", "nl", 2, NULL);
    take(m, e);
    return DR_OK;
}
