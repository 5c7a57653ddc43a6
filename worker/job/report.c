/* How a delivery ends: refused, ended, to be tried again, parked. In the delivery's fiber; calls
 * wait until Redis has it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/wire/pack.h"
#include "worker/job/dispatch_internal.h"

enum { DAY_MS = 86400000, PARK_MS = 5000 };

int64_t report_record_ttl(const struct dr_envelope *e, int64_t now_ms, int64_t days)
{
    int64_t ttl = days * DAY_MS, until_exp = e && e->exp_ms > now_ms ? e->exp_ms - now_ms : 0;
    return ttl > until_exp ? ttl : until_exp;
}

/* A refusal's kind is its sub-class; that of a failed run is the error's, as in the result. */
static void pack_err(struct dr_buf *b, const struct dr_err *err, bool refused)
{
    dr_pack_map(b, refused ? 5 : 6);
    dr_pack_pair(b, "kind", refused && err->reason[0] ? err->reason : dr_rc_name(err->rc));
    if (!refused)
        dr_pack_pair(b, "reason", err->reason);
    dr_pack_pair(b, "class", dr_rc_class_name(err->rc));
    dr_pack_pair(b, "message", err->msg);
    dr_pack_pair(b, "field", err->field);
    dr_pack_pair(b, "value", err->value);
}

void report_refusal(struct delivery *x, const struct dr_err *err)
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
    pack_err(&err_map, err, true);
    const struct queue_refusal refusal = {.reason = x->refusal.reason,
                                          .record = x->refusal.record,
                                          .info = info.data,
                                          .info_len = info.len,
                                          .err = err_map.data,
                                          .err_len = err_map.len};
    dr_log_err(DR_LOG_WARN, "job.refused", err, "job", x->refusal.id, "lane", x->lane->row->name,
               "dead", x->refusal.reason, NULL);
    delivery_tell(x, DISPATCH_REFUSED, NULL, err);
    if (queue_bury(q, &x->held, &refusal, &failed))
        dr_log_err(DR_LOG_ERROR, "queue.bury", &failed, NULL);
    dr_buf_fini(&info);
    dr_buf_fini(&err_map);
}

void report_end(struct delivery *x, enum job_outcome outcome, const struct dr_buf *res,
                const struct dr_err *why)
{
    const struct dispatch_options *o = &x->lane->dispatch->o;
    struct queue *q = x->lane->dispatch->queue;
    struct dr_buf err_map, small;
    struct dr_err err = {0};
    const char *reply = "?";
    bool ok = outcome == JOB_DONE || outcome == JOB_PARTIAL;
    dr_buf_init(&err_map, 8192);
    dr_buf_init(&small, 131072);
    res = keep_in_redis(x, res, &small);
    if (!ok)
        pack_err(&err_map, why, false);
    int64_t ttl = report_record_ttl(x->envelope, queue_now_ms(q), ok ? 1 : RECORD_TTL_DAYS);
    const struct queue_end end = {.st = job_outcome_state(outcome),
                                  .outcome = job_outcome_name(outcome),
                                  .res = res ? res->data : NULL,
                                  .res_len = res ? res->len : 0,
                                  .err = err_map.data,
                                  .err_len = err_map.len,
                                  .ttl_ms = ttl,
                                  .res_ttl_ms = (int64_t)x->envelope->result_ttl_s * 1000};
    if (queue_finish(q, &x->held, &end, &reply, &err))
        dr_log_err(DR_LOG_ERROR, "job.unreported", &err, "job", x->envelope->id, NULL);
    else if (strcmp(reply, "STALE") == 0)
        dr_log(DR_LOG_WARN, "job.stale", "job", x->envelope->id, "outcome", end.outcome, NULL);
    else if (o->on_end)
        o->on_end(o->arg, x->lane->task, x->job, outcome);
    dr_buf_fini(&err_map);
    dr_buf_fini(&small);
}

bool report_retry(struct delivery *x, const struct dr_err *why)
{
    const struct dr_envelope *e = x->envelope;
    const struct dispatch_options *o = &x->lane->dispatch->o;
    struct dr_buf err_map;
    struct dr_err err = {0};
    bool open = x->resume && o->open_run(o->journals, x->message.mid, e->id);
    if (dr_rc_class(why->rc) != DR_CLASS_RETRY || (x->attempt >= e->attempts && !open))
        return false;
    uint64_t wait = e->backoff_base_ms;
    for (unsigned i = 1; i < x->attempt && wait < e->backoff_cap_ms; i++)
        wait *= 2;
    if (wait > e->backoff_cap_ms)
        wait = e->backoff_cap_ms;
    wait = (uint64_t)((double)wait * (0.5 + 0.5 * dr_random_unit()));
    dr_buf_init(&err_map, 8192);
    pack_err(&err_map, why, false);
    (void)queue_fail(x->lane->dispatch->queue, &x->held, err_map.data, err_map.len, (int64_t)wait,
                     &err);
    dispatch_due(x->lane, (int64_t)wait);
    dr_buf_fini(&err_map);
    dr_log_err(DR_LOG_WARN, "job.retry", why, "job", e->id, NULL);
    return true;
}

bool report_park(struct delivery *x, const struct dr_err *why)
{
    struct queue *q = x->lane->dispatch->queue;
    int64_t now = queue_now_ms(q);
    struct dr_err err = {0};
    if (why->rc != DR_E_LOCKED || strcmp(why->reason, "park") != 0)
        return false;
    dr_log(DR_LOG_INFO, "job.parked", "job", x->envelope->id, "why", why->msg, NULL);
    if (queue_park(q, &x->held, now + PARK_MS, report_record_ttl(x->envelope, now, RECORD_TTL_DAYS),
                   &err))
        dr_log_err(DR_LOG_ERROR, "queue.park", &err, NULL);
    dispatch_due(x->lane, PARK_MS);
    return true;
}
