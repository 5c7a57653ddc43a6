/* One function a transition: builds the call, reads the reply. Lost replies: queue_run_sure. */
#include "worker/queue/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/wire/envelope.h"
#include "worker/queue/shared.h"

static void lane_keys(struct script_call *c, struct queue *q, const char *lane)
{
    script_key(c, &q->keys, "run", "");
    script_key(c, &q->keys, "lease:", lane);
    script_key(c, &q->keys, "own:", q->wid);
}

static enum dr_rc take_messages(struct queue *q, const char *lane, const redisReply *r,
                                struct queue_message *out, unsigned *count)
{
    for (size_t i = 4; i + 1 < r->elements && *count < QUEUE_BATCH; i += 2) {
        struct queue_message *m = &out[(*count)++];
        const redisReply *raw = r->element[i + 1];
        memset(m, 0, sizeof *m);
        (void)snprintf(m->ticket, sizeof m->ticket, "%s", script_text(r, i));
        m->lane = lane;
        if (!m->ticket[0]) {
            m->len = (size_t)script_integer(r, i + 1);
            continue;
        }
        m->len = raw->len;
        m->raw = dr_xalloc(raw->len + 1); /* bounded by the script: QUEUE_RAW_MAX */
        memcpy(m->raw, raw->str, raw->len);
        dr_wire_mid(m->raw, m->len, m->mid);
    }
    (void)q;
    return DR_OK;
}

/* Lost deliveries of each message, asked for only when Redis holds any. */
static void read_lost(struct queue *q, struct queue_message *m, unsigned count)
{
    char key[DR_KEY_MAX];
    const char *argv[2 + QUEUE_BATCH] = {"HMGET", dr_key(&q->keys, key, "deliv", "")};
    size_t len[2 + QUEUE_BATCH] = {5, strlen(key)};
    redisReply *r = NULL;
    struct dr_err err = {0};
    for (unsigned i = 0; i < count; i++) {
        argv[2 + i] = m[i].mid;
        len[2 + i] = 40;
    }
    if (queue_conn_call(q->conn, (int)(2 + count), argv, len, 0, NULL, &r, &err)) {
        dr_log_err(DR_LOG_WARN, "queue.deliveries", &err, NULL);
        return;
    }
    for (unsigned i = 0; i < count && r->type == REDIS_REPLY_ARRAY; i++)
        m[i].lost = (uint64_t)script_integer(r, i);
    freeReplyObject(r);
}

enum dr_rc queue_claim(struct queue *q, const char *lane, unsigned max, struct queue_message *out,
                       unsigned *count, int64_t *wait_ms, bool *paused, struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    redisReply *r = NULL;
    char hi[DR_KEY_MAX];
    *count = 0;
    if (queue_told_store(q, err)) {
        free(c);
        return err->rc;
    }
    (void)snprintf(hi, sizeof hi, "%sq:%s:hi", q->keys.prefix, lane);
    script_begin(c, "claim");
    script_key(c, &q->keys, "q:", lane);
    script_key_text(c, hi);
    script_key(c, &q->keys, "lease:", lane);
    script_key(c, &q->keys, "run", "");
    script_key(c, &q->keys, "own:", q->wid);
    script_key(c, &q->keys, "ctr", "");
    script_key(c, &q->keys, "deliv", "");
    script_key(c, &q->keys, "delay:", lane);
    static const char *const rest[] = {"delayraw", "pause", "dead", "deadraw",
                                       "deadinfo", "ev",    "stat"};
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++)
        script_key(c, &q->keys, rest[i], "");
    script_arg(c, lane);
    script_arg(c, q->wid);
    script_number(c, max > QUEUE_BATCH ? QUEUE_BATCH : max);
    script_number(c, q->o.lease_ms);
    script_number(c, QUEUE_RAW_MAX);
    q->claiming++; /* reconcile must not take a reply on its way for a lost one */
    enum dr_rc rc = script_run(c, q->scripts, q->conn, &r, err);
    if (rc == DR_OK) {
        queue_saw_clock(q, script_integer(r, 1));
        *wait_ms = script_integer(r, 2);
        *paused = strcmp(script_text(r, 0), "PAUSED") == 0;
        rc = take_messages(q, lane, r, out, count);
        if (*count && script_integer(r, 3) > 0)
            read_lost(q, out, *count);
    }
    q->claiming--;
    freeReplyObject(r);
    free(c);
    return rc;
}

void queue_message_fini(struct queue_message *m)
{
    free(m->raw);
    m->raw = NULL;
}

static enum queue_started started_code(const char *code)
{
    static const struct {
        const char *text;
        enum queue_started code;
    } codes[] = {{"OK", QUEUE_RUN},
                 {"ALREADY", QUEUE_RUN},
                 {"DUP_DONE", QUEUE_DUP_DONE},
                 {"DUP_RUN", QUEUE_DUP_RUN},
                 {"COLLISION", QUEUE_COLLISION},
                 {"NOT_YET", QUEUE_NOT_YET},
                 {"CANCELLED", QUEUE_CANCELLED},
                 {"EXPIRED", QUEUE_EXPIRED}};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(code, codes[i].text) == 0)
            return codes[i].code;
    return QUEUE_GONE;
}

static void put_start(struct script_call *c, const struct shared_part *p)
{
    const struct queue_start *s = p->what;
    script_arg(c, p->held->ticket);
    script_arg(c, p->held->jid);
    script_arg(c, p->held->dig);
    script_number(c, s->exp_ms);
    script_number(c, s->nbf_ms);
    script_arg(c, s->kid ? s->kid : "");
    script_number(c, s->ttl_ms);
    script_number(c, s->journal);
    script_arg(c, s->actor ? s->actor : "unsigned");
    script_arg(c, p->held->mid);
}

enum dr_rc queue_start_job(struct queue *q, struct queue_held *h, const struct queue_start *s,
                           enum queue_started *out, unsigned *n, struct dr_err *err)
{
    static const char *const keys[] = {"ev", "deliv", NULL};
    static const struct shared_kind start = {"start", keys, true, put_start};
    struct shared_part part = {.held = h, .what = s};
    enum dr_rc rc = shared_run(q, &start, &part, err);
    if (rc == DR_OK) {
        *out = started_code(script_text(part.answer, 0));
        *n = (unsigned)script_integer(part.answer, 1);
        h->started = *out == QUEUE_RUN;
    }
    freeReplyObject(part.answer);
    return rc;
}

static enum dr_rc run_simple(struct queue *q, struct script_call *c, struct dr_err *err)
{
    redisReply *r = NULL;
    enum dr_rc rc = queue_run_sure(q, c, false, &r, err);
    freeReplyObject(r);
    free(c);
    return rc;
}

enum dr_rc queue_drop(struct queue *q, struct queue_held *h, bool clear_deliv, struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    script_begin(c, "drop");
    lane_keys(c, q, h->lane);
    script_key(c, &q->keys, "deliv", "");
    script_arg(c, h->ticket);
    script_arg(c, h->mid);
    script_arg(c, clear_deliv ? "1" : "0");
    return run_simple(q, c, err);
}

enum dr_rc queue_park(struct queue *q, struct queue_held *h, int64_t due_ms, int64_t ttl_ms,
                      struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    script_begin(c, "park");
    lane_keys(c, q, h->lane);
    script_key(c, &q->keys, "delay:", h->lane);
    script_key(c, &q->keys, "delayraw", "");
    script_key(c, &q->keys, "job:", h->jid);
    script_key(c, &q->keys, "ev", "");
    script_arg(c, h->ticket);
    script_number(c, due_ms);
    script_arg(c, h->jid);
    script_arg(c, h->lane);
    script_arg(c, h->dig);
    script_number(c, ttl_ms);
    script_arg(c, h->started ? "1" : "0");
    return run_simple(q, c, err);
}

static void put_finish(struct script_call *c, const struct shared_part *p)
{
    const struct queue_end *e = p->what;
    script_arg(c, p->held->ticket);
    script_arg(c, p->held->jid);
    script_arg(c, p->held->mid);
    script_arg(c, e->st);
    script_arg(c, e->outcome);
    script_bytes(c, e->res ? e->res : "", e->res_len);
    script_bytes(c, e->err ? e->err : "", e->err_len);
    script_number(c, e->ttl_ms);
    script_arg(c, p->held->dig);
    script_number(c, e->res_ttl_ms);
}

static const char *ended_code(const char *code)
{
    static const char *const known[] = {"OK", "ALREADY", "STALE"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(code, known[i]) == 0)
            return known[i];
    return "?";
}

enum dr_rc queue_finish(struct queue *q, struct queue_held *h, const struct queue_end *e,
                        const char **reply, struct dr_err *err)
{
    static const char *const keys[] = {"deliv", "ev", "stat", "rt", NULL};
    static const struct shared_kind finish = {"finish", keys, false, put_finish};
    struct shared_part part = {.held = h, .what = e, .bytes = e->res_len + e->err_len};
    enum dr_rc rc = shared_run(q, &finish, &part, err);
    if (rc == DR_OK)
        *reply = ended_code(script_text(part.answer, 0));
    freeReplyObject(part.answer);
    return rc;
}

enum dr_rc queue_fail(struct queue *q, struct queue_held *h, const void *err_map, size_t err_len,
                      int64_t wait_ms, struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    script_begin(c, "fail");
    script_key(c, &q->keys, "job:", h->jid);
    lane_keys(c, q, h->lane);
    script_key(c, &q->keys, "delay:", h->lane);
    script_key(c, &q->keys, "delayraw", "");
    script_key(c, &q->keys, "ev", "");
    script_key(c, &q->keys, "ev:", h->jid);
    script_key(c, &q->keys, "stat", "");
    script_arg(c, h->ticket);
    script_arg(c, h->jid);
    script_arg(c, h->lane);
    script_bytes(c, err_map, err_len);
    script_number(c, wait_ms);
    return run_simple(q, c, err);
}

enum dr_rc queue_bury(struct queue *q, struct queue_held *h, const struct queue_refusal *refusal,
                      struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    script_begin(c, "bury");
    lane_keys(c, q, h->lane);
    script_key(c, &q->keys, "deliv", "");
    script_key(c, &q->keys, "dead", "");
    script_key(c, &q->keys, "deadraw", "");
    script_key(c, &q->keys, "deadinfo", "");
    script_key(c, &q->keys, "job:", h->jid);
    script_key(c, &q->keys, "ev", "");
    script_key(c, &q->keys, "stat", "");
    script_key(c, &q->keys, "ev:", h->jid);
    script_arg(c, h->ticket);
    script_arg(c, h->mid);
    script_arg(c, h->lane);
    script_bytes(c, refusal->info, refusal->info_len);
    script_arg(c, h->jid);
    script_arg(c, refusal->record && h->jid[0] ? "1" : "0");
    script_arg(c, h->dig);
    script_bytes(c, refusal->err, refusal->err_len);
    script_number(c, (int64_t)QUEUE_DEAD_DAYS * 86400000);
    script_number(c, QUEUE_DEAD_MAX);
    script_arg(c, refusal->reason);
    return run_simple(q, c, err);
}

enum dr_rc queue_release(struct queue *q, struct queue_held *h, struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    script_begin(c, "release");
    lane_keys(c, q, h->lane);
    script_key(c, &q->keys, "q:", h->lane);
    script_key(c, &q->keys, "job:", h->started ? h->jid : "");
    script_arg(c, h->ticket);
    return run_simple(q, c, err);
}

void queue_release_unknown(struct queue *q, struct script_call *c, const char *ticket)
{
    char key[DR_KEY_MAX], lane[64] = "";
    const char *argv[] = {"HGET", dr_key(&q->keys, key, "run", ""), ticket};
    size_t len[] = {4, strlen(key), strlen(ticket)};
    redisReply *r = NULL;
    struct dr_err err = {0};
    if (queue_conn_call(q->conn, 3, argv, len, 0, NULL, &r, &err))
        return;
    if (r->type == REDIS_REPLY_STRING) { /* wid | lane | raw */
        const char *a = memchr(r->str, '|', r->len);
        const char *b = a ? memchr(a + 1, '|', r->len - (size_t)(a + 1 - r->str)) : NULL;
        if (b && (size_t)(b - a) <= sizeof lane)
            (void)snprintf(lane, sizeof lane, "%.*s", (int)(b - a - 1), a + 1);
    }
    freeReplyObject(r);
    r = NULL;
    script_begin(c, "release");
    lane_keys(c, q, lane);
    script_key(c, &q->keys, "q:", lane);
    script_key(c, &q->keys, "job:", "");
    script_arg(c, ticket);
    if (script_run(c, q->scripts, q->conn, &r, &err))
        dr_log_err(DR_LOG_WARN, "queue.reconcile", &err, NULL);
    freeReplyObject(r);
}

static void on_progress_reply(void *arg, redisReply *reply, const struct dr_err *why)
{
    struct queue_told *told = arg;
    (void)why;
    bool unknown = reply && reply->type == REDIS_REPLY_ERROR;
    queue_told_done(told, reply && reply->type == REDIS_REPLY_ARRAY ? script_text(reply, 0) : "",
                    unknown);
}

void queue_progress(struct queue *q, struct queue_held *h, const struct queue_progress *p)
{
    struct script_call *c;
    struct queue_told *told;
    if (!queue_is_up(q) || !(told = queue_told_new(q, h)))
        return;
    c = dr_xalloc(sizeof *c);
    script_begin(c, "progress");
    script_key(c, &q->keys, "job:", h->jid);
    script_key(c, &q->keys, "ev:", h->jid);
    script_arg(c, h->ticket);
    script_arg(c, p->new_step ? "step" : "progress");
    script_number(c, p->pct);
    script_arg(c, p->step ? p->step : "");
    script_arg(c, p->msg);
    script_number(c, (int64_t)p->done);
    script_number(c, (int64_t)p->total);
    script_number(c, (int64_t)p->rate);
    script_number(c, (int64_t)p->eta_ms);
    script_number(c, (int64_t)14 * 86400000);
    script_post(c, q->scripts, q->conn, q->send_whole, on_progress_reply, told);
    q->send_whole = false;
    free(c);
}
