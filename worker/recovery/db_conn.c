/* Sessions of a database recovery, single values, statements with quoted names. In a fiber. */
#include "worker/recovery/db_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/str.h"

enum { STATEMENT_MS = 600000, CONNECT_MS = 10000, SQL_MAX = 1 << 20 };

struct db *db_of(struct recovery *r)
{
    return r->own;
}

enum dr_rc db_conn_urls(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct dr_secret *app = dr_config_secret(r->env->config, "DATABASE_URL");
    const struct dr_secret *admin = dr_config_secret(r->env->config, "DATABASE_ADMIN_URL");
    if (d->maintenance)
        return DR_OK;
    if (app->len == 0)
        return dr_fail(err, DR_E_CONFIG, "DATABASE_URL is not set: no database is protected");
    if (dr_pg_url_parse((const char *)app->bytes, &d->app, err))
        return dr_wrap(err, "DATABASE_URL");
    if (dr_pg_url_parse((const char *)(admin->len ? admin : app)->bytes, &d->admin, err))
        return dr_wrap(err, "DATABASE_ADMIN_URL");
    d->maintenance = dr_config_str(r->env->config, "PG_MAINTENANCE_DATABASE");
    (void)snprintf(d->live, sizeof d->live, "%.255s",
                   recovery_is_exercise(r) ? r->order.target : d->app.dbname);
    if (strlen(d->live) > DB_LIVE_MAX)
        return dr_fail(
            err, DR_E_PREFLIGHT,
            "database name %s: over %d bytes, no room for the names of a recovery beside "
            "it",
            d->live, (int)DB_LIVE_MAX);
    if (strcmp(d->live, d->maintenance) == 0)
        return dr_fail(err, DR_E_PREFLIGHT,
                       "PG_MAINTENANCE_DATABASE is the protected database %s itself", d->live);
    (void)snprintf(d->scratch, sizeof d->scratch, "%s__dr_%s", d->live, r->run);
    (void)snprintf(d->before, sizeof d->before, "%s__before_%s", d->live, r->run);
    return DR_OK;
}

enum dr_rc db_conn_open(struct recovery *r, const char *dbname, const char *options,
                        struct pg_conn **out, struct dr_err *err)
{
    char all[512];
    int n = snprintf(all, sizeof all, "%s%s%s", PG_NO_TIMEOUTS, options ? " " : "",
                     options ? options : "");
    if (n < 0 || (size_t)n >= sizeof all)
        return dr_fail(err, DR_E_BUG, "options of a session are too long");
    const struct pg_options o = {.dbname = dbname,
                                 .application_name = "drworker",
                                 .options = all,
                                 .connect_ms = CONNECT_MS,
                                 .statement_ms = STATEMENT_MS};
    return pg_connect(r->env->loop, r->env->pool, &db_of(r)->admin, &o, recovery_cancel(r), out,
                      err);
}

enum dr_rc db_conn_text(struct recovery *r, struct pg_conn *c, char *out, size_t size,
                        struct dr_err *err, const char *sql, const char *const *params)
{
    struct pg_rows *rows = NULL;
    out[0] = 0;
    if (pg_query(c, recovery_cancel(r), &rows, err, sql, params))
        return err->rc;
    const char *value = pg_rows_value(rows, 0, 0);
    (void)snprintf(out, size, "%s", value ? value : "");
    pg_rows_free(rows);
    return DR_OK;
}

enum dr_rc db_conn_u64(struct recovery *r, struct pg_conn *c, uint64_t *out, struct dr_err *err,
                       const char *sql, const char *const *params)
{
    char text[32];
    *out = 0;
    if (db_conn_text(r, c, text, sizeof text, err, sql, params))
        return err->rc;
    if (text[0] && !dr_parse_u64(text, 0, UINT64_MAX, out))
        return dr_fail(err, DR_E_PROTOCOL, "not a number where one was asked for: %.20s", text);
    return DR_OK;
}

static void add_quoted(struct dr_buf *b, char *quoted)
{
    dr_buf_str(b, quoted);
    free(quoted);
}

static char *format(const char *fmt, va_list ap)
{
    struct dr_buf b;
    dr_buf_init(&b, SQL_MAX);
    for (const char *p = fmt; *p; p++) {
        if (*p != '%') {
            dr_buf_add(&b, p, 1);
            continue;
        }
        switch (*++p) {
        case 'I':
            add_quoted(&b, pg_quote_ident(va_arg(ap, const char *)));
            break;
        case 'L':
            add_quoted(&b, pg_quote_literal(va_arg(ap, const char *)));
            break;
        case 's':
            dr_buf_str(&b, va_arg(ap, const char *));
            break;
        default:
            abort(); /* a typo in a constant */
        }
    }
    return b.failed ? NULL : dr_buf_take(&b);
}

char *db_conn_format(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *sql = format(fmt, ap);
    va_end(ap);
    return sql;
}

enum dr_rc db_conn_run(struct recovery *r, struct pg_conn *c, struct dr_err *err, const char *fmt,
                       ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *sql = format(fmt, ap);
    va_end(ap);
    if (!sql)
        return dr_fail(err, DR_E_TOO_BIG, "a statement of over %d bytes", (int)SQL_MAX);
    enum dr_rc rc = pg_query(c, recovery_cancel(r), NULL, err, sql, NULL);
    free(sql);
    return rc;
}
