/* file_system_recovery: proves a backup, restores it beside live, verifies it there, swaps the
 * entries of each root. Live is untouched until swap, downtime is quiesce to start. */
#include "worker/recovery/files.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/wire/pack.h"
#include "worker/backup/container.h"
#include "worker/backup/handle.h"
#include "worker/backup/names.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"
#include "worker/recovery/fs_internal.h"
#include "worker/recovery/steps.h"

struct fs *fs_of(struct recovery *r)
{
    return r->own;
}

/* ---- select and prove ---- */

static enum dr_rc series_of(struct recovery *r, char out[NAMES_SERIES_SIZE], struct dr_err *err)
{
    (void)r;
    (void)err;
    names_series("files", NULL, 0, out);
    return DR_OK;
}

static enum dr_rc select_backup(struct recovery *r, struct dr_err *err)
{
    char series[NAMES_SERIES_SIZE];
    names_series("files", NULL, 0, series);
    return recovery_select(r, "files", series, err);
}

struct proving {
    struct recovery *r;
    _Atomic uint64_t *progress;
};

static enum dr_rc prove_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct proving *p = item;
    struct fs *f = fs_of(p->r);
    const struct prove_options o = {.cancel = cancel,
                                    .progress = p->progress,
                                    .threads = container_threads(),
                                    .record = fs_index_record,
                                    .arg = f};
    if (prove_backup(p->r->backup, &o, &f->proven, err))
        return recovery_condemn(p->r, &f->proven, err);
    return fs_index_end(p->r, cancel, err);
}

static enum dr_rc prove(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    struct proving p = {.r = r, .progress = job_progress_counter(r->job)};
    int64_t began = dr_clock_ms();
    job_progress_total(r->job, recovery_stored_bytes(r));
    f->wants_known = r->order.dry_run || r->order.keep_newer;
    if (pool_run_long(r->env->pool, prove_item, &p, recovery_cancel(r), err))
        return err->rc;
    f->prove_ms = (uint64_t)(dr_clock_ms() - began);
    return DR_OK;
}

/* ---- ends ---- */

static enum dr_rc leave(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    for (unsigned i = 0; i < f->root_count; i++) {
        recovery_keep(r, swap_staged_path(f->swap, i), true,
                      "the verified restore of %s; copy what you need", f->roots[i].path);
        recovery_keep_id(r, "inode", swap_part_inode(f->swap, i, "new"));
    }
    recovery_say(r, "%s is restored and verified beside the live files: %s%s", r->chosen_id,
                 swap_staged_path(f->swap, 0), f->root_count > 1 ? " and other roots" : "");
    return recovery_close(r, JOB_DONE, err);
}

static enum dr_rc discard_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    return swap_discard(item, cancel, err);
}

static enum dr_rc close_run(struct recovery *r, struct dr_err *err)
{
    if (pool_run_long(r->env->pool, discard_item, fs_of(r)->swap, NULL, err))
        return err->rc;
    fs_after_keep(r, false);
    if (recovery_is_exercise(r)) /* the drill closes it, once the evidence is stored */
        return DR_OK;
    return recovery_close(r, JOB_DONE, err);
}

/* ---- steps ---- */

static enum dr_rc emergency(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    return recovery_emergency(r, "files", f->live_lost ? "no root was there" : NULL,
                              &f->live_damaged, err);
}

RECOVERY_FIRST(select, select_backup)
RECOVERY_STEP(prove, prove)
RECOVERY_STEP(preflight, fs_preflight)
RECOVERY_STEP(report, fs_report)
RECOVERY_STEP(restore, fs_stage)
RECOVERY_STEP(verify, fs_stage_verify)
RECOVERY_STEP(emergency, emergency)
RECOVERY_STEP(quiesce, fs_swap_quiesce)
RECOVERY_STEP(swap, fs_swap)
RECOVERY_STEP(start, fs_after_start)
RECOVERY_STEP(check, fs_after_check)
RECOVERY_STEP(close, close_run)
RECOVERY_STEP(leave, leave)
RECOVERY_STEP(self_test, fs_drill_self_test)
RECOVERY_STEP(remove, fs_drill_remove)
RECOVERY_UNDO(preflight, fs_stage_undone)
RECOVERY_UNDO(quiesce, fs_swap_release)
RECOVERY_UNDO(swap, fs_swap_back)

static const struct job_step steps[] = {
    {"select", 1, 0, run_select, recovery_abandon},
    {"prove", 20, STEP_RESUMABLE, run_prove, NULL},
    {"preflight", 1, 0, run_preflight, undo_preflight},
    {"restore", 35, 0, run_restore, NULL}, /* removed by preflight's undo, which has the locks */
    {"verify", 15, 0, run_verify, NULL},
    {"emergency", 22, 0, run_emergency, NULL},
    {"quiesce", 2, STEP_POINT, run_quiesce, undo_quiesce},
    {"swap", 2, STEP_DESTRUCTIVE, run_swap, undo_swap},
    {"start", 1, 0, run_start, NULL},
    {"check", 1, 0, run_check, NULL},
    {"close", 0, 0, run_close, NULL},
    {0},
};
static const struct job_step plan[] = {
    {"select", 1, 0, run_select, NULL},
    {"prove", 90, STEP_RESUMABLE, run_prove, NULL},
    {"preflight", 1, STEP_RESUMABLE, run_preflight, NULL},
    {"report", 8, STEP_RESUMABLE, run_report, NULL},
    {0},
};
static const struct job_step beside[] = {
    {"select", 1, 0, run_select, recovery_abandon},
    {"prove", 25, STEP_RESUMABLE, run_prove, NULL},
    {"preflight", 1, 0, run_preflight, undo_preflight},
    {"restore", 48, 0, run_restore, NULL},
    {"verify", 25, 0, run_verify, NULL},
    {"leave", 0, 0, run_leave, NULL},
    {0},
};
static const struct job_step drill[] = {
    {"select", 1, 0, run_select, NULL},       {"prove", 25, 0, run_prove, NULL},
    {"preflight", 1, 0, run_preflight, NULL}, {"restore", 46, 0, run_restore, NULL},
    {"verify", 24, 0, run_verify, NULL},      {"self_test", 1, 0, run_self_test, NULL},
    {"remove", 2, 0, run_remove, NULL},       {0},
};

static bool is_configured(const struct dr_config *config)
{
    return dr_config_str(config, "BACKUP_FILES_PATHS")[0] != 0;
}

static unsigned result(struct recovery *r, struct dr_buf *map)
{
    const struct fs *f = fs_of(r);
    dr_pack_text(map, "verified");
    dr_pack_map(map, 3);
    dr_pack_text(map, "files");
    dr_pack_uint(map, f->verified_files);
    dr_pack_text(map, "bytes");
    dr_pack_uint(map, f->verified_bytes);
    dr_pack_text(map, "roots");
    dr_pack_uint(map, f->root_count);
    if (f->report)
        dr_buf_add(map, f->report, f->report_len);
    return 1 + f->report_pairs;
}

static void fini(struct recovery *r)
{
    struct fs *f = fs_of(r);
    swap_close(f->swap);
    fs_drill_fini(f);
    fs_index_fini(f);
    for (unsigned i = 0; i < f->loss.name_count; i++)
        free(f->loss.names[i]);
    free(f->report);
}

const struct recovery_procedure recovery_files = {
    .id = "file_system_recovery",
    .services = "DR_SERVICES_FILES",
    .steps = steps,
    .plan = plan,
    .beside = beside,
    .drill = drill,
    .kind = "files",
    .is_configured = is_configured,
    .target = "DR_EXERCISE_DIRECTORY",
    .rto = "DR_RTO_FILES_S",
    .rpo = "DR_RPO_FILES_S",
    .own_bytes = sizeof(struct fs),
    .series = series_of,
    .evidence = fs_drill_evidence,
    .settle = fs_settle,
    .result = result,
    .fini = fini,
};
