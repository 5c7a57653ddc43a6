/* What an answer says beside its body: the table of its headers, the server's clock, how long to
 * wait, which range it sent. All of it comes from outside: what cannot be read is not there. Any
 * thread. */
#include "worker/core/http_internal.h"

#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/str.h"

enum { RETRY_AFTER_MAX_S = 6 * 3600 };
static const char digits[] = "0123456789";

static size_t token_len(const char *s, size_t len)
{
    size_t n = 0;
    while (n < len && s[n] > ' ' && s[n] < 0x7f && s[n] != ':')
        n++;
    return n;
}

/* Blanks and the end of the line around a value go. */
static void add_value(struct dr_buf *head, const char *s, size_t len)
{
    while (len > 0 && (unsigned char)s[len - 1] <= ' ')
        len--;
    while (len > 0 && (unsigned char)*s <= ' ')
        s++, len--;
    dr_buf_add(head, s, len);
    dr_buf_add(head, "", 1);
}

void http_head_line(struct dr_buf *head, bool *open, bool may_begin, const char *line, size_t len)
{
    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) { /* that of a "100 Continue" is forgotten */
        if (may_begin) {
            dr_buf_reset(head);
            *open = true;
        }
        return;
    }
    if (len == 0 || *line == '\r' || *line == '\n')
        *open = false;
    if (!*open || memchr(line, 0, len))
        return;
    if (*line == ' ' || *line == '\t') { /* folded: more of the last value */
        if (head->len > 0) {
            head->data[head->len - 1] = ' ';
            add_value(head, line, len);
        }
        return;
    }
    size_t n = token_len(line, len), at = head->len;
    if (n == 0 || n == len || line[n] != ':')
        return;
    dr_buf_add(head, line, n);
    dr_buf_add(head, "", 1);
    for (size_t i = at; i < head->len; i++)
        if (head->data[i] >= 'A' && head->data[i] <= 'Z')
            head->data[i] |= 0x20;
    add_value(head, line + n + 1, len - n - 1);
}

/* The table: name NUL value NUL .. */
bool http_header_next(const struct http_response *r, size_t *at, const char **name,
                      const char **value)
{
    if (*at >= r->head.len)
        return false;
    *name = (const char *)r->head.data + *at;
    *value = *name + strlen(*name) + 1;
    *at += strlen(*name) + strlen(*value) + 2;
    return true;
}

const char *http_header(const struct http_response *r, const char *name)
{
    const char *other, *value;
    for (size_t at = 0; http_header_next(r, &at, &other, &value);)
        if (strcasecmp(other, name) == 0)
            return value;
    return NULL;
}

static bool number(const char **at, char end, uint64_t *out)
{
    char text[24];
    size_t n = strspn(*at, digits);
    if (n >= sizeof text || (*at)[n] != end)
        return false;
    memcpy(text, *at, n);
    text[n] = 0;
    *at += n + (end ? 1 : 0);
    return dr_parse_u64(text, 0, UINT64_MAX, out);
}

bool http_content_range(const struct http_response *r, uint64_t *first, uint64_t *last,
                        uint64_t *total)
{
    const char *p = http_header(r, "content-range");
    if (r->status != 206 || !p || strncasecmp(p, "bytes ", 6) != 0)
        return false;
    p += 6;
    return number(&p, '-', first) && number(&p, '/', last) && number(&p, 0, total) &&
           *first <= *last && *last < *total;
}

static int64_t date(const char *text)
{
    int64_t t = text ? (int64_t)curl_getdate(text, NULL) : 0;
    return t > 0 ? t : 0;
}

/* By the server's clock where it tells it: ours may differ. */
static uint64_t retry_after(const char *text, int64_t now)
{
    uint64_t s = RETRY_AFTER_MAX_S;
    if (!text || !*text)
        return 0;
    if (text[strspn(text, digits)] == 0)
        return dr_parse_u64(text, 0, RETRY_AFTER_MAX_S, &s) ? s : RETRY_AFTER_MAX_S;
    int64_t at = date(text), left = at - (now ? now : dr_wall_ms() / 1000);
    if (left <= 0)
        return 0;
    return left < RETRY_AFTER_MAX_S ? (uint64_t)left : RETRY_AFTER_MAX_S;
}

void http_head_read(struct http_response *r)
{
    r->date_unix = date(http_header(r, "date"));
    r->retry_after_s = retry_after(http_header(r, "retry-after"), r->date_unix);
}
