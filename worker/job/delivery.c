/* One claimed message, in its own fiber: checked, started, run, reported. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/job/dispatch_internal.h"
#include "worker/queue/record.h"

void delivery_stop(struct delivery *x, enum dr_rc why, const char *reason)
{
    if (x->resume && why == DR_E_CANCELLED && strcmp(reason, "drain") != 0)
        return; /* an open journal is finished or undone, whoever cancels */
    if (strcmp(reason, "drain") == 0)
        x->drain = true;
    if (!x->stop)
        x->stop = why;
    if (x->job)
        job_cancel(x->job, why, reason);
}

void delivery_tell(struct delivery *x, enum dispatch_verdict verdict, const char *outcome,
                   const struct dr_err *err)
{
    struct dispatch *d = x->lane->dispatch;
    const struct dr_envelope *e = x->envelope;
    const struct dr_refusal *r = &x->refusal;
    char by[QUEUE_BY_MAX] = "";
    if (outcome && strcmp(outcome, "cancelled") == 0)
        queue_cancelled_by(d->queue, e->id, by);
    struct dispatch_order o = {.verdict = verdict,
                               .job_id = e ? e->id : r->id,
                               .actor = e ? e->actor : r->actor,
                               .kid = e ? e->kid : r->kid,
                               .claimed_actor = e ? e->claimed_actor : r->claimed_actor,
                               .args = e ? e->args : NULL,
                               .attempt = x->attempt,
                               .outcome = outcome,
                               .cancelled_by = by,
                               .err = err,
                               .reason = r->reason};
    dispatch_tell_order(d, x->lane->row->name, &o);
}

static void refuse_collision(struct delivery *x, const char *id)
{
    struct dr_err err = {0};
    x->refusal.reason = "id-collision";
    x->refusal.record = false;
    memmove(x->refusal.id, id, strlen(id) + 1);
    (void)dr_fail(&err, DR_E_EXISTS, "another message has run under this id");
    (void)dr_err_reason(&err, "id-collision");
    (void)dr_err_field(&err, "id", id, strlen(id));
    report_refusal(x, &err);
}

/* What the journals know of the message; false: it is a collision and is buried. */
static bool ask_journals(struct delivery *x)
{
    const struct dispatch_options *o = &x->lane->dispatch->o;
    char id[DR_JOB_ID_MAX + 1], dig[DR_DIG_TEXT];
    if (!(x->lane->task->flags & TASK_HEAVY) || !o->open_run ||
        !dr_envelope_peek(x->message.raw, x->message.len, id, dig))
        return true;
    x->resume = o->open_run(o->journals, x->message.mid, id);
    if (x->resume || !o->closed_run)
        return true;
    switch (o->closed_run(o->journals, x->message.mid, id, &x->recorded)) {
    case DISPATCH_UNKNOWN:
        break;
    case DISPATCH_CLOSED:
        x->has_recorded = true;
        break;
    case DISPATCH_OTHER:
        x->held.jid = x->refusal.id;
        memcpy(x->held.dig, dig, sizeof dig);
        refuse_collision(x, id);
        return false;
    }
    return true;
}

static bool check_message(struct delivery *x)
{
    const struct dispatch *d = x->lane->dispatch;
    struct dr_err err = {0};
    bool accepted = x->resume || x->has_recorded;
    const struct dr_envelope_ctx ctx = {.ns = d->o.services->ns,
                                        .lane = x->lane->row->name,
                                        .keys = d->o.keys,
                                        .sched_key = d->o.sched_key,
                                        .allow_unsigned = d->o.allow_unsigned,
                                        .accepted = accepted,
                                        .now_ms = queue_now_ms(d->queue)};
    if (!accepted && x->message.lost > x->lane->row->lost_allowed) {
        x->refusal.reason = "poison";
        (void)dr_envelope_peek(x->message.raw, x->message.len, x->refusal.id, x->refusal.dig);
        x->refusal.record = true;
        (void)dr_fail(&err, DR_E_INVALID, "its workers died too often");
        (void)dr_err_reason(&err, "poison");
        if (d->o.on_poison)
            d->o.on_poison(d->o.arg, ctx.lane, x->message.raw, x->message.len);
    } else if (dr_envelope_check(&ctx, x->message.raw, x->message.len, &x->envelope, &x->refusal,
                                 &err) == DR_OK) {
        x->held.jid = x->envelope->id;
        memcpy(x->held.dig, x->envelope->dig, sizeof x->envelope->dig);
        return true;
    }
    x->held.jid = x->refusal.id;
    memcpy(x->held.dig, x->refusal.dig, sizeof x->refusal.dig);
    report_refusal(x, &err);
    return false;
}

static const char *ended_how(enum queue_started how)
{
    return how == QUEUE_EXPIRED ? "expired" : "cancelled";
}

/* True when the job is ours to run. */
static bool start_job(struct delivery *x)
{
    struct queue *q = x->lane->dispatch->queue;
    const struct dr_envelope *e = x->envelope;
    struct dr_err err = {0};
    enum queue_started started = QUEUE_GONE;
    const struct queue_start s = {.exp_ms = e->exp_ms,
                                  .nbf_ms = e->nbf_ms,
                                  .ttl_ms = report_record_ttl(e, queue_now_ms(q), RECORD_TTL_DAYS),
                                  .kid = e->kid,
                                  .actor = e->actor,
                                  .journal = x->resume         ? QUEUE_RESUME
                                             : x->has_recorded ? QUEUE_RECORDED
                                                               : QUEUE_FRESH};
    if (queue_start_job(q, &x->held, &s, &started, &x->attempt, &err))
        return false;
    switch (started) {
    case QUEUE_RUN:
        return true;
    case QUEUE_DUP_DONE:
    case QUEUE_DUP_RUN:
        dr_log(DR_LOG_INFO, "job.duplicate", "job", e->id, NULL);
        (void)queue_drop(q, &x->held, started == QUEUE_DUP_DONE, &err);
        break;
    case QUEUE_NOT_YET:
        (void)queue_park(q, &x->held, e->nbf_ms, s.ttl_ms, &err);
        dispatch_due(x->lane, e->nbf_ms - queue_now_ms(q));
        break;
    case QUEUE_COLLISION:
        refuse_collision(x, e->id);
        break;
    case QUEUE_EXPIRED:
    case QUEUE_CANCELLED:
        x->attempt = 0;
        dr_log(DR_LOG_INFO, "job.ended_waiting", "job", e->id, "outcome", ended_how(started), NULL);
        delivery_tell(x, DISPATCH_ENDED, ended_how(started), NULL);
        (void)queue_drop(q, &x->held, true, &err);
        break;
    case QUEUE_GONE:
        break;
    }
    return false;
}

static void on_progress(void *arg, const struct job_progress *p, bool new_step)
{
    struct delivery *x = arg;
    const struct queue_progress report = {.new_step = new_step,
                                          .pct = p->pct,
                                          .step = p->step,
                                          .msg = p->msg,
                                          .done = p->done,
                                          .total = p->total,
                                          .rate = p->rate,
                                          .eta_ms = p->eta_ms};
    /* A job of one step that just began says nothing that `started` did not say. */
    if (new_step && x->lane->task->steps && x->lane->task->steps[1].name == NULL)
        return;
    queue_progress(x->lane->dispatch->queue, &x->held, &report);
}

static void end(struct delivery *x, enum job_outcome outcome, const struct dr_buf *res,
                const struct dr_err *why)
{
    bool ok = outcome == JOB_DONE || outcome == JOB_PARTIAL;
    if (ok)
        dr_log(DR_LOG_INFO, "job.end", "job", x->envelope->id, "lane", x->lane->row->name,
               "outcome", job_outcome_name(outcome), NULL);
    else
        dr_log_err(DR_LOG_ERROR, "job.end", why, "job", x->envelope->id, "lane", x->lane->row->name,
                   "outcome", job_outcome_name(outcome), NULL);
    delivery_tell(x, DISPATCH_ENDED, job_outcome_name(outcome), ok ? NULL : why);
    report_end(x, outcome, res, why);
}

static void run_job(struct delivery *x)
{
    struct dispatch *d = x->lane->dispatch;
    const struct dr_envelope *e = x->envelope;
    struct dr_err err = {0};
    const struct job_spec spec = {.services = d->o.services,
                                  .task = x->lane->task,
                                  .id = e->id,
                                  .ticket = x->message.ticket,
                                  .actor = e->actor,
                                  .mid = x->message.mid,
                                  .resume = x->resume,
                                  .args = e->args,
                                  .soft_s = e->soft_s,
                                  .hard_s = e->hard_s,
                                  .on_progress = on_progress,
                                  .arg = x};
    delivery_tell(x, DISPATCH_STARTED, NULL, NULL);
    if (job_new(&spec, &x->job, &err)) {
        end(x, JOB_FAILED, NULL, &err);
        return;
    }
    if (x->stop)
        job_cancel(x->job, x->stop, "stopped before it began");
    loop_label(d->o.services->loop, e->id);
    enum job_outcome outcome = job_run(x->job);
    const struct dr_err *why = job_error(x->job);
    enum dr_rc cancelled = job_cancel_kind(x->job);
    if (cancelled == DR_E_STALE) {
        dr_log(DR_LOG_WARN, "job.stale", "job", e->id, NULL);
        delivery_tell(x, DISPATCH_ENDED, "stale", why);
    } else if (cancelled == DR_E_CANCELLED && x->drain && why->rc == DR_E_CANCELLED) {
        (void)queue_release(d->queue, &x->held, &err);
        dr_log(DR_LOG_INFO, "job.handed_back", "job", e->id, NULL);
        delivery_tell(x, DISPATCH_ENDED, "handed_back", why);
    } else if (outcome == JOB_FAILED && report_park(x, why)) {
        delivery_tell(x, DISPATCH_ENDED, "parked", why);
    } else if (outcome == JOB_FAILED && report_retry(x, why)) {
        delivery_tell(x, DISPATCH_ENDED, "retry", why);
    } else {
        end(x, outcome, job_result(x->job), why);
    }
}

/* A closed journal says how the job ended: whoever ran it could not report it. */
static void run_or_repeat(struct delivery *x)
{
    const struct dispatch_recorded *r = &x->recorded;
    if (!x->has_recorded) {
        run_job(x);
        return;
    }
    end(x, r->outcome, &r->result, &r->err);
}

static void unlink_delivery(struct delivery *x)
{
    *x->prev = x->next;
    if (x->next)
        x->next->prev = x->prev;
}

static void delivery_fiber(void *arg)
{
    struct delivery *x = arg;
    struct lane *l = x->lane;
    struct queue *q = l->dispatch->queue;
    struct dr_err err = {0};
    queue_hold(q, &x->held);
    if (x->drain)
        (void)queue_release(q, &x->held, &err);
    else if (ask_journals(x) && check_message(x) && start_job(x))
        run_or_repeat(x);
    queue_unhold(q, &x->held);
    unlink_delivery(x);
    job_free(x->job);
    dr_envelope_free(x->envelope);
    dr_buf_fini(&x->recorded.result);
    queue_message_fini(&x->message);
    free(x);
    dispatch_give_back(l);
}

void delivery_start(struct lane *l, struct queue_message *m)
{
    struct delivery *x = dr_xalloc(sizeof *x);
    struct dispatch *d = l->dispatch;
    x->lane = l;
    x->message = *m;
    m->raw = NULL;
    x->drain = d->draining;
    x->held.holder = x;
    x->held.lane = l->row->name;
    x->held.ticket = x->message.ticket;
    x->held.mid = x->message.mid;
    x->held.jid = "";
    x->next = d->deliveries;
    x->prev = &d->deliveries;
    if (d->deliveries)
        d->deliveries->prev = &x->next;
    d->deliveries = x;
    fiber_start(d->o.services->loop, delivery_fiber, x);
}
