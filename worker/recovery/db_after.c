/* After the swap: services, smoke, what is kept; and an open journal settled by observation. In a
 * fiber. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/core/fiber.h"
#include "worker/recovery/db_drill.h"

enum { CONNECT_MS = 10000, CONNECT_AGAIN_MS = 250, STATEMENT_MS = 60000 };

enum dr_rc db_after_start(struct recovery *r, struct dr_err *err)
{
    if (!services_configured(&r->services))
        recovery_step_outcome(r, recovery_is_exercise(r) ? "done (services: not touched)"
                                                         : "skipped (not configured)");
    return recovery_services_up(r, err);
}

/* The application may just be taking every connection there is: that is no reason to roll back. */
static enum dr_rc connect_app(struct recovery *r, struct pg_conn **out, struct dr_err *err)
{
    const struct pg_options o = {.dbname = db_of(r)->live,
                                 .application_name = "drworker check",
                                 .options = PG_NO_TIMEOUTS,
                                 .connect_ms = CONNECT_MS,
                                 .statement_ms = STATEMENT_MS};
    int64_t end = dr_clock_ms() + CONNECT_MS;
    for (;;) {
        struct dr_err why = {0};
        if (pg_connect(r->env->loop, r->env->pool, &db_of(r)->app, &o, recovery_cancel(r), out,
                       &why) == DR_OK)
            return DR_OK;
        if (dr_clock_ms() > end || fiber_sleep(CONNECT_AGAIN_MS, recovery_cancel(r))) {
            *err = why;
            return dr_wrap(err, "DATABASE_URL after the swap");
        }
    }
}

/* As the application sees it: DATABASE_URL leads to the recovered database, its tables are there
 * and answer. Their rows were proven before; the application may have changed them by now. */
enum dr_rc db_after_check(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    struct pg_conn *c = NULL;
    const json_t *meant = recovery_find_intent(r, "quiesce");
    uint64_t oid = 0, relations = 0,
             expected = (uint64_t)json_integer_value(json_object_get(meant, "relations"));
    if (connect_app(r, &c, err))
        return err->rc;
    enum dr_rc rc = db_conn_u64(r, c, &oid, err,
                                "SELECT oid FROM pg_catalog.pg_database WHERE datname = "
                                "pg_catalog.current_database()",
                                NULL);
    if (!rc)
        rc = db_conn_u64(r, c, &relations, err, DB_COUNT_RELATIONS, NULL);
    pg_close(c);
    if (!rc && oid != d->scratch_oid)
        rc = dr_fail(err, DR_E_INTEGRITY, "%s does not lead to the recovered database",
                     recovery_is_exercise(r) ? d->live : "DATABASE_URL");
    if (!rc && relations < expected)
        rc = dr_fail(err, DR_E_INTEGRITY, "%llu tables after the swap, %llu were restored",
                     (unsigned long long)relations, (unsigned long long)expected);
    return rc;
}

enum dr_rc db_after_keep(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    (void)err;
    if (!d->live_lost && !db_exercise_dropped(r)) {
        recovery_keep(r, d->before, !d->live_damaged,
                      "the database that was live until this run; ALTER DATABASE … "
                      "ALLOW_CONNECTIONS true opens it%s",
                      d->live_damaged ? "; without expiry, as it could not be backed up" : "");
        recovery_keep_id(r, "oid", d->live_oid);
    }
    recovery_say(r, "database %s recovered from %s", d->live, r->chosen_id);
    return DR_OK;
}

/* What was live in between is kept; its rows tell what was written meanwhile. */
static enum dr_rc count_kept(struct recovery *r, uint64_t *rows, struct dr_err *err)
{
    struct db *d = db_of(r);
    struct pg_conn *c = NULL;
    struct pg_rows *tables = NULL;
    *rows = 0;
    if (db_lock_take(r, 10000, err) ||
        db_conn_run(r, d->lock, err, "ALTER DATABASE %I ALLOW_CONNECTIONS true", d->scratch) ||
        db_conn_open(r, d->scratch, NULL, &c, err))
        return err->rc;
    enum dr_rc rc = pg_query(c, recovery_cancel(r), &tables, err, DB_LIST_TABLES, NULL);
    for (unsigned i = 0; !rc && i < pg_rows_count(tables); i++) {
        uint64_t n = 0;
        char *sql = db_conn_format("SELECT count(*) FROM ONLY %I.%I", pg_rows_value(tables, i, 0),
                                   pg_rows_value(tables, i, 1));
        rc = db_conn_u64(r, c, &n, err, sql, NULL);
        free(sql);
        *rows += n;
    }
    pg_rows_free(tables);
    pg_close(c);
    if (!rc)
        rc = db_conn_run(r, d->lock, err, "ALTER DATABASE %I ALLOW_CONNECTIONS false", d->scratch);
    return rc;
}

enum dr_rc db_after_undone(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    struct dr_err why = {0};
    uint64_t rows = 0;
    if (!db_swap_was_live(r))
        return db_restore_drop(r, err);
    if (r->outcome != JOB_ROLLED_BACK)
        return DR_OK;
    const json_t *done = recovery_find_done(r, "restore");
    uint64_t backed_up = (uint64_t)json_integer_value(json_object_get(done, "rows"));
    if (count_kept(r, &rows, &why)) {
        dr_log_err(DR_LOG_WARN, "recovery.kept", &why, "run", r->run, NULL);
        recovery_keep(r, d->scratch, false,
                      "was live in between; its rows could not be counted: %s", why.msg);
    } else {
        recovery_keep(r, d->scratch, true, "was live in between: %llu rows, the backup has %llu",
                      (unsigned long long)rows, (unsigned long long)backed_up);
    }
    recovery_keep_id(r, "oid", d->scratch_oid);
    recovery_say(r, "database %s is again what it was before this run", d->live);
    return DR_OK;
}

/* ---- an open journal ---- */

static void read_intent(struct recovery *r)
{
    const json_t *meant = recovery_find_intent(r, "quiesce");
    const char *backup = json_string_value(json_object_get(meant, "backup"));
    const char *emergency = json_string_value(json_object_get(meant, "emergency"));
    const char *why = json_string_value(json_object_get(meant, "emergency_why"));
    json_int_t at = json_integer_value(json_object_get(meant, "at_ms"));
    int64_t ago = at ? dr_wall_ms() - at : 0;
    (void)snprintf(r->chosen_id, sizeof r->chosen_id, "%s", backup ? backup : "");
    (void)snprintf(r->emergency_id, sizeof r->emergency_id, "%s", emergency ? emergency : "");
    (void)snprintf(r->emergency_why, sizeof r->emergency_why, "%s", why ? why : "");
    db_of(r)->live_damaged = json_is_true(json_object_get(meant, "damaged"));
    db_of(r)->live_ours = json_is_true(json_object_get(meant, "ours"));
    r->down_ms = dr_clock_ms() - (ago > 0 ? ago : 0);
    r->point_passed = true;
}

static enum dr_rc finish(struct recovery *r, struct dr_err *err)
{
    if (!recovery_find_done(r, "swap") && recovery_done(r, "swap", NULL, err))
        return err->rc;
    if (recovery_services_up(r, err) || db_after_check(r, err) || db_after_keep(r, err))
        return err->rc;
    r->outcome = JOB_DONE;
    return DR_OK;
}

static enum dr_rc undo(struct recovery *r, struct dr_err *err)
{
    r->undo_failed = false;
    if (db_swap_back(r, err) || db_swap_release(r, err) || db_after_undone(r, err))
        return err->rc;
    if (!r->summary[0])
        recovery_say(r, "interrupted before the swap: database %s is unchanged", db_of(r)->live);
    return DR_OK;
}

static enum dr_rc settle_point(struct recovery *r, struct dr_err *err)
{
    struct dr_err why = {0};
    enum db_state state;
    read_intent(r);
    r->outcome = recovery_find_intent(r, "swap-back") ? JOB_ROLLED_BACK : JOB_FAILED;
    if (services_from_json(&r->services,
                           json_object_get(recovery_find_intent(r, "quiesce"), "services"), err) ||
        db_lock_observe(r, &state, err))
        return err->rc;
    if (state == DB_STRANGE)
        return dr_fail(err, DR_E_NEEDS_HUMAN,
                       "databases %s, %s and %s are not as any step of this run leaves them",
                       db_of(r)->live, db_of(r)->scratch, db_of(r)->before);
    bool forward = state == DB_SWAPPED && !recovery_find_intent(r, "swap-back");
    if (forward && finish(r, &why) == DR_OK)
        return DR_OK;
    if (forward)
        dr_log_err(DR_LOG_WARN, "recovery.finish", &why, "run", r->run, "job", r->job_id, NULL);
    return undo(r, err);
}

enum dr_rc db_settle(struct recovery *r, struct dr_err *err)
{
    enum dr_rc rc = db_conn_urls(r, err);
    if (!rc && !recovery_find_intent(r, "quiesce"))
        rc = db_restore_drop(r, err);
    else if (!rc)
        rc = settle_point(r, err);
    if (!rc && recovery_find_intent(r, "quiesce"))
        r->settled = true;
    if (rc || r->settled)
        db_lock_drop(r);
    return rc;
}
