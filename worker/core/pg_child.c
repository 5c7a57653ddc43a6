/* What PostgreSQL's own tools need: where they are, how they reach a database, and the quoting of
 * names. The password goes into a sealed memfd of the environment's owner, nowhere else. */
#include "worker/core/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/core/proc.h"

enum { ENV_MAX = 24, VERSION_MS = 10000 };

static char *quote(const char *prefix, char mark, const char *text, bool double_backslash)
{
    size_t n = strlen(prefix), len = strlen(text);
    char *out = dr_xarray(2, len + n + 3), *at = out;
    memcpy(at, prefix, n);
    at += n;
    *at++ = mark;
    for (; *text; text++) {
        if (*text == mark || (double_backslash && *text == '\\'))
            *at++ = *text;
        *at++ = *text;
    }
    *at++ = mark;
    return out;
}

char *pg_quote_ident(const char *name)
{
    return quote("", '"', name, false);
}

/* With a backslash as E'…', which means the same whatever standard_conforming_strings says. */
char *pg_quote_literal(const char *text)
{
    return strchr(text, '\\') ? quote(" E", '\'', text, true) : quote("", '\'', text, false);
}

static void add(struct pg_child_env *e, const char *name, const char *value)
{
    unsigned n = 0;
    while (e->env[n])
        n++;
    if (value && value[0] && n + 1 < ENV_MAX)
        e->env[n] = dr_xasprintf("%s=%s", name, value);
}

/* One line that matches whatever the tool connects to; ':' and '\' are escaped in it. */
static enum dr_rc password_file(struct pg_child_env *e, const struct dr_pg_url *url,
                                struct dr_err *err)
{
    size_t n = 0;
    char name[40], *text = dr_xalloc(url->password.len * 2 + 16);
    for (const char *s = "*:*:*:*:"; *s; s++)
        text[n++] = *s;
    for (size_t i = 0; i < url->password.len; i++) {
        if (url->password.bytes[i] == ':' || url->password.bytes[i] == '\\')
            text[n++] = '\\';
        text[n++] = (char)url->password.bytes[i];
    }
    text[n++] = '\n';
    e->keep_fds[0] = proc_memfd("pgpass", text, n, err);
    dr_wipe(text, n);
    free(text);
    if (e->keep_fds[0] < 0)
        return err ? err->rc : DR_E_IO;
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", e->keep_fds[0]);
    add(e, "PGPASSFILE", name);
    return DR_OK;
}

enum dr_rc pg_child_env_new(const struct dr_pg_url *url, const char *dbname, const char *pgoptions,
                            struct pg_child_env **out, struct dr_err *err)
{
    struct pg_child_env *e = dr_xalloc(sizeof *e);
    char options[1024], seconds[16];
    const char *path = getenv("PATH"), *more = pgoptions ? pgoptions : "";
    enum dr_rc rc = DR_OK;
    *out = NULL;
    e->env = dr_xarray(ENV_MAX, sizeof *e->env);
    e->keep_fds[0] = e->keep_fds[1] = -1;
    uint64_t ms = url->connect_timeout_ms ? url->connect_timeout_ms : 10000;
    (void)snprintf(seconds, sizeof seconds, "%u", (unsigned)(ms / 1000));
    size_t n = (size_t)snprintf(options, sizeof options, "%s%s%s", url->options,
                                url->options[0] && more[0] ? " " : "", more);
    add(e, "PATH", path ? path : "/usr/bin:/bin");
    add(e, "LC_ALL", "C");
    add(e, "PGHOST", url->host);
    add(e, "PGPORT", url->port);
    add(e, "PGUSER", url->user);
    add(e, "PGDATABASE", dbname ? dbname : url->dbname);
    add(e, "PGSSLMODE", url->sslmode);
    add(e, "PGSSLROOTCERT", url->sslrootcert);
    add(e, "PGSSLCERT", url->sslcert);
    add(e, "PGSSLKEY", url->sslkey);
    add(e, "PGAPPNAME", url->application_name[0] ? url->application_name : "drworker");
    add(e, "PGOPTIONS", options);
    add(e, "PGCONNECT_TIMEOUT", seconds);
    if (n >= sizeof options)
        rc = dr_fail(err, DR_E_CONFIG, "options for the server are too long");
    else if (url->password.len)
        rc = password_file(e, url, err);
    else { /* then libpq looks where it would look for us */
        add(e, "PGPASSFILE", getenv("PGPASSFILE"));
        add(e, "HOME", getenv("HOME"));
    }
    if (rc) {
        pg_child_env_free(e);
        return rc;
    }
    *out = e;
    return DR_OK;
}

void pg_child_env_free(struct pg_child_env *e)
{
    if (!e)
        return;
    for (unsigned i = 0; e->env[i]; i++)
        free(e->env[i]);
    if (e->keep_fds[0] >= 0)
        (void)close(e->keep_fds[0]);
    free(e->env);
    free(e);
}

/* "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)" -> 15; 0: not of that kind. */
static unsigned major_of(const char *text)
{
    uint64_t n;
    char digits[8];
    const char *at = strstr(text, "(PostgreSQL) ");
    if (!at)
        return 0;
    at += 13;
    size_t len = strspn(at, "0123456789");
    if (!len || len >= sizeof digits)
        return 0;
    memcpy(digits, at, len);
    digits[len] = 0;
    return dr_parse_u64(digits, 1, 1000, &n) ? (unsigned)n : 0;
}

struct search {
    struct loop *loop;
    struct cancel *cancel;
    const char *tool;
    unsigned major;
    char *out;
    char seen[256]; /* others that were found */
};

/* Asks the tool in folder (len bytes) for its version. The child looks whether it is there: a
 * folder may hang. DR_OK and out[0] set: that is it. */
static enum dr_rc try_folder(struct search *s, const char *folder, size_t len, struct dr_err *err)
{
    char path[4096];
    struct proc_result r;
    struct dr_err own = {0};
    const char *const argv[] = {path, "--version", NULL};
    if (!len ||
        (size_t)snprintf(path, sizeof path, "%.*s/%s", (int)len, folder, s->tool) >= sizeof path)
        return DR_OK;
    struct proc_spec spec = {
        .argv = argv, .capture_max_bytes = 4096, .deadline_ms = VERSION_MS, .name = s->tool};
    if (proc_run(s->loop, &spec, s->cancel, &r, &own)) {
        if (cancel_fired(s->cancel)) {
            if (err && !err->rc)
                *err = own;
            return own.rc;
        }
        return DR_OK;
    }
    unsigned found = r.out.data ? major_of((const char *)r.out.data) : 0;
    dr_buf_fini(&r.out);
    size_t n = strlen(s->seen);
    if (found == s->major)
        memcpy(s->out, path, strlen(path) + 1);
    else if (found)
        (void)snprintf(s->seen + n, sizeof s->seen - n, "%s%s is of %u", n ? ", " : "", path,
                       found);
    return DR_OK;
}

enum dr_rc pg_tool_path(struct loop *l, struct cancel *cancel, const char *bin_dir, unsigned major,
                        const char *tool, char out[4096], struct dr_err *err)
{
    struct search s = {.loop = l, .cancel = cancel, .tool = tool, .major = major, .out = out};
    char folder[64];
    enum dr_rc rc;
    out[0] = 0;
    if (bin_dir && bin_dir[0]) {
        rc = try_folder(&s, bin_dir, strlen(bin_dir), err);
    } else {
        const char *path = getenv("PATH");
        (void)snprintf(folder, sizeof folder, "/usr/lib/postgresql/%u/bin", major);
        rc = try_folder(&s, folder, strlen(folder), err);
        while (!rc && !out[0] && path && *path) {
            size_t len = strcspn(path, ":");
            if (path[0] == '/')
                rc = try_folder(&s, path, len, err);
            path += len + (path[len] == ':');
        }
    }
    if (rc || out[0])
        return rc;
    return dr_fail(err, DR_E_PREFLIGHT, "no %s of PostgreSQL %u%s%s%s%s", tool, major,
                   bin_dir && bin_dir[0] ? " in " : ", set PG_BIN_DIR",
                   bin_dir && bin_dir[0] ? bin_dir : "", s.seen[0] ? ": " : "", s.seen);
}
