/* JSON reader: recursive descent, bounded by the depth of messages. A container is packed into a
 * buffer of its own, since msgpack wants the count first. */
#include "common/wire/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "common/wire/pack.h"
#include "common/wire/scan.h"

enum { NUMBER_MAX = 64, STRING_MAX = DR_WIRE_RAW_MAX };

struct reader {
    const char *start, *p, *end;
    struct dr_err *err;
};

static enum dr_rc wrong(const struct reader *r, const char *what)
{
    return dr_fail(r->err, DR_E_MALFORMED, "JSON: %s at byte %zu", what, (size_t)(r->p - r->start));
}

static void blanks(struct reader *r)
{
    while (r->p < r->end && strchr(" \t\r\n", *r->p) && *r->p)
        r->p++;
}

static bool take(struct reader *r, char c)
{
    blanks(r);
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

static bool hex4(struct reader *r, unsigned *out)
{
    *out = 0;
    if (r->end - r->p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdefABCDEF";
        const char *at = *r->p ? strchr(digits, *r->p) : NULL;
        if (!at)
            return false;
        unsigned v = (unsigned)(at - digits);
        *out = *out << 4 | (v > 15 ? v - 6 : v);
        r->p++;
    }
    return true;
}

static void add_utf8(struct dr_buf *b, unsigned c)
{
    char s[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 1; c >>= 6)
        s[i] = (char)(0x80 | (c & 0x3f));
    s[0] = (char)(lead[n] | c);
    dr_buf_add(b, s, n);
}

static enum dr_rc escape(struct reader *r, struct dr_buf *b)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    unsigned c, low;
    char e = r->p < r->end ? *r->p++ : 0;
    const char *at = e ? strchr(names, e) : NULL;
    if (at) {
        dr_buf_add(b, &values[at - names], 1);
        return DR_OK;
    }
    if (e != 'u' || !hex4(r, &c))
        return wrong(r, "bad escape");
    if (c >= 0xd800 && c < 0xdc00) {
        if (r->end - r->p < 2 || r->p[0] != '\\' || r->p[1] != 'u')
            return wrong(r, "half a surrogate pair");
        r->p += 2;
        if (!hex4(r, &low) || low < 0xdc00 || low > 0xdfff)
            return wrong(r, "half a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c >= 0xdc00 && c <= 0xdfff) {
        return wrong(r, "half a surrogate pair");
    }
    add_utf8(b, c);
    return DR_OK;
}

static enum dr_rc string(struct reader *r, struct dr_buf *out)
{
    struct dr_buf text;
    enum dr_rc rc = DR_OK;
    dr_buf_init(&text, STRING_MAX);
    for (;;) {
        if (r->p == r->end) {
            rc = wrong(r, "string without end");
            break;
        }
        char c = *r->p++;
        if (c == '"')
            break;
        if ((unsigned char)c < 0x20)
            rc = wrong(r, "control character");
        else if (c == '\\')
            rc = escape(r, &text);
        else
            dr_buf_add(&text, &c, 1);
        if (rc)
            break;
    }
    if (!rc && (text.failed || !dr_utf8_valid(text.data ? text.data : (void *)"", text.len)))
        rc = wrong(r, "string that is too long or no UTF-8");
    if (!rc)
        dr_pack_str(out, text.data ? (const char *)text.data : "", text.len);
    dr_buf_fini(&text);
    return rc;
}

static size_t digits(const char *s)
{
    return strspn(s, "0123456789");
}

/* -? (0 | 1-9 digits) (. digits)? ((e|E) (+|-)? digits)? */
static bool number_form(const char *s, bool *whole)
{
    s += *s == '-';
    size_t n = digits(s);
    if (n == 0 || (n > 1 && *s == '0'))
        return false;
    s += n;
    *whole = *s == 0;
    if (*s == '.') {
        n = digits(++s);
        s += n;
        if (n == 0)
            return false;
    }
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '+' || *s == '-';
        n = digits(s);
        s += n;
        if (n == 0)
            return false;
    }
    return *s == 0;
}

static enum dr_rc number(struct reader *r, struct dr_buf *out)
{
    char text[NUMBER_MAX];
    size_t n = 0;
    bool whole;
    uint64_t u;
    int64_t i;
    while (r->p + n < r->end && n < sizeof text - 1 && r->p[n] &&
           strchr("+-.0123456789eE", r->p[n]))
        n++;
    memcpy(text, r->p, n);
    text[n] = 0;
    if (!number_form(text, &whole))
        return wrong(r, "no value");
    double d = strtod(text, NULL);
    if (whole && dr_parse_u64(text, 0, UINT64_MAX, &u))
        dr_pack_uint(out, u);
    else if (whole && dr_parse_i64(text, INT64_MIN, INT64_MAX, &i))
        dr_pack_int(out, i);
    else if (whole || !isfinite(d))
        return wrong(r, "number out of range");
    else
        dr_pack_double(out, d);
    r->p += n;
    return DR_OK;
}

static enum dr_rc value(struct reader *r, unsigned depth, struct dr_buf *out);

static enum dr_rc array(struct reader *r, unsigned depth, struct dr_buf *out)
{
    struct dr_buf items;
    size_t count = 0;
    enum dr_rc rc = DR_OK;
    dr_buf_init(&items, DR_WIRE_RAW_MAX);
    if (!take(r, ']')) {
        do {
            rc = value(r, depth, &items);
            count++;
        } while (!rc && take(r, ','));
        if (!rc && !take(r, ']'))
            rc = wrong(r, "no comma or ]");
    }
    if (!rc) {
        dr_pack_array(out, count);
        dr_buf_add(out, items.data ? items.data : (void *)"", items.len);
        out->failed = out->failed || items.failed;
    }
    dr_buf_fini(&items);
    return rc;
}

static enum dr_rc object(struct reader *r, unsigned depth, struct dr_buf *out, size_t *pairs)
{
    *pairs = 0;
    if (take(r, '}'))
        return DR_OK;
    do {
        if (!take(r, '"'))
            return wrong(r, "no key");
        if (string(r, out))
            return DR_E_MALFORMED;
        if (!take(r, ':'))
            return wrong(r, "no colon");
        if (value(r, depth, out))
            return DR_E_MALFORMED;
        ++*pairs;
    } while (take(r, ','));
    return take(r, '}') ? DR_OK : wrong(r, "no comma or }");
}

static enum dr_rc map(struct reader *r, unsigned depth, struct dr_buf *out)
{
    struct dr_buf inner;
    size_t pairs;
    dr_buf_init(&inner, DR_WIRE_RAW_MAX);
    enum dr_rc rc = object(r, depth, &inner, &pairs);
    if (!rc) {
        dr_pack_map(out, pairs);
        dr_buf_add(out, inner.data ? inner.data : (void *)"", inner.len);
        out->failed = out->failed || inner.failed;
    }
    dr_buf_fini(&inner);
    return rc;
}

static bool word(struct reader *r, const char *w)
{
    size_t n = strlen(w);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, w, n) != 0)
        return false;
    r->p += n;
    return true;
}

static enum dr_rc value(struct reader *r, unsigned depth, struct dr_buf *out)
{
    blanks(r);
    if (take(r, '"'))
        return string(r, out);
    if (r->p < r->end && (*r->p == '[' || *r->p == '{')) {
        if (depth + 1 > DR_WIRE_DEPTH_MAX)
            return wrong(r, "too deep");
        return *r->p++ == '[' ? array(r, depth + 1, out) : map(r, depth + 1, out);
    }
    if (word(r, "true"))
        dr_pack_bool(out, true);
    else if (word(r, "false"))
        dr_pack_bool(out, false);
    else if (word(r, "null"))
        dr_pack_nil(out);
    else
        return number(r, out);
    return DR_OK;
}

enum dr_rc dr_json_pairs(const char *text, size_t len, struct dr_buf *out, size_t *pairs,
                         struct dr_err *err)
{
    struct reader r = {text, text, text + len, err};
    if (!take(&r, '{'))
        return wrong(&r, "not an object");
    if (object(&r, 2, out, pairs))
        return DR_E_MALFORMED;
    blanks(&r);
    if (r.p != r.end)
        return wrong(&r, "something behind the object");
    return out->failed ? dr_fail(err, DR_E_TOO_BIG, "arguments over %zu bytes", out->max) : DR_OK;
}
