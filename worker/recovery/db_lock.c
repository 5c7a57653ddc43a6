/* The session in the maintenance database: it holds the advisory lock of the target and is the one
 * that swaps, so that losing it means losing both. What became of the target is read from OIDs,
 * never from what we believe to have done. In a fiber. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/str.h"
#include "worker/core/fiber.h"
#include "worker/recovery/db_internal.h"

enum { POLL_MS = 250, STATEMENT_MS = 30000, CONNECT_MS = 10000 };

void db_lock_drop(struct recovery *r)
{
    struct db *d = db_of(r);
    pg_close(d->lock);
    d->lock = NULL;
}

static enum dr_rc connect_lock(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct pg_options o = {.dbname = d->maintenance,
                                 .application_name = "drworker recovery",
                                 .options = PG_NO_TIMEOUTS,
                                 .lock_session = true,
                                 .connect_ms = CONNECT_MS,
                                 .statement_ms = STATEMENT_MS};
    db_lock_drop(r);
    return pg_connect(r->env->loop, r->env->pool, &d->admin, &o, recovery_cancel(r), &d->lock, err);
}

/* In the session that may hold it already: a second lock of the same session would always succeed,
 * so that only a new session asks. */
static enum dr_rc try_lock(struct recovery *r, bool *got, struct dr_err *err)
{
    struct db *d = db_of(r);
    char text[8];
    /* A drill leaves live to those who need it: what it locks is its own. */
    const char *const params[] = {r->order.drill ? d->scratch : d->live, NULL};
    if (db_conn_text(r, d->lock, text, sizeof text, err,
                     "SELECT pg_catalog.pg_try_advisory_lock("
                     "pg_catalog.hashtextextended('drworker:' || $1, 0))",
                     params))
        return err->rc;
    *got = text[0] == 't';
    return DR_OK;
}

enum dr_rc db_lock_take(struct recovery *r, uint64_t wait_ms, struct dr_err *err)
{
    struct db *d = db_of(r);
    int64_t end = dr_clock_ms() + (d->contended ? 0 : (int64_t)wait_ms);
    bool got = false;
    if (d->lock && pg_alive(d->lock))
        return DR_OK;
    if (db_conn_urls(r, err) || connect_lock(r, err))
        return err->rc;
    for (;;) {
        if (try_lock(r, &got, err) || got)
            break;
        if (dr_clock_ms() > end) {
            (void)dr_fail(err, DR_E_LOCKED, "another recovery of database %s is running", d->live);
            break;
        }
        enum dr_rc rc = fiber_sleep(POLL_MS, recovery_cancel(r));
        if (rc) {
            (void)dr_fail(err, rc, "%s", cancel_reason(recovery_cancel(r)));
            break;
        }
    }
    d->contended = err->rc == DR_E_LOCKED;
    if (err->rc)
        db_lock_drop(r);
    return err->rc;
}

enum dr_rc db_lock_oid(struct recovery *r, const char *name, uint32_t *out, struct dr_err *err)
{
    const char *const params[] = {name, NULL};
    uint64_t oid = 0;
    if (db_conn_u64(r, db_of(r)->lock, &oid, err,
                    "SELECT oid FROM pg_catalog.pg_database WHERE datname = $1", params))
        return err->rc;
    *out = (uint32_t)oid;
    return DR_OK;
}

static uint32_t oid_of(const json_t *data, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(data, key));
}

enum dr_rc db_lock_observe(struct recovery *r, enum db_state *out, struct dr_err *err)
{
    struct db *d = db_of(r);
    const json_t *meant = recovery_find_intent(r, "quiesce");
    uint32_t live = 0, scratch = 0, before = 0;
    /* A dead session of ours ends when the server notices: lock_session's timeouts. */
    if (db_lock_take(r, 25000, err) || db_lock_oid(r, d->live, &live, err) ||
        db_lock_oid(r, d->scratch, &scratch, err) || db_lock_oid(r, d->before, &before, err))
        return err->rc;
    uint32_t old = oid_of(meant, "live_oid"), fresh = oid_of(meant, "scratch_oid");
    d->live_oid = old;
    d->scratch_oid = fresh;
    d->live_lost = old == 0;
    /* An exercise may have dropped what an exercise had made. */
    bool dropped = before == 0 && recovery_find_intent(r, "drop-before");
    if (fresh && live == fresh && (old == 0 || before == old || dropped))
        *out = DB_SWAPPED;
    else if (live == old && live != fresh)
        *out = DB_UNCHANGED; /* the scratch one may be there or be dropped already */
    else
        *out = DB_STRANGE;
    return DR_OK;
}
