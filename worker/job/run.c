/* The step engine: forward in order, undo of the started steps in reverse, progress from weights.
 * Runs in the job's fiber. */
#include "worker/job/job.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "worker/core/fault.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"

enum {
    STEPS_MAX = 32,
    RESULT_MAX_BYTES = 16 << 20,
    PROGRESS_EVERY_MS = 250,
    UNDO_DEADLINE_MS = 600000,
};

struct step_record {
    uint64_t ms;
    const char *outcome;
};

struct job {
    struct job_spec spec;
    char id[DR_JOB_ID_MAX + 1];
    char ticket[24], mid[48], actor[160];
    void *state;
    const struct job_step *steps;
    struct cancel forward, undoing;
    bool is_undoing, past_point, partial;
    enum job_outcome forced;
    bool has_forced;
    enum dr_rc cancel_kind;
    unsigned started; /* steps begun */
    unsigned done_weight, all_weight;
    struct step_record records[STEPS_MAX];
    struct job_progress progress;
    _Atomic uint64_t counter;
    int64_t step_began_ms;
    unsigned told_pct;
    struct loop_timer *tick, *soft;
    struct dr_err err;
    const char *failed_step;
    char summary[512];
    struct dr_buf result;
    enum job_outcome outcome;
    uint64_t ran_ms;
};

const char *job_outcome_name(enum job_outcome o)
{
    static const char *const names[] = {"done",        "partial",     "failed",   "refused",
                                        "rolled_back", "needs_human", "cancelled"};
    return names[o];
}

const char *job_outcome_state(enum job_outcome o)
{
    if (o == JOB_DONE || o == JOB_PARTIAL)
        return "done";
    return o == JOB_CANCELLED ? "cancelled" : "failed";
}

static void tell(struct job *j, bool new_step)
{
    struct job_progress *p = &j->progress;
    const struct job_step *s = j->started ? &j->steps[j->started - 1] : NULL;
    uint64_t permille = (uint64_t)j->done_weight * 1000;
    p->done = atomic_load(&j->counter);
    int64_t ms = dr_clock_ms() - j->step_began_ms;
    p->rate = ms > 0 ? p->done * 1000 / (uint64_t)ms : 0;
    p->eta_ms = 0;
    if (s && p->total && p->done <= p->total && !new_step) {
        permille += (uint64_t)((double)p->done / (double)p->total * s->weight * 1000.0);
        if (p->rate)
            p->eta_ms = (p->total - p->done) * 1000 / p->rate;
    }
    unsigned pct = j->all_weight ? (unsigned)(permille / 10 / j->all_weight) : 0;
    if (pct > p->pct)
        p->pct = pct > 100 ? 100 : pct;
    bool changed = new_step || p->pct != j->told_pct || p->total;
    j->told_pct = p->pct;
    if (changed && j->spec.on_progress)
        j->spec.on_progress(j->spec.arg, p, new_step);
}

static void on_tick(void *arg)
{
    struct job *j = arg;
    tell(j, false);
    loop_timer_arm(j->tick, PROGRESS_EVERY_MS);
}

static void on_deadline(void *arg)
{
    job_cancel(arg, DR_E_TIMEOUT, "deadline of the job");
}

enum dr_rc job_new(const struct job_spec *spec, struct job **out, struct dr_err *err)
{
    struct job *j = dr_xalloc(sizeof *j);
    const struct job_task *task = spec->task;
    j->spec = *spec;
    (void)snprintf(j->id, sizeof j->id, "%s", spec->id);
    (void)snprintf(j->ticket, sizeof j->ticket, "%s", spec->ticket);
    (void)snprintf(j->mid, sizeof j->mid, "%s", spec->mid ? spec->mid : "");
    (void)snprintf(j->actor, sizeof j->actor, "%s", spec->actor ? spec->actor : "unsigned");
    j->spec.args = NULL;
    j->state = dr_xalloc(task->state_bytes);
    cancel_init(&j->forward, spec->services->loop);
    cancel_init(&j->undoing, spec->services->loop);
    dr_buf_init(&j->result, RESULT_MAX_BYTES);
    if (task->decode && task->decode(spec->args, j->state, err)) {
        job_free(j);
        return err->rc;
    }
    j->steps = task->plan ? task->plan(j->state) : task->steps;
    for (const struct job_step *s = j->steps; s->name; s++)
        j->all_weight += s->weight;
    j->soft = loop_timer_new(spec->services->loop, on_deadline, j);
    uint64_t deadline_s = spec->hard_s ? spec->hard_s : task->deadline_s;
    if (spec->soft_s && (!deadline_s || spec->soft_s < deadline_s))
        deadline_s = spec->soft_s;
    if (deadline_s)
        loop_timer_arm(j->soft, deadline_s * 1000);
    *out = j;
    return DR_OK;
}

void job_free(struct job *j)
{
    if (!j)
        return;
    loop_timer_free(j->tick);
    loop_timer_free(j->soft);
    cancel_fini(&j->forward);
    cancel_fini(&j->undoing);
    if (j->spec.task->fini)
        j->spec.task->fini(j->state);
    free(j->state);
    dr_buf_fini(&j->result);
    free(j);
}

void job_cancel(struct job *j, enum dr_rc why, const char *reason)
{
    if (j->cancel_kind || j->is_undoing || j->past_point)
        return; /* past the point the target's own lock decides */
    j->cancel_kind = why;
    cancel_fire(&j->forward, why, reason);
}

/* "<task>.<step>.intent" and ".done": where tests kill, stop and fail. */
static enum dr_rc step_fault(const struct job *j, const struct job_step *s, const char *when,
                             struct dr_err *err)
{
#if DR_FAULTS
    char point[80];
    (void)snprintf(point, sizeof point, "%s.%s.%s", j->spec.task->type, s->name, when);
    return fault_point(point, err);
#else
    (void)j, (void)s, (void)when, (void)err;
    return DR_OK;
#endif
}

static enum dr_rc run_step(struct job *j, unsigned i)
{
    const struct job_step *s = &j->steps[i];
    struct step_record *r = &j->records[i];
    if (!j->past_point && cancel_fired(&j->forward))
        return dr_fail(&j->err, j->cancel_kind, "%s", cancel_reason(&j->forward));
    j->started = i + 1;
    j->progress.step = s->name;
    j->progress.total = 0;
    j->progress.msg[0] = 0;
    atomic_store(&j->counter, 0);
    j->step_began_ms = dr_clock_ms();
    if (s->flags & STEP_POINT)
        j->past_point = true;
    tell(j, true);
    enum dr_rc rc = step_fault(j, s, "intent", &j->err);
    if (!rc)
        rc = s->run(j, &j->err);
    if (!rc)
        rc = step_fault(j, s, "done", &j->err);
    r->ms = (uint64_t)(dr_clock_ms() - j->step_began_ms);
    if (rc || !r->outcome)
        r->outcome = rc ? "failed" : "done";
    if (rc) {
        j->failed_step = s->name;
        if (!j->err.rc)
            (void)dr_fail(&j->err, rc, "step %s failed", s->name);
        return rc;
    }
    j->done_weight += s->weight;
    return DR_OK;
}

/* A started step is undone even when its run failed: it may have done half its work. */
static void undo_all(struct job *j)
{
    j->is_undoing = true;
    cancel_deadline(&j->undoing, UNDO_DEADLINE_MS);
    for (unsigned i = j->started; i-- > 0;) {
        const struct job_step *s = &j->steps[i];
        struct dr_err err = {0};
        if (!s->undo)
            continue;
        if (s->undo(j, &err)) {
            dr_log_err(DR_LOG_ERROR, "job.undo", &err, "job", j->id, "step", s->name, NULL);
            j->records[i].outcome = "undo failed";
            job_outcome_is(j, JOB_NEEDS_HUMAN);
        } else {
            j->records[i].outcome = "undone";
        }
    }
}

static enum job_outcome judge(const struct job *j)
{
    if (j->has_forced)
        return j->forced;
    switch (j->err.rc) {
    case DR_OK:
        return j->partial ? JOB_PARTIAL : JOB_DONE;
    case DR_E_REFUSED:
    case DR_E_PREFLIGHT:
    case DR_E_AUTH:
        return JOB_REFUSED;
    case DR_E_CANCELLED:
        return JOB_CANCELLED;
    case DR_E_NEEDS_HUMAN:
        return JOB_NEEDS_HUMAN;
    default:
        return JOB_FAILED;
    }
}

static void pack_error(struct dr_buf *b, const struct job *j)
{
    bool fields = j->err.field[0] != 0, reason = j->err.reason[0] != 0;
    dr_pack_str(b, "error", 5);
    dr_pack_map(b, 4u + (fields ? 2 : 0) + reason);
    dr_pack_pair(b, "kind", dr_rc_name(j->err.rc));
    dr_pack_pair(b, "class", dr_rc_class_name(j->err.rc));
    dr_pack_pair(b, "message", j->err.msg);
    dr_pack_pair(b, "step", j->failed_step ? j->failed_step : "");
    if (reason)
        dr_pack_pair(b, "reason", j->err.reason);
    if (fields) {
        dr_pack_pair(b, "field", j->err.field);
        dr_pack_pair(b, "value", j->err.value);
    }
}

static void pack_steps(struct dr_buf *b, const struct job *j)
{
    dr_pack_str(b, "steps", 5);
    dr_pack_array(b, j->started);
    for (unsigned i = 0; i < j->started; i++) {
        dr_pack_map(b, 3);
        dr_pack_pair(b, "name", j->steps[i].name);
        dr_pack_str(b, "ms", 2);
        dr_pack_uint(b, j->records[i].ms);
        dr_pack_pair(b, "outcome", j->records[i].outcome ? j->records[i].outcome : "not run");
    }
}

static void write_map(struct job *j, unsigned own_pairs, const struct dr_buf *own)
{
    dr_buf_reset(&j->result);
    dr_pack_map(&j->result, 3u + (j->err.rc != DR_OK) + own_pairs);
    dr_pack_pair(&j->result, "outcome", job_outcome_name(j->outcome));
    dr_pack_pair(&j->result, "summary", j->summary);
    if (j->err.rc)
        pack_error(&j->result, j);
    pack_steps(&j->result, j);
    if (own->len)
        dr_buf_add(&j->result, own->data, own->len);
}

static void write_result(struct job *j)
{
    struct dr_buf own;
    unsigned pairs = 0;
    dr_buf_init(&own, RESULT_MAX_BYTES);
    if (j->spec.task->result)
        pairs = j->spec.task->result(j, &own);
    if (!j->summary[0])
        job_summary(j, "%s: %s", j->spec.task->type,
                    j->err.rc ? j->err.msg : job_outcome_name(j->outcome));
    write_map(j, pairs, &own);
    if (own.failed || j->result.failed) {
        dr_buf_fini(&own);
        dr_buf_init(&own, 256);
        dr_pack_pair(&own, "note", "cut: the result is over 16 MiB");
        write_map(j, 1, &own);
    }
    dr_buf_fini(&own);
}

enum job_outcome job_run(struct job *j)
{
    enum dr_rc rc = DR_OK;
    int64_t began_ms = dr_clock_ms();
    j->tick = loop_timer_new(j->spec.services->loop, on_tick, j);
    loop_timer_arm(j->tick, PROGRESS_EVERY_MS);
    for (unsigned i = 0; i < STEPS_MAX && j->steps[i].name && !rc; i++)
        rc = run_step(j, i);
    loop_timer_stop(j->soft);
    if (rc)
        undo_all(j);
    loop_timer_stop(j->tick);
    /* A cancel that came too late to stop anything changes nothing. */
    if (rc == DR_OK)
        j->cancel_kind = DR_OK;
    j->outcome = judge(j);
    j->ran_ms = (uint64_t)(dr_clock_ms() - began_ms);
    write_result(j);
    return j->outcome;
}

enum dr_rc job_cancel_kind(const struct job *j)
{
    return j->cancel_kind;
}

bool job_handed_back(const struct job *j)
{
    return j->cancel_kind == DR_E_CANCELLED && strcmp(cancel_reason(&j->forward), "drain") == 0;
}

const struct dr_buf *job_result(struct job *j)
{
    return &j->result;
}

const struct dr_err *job_error(const struct job *j)
{
    return &j->err;
}

uint64_t job_ran_ms(const struct job *j)
{
    return j->ran_ms;
}

void *job_state(struct job *j)
{
    return j->state;
}

const struct job_services *job_services(const struct job *j)
{
    return j->spec.services;
}

const char *job_id(const struct job *j)
{
    return j->id;
}

const char *job_ticket(const struct job *j)
{
    return j->ticket;
}

const char *job_actor(const struct job *j)
{
    return j->actor;
}

const char *job_mid(const struct job *j)
{
    return j->mid;
}

bool job_resume(const struct job *j)
{
    return j->spec.resume;
}

struct cancel *job_cancel_token(struct job *j)
{
    return j->is_undoing ? &j->undoing : &j->forward;
}

enum dr_rc job_sleep(struct job *j, uint64_t ms, struct dr_err *err)
{
    enum dr_rc rc = fiber_sleep(ms, job_cancel_token(j));
    if (rc)
        return dr_fail(err, rc, "%s", cancel_reason(job_cancel_token(j)));
    return DR_OK;
}

void job_message(struct job *j, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(j->progress.msg, sizeof j->progress.msg, fmt, ap);
    va_end(ap);
}

void job_progress_total(struct job *j, uint64_t total_bytes)
{
    j->progress.total = total_bytes;
}

_Atomic uint64_t *job_progress_counter(struct job *j)
{
    return &j->counter;
}

void job_step_outcome(struct job *j, const char *outcome)
{
    j->records[j->started - 1].outcome = outcome;
}

void job_mark_partial(struct job *j)
{
    j->partial = true;
}

void job_summary(struct job *j, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(j->summary, sizeof j->summary, fmt, ap);
    va_end(ap);
}

void job_outcome_is(struct job *j, enum job_outcome o)
{
    j->forced = o;
    j->has_forced = true;
}
