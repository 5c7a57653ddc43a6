/* RESP guard: follows the structure of replies without building anything. */
#include "worker/queue/resp.h"

#include <string.h>

#include "common/str.h"

void resp_guard_init(struct resp_guard *g, size_t max_bytes)
{
    memset(g, 0, sizeof *g);
    g->max_bytes = max_bytes;
}

/* One value is complete: closes the arrays that it completes. */
static void value_done(struct resp_guard *g)
{
    while (g->depth > 0 && --g->left[g->depth] == 0)
        g->depth--;
    if (g->depth == 0)
        g->bytes = 0;
}

static bool header(struct resp_guard *g)
{
    int64_t n;
    g->line[g->line_len] = 0;
    if (!dr_parse_i64(g->line + 1, -1, (int64_t)g->max_bytes, &n))
        return false;
    if (g->line[0] == '$') {
        if (n >= 0)
            g->skip = (size_t)n + 2;
        else
            value_done(g);
        return true;
    }
    if (n <= 0) {
        value_done(g);
        return true;
    }
    if (g->depth == RESP_DEPTH_MAX)
        return false;
    g->left[++g->depth] = n;
    return true;
}

static bool line_end(struct resp_guard *g)
{
    bool ok = true;
    if (g->line[0] == '$' || g->line[0] == '*')
        ok = g->line_len < sizeof g->line && header(g);
    else if (strchr("+-:", g->line[0]) && g->line[0])
        value_done(g);
    else
        ok = false;
    g->line_len = 0;
    return ok;
}

static bool feed_byte(struct resp_guard *g, char c)
{
    if (c == '\n' && g->line_len > 0)
        return line_end(g);
    if (c == '\r')
        return true;
    /* Status and error lines may be long: only their first byte matters. */
    bool sized = g->line_len > 0 && (g->line[0] == '$' || g->line[0] == '*');
    if (g->line_len + 1 >= sizeof g->line) {
        if (sized)
            return false;
        return true;
    }
    g->line[g->line_len++] = c;
    return true;
}

bool resp_guard_feed(struct resp_guard *g, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len;) {
        if (g->skip > 0) {
            size_t n = len - i < g->skip ? len - i : g->skip;
            g->skip -= n;
            g->bytes += n;
            i += n;
            if (g->bytes > g->max_bytes)
                return false;
            if (g->skip == 0)
                value_done(g);
            continue;
        }
        if (++g->bytes > g->max_bytes || !feed_byte(g, bytes[i++]))
            return false;
    }
    return true;
}
