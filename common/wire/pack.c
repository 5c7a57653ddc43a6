/* msgpack writer and JSON view. */
#include "common/wire/pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <msgpack.h>

#include "common/mem.h"
#include "common/str.h"

static int to_buf(void *data, const char *bytes, size_t len)
{
    struct dr_buf *b = data;
    dr_buf_add(b, bytes, len);
    return b->failed ? -1 : 0;
}

static msgpack_packer packer(struct dr_buf *b)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, b, to_buf);
    return pk;
}

void dr_pack_map(struct dr_buf *b, size_t pairs)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_map(&pk, pairs);
}

void dr_pack_array(struct dr_buf *b, size_t count)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_array(&pk, count);
}

/* A reader refuses a whole result for one bad byte: names of files and tables hold any. */
static void pack_repaired(struct dr_buf *b, const char *s, size_t len)
{
    struct dr_buf fixed;
    dr_buf_init(&fixed, len * 3 + 1);
    for (size_t i = 0; i < len;) {
        size_t n = dr_utf8_len((const unsigned char *)s + i, len - i);
        if (n)
            dr_buf_add(&fixed, s + i, n);
        else
            dr_buf_str(&fixed, "\xef\xbf\xbd");
        i += n ? n : 1;
    }
    dr_pack_str(b, (const char *)fixed.data, fixed.len);
    dr_buf_fini(&fixed);
}

void dr_pack_str(struct dr_buf *b, const char *s, size_t len)
{
    msgpack_packer pk = packer(b);
    if (!dr_utf8_valid(s, len)) {
        pack_repaired(b, s, len);
        return;
    }
    (void)msgpack_pack_str(&pk, len);
    (void)msgpack_pack_str_body(&pk, s, len);
}

void dr_pack_text(struct dr_buf *b, const char *s)
{
    dr_pack_str(b, s, strlen(s));
}

void dr_pack_pair(struct dr_buf *b, const char *key, const char *value)
{
    dr_pack_text(b, key);
    dr_pack_text(b, value);
}

void dr_pack_bin(struct dr_buf *b, const void *bytes, size_t len)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_bin(&pk, len);
    (void)msgpack_pack_bin_body(&pk, bytes, len);
}

void dr_pack_uint(struct dr_buf *b, uint64_t v)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_uint64(&pk, v);
}

void dr_pack_int(struct dr_buf *b, int64_t v)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_int64(&pk, v);
}

void dr_pack_double(struct dr_buf *b, double v)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_double(&pk, v);
}

void dr_pack_bool(struct dr_buf *b, bool v)
{
    msgpack_packer pk = packer(b);
    (void)(v ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk));
}

void dr_pack_nil(struct dr_buf *b)
{
    msgpack_packer pk = packer(b);
    (void)msgpack_pack_nil(&pk);
}

static void json_of(const msgpack_object *o, struct dr_buf *out);

static void json_bin(const msgpack_object *o, struct dr_buf *out)
{
    char hex[3];
    dr_buf_str(out, "\"");
    for (uint32_t i = 0; i < o->via.bin.size && !out->failed; i++) {
        dr_hex(o->via.bin.ptr + i, 1, hex);
        dr_buf_add(out, hex, 2);
    }
    dr_buf_str(out, "\"");
}

static void json_map(const msgpack_object *o, struct dr_buf *out)
{
    dr_buf_str(out, "{");
    for (uint32_t i = 0; i < o->via.map.size && !out->failed; i++) {
        const msgpack_object *key = &o->via.map.ptr[i].key;
        if (i)
            dr_buf_str(out, ",");
        if (key->type == MSGPACK_OBJECT_STR) {
            json_of(key, out);
        } else {
            dr_buf_str(out, "\"?\"");
        }
        dr_buf_str(out, ":");
        json_of(&o->via.map.ptr[i].val, out);
    }
    dr_buf_str(out, "}");
}

static void json_of(const msgpack_object *o, struct dr_buf *out)
{
    switch (o->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        dr_buf_str(out, o->via.boolean ? "true" : "false");
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        dr_buf_printf(out, "%llu", (unsigned long long)o->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        dr_buf_printf(out, "%lld", (long long)o->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        if (isfinite(o->via.f64))
            dr_buf_printf(out, "%.6g", o->via.f64);
        else
            dr_buf_str(out, "null");
        break;
    case MSGPACK_OBJECT_STR:
        dr_buf_json(out, o->via.str.ptr, o->via.str.size);
        break;
    case MSGPACK_OBJECT_BIN:
        json_bin(o, out);
        break;
    case MSGPACK_OBJECT_ARRAY:
        dr_buf_str(out, "[");
        for (uint32_t i = 0; i < o->via.array.size && !out->failed; i++) {
            if (i)
                dr_buf_str(out, ",");
            json_of(&o->via.array.ptr[i], out);
        }
        dr_buf_str(out, "]");
        break;
    case MSGPACK_OBJECT_MAP:
        json_map(o, out);
        break;
    case MSGPACK_OBJECT_NIL:
    case MSGPACK_OBJECT_EXT:
    default:
        dr_buf_str(out, "null");
        break;
    }
}

enum dr_rc dr_wire_to_json(const void *raw, size_t len, struct dr_buf *out, struct dr_err *err)
{
    msgpack_unpacked u;
    size_t used = 0;
    enum dr_rc rc = DR_OK;
    msgpack_unpacked_init(&u);
    msgpack_unpack_return got = msgpack_unpack_next(&u, raw, len, &used);
    if ((got != MSGPACK_UNPACK_SUCCESS && got != MSGPACK_UNPACK_EXTRA_BYTES) || used != len)
        rc = dr_fail(err, DR_E_MALFORMED, "not one msgpack value of %zu bytes", len);
    else
        json_of(&u.data, out);
    if (!rc && out->failed)
        rc = dr_fail(err, DR_E_TOO_BIG, "JSON over %zu bytes", out->max);
    msgpack_unpacked_destroy(&u);
    return rc;
}
