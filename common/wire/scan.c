/* Pre-scan of msgpack. */
#include "common/wire/scan.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/str.h"

struct cursor {
    const unsigned char *p, *end;
    struct dr_err *err;
};

enum family { SCALAR, TEXT, BYTES, ARRAY, MAP };

/* One header: its family and how many bytes or elements follow. */
struct head {
    enum family family;
    uint64_t count;
};

static enum dr_rc refuse(struct cursor *c, const char *reason)
{
    (void)dr_fail(c->err, DR_E_MALFORMED, "message is malformed: %s", reason);
    (void)dr_err_reason(c->err, reason);
    return DR_E_MALFORMED;
}

static bool number(struct cursor *c, unsigned bytes, uint64_t *out)
{
    if ((size_t)(c->end - c->p) < bytes)
        return false;
    *out = 0;
    while (bytes-- > 0)
        *out = (*out << 8) | *c->p++;
    return true;
}

static enum dr_rc sized(struct cursor *c, struct head *h, enum family family, unsigned bytes)
{
    h->family = family;
    return number(c, bytes, &h->count) ? DR_OK : refuse(c, "truncated");
}

static enum dr_rc head_of_byte(struct cursor *c, unsigned char b, struct head *h)
{
    static const unsigned char plain[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                          4, 8, 1, 2, 4, 8, 1, 2, 4, 8};
    switch (b) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
        return DR_OK;
    case 0xc1:
        return refuse(c, "type");
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return sized(c, h, BYTES, 1u << (b - 0xc4));
    case 0xd9:
    case 0xda:
    case 0xdb:
        return sized(c, h, TEXT, 1u << (b - 0xd9));
    case 0xdc:
    case 0xdd:
        return sized(c, h, ARRAY, 2u << (b - 0xdc));
    case 0xde:
    case 0xdf:
        return sized(c, h, MAP, 2u << (b - 0xde));
    default:
        if ((b >= 0xc7 && b <= 0xc9) || (b >= 0xd4 && b <= 0xd8))
            return refuse(c, "ext");
        h->count = plain[b - 0xc0]; /* ca..d3: float, integer */
        return DR_OK;
    }
}

static enum dr_rc read_head(struct cursor *c, struct head *h)
{
    *h = (struct head){SCALAR, 0};
    if (c->p == c->end)
        return refuse(c, "truncated");
    unsigned char b = *c->p++;
    if (b <= 0x7f || b >= 0xe0)
        return DR_OK;
    if (b <= 0x8f)
        *h = (struct head){MAP, b & 15u};
    else if (b <= 0x9f)
        *h = (struct head){ARRAY, b & 15u};
    else if (b <= 0xbf)
        *h = (struct head){TEXT, b & 31u};
    else
        return head_of_byte(c, b, h);
    return DR_OK;
}

static enum dr_rc bytes(struct cursor *c, const struct head *h)
{
    if (h->count > (uint64_t)(c->end - c->p))
        return refuse(c, "truncated");
    if (h->family == TEXT && !dr_utf8_valid(c->p, (size_t)h->count))
        return refuse(c, "utf8");
    c->p += h->count;
    return DR_OK;
}

static enum dr_rc value(struct cursor *c, unsigned depth);

struct key {
    const unsigned char *p;
    size_t len;
};

static enum dr_rc map(struct cursor *c, uint64_t count, unsigned depth)
{
    struct key keys[DR_WIRE_KEYS_MAX];
    if (count > DR_WIRE_KEYS_MAX)
        return refuse(c, "keys");
    for (uint64_t i = 0; i < count; i++) {
        struct head h;
        if (read_head(c, &h))
            return DR_E_MALFORMED;
        if (h.family != TEXT)
            return refuse(c, "key-type");
        if (bytes(c, &h))
            return DR_E_MALFORMED;
        keys[i] = (struct key){c->p - h.count, (size_t)h.count};
        for (uint64_t k = 0; k < i; k++)
            if (keys[k].len == keys[i].len && memcmp(keys[k].p, keys[i].p, keys[i].len) == 0)
                return refuse(c, "duplicate-key");
        if (value(c, depth))
            return DR_E_MALFORMED;
    }
    return DR_OK;
}

static enum dr_rc value(struct cursor *c, unsigned depth)
{
    struct head h;
    if (read_head(c, &h))
        return DR_E_MALFORMED;
    if (h.family != ARRAY && h.family != MAP)
        return bytes(c, &h);
    if (depth + 1 > DR_WIRE_DEPTH_MAX)
        return refuse(c, "depth");
    if (h.family == MAP)
        return map(c, h.count, depth + 1);
    if (h.count > (uint64_t)(c->end - c->p))
        return refuse(c, "truncated");
    for (uint64_t i = 0; i < h.count; i++)
        if (value(c, depth + 1))
            return DR_E_MALFORMED;
    return DR_OK;
}

enum dr_rc dr_wire_scan(const void *raw, size_t len, struct dr_err *err)
{
    struct cursor c = {raw, (const unsigned char *)raw + len, err};
    if (len > DR_WIRE_RAW_MAX) {
        (void)dr_fail(err, DR_E_TOO_BIG, "message of %zu bytes, at most %d", len, DR_WIRE_RAW_MAX);
        (void)dr_err_reason(err, "size");
        return DR_E_TOO_BIG;
    }
    if (value(&c, 0))
        return DR_E_MALFORMED;
    if (c.p != c.end)
        return refuse(&c, "trailing");
    const unsigned char first = *(const unsigned char *)raw;
    if ((first & 0xf0) != 0x80 && first != 0xde && first != 0xdf)
        return refuse(&c, "not-a-map");
    return DR_OK;
}

const unsigned char *dr_wire_span(const void *raw, size_t len, const char *key, size_t *span)
{
    struct cursor c = {raw, (const unsigned char *)raw + len, NULL};
    struct head map_head, h;
    if (read_head(&c, &map_head) || map_head.family != MAP)
        return NULL;
    for (uint64_t i = 0; i < map_head.count; i++) {
        if (read_head(&c, &h) || h.family != TEXT || bytes(&c, &h))
            return NULL;
        bool found = h.count == strlen(key) && memcmp(c.p - h.count, key, (size_t)h.count) == 0;
        const unsigned char *start = c.p;
        if (value(&c, 1))
            return NULL;
        if (found) {
            *span = (size_t)(c.p - start);
            return start;
        }
    }
    return NULL;
}
