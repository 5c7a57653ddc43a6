/* drworker check: the database, the tools of its major, and what the role may do. */
#include <stdio.h>
#include <string.h>

#include "worker/cli/check.h"
#include "worker/backup/store.h"
#include "worker/core/pg.h"
#include "worker/core/pool.h"
#include "worker/recovery/rehearse.h"

enum { CONNECT_MS = 5000, STATEMENT_MS = 10000, LIVE_NAME_MAX = 38, OLDEST_MAJOR = 13 };

static bool not_configured(struct check *c, struct dr_buf *detail)
{
    if (dr_config_secret(c->config, "DATABASE_URL")->len)
        return false;
    c->skipped = true;
    dr_buf_str(detail, "DATABASE_URL is not set");
    return true;
}

static enum dr_rc parse(struct check *c, const char *option, struct dr_pg_url *out,
                        struct dr_err *err)
{
    const struct dr_secret *url = dr_config_secret(c->config, option);
    if (!url->len)
        url = dr_config_secret(c->config, option = "DATABASE_URL");
    return dr_pg_url_parse((const char *)url->bytes, out, err) ? dr_wrap(err, "%s", option) : DR_OK;
}

static enum dr_rc reach(struct check *c, const struct dr_pg_url *url, const char *dbname,
                        struct pg_conn **out, struct dr_err *err)
{
    const struct pg_options o = {.dbname = dbname,
                                 .application_name = "drworker-check",
                                 .connect_ms = CONNECT_MS,
                                 .statement_ms = STATEMENT_MS};
    char shown[512];
    dr_pg_url_show(url, shown);
    return pg_connect(c->loop, c->pool, url, &o, NULL, out, err) ? dr_wrap(err, "%s", shown)
                                                                 : DR_OK;
}

enum dr_rc check_database(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    struct dr_pg_url url = {0};
    struct pg_conn *conn = NULL;
    char shown[512];
    if (not_configured(c, detail))
        return DR_OK;
    enum dr_rc rc = parse(c, "DATABASE_URL", &url, err);
    if (!rc && !(rc = reach(c, &url, NULL, &conn, err))) {
        int version = pg_server_version(conn);
        c->server_major = (unsigned)version / 10000;
        dr_pg_url_show(&url, shown);
        dr_buf_printf(detail, "%s, PostgreSQL %d.%d", shown, version / 10000, version % 10000);
        if (c->server_major < OLDEST_MAJOR)
            rc = dr_fail(err, DR_E_PREFLIGHT, "PostgreSQL %u: %d is the oldest", c->server_major,
                         OLDEST_MAJOR);
    }
    pg_close(conn);
    dr_pg_url_free(&url);
    return rc;
}

enum dr_rc check_tools(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    static const char *const tools[] = {"pg_dump", "pg_dumpall", "pg_restore"};
    char path[4096];
    if (!c->server_major) {
        c->skipped = true;
        dr_buf_str(detail, "no server was reached");
        return DR_OK;
    }
    for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++) {
        if (pg_tool_path(c->loop, NULL, dr_config_str(c->config, "PG_BIN_DIR"), c->server_major,
                         tools[i], path, err))
            return err->rc;
        dr_buf_printf(detail, "%s%s", i ? ", " : "", path);
    }
    return DR_OK;
}

/* What the role of DATABASE_ADMIN_URL lacks, one a row; $1: the live database. */
static const char lacks[] =
    "WITH me AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = current_user) "
    "SELECT 'CREATEDB' FROM me WHERE NOT rolcreatedb AND NOT rolsuper "
    "UNION ALL SELECT 'membership in pg_signal_backend' WHERE NOT "
    "pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') "
    "UNION ALL SELECT 'membership in ' || pg_catalog.quote_ident("
    "pg_catalog.pg_get_userbyid(datdba)) || ', the owner of ' || pg_catalog.quote_ident(datname) "
    "FROM pg_catalog.pg_database WHERE datname = $1 AND NOT pg_catalog.pg_has_role(datdba, "
    "'USAGE') "
    "UNION ALL SELECT 'a server that is no standby' WHERE pg_catalog.pg_is_in_recovery()";

static enum dr_rc ask_role(struct pg_conn *conn, const char *live, struct dr_buf *detail,
                           struct dr_err *err)
{
    const char *const params[] = {live, NULL};
    struct pg_rows *rows = NULL;
    struct dr_buf list;
    enum dr_rc rc = pg_query(conn, NULL, &rows, err, lacks, params);
    if (rc)
        return rc;
    dr_buf_init(&list, 400);
    for (unsigned i = 0; i < pg_rows_count(rows); i++)
        dr_buf_printf(&list, "%s%s", i ? ", " : "", pg_rows_value(rows, i, 0));
    if (pg_rows_count(rows))
        rc = dr_fail(err, DR_E_PREFLIGHT, "the role of DATABASE_ADMIN_URL lacks: %s",
                     list.data ? (const char *)list.data : "?");
    else
        dr_buf_str(detail, "may create, rename and end the sessions of the live database");
    dr_buf_fini(&list);
    pg_rows_free(rows);
    return rc;
}

enum dr_rc check_role(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    const char *maintenance = dr_config_str(c->config, "PG_MAINTENANCE_DATABASE");
    struct dr_pg_url live = {0}, admin = {0};
    struct pg_conn *conn = NULL;
    if (not_configured(c, detail))
        return DR_OK;
    enum dr_rc rc = parse(c, "DATABASE_URL", &live, err);
    if (!rc)
        rc = parse(c, "DATABASE_ADMIN_URL", &admin, err);
    if (!rc && strlen(live.dbname) > LIVE_NAME_MAX)
        rc = dr_fail(err, DR_E_PREFLIGHT, "the database's name is over %d bytes", LIVE_NAME_MAX);
    if (!rc && strcmp(live.dbname, maintenance) == 0)
        rc = dr_fail(err, DR_E_PREFLIGHT,
                     "PG_MAINTENANCE_DATABASE is the live database itself: locks live elsewhere");
    if (!rc && !(rc = reach(c, &admin, maintenance, &conn, err)))
        rc = ask_role(conn, live.dbname, detail, err);
    pg_close(conn);
    dr_pg_url_free(&live);
    dr_pg_url_free(&admin);
    return rc;
}

struct opening {
    const struct dr_config *config;
    struct store *store;
};

static enum dr_rc open_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct opening *o = item;
    (void)cancel;
    return store_open(o->config, STORE_READ, &o->store, err);
}

enum dr_rc check_restore(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    struct opening o = {.config = c->config};
    struct dr_err why = {0};
    struct rehearsed found = {0};
    char passed[STORE_PASSED_TEXT];
    if (!c->server_major || pool_run(c->pool, open_item, &o, NULL, &why)) {
        c->skipped = true; /* its own item has said why */
        dr_buf_str(detail, c->server_major ? "no store was opened" : "no server was reached");
        return DR_OK;
    }
    const struct job_services env = {.loop = c->loop,
                                     .pool = c->pool,
                                     .config = c->config,
                                     .ns = dr_config_str(c->config, "DR_NAMESPACE"),
                                     .store = o.store};
    enum dr_rc rc = rehearse_database(&env, NULL, &found, err);
    if (rc == DR_E_NOT_FOUND) {
        c->skipped = true;
        dr_buf_str(detail, err->msg);
        dr_err_clear(err);
        rc = DR_OK;
    } else if (!rc) {
        store_passed_text(&found.passed, passed, sizeof passed);
        dr_buf_printf(detail, "%s could be restored here%s%s", found.backup_id,
                      passed[0] ? "; " : "", passed);
    }
    store_close(o.store);
    return rc;
}
