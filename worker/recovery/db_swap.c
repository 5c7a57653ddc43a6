/* Quiesce and swap, forth and back. From the quiesce intent on nothing is believed but what names
 * and OIDs say under the lock. In a fiber; cancel no longer reaches these steps. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/core/fault.h"
#include "worker/core/fiber.h"
#include "worker/recovery/db_internal.h"

enum { LOCK_WAIT_MS = 10000, SESSIONS_GONE_MS = 15000, FIRST_WAIT_MS = 5, MOST_WAIT_MS = 200 };

/* Sessions that a rename would trip over. The server itself sends autovacuum away. */
#define SESSIONS                                                                                   \
    "FROM pg_catalog.pg_stat_activity a WHERE a.datname IN ($1, $2) AND a.pid <> "                 \
    "pg_catalog.pg_backend_pid() AND a.backend_type IS DISTINCT FROM 'autovacuum worker'"

static enum dr_rc shut(struct recovery *r, const char *name, struct dr_err *err)
{
    return db_conn_run(r, db_of(r)->lock, err, "ALTER DATABASE %I ALLOW_CONNECTIONS false", name);
}

static enum dr_rc say_who_stays(struct recovery *r, const char *const *params, struct dr_err *err)
{
    char who[256];
    struct dr_err why = {0};
    if (db_conn_text(r, db_of(r)->lock, who, sizeof who, &why,
                     "SELECT string_agg(DISTINCT coalesce(a.usename, a.backend_type) || ' (' || "
                     "a.application_name || ')', ', ') " SESSIONS,
                     params))
        who[0] = 0;
    return dr_fail(err, DR_E_TIMEOUT, "sessions do not end within %d s: %s",
                   (int)SESSIONS_GONE_MS / 1000, who);
}

/* Ends them until none is left. New ones cannot come: connections are refused by now. */
static enum dr_rc end_sessions(struct recovery *r, const char *one, const char *two,
                               struct dr_err *err)
{
    struct db *d = db_of(r);
    const char *const params[] = {one, two, NULL};
    int64_t end = dr_clock_ms() + SESSIONS_GONE_MS;
    uint64_t wait = FIRST_WAIT_MS, left = 0;
    for (;;) {
        /* A role that is no superuser may not end a superuser's session: an error would hide the
         * others. */
        if (pg_query(d->lock, recovery_cancel(r), NULL, err,
                     "SELECT pg_catalog.pg_terminate_backend(a.pid) " SESSIONS
                     " AND ((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = "
                     "current_user) OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles s WHERE s.oid = "
                     "a.usesysid AND s.rolsuper))",
                     params) ||
            db_conn_u64(r, d->lock, &left, err, "SELECT count(*) " SESSIONS, params))
            return err->rc;
        if (left == 0)
            return DR_OK;
        if (dr_clock_ms() > end)
            return say_who_stays(r, params, err);
        (void)fiber_sleep(wait, NULL);
        wait = wait * 2 > MOST_WAIT_MS ? MOST_WAIT_MS : wait * 2;
    }
}

static json_t *intent(struct recovery *r, uint64_t relations)
{
    const struct db *d = db_of(r);
    return json_pack(
        "{s:o,s:I,s:o,s:I,s:o,s:o,s:I,s:I,s:b,s:s,s:s,s:o,s:b}", "live", recovery_text(d->live),
        "live_oid", (json_int_t)d->live_oid, "scratch", recovery_text(d->scratch), "scratch_oid",
        (json_int_t)d->scratch_oid, "before", recovery_text(d->before), "services",
        services_to_json(&r->services), "relations", (json_int_t)relations, "at_ms",
        (json_int_t)dr_wall_ms(), "damaged", d->live_damaged, "backup", r->chosen_id, "emergency",
        r->emergency_id, "emergency_why", recovery_text(r->emergency_why), "ours", d->live_ours);
}

/* How many tables the application has to find afterwards. */
static enum dr_rc count_relations(struct recovery *r, uint64_t *out, struct dr_err *err)
{
    struct pg_conn *c = NULL;
    if (db_conn_open(r, db_of(r)->scratch, NULL, &c, err))
        return err->rc;
    enum dr_rc rc = db_conn_u64(r, c, out, err, DB_COUNT_RELATIONS, NULL);
    pg_close(c);
    return rc;
}

static enum dr_rc quiesce(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    if (recovery_services_down(r, err) || fault_point("execute.quiesce.services", err) ||
        (!d->live_lost && shut(r, d->live, err)) || shut(r, d->scratch, err) ||
        fault_point("execute.quiesce.shut", err))
        return err->rc;
    return end_sessions(r, d->live, d->scratch, err);
}

enum dr_rc db_swap_quiesce(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    uint64_t relations = 0;
    uint32_t live = 0, scratch = 0, before = 0;
    if (!services_configured(&r->services))
        recovery_step_outcome(r, recovery_is_exercise(r) ? "done (services: not touched)"
                                                         : "done (services: not configured)");
    if (services_observe(&r->services, recovery_cancel(r), err) ||
        db_lock_take(r, LOCK_WAIT_MS, err) || count_relations(r, &relations, err) ||
        db_lock_oid(r, d->live, &live, err) || db_lock_oid(r, d->scratch, &scratch, err) ||
        db_lock_oid(r, d->before, &before, err))
        return err->rc;
    if (live != d->live_oid || scratch != d->scratch_oid || before)
        return dr_fail(err, DR_E_LOCKED,
                       "databases were renamed or dropped by others since the preflight");
    r->services.ms = 0;
    json_t *meant = intent(r, relations);
    if (!meant)
        return dr_fail(err, DR_E_BUG, "the intent to quiesce cannot be written as JSON");
    if (recovery_intent(r, "quiesce", meant, err))
        return err->rc;
    r->point_passed = true;
    r->outcome = JOB_FAILED;
    return quiesce(r, err);
}

/* ---- the one transaction, forth or back ---- */

struct renaming {
    const char *from[2], *to[2];
    uint32_t oid[2]; /* 0: this rename is left out */
};

static enum dr_rc transact(struct recovery *r, const struct renaming *n, const char *open_name,
                           struct dr_err *err)
{
    struct db *d = db_of(r);
    struct pg_conn *c = d->lock;
    if (pg_query(c, NULL, NULL, err, "BEGIN; SET LOCAL synchronous_commit = on", NULL))
        return err->rc;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t oid = 0;
        if (db_lock_oid(r, n->from[i], &oid, err))
            return err->rc;
        if (oid != n->oid[i])
            return dr_fail(err, DR_E_LOCKED, "database %s is not the one that was meant",
                           n->from[i]);
    }
    for (unsigned i = 0; i < 2; i++)
        if (n->oid[i] &&
            db_conn_run(r, c, err, "ALTER DATABASE %I RENAME TO %I", n->from[i], n->to[i]))
            return err->rc;
    if (db_conn_run(r, c, err, "ALTER DATABASE %I ALLOW_CONNECTIONS true", open_name) ||
        fault_point("execute.swap.commit", err) || pg_query(c, NULL, NULL, err, "COMMIT", NULL))
        return err->rc;
    if (fault_point("execute.swap.reply", err)) { /* committed, but nobody told us */
        db_lock_drop(r);
        return err->rc;
    }
    return DR_OK;
}

/* Runs the transaction until the world is as wanted: an error says nothing about a COMMIT, only the
 * names do. Tried again only when they say that nothing happened. */
static enum dr_rc transact_observed(struct recovery *r, const struct renaming *n,
                                    const char *open_name, enum db_state wanted, struct dr_err *err)
{
    struct db *d = db_of(r);
    for (unsigned attempt = 0;; attempt++) {
        struct dr_err why = {0};
        enum db_state state;
        if (transact(r, n, open_name, &why) == DR_OK)
            return DR_OK;
        dr_log_err(DR_LOG_WARN, "recovery.swap", &why, "job", r->job_id, "run", r->run, NULL);
        if (d->lock && pg_alive(d->lock)) {
            struct dr_err ignored = {0};
            if (pg_query(d->lock, NULL, NULL, &ignored, "ROLLBACK", NULL))
                db_lock_drop(r);
        }
        if (db_lock_observe(r, &state, err))
            return err->rc;
        if (state == wanted)
            return DR_OK;
        if (state == DB_STRANGE)
            return dr_fail(err, DR_E_NEEDS_HUMAN,
                           "%s: the databases are not as any step of this "
                           "run leaves them",
                           why.msg);
        if (attempt > 0 || why.rc != DR_E_UNREACHABLE) {
            *err = why;
            return why.rc;
        }
        if (end_sessions(r, n->from[0], n->from[1], err))
            return err->rc;
    }
}

enum dr_rc db_swap(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct renaming forth = {.from = {d->live, d->scratch},
                                   .to = {d->before, d->live},
                                   .oid = {d->live_oid, d->scratch_oid}};
    enum db_state state;
    /* The session may have been lost since quiesce: the lock first, then what is. */
    if (db_lock_observe(r, &state, err))
        return err->rc;
    if (state != DB_UNCHANGED)
        return dr_fail(err, DR_E_NEEDS_HUMAN, "the databases are not as quiesce left them");
    if (recovery_intent(r, "swap", NULL, err) ||
        transact_observed(r, &forth, d->live, DB_SWAPPED, err))
        return err->rc;
    return recovery_done(r, "swap", NULL, err);
}

enum dr_rc db_swap_back(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct renaming back = {.from = {d->live, d->before},
                                  .to = {d->scratch, d->live},
                                  .oid = {d->scratch_oid, d->live_oid}};
    enum db_state state;
    struct dr_err ignored = {0};
    if (!r->point_passed)
        return DR_OK;
    if (db_lock_observe(r, &state, err))
        goto failed;
    if (state == DB_UNCHANGED)
        return DR_OK;
    if (state == DB_STRANGE) {
        (void)dr_fail(err, DR_E_NEEDS_HUMAN, "the databases are not as any step left them");
        goto failed;
    }
    if (d->live_lost) { /* the recovered one is the only one there is */
        r->outcome = JOB_NEEDS_HUMAN;
        recovery_say(r, "database %s is recovered and stays, but a step after the swap failed",
                     d->live);
        return DR_OK;
    }
    if (recovery_intent(r, "swap-back", NULL, err))
        goto failed;
    /* A service that cannot be stopped finds connections refused. */
    if (services_stop(&r->services, recovery_cancel(r), &ignored))
        dr_log_err(DR_LOG_WARN, "recovery.services", &ignored, "job", r->job_id, NULL);
    if (shut(r, d->live, err) || end_sessions(r, d->live, d->before, err) ||
        transact_observed(r, &back, d->live, DB_UNCHANGED, err) ||
        recovery_done(r, "swap-back", NULL, err))
        goto failed;
    r->outcome = JOB_ROLLED_BACK;
    return DR_OK;
failed:
    r->undo_failed = true;
    return err->rc;
}

enum dr_rc db_swap_release(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    enum db_state state;
    if (!r->point_passed)
        return DR_OK;
    if (db_lock_observe(r, &state, err))
        goto failed;
    if (state == DB_UNCHANGED && d->live_oid &&
        db_conn_run(r, d->lock, err, "ALTER DATABASE %I ALLOW_CONNECTIONS true", d->live))
        goto failed;
    if (recovery_services_up(r, err) || recovery_undone(r, "quiesce", NULL, err))
        goto failed;
    return DR_OK;
failed:
    r->undo_failed = true;
    return err->rc;
}
