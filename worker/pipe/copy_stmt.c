/* A COPY statement as pg_dump writes it. Owns nothing; any thread. */
#include "worker/pipe/copy_stmt.h"

#include <string.h>

struct cursor {
    const char *p, *end;
    struct dr_buf *out;
};

static bool skip(struct cursor *c, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(c->end - c->p) < len || memcmp(c->p, word, len))
        return false;
    c->p += len;
    return true;
}

static bool bare_byte(char b)
{
    return (b >= 'a' && b <= 'z') || (b >= '0' && b <= '9') || b == '_' || b == '$' ||
           (unsigned char)b >= 0x80;
}

/* Appends one name, without its quotes; *len is its length. */
static bool name(struct cursor *c, size_t *len)
{
    size_t before = c->out->len;

    if (skip(c, "\"")) {
        while (c->p < c->end) {
            const char *quote = memchr(c->p, '"', (size_t)(c->end - c->p));
            if (!quote)
                return false;
            dr_buf_add(c->out, c->p, (size_t)(quote - c->p));
            c->p = quote + 1;
            if (!skip(c, "\""))
                break;
            dr_buf_add(c->out, "\"", 1);
        }
    } else {
        const char *begin = c->p;
        while (c->p < c->end && bare_byte(*c->p))
            c->p++;
        dr_buf_add(c->out, begin, (size_t)(c->p - begin));
    }
    *len = c->out->len - before;
    return *len > 0 && !c->out->failed;
}

static bool column_list(struct cursor *c, struct pipe_bytes *columns, unsigned max, unsigned *count)
{
    *count = 0;
    if (!skip(c, "("))
        return skip(c, " FROM stdin;"); /* "COPY t  FROM stdin;" */
    do {
        if (*count == max || !name(c, &columns[*count].len))
            return false;
        ++*count;
    } while (skip(c, ", "));
    return skip(c, ") FROM stdin;");
}

bool copy_stmt_parse(const char *text, size_t len, struct dr_buf *out, struct pipe_bytes *schema,
                     struct pipe_bytes *table, struct pipe_bytes *columns, unsigned max,
                     unsigned *count)
{
    struct cursor c = {text, text + len, out};
    size_t at = out->len;

    if (!skip(&c, "COPY ") || !name(&c, &schema->len) || !skip(&c, ".") || !name(&c, &table->len) ||
        !skip(&c, " ") || !column_list(&c, columns, max, count))
        return false;
    (void)skip(&c, "\n");
    if (c.p != c.end)
        return false;
    schema->data = out->data + at;
    table->data = schema->data + schema->len;
    at += schema->len + table->len;
    for (unsigned i = 0; i < *count; i++) {
        columns[i].data = out->data + at;
        at += columns[i].len;
    }
    return true;
}
