/* Bounded growable buffer. */
#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"

void dr_buf_init(struct dr_buf *b, size_t max_bytes)
{
    memset(b, 0, sizeof *b);
    b->max = max_bytes;
}

void dr_buf_fini(struct dr_buf *b)
{
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
    b->failed = false;
}

void dr_buf_reset(struct dr_buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = 0;
}

static bool room(struct dr_buf *b, size_t more)
{
    if (b->failed || more > b->max - b->len) {
        b->failed = true;
        return false;
    }
    size_t need = b->len + more + 1;
    if (need <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > b->max + 1)
        cap = b->max + 1;
    unsigned char *p = realloc(b->data, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->cap = cap;
    return true;
}

void dr_buf_add(struct dr_buf *b, const void *bytes, size_t len)
{
    if (!room(b, len))
        return;
    if (len)
        memcpy(b->data + b->len, bytes, len);
    b->len += len;
    b->data[b->len] = 0;
}

void dr_buf_str(struct dr_buf *b, const char *s)
{
    dr_buf_add(b, s, strlen(s));
}

void dr_buf_printf(struct dr_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        b->failed = true;
    else if (room(b, (size_t)n)) {
        (void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void dr_buf_u32be(struct dr_buf *b, uint32_t v)
{
    unsigned char x[4];
    dr_put_u32be(x, v);
    dr_buf_add(b, x, sizeof x);
}

void dr_buf_u64be(struct dr_buf *b, uint64_t v)
{
    unsigned char x[8];
    dr_put_u64be(x, v);
    dr_buf_add(b, x, sizeof x);
}

void dr_buf_json(struct dr_buf *b, const char *s, size_t len)
{
    dr_buf_add(b, "\"", 1);
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)s[i];
        size_t n = dr_utf8_len((const unsigned char *)s + i, len - i);
        if (c == '"' || c == '\\')
            dr_buf_printf(b, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            dr_buf_add(b, " ", 1);
        else if (n == 0)
            dr_buf_str(b, "\xef\xbf\xbd");
        else
            dr_buf_add(b, s + i, n);
        i += n ? n : 1;
    }
    dr_buf_add(b, "\"", 1);
}

char *dr_buf_take(struct dr_buf *b)
{
    if (!b->data)
        dr_buf_add(b, "", 0);
    char *out = (char *)b->data;
    b->data = NULL;
    b->len = b->cap = 0;
    return out;
}
