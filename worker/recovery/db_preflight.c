/* Preflight of a database recovery: everything that would make a later step fail is found here,
 * before anything was made. Reads only; in a fiber. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/statvfs.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/str.h"
#include "worker/backup/handle.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"
#include "worker/core/fiber.h"
#include "worker/recovery/db_drill.h"
#include "worker/recovery/resolve.h"

enum {
    LIST_MAX = 2048,
    LOCK_WAIT_MS = 10000,
    RESOLVE_POLL_MS = 500,
    SUPERUSER_LOOKS = 6,
    SUPERUSER_POLL_MS = 500
};

static enum dr_rc refuse(struct dr_err *err, const char *what, const char *list)
{
    return dr_fail(err, DR_E_PREFLIGHT, "%s%s", what, list);
}

/* The lines of a query's first column, joined; empty when there is no row. */
static enum dr_rc list_of(struct recovery *r, char out[LIST_MAX], struct dr_err *err,
                          const char *sql, const char *const *params)
{
    struct pg_rows *rows = NULL;
    out[0] = 0;
    if (pg_query(db_of(r)->lock, recovery_cancel(r), &rows, err, sql, params))
        return err->rc;
    for (unsigned i = 0; i < pg_rows_count(rows); i++) {
        size_t used = strlen(out);
        const char *value = pg_rows_value(rows, i, 0);
        (void)snprintf(out + used, LIST_MAX - used, "%s%s", i ? ", " : "", value ? value : "?");
    }
    pg_rows_free(rows);
    return DR_OK;
}

static unsigned dump_major(const struct recovery *r)
{
    const struct manifest *m = handle_manifest(r->backup);
    for (unsigned i = 0; i < m->server_count; i++)
        if (strcmp(m->server[i].name, "version_num") == 0)
            return (unsigned)strtoul(m->server[i].value, NULL, 10) / 10000;
    return 0;
}

static enum dr_rc check_server(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    unsigned have = (unsigned)pg_server_version(d->lock) / 10000, need = dump_major(r);
    char text[16];
    if (have < 13)
        return dr_fail(err, DR_E_PREFLIGHT, "the server is PostgreSQL %u, 13 is the oldest", have);
    if (need > have)
        return dr_fail(err, DR_E_PREFLIGHT,
                       "the dump is of PostgreSQL %u, the server is %u: a dump does not go back",
                       need, have);
    if (db_conn_text(r, d->lock, text, sizeof text, err, "SHOW is_superuser", NULL))
        return err->rc;
    d->superuser = strcmp(text, "on") == 0;
    if (db_conn_text(r, d->lock, text, sizeof text, err, "SELECT pg_catalog.pg_is_in_recovery()",
                     NULL))
        return err->rc;
    if (text[0] == 't')
        return refuse(err, "the server is a standby", "");
    return DR_OK;
}

/* A pooler that gives another server session to each transaction cannot hold a lock: while a second
 * client keeps the session that was just free, the first one lands elsewhere. */
static enum dr_rc check_pooler(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    struct pg_conn *other = NULL;
    char first[16], second[16] = "";
    if (db_conn_text(r, d->lock, first, sizeof first, err, "SELECT pg_catalog.pg_backend_pid()",
                     NULL) ||
        db_conn_open(r, d->maintenance, NULL, &other, err))
        return err->rc;
    enum dr_rc rc = pg_query(other, recovery_cancel(r), NULL, err, "BEGIN; SELECT 1", NULL);
    if (!rc)
        rc = db_conn_text(r, d->lock, second, sizeof second, err,
                          "SELECT pg_catalog.pg_backend_pid()", NULL);
    pg_close(other);
    if (!rc && strcmp(first, second) != 0)
        return refuse(err,
                      "a transaction-pooling proxy stands before the server: a recovery needs real "
                      "sessions, name the server itself in DATABASE_ADMIN_URL",
                      "");
    return rc;
}

static enum dr_rc check_live(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    char list[LIST_MAX];
    const char *const live[] = {d->live, NULL};
    if (db_lock_oid(r, d->live, &d->live_oid, err))
        return err->rc;
    d->live_lost = d->live_oid == 0;
    if (d->live_lost)
        return DR_OK; /* seen in the catalogue: there is nothing to protect */
    if (list_of(r, list, err, "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = $1",
                live))
        return err->rc;
    if (list[0])
        return refuse(err, "prepared transactions hold the live database: ", list);
    if (list_of(
            r, list, err,
            "SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE database = $1 AND active",
            live))
        return err->rc;
    if (list[0])
        return refuse(err, "active logical replication slots hold the live database: ", list);
    return DR_OK;
}

/* Whoever only looks in, as monitoring does, is gone a moment later. */
static enum dr_rc check_superusers(struct recovery *r, struct dr_err *err)
{
    const char *const live[] = {db_of(r)->live, NULL};
    char list[LIST_MAX] = "";
    for (unsigned i = 0; i < SUPERUSER_LOOKS; i++) {
        if ((i && fiber_sleep(SUPERUSER_POLL_MS, recovery_cancel(r))) ||
            list_of(r, list, err,
                    "SELECT DISTINCT a.usename FROM pg_catalog.pg_stat_activity a JOIN "
                    "pg_catalog.pg_roles s ON s.oid = a.usesysid WHERE a.datname = $1 AND "
                    "s.rolsuper",
                    live))
            return err->rc ? err->rc : dr_fail(err, DR_E_CANCELLED, "cancelled");
        if (!list[0])
            return DR_OK;
    }
    return refuse(err,
                  "sessions of superusers are connected, which only a superuser may end: ", list);
}

static enum dr_rc check_role(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    char list[LIST_MAX];
    const char *const live[] = {d->live, NULL};
    if (d->superuser)
        return DR_OK;
    if (list_of(r, list, err,
                "SELECT 'CREATEDB' WHERE NOT (SELECT rolcreatedb FROM pg_catalog.pg_roles WHERE "
                "rolname = current_user) UNION ALL SELECT 'membership in pg_signal_backend' WHERE "
                "NOT pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')",
                NULL))
        return err->rc;
    if (list[0])
        return refuse(err, "the role of DATABASE_ADMIN_URL lacks: ", list);
    if (list_of(
            r, list, err,
            "SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database WHERE datname "
            "= $1 AND NOT pg_catalog.pg_has_role(datdba, 'USAGE')",
            live))
        return err->rc;
    if (list[0])
        return refuse(
            err, "the role of DATABASE_ADMIN_URL is no member of the live database's owner ", list);
    return check_superusers(r, err);
}

static void add_text(struct dr_buf *b, const char *before, char *quoted, const char *after)
{
    dr_buf_str(b, before);
    dr_buf_str(b, quoted);
    dr_buf_str(b, after);
    free(quoted);
}

static enum dr_rc role_exists(struct recovery *r, const char *name, bool *exists, bool *member,
                              struct dr_err *err)
{
    const char *const params[] = {name, NULL};
    char text[16];
    if (db_conn_text(r, db_of(r)->lock, text, sizeof text, err,
                     "SELECT CASE WHEN pg_catalog.pg_has_role(oid, 'MEMBER') THEN 'member' ELSE "
                     "'other' END FROM pg_catalog.pg_roles WHERE rolname = $1",
                     params))
        return err->rc;
    *exists = text[0] != 0;
    *member = text[0] == 'm';
    return DR_OK;
}

static enum dr_rc look_up_role(struct recovery *r, const char *name, struct dr_buf *missing,
                               struct dr_err *err)
{
    bool exists = false, member = false;
    if (role_exists(r, name, &exists, &member, err))
        return err->rc;
    if (!exists)
        add_text(missing, missing->len ? " CREATE ROLE " : "CREATE ROLE ", pg_quote_ident(name),
                 ";");
    return DR_OK;
}

static enum dr_rc check_roles(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct db_expected *e = &d->expected;
    struct dr_buf missing;
    enum dr_rc rc = DR_OK;
    dr_buf_init(&missing, 400);
    for (size_t i = 0; i < d->names.role_count && !rc; i++)
        rc = look_up_role(r, d->names.roles[i], &missing, err);
    if (!rc && e->owner)
        rc = look_up_role(r, e->owner, &missing, err);
    for (unsigned i = 0; i < e->setting_count && !rc; i++)
        if (e->settings[i].role[0])
            rc = look_up_role(r, e->settings[i].role, &missing, err);
    if (!rc && missing.len)
        rc = dr_fail(err, DR_E_PREFLIGHT,
                     "roles of the backup are missing (their attributes are in globals.drb): %s",
                     (const char *)missing.data);
    dr_buf_fini(&missing);
    return rc;
}

/* Objects are given to their owners by ALTER … OWNER, which asks for membership. */
static enum dr_rc check_owner(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    bool exists = false, member = false;
    if (d->superuser || !d->expected.owner)
        return DR_OK;
    if (role_exists(r, d->expected.owner, &exists, &member, err))
        return err->rc;
    if (!member)
        return refuse(err, "the role of DATABASE_ADMIN_URL is no member of the backup's owner ",
                      d->expected.owner);
    return DR_OK;
}

/* ALTER ROLE … IN DATABASE … SET of another role is for those who may alter that role. */
static enum dr_rc check_settings(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    for (unsigned i = 0; i < d->expected.setting_count && !d->superuser; i++) {
        const char *const params[] = {d->expected.settings[i].role, NULL};
        char text[8];
        if (!params[0][0])
            continue;
        if (db_conn_text(r, d->lock, text, sizeof text, err,
                         "SELECT $1 = current_user OR rolcreaterole FROM pg_catalog.pg_roles WHERE "
                         "rolname = current_user",
                         params))
            return err->rc;
        if (text[0] != 't')
            return refuse(err, "only a role with CREATEROLE may restore the settings of role ",
                          params[0]);
    }
    return DR_OK;
}

static enum dr_rc check_extensions(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    for (size_t i = 0; i < d->names.extension_count; i++) {
        const char *const params[] = {d->names.extensions[i], NULL};
        char text[16];
        if (db_conn_text(r, d->lock, text, sizeof text, err,
                         "SELECT CASE WHEN bool_or(trusted OR NOT superuser) THEN 'any' WHEN "
                         "count(*) > 0 THEN 'superuser' END FROM "
                         "pg_catalog.pg_available_extension_versions WHERE name = $1",
                         params))
            return err->rc;
        if (!text[0])
            return refuse(err, "the server has no extension ", d->names.extensions[i]);
        if (text[0] == 's' && !d->superuser)
            return refuse(err, "only a superuser may create the untrusted extension ",
                          d->names.extensions[i]);
    }
    return DR_OK;
}

static enum dr_rc check_locale(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct db_expected *e = &d->expected;
    char text[16];
    if (e->tablespace && strcmp(e->tablespace, "pg_default") != 0) {
        const char *const space[] = {e->tablespace, NULL};
        if (db_conn_text(r, d->lock, text, sizeof text, err,
                         "SELECT 't' FROM pg_catalog.pg_tablespace WHERE spcname = $1 AND "
                         "pg_catalog.has_tablespace_privilege(oid, 'CREATE')",
                         space))
            return err->rc;
        if (!text[0])
            return refuse(err, "the server has no tablespace that we may use, named ",
                          e->tablespace);
    }
    const char *const names[] = {e->collate, e->ctype};
    for (size_t i = 0; i < 2; i++) {
        if (!names[i] || strcmp(names[i], "C") == 0 || strcmp(names[i], "POSIX") == 0)
            continue;
        const char *const params[] = {names[i], NULL};
        if (db_conn_text(
                r, d->lock, text, sizeof text, err,
                "SELECT 't' FROM pg_catalog.pg_database WHERE $1 IN (datcollate, datctype) UNION "
                "ALL SELECT 't' FROM pg_catalog.pg_collation WHERE lower(replace(collcollate, "
                "'-', '')) = lower(replace($1, '-', '')) LIMIT 1",
                params))
            return err->rc;
        if (!text[0])
            return refuse(err, "the server's system has no locale ", names[i]);
    }
    return DR_OK;
}

struct space {
    const char *path;
    uint64_t free_bytes;
    bool known;
};

static enum dr_rc ask_space(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct space *s = item;
    struct statvfs v;
    (void)cancel;
    (void)err;
    s->known = statvfs(s->path, &v) == 0;
    if (s->known)
        s->free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    return DR_OK;
}

static enum dr_rc demand_space(struct recovery *r, const char *what, const char *path,
                               uint64_t need, struct dr_err *err)
{
    struct space s = {.path = path};
    if (pool_run(r->env->pool, ask_space, &s, recovery_cancel(r), err))
        return err->rc;
    if (s.known && s.free_bytes < need)
        return dr_fail(err, DR_E_NO_SPACE, "%s %s: %llu MB free, %llu MB are needed", what, path,
                       (unsigned long long)(s.free_bytes >> 20),
                       (unsigned long long)((need >> 20) + 1));
    return DR_OK;
}

/* The restored database next to the live one, and the plain dump while pg_restore reads it. */
static enum dr_rc check_space(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct manifest_object *dump = manifest_object(handle_manifest(r->backup), "database");
    char folder[4096], data[4096] = "";
    uint64_t plain = dump ? dump->plain_bytes : 0;
    if (!d->dump && demand_space(r, "DR_WORK_DIRECTORY", db_restore_folder(r, folder), plain, err))
        return err->rc;
    struct dr_err hidden = {0}; /* not every role may see it, and it may lie on another machine */
    if (db_conn_text(r, d->lock, data, sizeof data, &hidden,
                     "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'",
                     NULL) ||
        !data[0])
        return DR_OK;
    return demand_space(r, "data folder of the server", data, plain * 13 / 10, err);
}

/* The lock, with no run that died past quiesce behind it: such a one is brought to its end first.
 */
static enum dr_rc take_target(struct recovery *r, struct dr_err *err)
{
    int64_t end = dr_clock_ms() + LOCK_WAIT_MS;
    for (;;) {
        char run[JOURNAL_RUN_BYTES + 1];
        struct dr_err why = {0};
        if (db_lock_take(r, LOCK_WAIT_MS, err))
            return err->rc;
        if (r->order.drill)
            return DR_OK;
        if (resolve_blocking(r, run, err))
            return err->rc;
        if (!run[0])
            return DR_OK;
        db_lock_drop(r);
        if (r->order.dry_run)
            return dr_fail(err, DR_E_LOCKED, "an interrupted recovery is open: journal/%s.log",
                           run);
        if (resolve_run(r->env, run, &why) && dr_clock_ms() > end)
            return dr_fail(err, DR_E_LOCKED, "an interrupted recovery is open: journal/%s.log: %s",
                           run, why.msg);
        if (why.rc && job_sleep(r->job, RESOLVE_POLL_MS, err))
            return err->rc;
    }
}

/* What of live would have a recovery refused: for a drill a finding, it does without live. */
static enum dr_rc check_target(struct recovery *r, struct dr_err *err)
{
    struct dr_err why = {0};
    if (check_live(r, &why) == DR_OK && check_role(r, &why) == DR_OK)
        return DR_OK;
    if (!r->order.drill || why.rc != DR_E_PREFLIGHT) {
        *err = why;
        return why.rc;
    }
    (void)snprintf(r->obstacle, sizeof r->obstacle, "%.*s", (int)sizeof r->obstacle - 1, why.msg);
    return DR_OK;
}

enum dr_rc db_preflight(struct recovery *r, struct dr_err *err)
{
    if (take_target(r, err) || check_server(r, err) || check_pooler(r, err) ||
        check_target(r, err) || db_expect_names(r, err) || check_roles(r, err) ||
        check_owner(r, err) || check_settings(r, err) || check_extensions(r, err) ||
        check_locale(r, err) || check_space(r, err))
        return err->rc;
    return recovery_is_exercise(r) ? db_exercise_prepare(r, err) : DR_OK;
}
