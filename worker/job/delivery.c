/* One claimed message, in its own fiber: checked, started, run, reported. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/wire/envelope.h"
#include "common/wire/pack.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/job/dispatch_internal.h"

enum {
    DAY_MS = 86400000,
    RESULT_INLINE_MAX = 65536,
    RECORD_TTL_DAYS = 14, /* while it waits or runs, and after a failure */
};

struct delivery {
    struct delivery *next, **prev;
    struct lane *lane;
    struct queue_message message;
    struct queue_held held;
    struct dr_envelope *envelope;
    struct dr_refusal refusal;
    struct job *job;
    enum dr_rc stop; /* asked to stop before the job was made */
    bool drain;
    unsigned attempt;
};

struct delivery *delivery_next(struct delivery *x)
{
    return x->next;
}

void delivery_stop(struct delivery *x, enum dr_rc why, const char *reason)
{
    if (strcmp(reason, "drain") == 0)
        x->drain = true;
    if (!x->stop)
        x->stop = why;
    if (x->job)
        job_cancel(x->job, why, reason);
}

static int64_t record_ttl(const struct dr_envelope *e, int64_t now_ms, int64_t days)
{
    int64_t ttl = days * DAY_MS, until_exp = e && e->exp_ms > now_ms ? e->exp_ms - now_ms : 0;
    return ttl > until_exp ? ttl : until_exp;
}

static void pack_err(struct dr_buf *b, const struct dr_err *err)
{
    dr_pack_map(b, 5);
    dr_pack_pair(b, "kind", err->reason[0] ? err->reason : dr_rc_name(err->rc));
    dr_pack_pair(b, "class", dr_rc_class_name(err->rc));
    dr_pack_pair(b, "message", err->msg);
    dr_pack_pair(b, "field", err->field);
    dr_pack_pair(b, "value", err->value);
}

static void bury(struct delivery *x, const struct dr_err *err)
{
    struct queue *q = x->lane->dispatch->queue;
    struct dr_buf info, err_map;
    struct dr_err failed = {0};
    char lost[24];
    dr_buf_init(&info, 8192);
    dr_buf_init(&err_map, 8192);
    (void)snprintf(lost, sizeof lost, "%llu", (unsigned long long)x->message.lost);
    dr_pack_map(&info, 9);
    dr_pack_pair(&info, "reason", x->refusal.reason);
    dr_pack_pair(&info, "kind", err->reason);
    dr_pack_pair(&info, "field", err->field);
    dr_pack_pair(&info, "value", err->value);
    dr_pack_pair(&info, "message", err->msg);
    dr_pack_pair(&info, "jid", x->refusal.id);
    dr_pack_pair(&info, "lane", x->lane->row->name);
    dr_pack_pair(&info, "deliveries", lost);
    dr_pack_pair(&info, "wid", queue_wid(q));
    pack_err(&err_map, err);
    const struct queue_refusal refusal = {.reason = x->refusal.reason,
                                          .record = x->refusal.record,
                                          .info = info.data,
                                          .info_len = info.len,
                                          .err = err_map.data,
                                          .err_len = err_map.len};
    dr_log_err(DR_LOG_WARN, "job.refused", err, "job", x->refusal.id, "lane", x->lane->row->name,
               "dead", x->refusal.reason, NULL);
    if (queue_bury(q, &x->held, &refusal, &failed))
        dr_log_err(DR_LOG_ERROR, "queue.bury", &failed, NULL);
    dr_buf_fini(&info);
    dr_buf_fini(&err_map);
}

static bool check_message(struct delivery *x)
{
    const struct dispatch *d = x->lane->dispatch;
    struct dr_err err = {0};
    const struct dr_envelope_ctx ctx = {.ns = d->o.services->ns,
                                        .lane = x->lane->row->name,
                                        .keys = d->o.keys,
                                        .sched_key = d->o.sched_key,
                                        .allow_unsigned = d->o.allow_unsigned,
                                        .now_ms = queue_now_ms(d->queue)};
    if (x->message.lost > x->lane->row->lost_allowed) {
        x->refusal.reason = "poison";
        (void)dr_envelope_peek(x->message.raw, x->message.len, x->refusal.id, x->refusal.dig);
        x->refusal.record = true;
        (void)dr_fail(&err, DR_E_INVALID, "its workers died too often");
        (void)dr_err_reason(&err, "poison");
    } else if (dr_envelope_check(&ctx, x->message.raw, x->message.len, &x->envelope, &x->refusal,
                                 &err) == DR_OK) {
        x->held.jid = x->envelope->id;
        memcpy(x->held.dig, x->envelope->dig, sizeof x->envelope->dig);
        return true;
    }
    x->held.jid = x->refusal.id;
    memcpy(x->held.dig, x->refusal.dig, sizeof x->refusal.dig);
    bury(x, &err);
    return false;
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
                                  .ttl_ms = record_ttl(e, queue_now_ms(q), RECORD_TTL_DAYS),
                                  .kid = e->kid,
                                  .actor = e->actor};
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
        x->refusal.reason = "id-collision";
        x->refusal.record = false;
        memcpy(x->refusal.id, e->id, sizeof e->id);
        (void)dr_fail(&err, DR_E_EXISTS, "another message has run under this id");
        (void)dr_err_reason(&err, "id-collision");
        (void)dr_err_field(&err, "id", e->id, strlen(e->id));
        bury(x, &err);
        break;
    case QUEUE_GONE:
    case QUEUE_ENDED:
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
    if (new_step && x->lane->task->steps[1].name == NULL)
        return;
    queue_progress(x->lane->dispatch->queue, &x->held, &report);
}

static void report_end(struct delivery *x, enum job_outcome outcome, const struct dr_err *why)
{
    struct queue *q = x->lane->dispatch->queue;
    const struct dr_buf *res = x->job ? job_result(x->job) : NULL;
    struct dr_buf err_map;
    struct dr_err err = {0};
    const char *reply = "?";
    bool ok = outcome == JOB_DONE || outcome == JOB_PARTIAL;
    dr_buf_init(&err_map, 8192);
    if (!ok)
        pack_err(&err_map, why);
    int64_t ttl = record_ttl(x->envelope, queue_now_ms(q), ok ? 1 : RECORD_TTL_DAYS);
    const struct queue_end end = {.st = job_outcome_state(outcome),
                                  .outcome = job_outcome_name(outcome),
                                  .res = res ? res->data : NULL,
                                  .res_len = res ? res->len : 0,
                                  .err = err_map.data,
                                  .err_len = err_map.len,
                                  .ttl_ms = ttl};
    if (queue_finish(q, &x->held, &end, &reply, &err))
        dr_log_err(DR_LOG_ERROR, "job.unreported", &err, "job", x->envelope->id, NULL);
    else if (strcmp(reply, "STALE") == 0)
        dr_log(DR_LOG_WARN, "job.stale", "job", x->envelope->id, "outcome", end.outcome, NULL);
    dr_buf_fini(&err_map);
}

static bool retry(struct delivery *x, const struct dr_err *why)
{
    const struct dr_envelope *e = x->envelope;
    struct dr_buf err_map;
    struct dr_err err = {0};
    if (dr_rc_class(why->rc) != DR_CLASS_RETRY || x->attempt >= e->attempts)
        return false;
    uint64_t wait = e->backoff_base_ms;
    for (unsigned i = 1; i < x->attempt && wait < e->backoff_cap_ms; i++)
        wait *= 2;
    if (wait > e->backoff_cap_ms)
        wait = e->backoff_cap_ms;
    wait = (uint64_t)((double)wait * (0.5 + 0.5 * dr_random_unit()));
    dr_buf_init(&err_map, 8192);
    pack_err(&err_map, why);
    (void)queue_fail(x->lane->dispatch->queue, &x->held, err_map.data, err_map.len, (int64_t)wait,
                     &err);
    dispatch_due(x->lane, (int64_t)wait);
    dr_buf_fini(&err_map);
    dr_log_err(DR_LOG_WARN, "job.retry", why, "job", e->id, NULL);
    return true;
}

static void log_end(const struct delivery *x, enum job_outcome outcome, const struct dr_err *why)
{
    bool ok = outcome == JOB_DONE || outcome == JOB_PARTIAL;
    if (ok)
        dr_log(DR_LOG_INFO, "job.end", "job", x->envelope->id, "lane", x->lane->row->name,
               "outcome", job_outcome_name(outcome), NULL);
    else
        dr_log_err(DR_LOG_ERROR, "job.end", why, "job", x->envelope->id, "lane", x->lane->row->name,
                   "outcome", job_outcome_name(outcome), NULL);
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
                                  .args = e->args,
                                  .soft_s = e->soft_s,
                                  .hard_s = e->hard_s,
                                  .on_progress = on_progress,
                                  .arg = x};
    if (job_new(&spec, &x->job, &err)) {
        log_end(x, JOB_FAILED, &err);
        report_end(x, JOB_FAILED, &err);
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
    } else if (cancelled == DR_E_CANCELLED && x->drain && why->rc == DR_E_CANCELLED) {
        (void)queue_release(d->queue, &x->held, &err);
        dr_log(DR_LOG_INFO, "job.handed_back", "job", e->id, NULL);
    } else if (outcome != JOB_FAILED || !retry(x, why)) {
        log_end(x, outcome, why);
        report_end(x, outcome, why);
    }
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
    else if (check_message(x) && start_job(x))
        run_job(x);
    queue_unhold(q, &x->held);
    unlink_delivery(x);
    job_free(x->job);
    dr_envelope_free(x->envelope);
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
