/* Typed msgpack cursor. Own code, because the library's unpacker builds trees from lengths it has
 * not checked. */
#include "common/wire/pull.h"

#include "common/str.h"

void dr_pull_init(struct dr_pull *p, const void *bytes, size_t len)
{
    p->at = bytes;
    p->end = p->at + len;
    p->bad = false;
}

static size_t left(const struct dr_pull *p)
{
    return (size_t)(p->end - p->at);
}

static const unsigned char *take(struct dr_pull *p, size_t n)
{
    const unsigned char *at = p->at;
    if (p->bad || n > left(p)) {
        p->bad = true;
        return NULL;
    }
    p->at += n;
    return at;
}

/* Big-endian number of 1, 2, 4 or 8 bytes. */
static uint64_t number(struct dr_pull *p, unsigned width)
{
    const unsigned char *b = take(p, width);
    uint64_t v = 0;
    for (unsigned i = 0; b && i < width; i++)
        v = v << 8 | b[i];
    return v;
}

/* The type byte; 0xc1 (never used by msgpack) when there is none. */
static unsigned tag(struct dr_pull *p)
{
    const unsigned char *b = take(p, 1);
    return b ? *b : 0xc1;
}

static size_t counted(struct dr_pull *p, unsigned fix, unsigned fix_mask, unsigned wide16,
                      size_t min_bytes)
{
    unsigned t = tag(p);
    uint64_t n = 0;
    if ((t & ~fix_mask) == fix)
        n = t & fix_mask;
    else if (t == wide16)
        n = number(p, 2);
    else if (t == wide16 + 1)
        n = number(p, 4);
    else
        p->bad = true;
    if (p->bad || n * min_bytes > left(p)) {
        p->bad = true;
        return 0;
    }
    return (size_t)n;
}

size_t dr_pull_array(struct dr_pull *p, size_t min_bytes)
{
    return counted(p, 0x90, 0x0f, 0xdc, min_bytes);
}

size_t dr_pull_map(struct dr_pull *p, size_t min_bytes)
{
    return counted(p, 0x80, 0x0f, 0xde, min_bytes);
}

static const unsigned char *body(struct dr_pull *p, uint64_t n, size_t *len)
{
    const unsigned char *b = n > left(p) ? NULL : take(p, (size_t)n);
    if (!b)
        p->bad = true;
    *len = p->bad ? 0 : (size_t)n;
    return p->bad ? NULL : b;
}

const unsigned char *dr_pull_str(struct dr_pull *p, size_t *len)
{
    unsigned t = tag(p);
    uint64_t n = 0;
    if ((t & 0xe0) == 0xa0)
        n = t & 0x1f;
    else if (t >= 0xd9 && t <= 0xdb)
        n = number(p, 1u << (t - 0xd9));
    else
        p->bad = true;
    return body(p, n, len);
}

const unsigned char *dr_pull_bin(struct dr_pull *p, size_t *len)
{
    unsigned t = tag(p);
    uint64_t n = 0;
    if (t >= 0xc4 && t <= 0xc6)
        n = number(p, 1u << (t - 0xc4));
    else
        p->bad = true;
    return body(p, n, len);
}

/* Any integer form. negative: *v holds its two's complement. */
static void integer(struct dr_pull *p, uint64_t *v, bool *negative)
{
    unsigned t = tag(p);
    *v = 0;
    *negative = false;
    if (t <= 0x7f) {
        *v = t;
    } else if (t >= 0xe0) {
        *v = (uint64_t)((int64_t)t - 256);
        *negative = true;
    } else if (t >= 0xcc && t <= 0xcf) {
        *v = number(p, 1u << (t - 0xcc));
    } else if (t >= 0xd0 && t <= 0xd3) {
        unsigned width = 1u << (t - 0xd0);
        *v = number(p, width);
        if (width < 8 && *v >> (width * 8 - 1))
            *v |= ~(uint64_t)0 << (width * 8);
        *negative = *v >> 63;
    } else {
        p->bad = true;
    }
    if (p->bad)
        *v = 0;
}

uint64_t dr_pull_uint(struct dr_pull *p)
{
    uint64_t v;
    bool negative;
    integer(p, &v, &negative);
    if (negative)
        p->bad = true;
    return p->bad ? 0 : v;
}

int64_t dr_pull_int(struct dr_pull *p)
{
    uint64_t v;
    bool negative;
    integer(p, &v, &negative);
    if (!negative && v > INT64_MAX)
        p->bad = true;
    return p->bad ? 0 : (int64_t)v;
}

bool dr_pull_bool(struct dr_pull *p)
{
    unsigned t = tag(p);
    if (t != 0xc2 && t != 0xc3)
        p->bad = true;
    return !p->bad && t == 0xc3;
}

bool dr_pull_nil(struct dr_pull *p)
{
    if (p->bad || p->at == p->end || *p->at != 0xc0)
        return false;
    p->at++;
    return true;
}

/* Scalars: nil, booleans, numbers, fixext. */
static void skip_plain(struct dr_pull *p, unsigned t)
{
    static const unsigned char bytes[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 8, 1,
                                          2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17}; /* from 0xc0 */
    if (t == 0xc1)
        p->bad = true;
    (void)take(p, 1 + (t >= 0xc0 && t <= 0xd8 ? bytes[t - 0xc0] : 0u));
}

static void skip_ext(struct dr_pull *p, unsigned t)
{
    p->at++;
    uint64_t n = number(p, 1u << (t - 0xc7));
    (void)take(p, 1);
    (void)take(p, (size_t)n);
}

void dr_pull_skip(struct dr_pull *p, unsigned depth)
{
    unsigned t = p->at < p->end && !p->bad ? *p->at : 0xc1;
    bool map = (t & 0xf0) == 0x80 || t == 0xde || t == 0xdf;
    size_t n = 0;
    if ((t & 0xe0) == 0xa0 || (t >= 0xd9 && t <= 0xdb)) {
        (void)dr_pull_str(p, &n);
    } else if (t >= 0xc4 && t <= 0xc6) {
        (void)dr_pull_bin(p, &n);
    } else if (t >= 0xc7 && t <= 0xc9) {
        skip_ext(p, t);
    } else if (map || (t & 0xf0) == 0x90 || t == 0xdc || t == 0xdd) {
        n = map ? 2 * dr_pull_map(p, 2) : dr_pull_array(p, 1);
        if (depth == 0)
            p->bad = true;
        for (size_t i = 0; i < n && !p->bad; i++)
            dr_pull_skip(p, depth - 1);
    } else {
        skip_plain(p, t);
    }
}

bool dr_pull_done(const struct dr_pull *p)
{
    return !p->bad && p->at == p->end;
}
