/* log-cleanup: what recoveries left and whose time is over, old journals and results, folders of
 * dead deliveries, dead letters. Says what stays, until when and why. Audit records never go. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/str.h"
#include "common/wire/args.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"
#include "worker/job/dispatch.h"
#include "worker/job/job.h"
#include "worker/queue/record.h"
#include "worker/recovery/cleanup.h"
#include "worker/task/tasks.h"

enum { DAY_MS = 86400000, DAYS_DEFAULT = 90, LISTED_MAX = 10000 };

struct log_cleanup {
    int64_t days;
    int64_t now_ms;
    struct cleanup_report left;
    struct store_swept results;
    unsigned staging;
    uint64_t dead_letters;
};

static enum dr_rc decode(const struct dr_args *args, void *state, struct dr_err *err)
{
    struct log_cleanup *w = state;
    (void)err;
    w->days = dr_args_has(args, "older_than_days") ? (int64_t)dr_args_u64(args, "older_than_days")
                                                   : DAYS_DEFAULT;
    if (w->days < CLEANUP_JOURNAL_DAYS_LEAST)
        w->days = CLEANUP_JOURNAL_DAYS_LEAST;
    return DR_OK;
}

static enum dr_rc clock_step(struct job *j, struct dr_err *err)
{
    struct log_cleanup *w = job_state(j);
    const struct job_services *s = job_services(j);
    if (!s->store)
        return dr_fail(err, DR_E_CONFIG, "BACKUP_DIRECTORY is not set on this worker");
    if (cleanup_clock(dispatch_redis_ms(s->dispatch), &w->now_ms, err))
        job_outcome_is(j, JOB_REFUSED);
    return err->rc;
}

static enum dr_rc leftovers(struct job *j, struct dr_err *err)
{
    struct log_cleanup *w = job_state(j);
    const struct cleanup_terms terms = {.env = job_services(j),
                                        .cancel = job_cancel_token(j),
                                        .job_id = job_id(j),
                                        .actor = job_actor(j),
                                        .now_ms = w->now_ms,
                                        .journal_ms = w->days * DAY_MS};
    return cleanup_run(&terms, &w->left, err);
}

struct sweep {
    struct store *store;
    struct log_cleanup *w;
};

static enum dr_rc sweep_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct sweep *x = item;
    (void)cancel;
    return store_sweep_results(x->store, x->w->now_ms - x->w->days * DAY_MS, &x->w->results, err)
               ? err->rc
               : store_sweep_staging(x->store, &x->w->staging, err);
}

static enum dr_rc store_step(struct job *j, struct dr_err *err)
{
    struct sweep x = {job_services(j)->store, job_state(j)};
    return pool_run(job_services(j)->pool, sweep_item, &x, job_cancel_token(j), err);
}

static enum dr_rc queue_step(struct job *j, struct dr_err *err)
{
    struct log_cleanup *w = job_state(j);
    return queue_forget_dead(dispatch_queue(job_services(j)->dispatch), &w->dead_letters, err);
}

static enum dr_rc judge(struct job *j, struct dr_err *err)
{
    const struct log_cleanup *w = job_state(j);
    (void)err;
    if (w->left.troubles)
        job_mark_partial(j);
    job_summary(j,
                "%zu leftover%s of recoveries dropped, %zu kept; %llu bytes freed; %u journals, %u "
                "results, %u staging folders, %llu dead letters removed",
                w->left.dropped.count, w->left.dropped.count == 1 ? "" : "s", w->left.kept.count,
                (unsigned long long)(w->left.freed_bytes + w->results.bytes),
                w->left.journals_removed, w->results.files, w->staging,
                (unsigned long long)w->dead_letters);
    return DR_OK;
}

static void pack_list(struct dr_buf *map, const char *name, const struct cleanup_list *list,
                      bool kept)
{
    size_t n = list->count < LISTED_MAX ? list->count : LISTED_MAX;
    dr_pack_text(map, name);
    dr_pack_array(map, n);
    for (size_t i = 0; i < n; i++) {
        const struct cleanup_item *item = &list->items[i];
        char until[DR_TIME_TEXT];
        dr_pack_map(map, kept ? 5 : 4);
        dr_pack_pair(map, "what", item->what);
        dr_pack_pair(map, "where", item->where);
        dr_pack_pair(map, "run", item->run);
        dr_pack_text(map, kept ? "until" : "bytes");
        dr_format_time(item->until_ms, until);
        if (!kept)
            dr_pack_uint(map, item->bytes);
        else if (item->until_ms)
            dr_pack_text(map, until);
        else
            dr_pack_nil(map);
        if (kept)
            dr_pack_pair(map, "why", item->why);
    }
}

static unsigned result(struct job *j, struct dr_buf *map)
{
    const struct log_cleanup *w = job_state(j);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {{"freed_bytes", w->left.freed_bytes + w->results.bytes},
                   {"journals_removed", w->left.journals_removed},
                   {"journals_kept", w->left.journals_kept},
                   {"results_removed", w->results.files},
                   {"staging_removed", w->staging},
                   {"dead_letters_removed", w->dead_letters},
                   {"older_than_days", (uint64_t)w->days}};
    enum { NUMBERS = sizeof numbers / sizeof numbers[0] };
    pack_list(map, "dropped", &w->left.dropped, false);
    pack_list(map, "kept", &w->left.kept, true);
    for (size_t i = 0; i < NUMBERS; i++) {
        dr_pack_text(map, numbers[i].name);
        dr_pack_uint(map, numbers[i].value);
    }
    return 2 + NUMBERS;
}

static void fini(void *state)
{
    struct log_cleanup *w = state;
    cleanup_report_fini(&w->left);
}

static const struct job_step steps[] = {
    {"clock", 1, STEP_RESUMABLE, clock_step, NULL},
    {"leftovers", 80, STEP_RESUMABLE | STEP_DESTRUCTIVE, leftovers, NULL},
    {"store", 15, STEP_RESUMABLE, store_step, NULL},
    {"queue", 3, STEP_RESUMABLE, queue_step, NULL},
    {"judge", 1, STEP_RESUMABLE, judge, NULL},
    {0},
};

const struct job_task task_log_cleanup = {
    .type = "log-cleanup",
    .flags = TASK_HEAVY,
    .default_slots = 1,
    .state_bytes = sizeof(struct log_cleanup),
    .decode = decode,
    .steps = steps,
    .result = result,
    .fini = fini,
};
