/* Databases that recoveries left. Under the lock of the live one it is looked at and renamed to a
 * name of its own, in one transaction that compares the OID while nobody else can rename it; then
 * the lock is given away, since a drop may take long and a recovery must not wait for it. Never
 * WITH (FORCE): the server itself refuses what anybody is connected to. In a fiber. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "worker/core/fault.h"
#include "worker/recovery/cleanup_internal.h"
#include "worker/recovery/db_internal.h"

/* Whoever uses it, in words; "" for nobody. The server sends autovacuum away by itself. An inactive
 * logical slot would go with the database: whoever made it still wants something. */
#define USERS                                                                                      \
    "SELECT pg_catalog.concat_ws('; ', CASE WHEN d.datistemplate THEN 'it is marked as a "         \
    "template' END, (SELECT 'sessions of ' || pg_catalog.string_agg(DISTINCT "                     \
    "coalesce(a.usename, a.backend_type), ', ') FROM pg_catalog.pg_stat_activity a WHERE a.datid " \
    "= d.oid AND a.backend_type IS DISTINCT FROM 'autovacuum worker' HAVING count(*) > 0), "       \
    "(SELECT 'replication slots ' || pg_catalog.string_agg(s.slot_name, ', ') FROM "               \
    "pg_catalog.pg_replication_slots s WHERE s.datoid = d.oid HAVING count(*) > 0), (SELECT "      \
    "'subscriptions ' || pg_catalog.string_agg(u.subname, ', ') FROM pg_catalog.pg_subscription "  \
    "u WHERE u.subdbid = d.oid HAVING count(*) > 0), (SELECT 'prepared transactions' FROM "        \
    "pg_catalog.pg_prepared_xacts x WHERE x.database = d.datname HAVING count(*) > 0)) FROM "      \
    "pg_catalog.pg_database d WHERE d.oid = $1::pg_catalog.oid"

struct dropping {
    struct leftover *l;
    char oid[16], doomed[DB_NAME_MAX + 1];
    char named[256]; /* what the database of that OID is called now; "": there is none */
};

static enum dr_rc ask(struct dropping *x, struct pg_conn *c, char *out, size_t size,
                      struct dr_err *err, const char *sql)
{
    const char *const params[] = {x->oid, NULL};
    return db_conn_text(x->l->r, c, out, size, err, sql, params);
}

static enum dr_rc oid_of(struct dropping *x, struct pg_conn *c, const char *name, uint64_t *out,
                         struct dr_err *err)
{
    const char *const params[] = {name, NULL};
    return db_conn_u64(x->l->r, c, out, err,
                       "SELECT oid FROM pg_catalog.pg_database WHERE datname = $1", params);
}

static enum dr_rc name_of(struct dropping *x, struct pg_conn *c, struct dr_err *err)
{
    return ask(x, c, x->named, sizeof x->named, err,
               "SELECT datname FROM pg_catalog.pg_database WHERE oid = $1::pg_catalog.oid");
}

/* No longer the run's: somebody has taken it over. */
static enum dr_rc taken_over(struct dropping *x)
{
    struct leftover *l = x->l;
    if (strcmp(x->named, db_of(l->r)->live) == 0)
        (void)cleanup_keep(l, "it is the live database %s again", x->named);
    else
        (void)cleanup_keep(l, "somebody has renamed it to %s and cares for it", x->named);
    l->fate = LEFTOVER_FOREIGN;
    return DR_OK;
}

/* A size that the role may not see is no reason to keep it. */
static void measure(struct dropping *x, struct pg_conn *c)
{
    const char *const params[] = {x->oid, NULL};
    struct dr_err ignored = {0};
    if (db_conn_u64(x->l->r, c, &x->l->bytes, &ignored,
                    "SELECT pg_catalog.pg_database_size($1::pg_catalog.oid)", params))
        x->l->bytes = 0;
}

static void roll_back(struct recovery *r, struct pg_conn *c)
{
    struct dr_err ignored = {0};
    if (pg_alive(c) && pg_query(c, NULL, NULL, &ignored, "ROLLBACK", NULL))
        dr_log_err(DR_LOG_WARN, "cleanup.rollback", &ignored, "run", r->run, NULL);
}

/* The rename holds the database exclusively until the commit: what bears the new name then is what
 * was renamed. */
static enum dr_rc rename_checked(struct dropping *x, struct pg_conn *c, const char *from,
                                 const char *to, struct dr_err *err)
{
    struct recovery *r = x->l->r;
    uint64_t oid = 0;
    if (pg_query(c, NULL, NULL, err, "BEGIN", NULL))
        return err->rc;
    if (db_conn_run(r, c, err, "ALTER DATABASE %I RENAME TO %I", from, to) ||
        oid_of(x, c, to, &oid, err) ||
        (oid != x->l->id &&
         dr_fail(err, DR_E_LOCKED, "another database has taken the name %s", from)) ||
        pg_query(c, NULL, NULL, err, "COMMIT", NULL))
        roll_back(r, c);
    return err->rc;
}

/* Refused by the server because somebody uses it, or because another one got its name. */
static bool is_refusal(const struct dr_err *err)
{
    return err->rc == DR_E_LOCKED || (err->rc == DR_E_SQL && strcmp(err->reason, "55006") == 0);
}

static enum dr_rc doom(struct dropping *x, struct dr_err *err)
{
    struct leftover *l = x->l;
    struct dr_err why = {0};
    char users[400];
    if (ask(x, db_of(l->r)->lock, users, sizeof users, err, USERS))
        return err->rc;
    if (users[0])
        return cleanup_keep(l, "in use: %s", users);
    measure(x, db_of(l->r)->lock);
    if (cleanup_note(l, "leftover-drop", err) || fault_point("cleanup.database.intent", err))
        return err->rc;
    if (rename_checked(x, db_of(l->r)->lock, l->what, x->doomed, &why) == DR_OK) {
        (void)snprintf(x->named, sizeof x->named, "%s", x->doomed);
        return DR_OK;
    }
    if (is_refusal(&why))
        return cleanup_keep(l, "in use: %s", why.msg);
    *err = why;
    return err->rc;
}

/* Under the lock: what it is, and whether it goes. x->named is x->doomed when it does. */
static enum dr_rc judge(struct dropping *x, struct dr_err *err)
{
    struct leftover *l = x->l;
    const struct db *d = db_of(l->r);
    uint64_t there = 0;
    if (name_of(x, d->lock, err) || oid_of(x, d->lock, l->what, &there, err))
        return err->rc;
    if (strcmp(x->named, x->doomed) == 0 && journal_says(l->r->journal, "leftover-drop", l->what)) {
        (void)cleanup_is_due(l); /* an earlier cleanup was killed at it */
    } else if (there && there != l->id) {
        return cleanup_keep(l, "another database bears the name %s: it is not the run's", l->what);
    } else if (!x->named[0]) {
        l->fate = LEFTOVER_GONE;
    } else if (strcmp(x->named, l->what) != 0) {
        return taken_over(x);
    } else if (cleanup_is_due(l)) {
        return doom(x, err);
    }
    return DR_OK;
}

static enum dr_rc drop(struct dropping *x, struct dr_err *err)
{
    struct leftover *l = x->l;
    struct recovery *r = l->r;
    struct pg_conn *c = NULL;
    struct dr_err why = {0};
    uint64_t oid = 0;
    char users[400];
    if (fault_point("cleanup.database.renamed", err) ||
        db_conn_open(r, db_of(r)->maintenance, NULL, &c, err))
        return err->rc;
    if (!l->bytes)
        measure(x, c);
    if (oid_of(x, c, x->doomed, &oid, err))
        goto out;
    if (oid != l->id) {
        (void)cleanup_keep(l, "another database has taken the name %s", x->doomed);
        goto out;
    }
    if (ask(x, c, users, sizeof users, err, USERS))
        goto out;
    if (users[0]) {
        (void)cleanup_keep(l, "in use under the name %s: %s", x->doomed, users);
        goto out;
    }
    if (db_conn_run(r, c, &why, "DROP DATABASE %I", x->doomed)) {
        if (is_refusal(&why))
            (void)cleanup_keep(l, "in use under the name %s: %s", x->doomed, why.msg);
        else
            *err = why;
        goto out;
    }
    if (fault_point("cleanup.database.dropped", err) || name_of(x, c, err))
        goto out;
    if (x->named[0])
        (void)dr_fail(err, DR_E_BUG, "database %s is still there", x->doomed);
    else if (cleanup_note(l, "leftover-gone", err) == DR_OK)
        l->fate = LEFTOVER_DROPPED;
out:
    pg_close(c);
    return err->rc;
}

static enum dr_rc look(struct dropping *x, struct dr_err *err)
{
    struct leftover *l = x->l;
    struct dr_err why = {0};
    if (db_lock_take(l->r, 0, &why)) {
        if (why.rc == DR_E_LOCKED)
            return cleanup_keep(l, "%s", why.msg);
        *err = why;
        return err->rc;
    }
    enum dr_rc rc = judge(x, err);
    db_lock_drop(l->r);
    return rc;
}

enum dr_rc cleanup_database(struct leftover *l, struct dr_err *err)
{
    struct dropping x = {.l = l};
    if (db_conn_urls(l->r, err))
        return err->rc;
    const struct db *d = db_of(l->r);
    dr_pg_url_show(&d->admin, l->where);
    (void)snprintf(x.oid, sizeof x.oid, "%" PRIu64, l->id);
    (void)snprintf(x.doomed, sizeof x.doomed, "%s__drop_%s", d->live, l->r->run);
    if (strcmp(l->what, d->before) != 0 && strcmp(l->what, d->scratch) != 0)
        return cleanup_keep(l, "it belongs to another database than %s, which DATABASE_URL names",
                            d->live);
    if (l->id == 0 || l->id > UINT32_MAX)
        return cleanup_keep(l, "the journal does not say which database it is");
    if (look(&x, err) || l->fate != LEFTOVER_KEPT || l->why[0])
        return err->rc;
    return drop(&x, err);
}
