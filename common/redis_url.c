/* Redis URLs. */
#include "common/redis_url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"

static const char *scheme(const char *url, struct dr_redis_url *u)
{
    static const struct {
        const char *prefix;
        enum dr_redis_kind kind;
    } kinds[] = {
        {"redis://", DR_REDIS_TCP}, {"rediss://", DR_REDIS_TLS}, {"unix://", DR_REDIS_UNIX}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (dr_starts(url, kinds[i].prefix)) {
            u->kind = kinds[i].kind;
            return url + strlen(kinds[i].prefix);
        }
    return NULL;
}

static bool user_info(const char *s, size_t len, struct dr_redis_url *u)
{
    char password[1024];
    const char *colon = memchr(s, ':', len);
    size_t user_len = colon ? (size_t)(colon - s) : len;
    if (!dr_percent_decode(s, user_len, u->user, sizeof u->user))
        return false;
    if (!colon)
        return true;
    bool ok = dr_percent_decode(colon + 1, len - user_len - 1, password, sizeof password);
    if (ok)
        dr_secret_set(&u->password, password, strlen(password));
    dr_wipe(password, sizeof password);
    return ok;
}

static bool host_port(const char *s, size_t len, struct dr_redis_url *u)
{
    char text[300];
    if (len >= sizeof text)
        return false;
    memcpy(text, s, len);
    text[len] = 0;
    char *host = text, *port = NULL;
    if (text[0] == '[') { /* IPv6 */
        char *close = strchr(text, ']');
        if (!close)
            return false;
        *close = 0;
        host = text + 1;
        if (close[1] == ':')
            port = close + 2;
        else if (close[1])
            return false;
    } else if ((port = strchr(text, ':'))) {
        *port++ = 0;
    }
    uint64_t n = 6379;
    if (port && !dr_parse_u64(port, 1, 65535, &n))
        return false;
    u->port = (uint16_t)n;
    return dr_percent_decode(*host ? host : "localhost", strlen(*host ? host : "localhost"),
                             u->host, sizeof u->host);
}

static bool query(const char *s, struct dr_redis_url *u)
{
    while (*s) {
        size_t n = strcspn(s, "&");
        char value[512];
        uint64_t db;
        const char *eq = memchr(s, '=', n);
        size_t key = eq ? (size_t)(eq - s) : n;
        if (!eq || !dr_percent_decode(eq + 1, n - key - 1, value, sizeof value))
            return false;
        if (key == 2 && memcmp(s, "db", 2) == 0) {
            if (!dr_parse_u64(value, 0, 65535, &db))
                return false;
            u->db = (unsigned)db;
        } else if (key == 7 && memcmp(s, "ca_file", 7) == 0) {
            (void)snprintf(u->ca_file, sizeof u->ca_file, "%s", value);
        }
        s += n + (s[n] == '&');
    }
    return true;
}

static bool parse(const char *url, struct dr_redis_url *u)
{
    uint64_t db;
    const char *s = scheme(url, u);
    if (!s)
        return false;
    size_t len = strcspn(s, "?");
    if (s[len] == '?' && !query(s + len + 1, u))
        return false;
    size_t authority = u->kind == DR_REDIS_UNIX ? len : strcspn(s, "/?");
    const char *at = NULL;
    for (size_t i = 0; i < authority; i++)
        if (s[i] == '@')
            at = s + i;
    if (at && !user_info(s, (size_t)(at - s), u))
        return false;
    const char *rest = at ? at + 1 : s;
    if (u->kind == DR_REDIS_UNIX)
        return rest[0] == '/' &&
               dr_percent_decode(rest, len - (size_t)(rest - s), u->path, sizeof u->path);
    if (!host_port(rest, authority - (size_t)(rest - s), u))
        return false;
    if (authority >= len || authority + 1 == len)
        return true;
    char text[16];
    if (len - authority - 1 >= sizeof text)
        return false;
    memcpy(text, s + authority + 1, len - authority - 1);
    text[len - authority - 1] = 0;
    if (!dr_parse_u64(text, 0, 65535, &db))
        return false;
    u->db = (unsigned)db;
    return true;
}

enum dr_rc dr_redis_url_parse(const char *url, struct dr_redis_url *out, struct dr_err *err)
{
    memset(out, 0, sizeof *out);
    if (parse(url, out))
        return DR_OK;
    dr_redis_url_free(out);
    return dr_fail(err, DR_E_CONFIG,
                   "REDIS_URL: not redis://, rediss:// or unix://[user:password@]host[:port][/db]");
}

void dr_redis_url_free(struct dr_redis_url *u)
{
    dr_secret_free(&u->password);
}

void dr_redis_url_show(const struct dr_redis_url *u, char out[512])
{
    if (u->kind == DR_REDIS_UNIX)
        (void)snprintf(out, 512, "unix://%s?db=%u", u->path, u->db);
    else
        (void)snprintf(out, 512, "%s://%s:%u/%u", u->kind == DR_REDIS_TLS ? "rediss" : "redis",
                       u->host, u->port, u->db);
}
