/* database_recovery: proves a backup, restores it beside live, verifies it there, swaps the two by
 * rename. Live is untouched until swap, downtime is quiesce to start. */
#include "worker/recovery/database.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/wire/pack.h"
#include "worker/backup/container.h"
#include "worker/backup/handle.h"
#include "worker/backup/names.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"
#include "worker/recovery/db_drill.h"
#include "worker/recovery/db_dump.h"
#include "worker/recovery/db_internal.h"
#include "worker/recovery/steps.h"

/* ---- select and prove ---- */

static enum dr_rc series_of(struct recovery *r, char out[NAMES_SERIES_SIZE], struct dr_err *err)
{
    const struct db *d = db_of(r);
    if (db_conn_urls(r, err))
        return err->rc;
    names_series("database", d->app.dbname, strlen(d->app.dbname), out);
    return DR_OK;
}

static enum dr_rc select_backup(struct recovery *r, struct dr_err *err)
{
    char series[NAMES_SERIES_SIZE];
    return series_of(r, series, err) ? err->rc : recovery_select(r, "database", series, err);
}

struct proving {
    struct recovery *r;
    _Atomic uint64_t *progress;
};

/* What cannot be kept now is written by the restore, which then says why it cannot. */
static void give_up(struct db *d, struct recovery *r, const struct dr_err *why)
{
    if (why)
        dr_log_err(DR_LOG_INFO, "recovery.dump", why, "job", r->job_id, NULL);
    db_dump_free(d->dump);
    d->dump = NULL;
}

static void begin_dump(struct recovery *r, uint64_t bytes)
{
    struct db *d = db_of(r);
    struct dr_err why = {0};
    char folder[4096];
    give_up(d, r, NULL);
    if (!r->order.dry_run &&
        recovery_spares_reserve(r, dr_config_str(r->env->config, "DR_WORK_DIRECTORY"), bytes,
                                &why) == DR_OK &&
        db_dump_has_room(db_restore_folder(r, folder), bytes) &&
        db_dump_new(folder, &d->dump, &why))
        give_up(d, r, &why);
}

static enum dr_rc keep_plain(void *arg, const struct manifest_object *object, const void *bytes,
                             size_t len, struct dr_err *err)
{
    struct recovery *r = arg;
    struct db *d = db_of(r);
    struct dr_err why = {0};
    (void)err;
    if (d->dump && strcmp(object->role, "database") == 0 && db_dump_add(d->dump, bytes, len, &why))
        give_up(d, r, &why);
    return DR_OK;
}

static enum dr_rc expect(void *arg, const char *object, const struct index_record *rec,
                         struct dr_err *err)
{
    return db_expect_record(db_of(arg), object, rec, err);
}

static enum dr_rc prove_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct proving *p = item;
    struct db *d = db_of(p->r);
    const struct manifest_object *dump = manifest_object(handle_manifest(p->r->backup), "database");
    const struct prove_options o = {.cancel = cancel,
                                    .progress = p->progress,
                                    .threads = container_threads(),
                                    .record = expect,
                                    .plain = keep_plain,
                                    .arg = p->r};
    if (dump)
        begin_dump(p->r, dump->plain_bytes);
    enum dr_rc rc = prove_backup(p->r->backup, &o, &d->proven, err);
    if (rc)
        rc = recovery_condemn(p->r, &d->proven, err);
    if (rc || !dump || (d->dump && db_dump_bytes(d->dump) != dump->plain_bytes))
        give_up(d, p->r, NULL);
    return rc;
}

static enum dr_rc prove(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    struct proving p = {.r = r, .progress = job_progress_counter(r->job)};
    int64_t began = dr_clock_ms();
    job_progress_total(r->job, recovery_stored_bytes(r));
    if (pool_run_long(r->env->pool, prove_item, &p, recovery_cancel(r), err))
        return err->rc;
    d->prove_ms = (uint64_t)(dr_clock_ms() - began);
    return DR_OK;
}

static enum dr_rc leave(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    recovery_keep(r, d->scratch, true,
                  "the verified restore; connect to it by this name instead of %s", d->live);
    recovery_keep_id(r, "oid", d->scratch_oid);
    recovery_say(r, "%s is restored and verified as database %s; %s is unchanged", r->chosen_id,
                 d->scratch, d->live);
    db_lock_drop(r);
    return recovery_close(r, JOB_DONE, err);
}

struct restored {
    struct recovery *r;
    char data[160];
};

static enum dr_rc record_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct restored *x = item;
    (void)cancel;
    return store_append(x->r->env->store, "restored", x->r->chosen_id, x->data, err);
}

/* For the catalog's readers; the run does not hang on it. */
static void record_restored(struct recovery *r)
{
    struct restored x = {.r = r};
    struct dr_err why = {0};
    (void)snprintf(
        x.data, sizeof x.data, "{\"run\":\"%s\",\"restore_ms\":%llu,\"downtime_ms\":%llu}", r->run,
        (unsigned long long)db_of(r)->restore_ms, (unsigned long long)r->downtime_total_ms);
    if (pool_run(r->env->pool, record_item, &x, NULL, &why))
        dr_log_err(DR_LOG_WARN, "recovery.record", &why, "job", r->job_id, NULL);
}

static enum dr_rc close_run(struct recovery *r, struct dr_err *err)
{
    if (db_after_keep(r, err))
        return err->rc;
    if (recovery_is_exercise(r)) /* the drill closes it, once the evidence is stored */
        return DR_OK;
    db_lock_drop(r);
    if (recovery_close(r, JOB_DONE, err))
        return err->rc;
    record_restored(r);
    return DR_OK;
}

static enum dr_rc emergency(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    char gone[128];
    (void)snprintf(gone, sizeof gone, "there is no database %s", d->live);
    return recovery_emergency(r, "database", d->live_lost ? gone : NULL, &d->live_damaged, err);
}

/* ---- steps ---- */

RECOVERY_FIRST(select, select_backup)
RECOVERY_STEP(prove, prove)
RECOVERY_STEP(preflight, db_preflight)
RECOVERY_STEP(report, db_report)
RECOVERY_STEP(restore, db_restore)
RECOVERY_STEP(verify, db_verify)
RECOVERY_STEP(properties, db_properties)
RECOVERY_STEP(emergency, emergency)
RECOVERY_STEP(quiesce, db_swap_quiesce)
RECOVERY_STEP(swap, db_swap)
RECOVERY_STEP(start, db_after_start)
RECOVERY_STEP(check, db_after_check)
RECOVERY_STEP(close, close_run)
RECOVERY_STEP(leave, leave)
RECOVERY_STEP(self_test, db_drill_self_test)
RECOVERY_STEP(remove, db_drill_remove)
RECOVERY_UNDO(restore, db_after_undone)
RECOVERY_UNDO(quiesce, db_swap_release)
RECOVERY_UNDO(swap, db_swap_back)

/* Telling Redis may take long: the target is free for others by then. */
static enum dr_rc undo_select(struct job *j, struct dr_err *err)
{
    enum dr_rc rc = recovery_abandon(j, err);
    db_restore_drop_dump(recovery_of(j));
    db_lock_drop(recovery_of(j));
    return rc;
}

static const struct job_step steps[] = {
    {"select", 1, 0, run_select, undo_select},
    {"prove", 20, STEP_RESUMABLE, run_prove, NULL},
    {"preflight", 1, STEP_RESUMABLE, run_preflight, NULL},
    {"restore", 45, 0, run_restore, undo_restore},
    {"verify", 15, 0, run_verify, NULL},
    {"properties", 1, 0, run_properties, NULL},
    {"emergency", 12, 0, run_emergency, NULL},
    {"quiesce", 2, STEP_POINT, run_quiesce, undo_quiesce},
    {"swap", 1, STEP_DESTRUCTIVE, run_swap, undo_swap},
    {"start", 1, 0, run_start, NULL},
    {"check", 1, 0, run_check, NULL},
    {"close", 0, 0, run_close, NULL},
    {0},
};
static const struct job_step plan[] = {
    {"select", 1, 0, run_select, undo_select},
    {"prove", 90, STEP_RESUMABLE, run_prove, NULL},
    {"preflight", 1, STEP_RESUMABLE, run_preflight, NULL},
    {"report", 8, STEP_RESUMABLE, run_report, NULL},
    {0},
};
static const struct job_step beside[] = {
    {"select", 1, 0, run_select, undo_select},
    {"prove", 20, STEP_RESUMABLE, run_prove, NULL},
    {"preflight", 1, STEP_RESUMABLE, run_preflight, NULL},
    {"restore", 60, 0, run_restore, undo_restore},
    {"verify", 17, 0, run_verify, NULL},
    {"properties", 1, 0, run_properties, NULL},
    {"leave", 0, 0, run_leave, NULL},
    {0},
};
static const struct job_step drill[] = {
    {"select", 1, 0, run_select, NULL},
    {"prove", 20, 0, run_prove, NULL},
    {"preflight", 1, 0, run_preflight, NULL},
    {"restore", 56, 0, run_restore, NULL},
    {"verify", 19, 0, run_verify, NULL},
    /* Before properties: until then the scratch database is ours to write to. */
    {"self_test", 1, 0, run_self_test, NULL},
    {"properties", 1, 0, run_properties, NULL},
    {"remove", 1, 0, run_remove, NULL},
    {0},
};

static bool is_configured(const struct dr_config *config)
{
    return dr_config_secret(config, "DATABASE_URL")->len > 0;
}

static unsigned result(struct recovery *r, struct dr_buf *map)
{
    const struct db *d = db_of(r);
    dr_pack_text(map, "verified");
    dr_pack_map(map, 4);
    dr_pack_text(map, "tables");
    dr_pack_uint(map, d->verified_tables);
    dr_pack_text(map, "rows");
    dr_pack_uint(map, d->verified_rows);
    dr_pack_text(map, "digests");
    dr_pack_uint(map, d->verified_digests);
    dr_pack_text(map, "unknown"); /* counted only, or of a dump format whose rows we do not read */
    dr_pack_uint(map, d->verified_unknown);
    if (d->report)
        dr_buf_add(map, d->report, d->report_len);
    return 1 + d->report_pairs;
}

static void fini(struct recovery *r)
{
    struct db *d = db_of(r);
    db_lock_drop(r);
    db_expect_fini(d);
    db_dump_free(d->dump);
    free(d->report);
    dr_pg_url_free(&d->app);
    dr_pg_url_free(&d->admin);
}

const struct recovery_procedure recovery_database = {
    .id = "database_recovery",
    .services = "DR_SERVICES_DATABASE",
    .steps = steps,
    .plan = plan,
    .beside = beside,
    .drill = drill,
    .kind = "database",
    .is_configured = is_configured,
    .target = "DR_EXERCISE_DATABASE",
    .rto = "DR_RTO_DATABASE_S",
    .rpo = "DR_RPO_DATABASE_S",
    .own_bytes = sizeof(struct db),
    .series = series_of,
    .evidence = db_drill_evidence,
    .settle = db_settle,
    .result = result,
    .fini = fini,
};
