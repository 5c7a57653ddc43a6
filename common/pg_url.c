/* Database URLs. A password may stand anywhere in a mistyped one, so that no error shows a part. */
#include "common/pg_url.h"

#include <stdio.h>
#include <string.h>

#include "common/str.h"

enum { URL_MAX = 4096, VALUE_MAX = 1024 };

/* false: bad escape, control character (a password file could not hold it), too long. */
static bool decode(const char *s, size_t len, char *out, size_t size)
{
    if (!dr_percent_decode(s, len, out, size))
        return false;
    for (const char *p = out; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return dr_utf8_valid(out, strlen(out));
}

/* Sets a text once; a second time it must be the same. */
static bool set(char *field, size_t size, const char *value)
{
    if (field[0])
        return strcmp(field, value) == 0;
    if (strlen(value) >= size)
        return false;
    memcpy(field, value, strlen(value) + 1);
    return true;
}

static bool set_password(struct dr_pg_url *u, const char *value)
{
    size_t len = strlen(value);
    if (u->password.len)
        return u->password.len == len && memcmp(u->password.bytes, value, len) == 0;
    if (len)
        dr_secret_set(&u->password, value, len);
    return true;
}

static bool set_port(struct dr_pg_url *u, const char *value)
{
    uint64_t n;
    return dr_parse_u64(value, 1, 65535, &n) && set(u->port, sizeof u->port, value);
}

static bool is_one_of(const char *value, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(value, *list) == 0)
            return true;
    return false;
}

static bool set_sslmode(struct dr_pg_url *u, const char *value)
{
    static const char *const modes[] = {"disable",   "allow",       "prefer", "require",
                                        "verify-ca", "verify-full", NULL};
    return is_one_of(value, modes) && set(u->sslmode, sizeof u->sslmode, value);
}

static bool set_ssl(struct dr_pg_url *u, const char *value)
{
    return set_sslmode(u, strcmp(value, "true") == 0 ? "require" : value);
}

/* As libpq: 0 is no limit of its own, here our default. */
static bool set_timeout(struct dr_pg_url *u, const char *value)
{
    uint64_t seconds;
    if (!dr_parse_u64(value, 0, 3600, &seconds))
        return false;
    u->connect_timeout_ms = seconds * 1000;
    return true;
}

static bool no_pgbouncer(struct dr_pg_url *u, const char *value)
{
    (void)u;
    return strcmp(value, "false") == 0;
}

#define TEXT_KEY(name)                                                                             \
    static bool set_##name(struct dr_pg_url *u, const char *value)                                 \
    {                                                                                              \
        return set(u->name, sizeof u->name, value);                                                \
    }
TEXT_KEY(host)
TEXT_KEY(user)
TEXT_KEY(dbname)
TEXT_KEY(sslrootcert)
TEXT_KEY(sslcert)
TEXT_KEY(sslkey)
TEXT_KEY(application_name)
TEXT_KEY(options)

static const struct key {
    const char *name;
    bool (*set)(struct dr_pg_url *u, const char *value);
} keys[] = {
    {"host", set_host},
    {"port", set_port},
    {"user", set_user},
    {"password", set_password},
    {"dbname", set_dbname},
    {"sslmode", set_sslmode},
    {"ssl", set_ssl},
    {"sslrootcert", set_sslrootcert},
    {"sslcert", set_sslcert},
    {"sslkey", set_sslkey},
    {"application_name", set_application_name},
    {"connect_timeout", set_timeout},
    {"options", set_options},
    {"pgbouncer", no_pgbouncer},
};

static const char *const ignored[] = {"client_encoding",
                                      "charset",
                                      "fallback_application_name",
                                      "gssencmode",
                                      "keepalives",
                                      "keepalives_idle",
                                      "keepalives_interval",
                                      "keepalives_count",
                                      "tcp_user_timeout",
                                      "target_session_attrs",
                                      "schema",
                                      "async_fallback",
                                      "connection_limit",
                                      "pool_timeout",
                                      "prepared_statement_cache_size",
                                      "prepared_statement_name_func",
                                      NULL};

/* NULL, or what is wrong; then key is ours, or "": others may be a part of a password. */
static const char *pair(const char *s, size_t len, struct dr_pg_url *u, char key[64])
{
    char value[VALUE_MAX];
    const char *eq = memchr(s, '=', len);
    if (!eq || !decode(s, (size_t)(eq - s), key, 64)) {
        key[0] = 0;
        return "a query that is not key=value&...";
    }
    if (is_one_of(key, ignored))
        return NULL;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(keys[i].name, key) == 0) {
            bool ok = decode(eq + 1, len - (size_t)(eq - s) - 1, value, sizeof value) &&
                      keys[i].set(u, value);
            dr_wipe(value, sizeof value);
            return ok ? NULL : "a value that is not allowed, or given twice";
        }
    key[0] = 0;
    return "a query key that is not known (host, port, user, password, dbname, sslmode, "
           "sslrootcert, sslcert, sslkey, application_name, connect_timeout, options)";
}

static const char *query(const char *s, struct dr_pg_url *u, char key[64])
{
    const char *why = NULL;
    while (*s && !why) {
        size_t len = strcspn(s, "&");
        why = pair(s, len, u, key);
        s += len + (s[len] == '&');
    }
    if (!why)
        key[0] = 0;
    return why;
}

static const char *user_info(const char *s, size_t len, struct dr_pg_url *u)
{
    char password[VALUE_MAX];
    const char *colon = memchr(s, ':', len);
    size_t user_len = colon ? (size_t)(colon - s) : len;
    if (!decode(s, user_len, u->user, sizeof u->user))
        return "a user that cannot be read";
    if (!colon)
        return NULL;
    bool ok = decode(colon + 1, len - user_len - 1, password, sizeof password) &&
              set_password(u, password);
    dr_wipe(password, sizeof password);
    return ok ? NULL : "a password that cannot be read (is % written as %25?)";
}

static const char *host_port(const char *s, size_t len, struct dr_pg_url *u)
{
    static const char BAD[] = "a host or port that cannot be read (is / in the password written as "
                              "%2F, @ as %40?)";
    char port[8];
    const char *end = s + len, *colon;
    if (len && *s == '[') { /* IPv6 */
        const char *close = memchr(s, ']', len);
        if (!close || (close + 1 != end && close[1] != ':'))
            return BAD;
        colon = close + 1 == end ? NULL : close + 1;
        if (!decode(s + 1, (size_t)(close - s) - 1, u->host, sizeof u->host))
            return BAD;
    } else {
        if (memchr(s, ',', len))
            return "several hosts: name the primary";
        colon = memchr(s, ':', len);
        if (!decode(s, colon ? (size_t)(colon - s) : len, u->host, sizeof u->host))
            return BAD;
    }
    if (!colon || colon + 1 == end)
        return NULL;
    return decode(colon + 1, (size_t)(end - colon) - 1, port, sizeof port) && set_port(u, port)
               ? NULL
               : BAD;
}

/* Behind the scheme; NULL for a scheme that is not ours. */
static const char *after_scheme(const char *url)
{
    size_t n;
    if (dr_starts(url, "postgres://"))
        return url + 11;
    if (!dr_starts(url, "postgresql"))
        return NULL;
    url += 10;
    if (*url == '+') { /* SQLAlchemy's driver */
        n = strspn(url + 1, "abcdefghijklmnopqrstuvwxyz0123456789_");
        if (!n)
            return NULL;
        url += 1 + n;
    }
    return dr_starts(url, "://") ? url + 3 : NULL;
}

static const char *parse(const char *url, struct dr_pg_url *u, char key[64])
{
    const char *s, *why, *at = NULL;
    if (strlen(url) > URL_MAX)
        return "too long";
    if (!(s = after_scheme(url)))
        return "not postgresql://[user[:password]@][host][:port]/dbname";
    size_t len = strcspn(s, "?"), authority = strcspn(s, "/?");
    for (size_t i = 0; i < authority; i++)
        if (s[i] == '@')
            at = s + i;
    if (at && (why = user_info(s, (size_t)(at - s), u)))
        return why;
    const char *rest = at ? at + 1 : s;
    if ((why = host_port(rest, authority - (size_t)(rest - s), u)))
        return why;
    if (authority < len) {
        const char *name = s + authority + 1;
        size_t n = len - authority - 1;
        if (memchr(name, '@', n) || memchr(name, '/', n) ||
            !decode(name, n, u->dbname, sizeof u->dbname))
            return "a database name that cannot be read";
    }
    if (s[len] == '?' && (why = query(s + len + 1, u, key)))
        return why;
    if (strchr(u->host, ','))
        return "several hosts: name the primary";
    if (!u->dbname[0] && !set(u->dbname, sizeof u->dbname, u->user))
        return "a database name that cannot be read";
    return u->dbname[0] ? NULL : "no database name";
}

enum dr_rc dr_pg_url_parse(const char *url, struct dr_pg_url *out, struct dr_err *err)
{
    char key[64] = "";
    memset(out, 0, sizeof *out);
    const char *why = parse(url, out, key);
    if (why) {
        dr_pg_url_free(out);
        return dr_fail(err, DR_E_CONFIG, "database URL: %s%s%s", key, key[0] ? ": " : "", why);
    }
    (void)(out->port[0] || set(out->port, sizeof out->port, "5432"));
    (void)(out->sslmode[0] || set(out->sslmode, sizeof out->sslmode, "prefer"));
    return DR_OK;
}

void dr_pg_url_free(struct dr_pg_url *u)
{
    dr_secret_free(&u->password);
}

void dr_pg_url_show(const struct dr_pg_url *u, char out[512])
{
    bool v6 = strchr(u->host, ':') && u->host[0] != '/';
    if (!u->host[0] || u->host[0] == '/')
        (void)snprintf(out, 512, "postgresql:///%s?host=%s&port=%s", u->dbname, u->host, u->port);
    else
        (void)snprintf(out, 512, "postgresql://%s%s%s:%s/%s", v6 ? "[" : "", u->host, v6 ? "]" : "",
                       u->port, u->dbname);
}
