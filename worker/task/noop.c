/* noop: sleeps and answers; shows that queue and worker are alive. */
#include "common/wire/args.h"
#include "worker/job/job.h"
#include "worker/task/tasks.h"

struct noop {
    uint64_t sleep_ms;
};

static enum dr_rc decode(const struct dr_args *args, void *state, struct dr_err *err)
{
    struct noop *n = state;
    (void)err;
    n->sleep_ms = dr_args_has(args, "sleep_ms") ? dr_args_u64(args, "sleep_ms") : 0;
    return DR_OK;
}

static enum dr_rc run(struct job *j, struct dr_err *err)
{
    const struct noop *n = job_state(j);
    job_summary(j, n->sleep_ms ? "slept %llu ms" : "done", (unsigned long long)n->sleep_ms);
    return n->sleep_ms ? job_sleep(j, n->sleep_ms, err) : DR_OK;
}

static const struct job_step steps[] = {
    {"sleep", 100, STEP_RESUMABLE, run, NULL},
    {0},
};

const struct job_task task_noop = {
    .type = "noop",
    .flags = TASK_TRIVIAL,
    .default_slots = 64,
    .state_bytes = sizeof(struct noop),
    .decode = decode,
    .steps = steps,
};
