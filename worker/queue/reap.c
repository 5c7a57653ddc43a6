/* The reaper: expired tickets go back into their queue, or to the dead letters over the limit;
 * results that outlived their time are dropped. */
#include "worker/queue/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/wire/envelope.h"
#include "common/wire/pack.h"

enum { SWEEP_MOST = 50, RECORD_TTL_DAYS = 14 };

struct expired {
    const char *lane;
    char ticket[QUEUE_TICKET_MAX], score[32], wid[64];
    unsigned char *raw;
    size_t len;
    char mid[41];
};

/* Reads run[ticket] = wid | lane | raw; false when it is gone. */
static bool read_run(struct queue *q, struct expired *e)
{
    char key[DR_KEY_MAX];
    const char *argv[] = {"HGET", dr_key(&q->keys, key, "run", ""), e->ticket};
    size_t len[] = {4, strlen(key), strlen(e->ticket)};
    redisReply *r = NULL;
    struct dr_err err = {0};
    if (queue_conn_call(q->conn, 3, argv, len, 0, NULL, &r, &err))
        return false;
    const char *a = r->type == REDIS_REPLY_STRING ? memchr(r->str, '|', r->len) : NULL;
    const char *b = a ? memchr(a + 1, '|', r->len - (size_t)(a + 1 - r->str)) : NULL;
    if (b) {
        (void)snprintf(e->wid, sizeof e->wid, "%.*s", (int)(a - r->str), r->str);
        e->len = r->len - (size_t)(b + 1 - r->str);
        e->raw = dr_xalloc(e->len + 1);
        memcpy(e->raw, b + 1, e->len);
        dr_wire_mid(e->raw, e->len, e->mid);
    }
    freeReplyObject(r);
    return true; /* reap1 clears a ticket without a message too */
}

static void dead_info(struct queue *q, const struct expired *e, unsigned limit, struct dr_buf *out)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%u", limit + 1);
    dr_pack_map(out, 5);
    dr_pack_pair(out, "reason", "poison");
    dr_pack_pair(out, "lane", e->lane);
    dr_pack_pair(out, "field", "deliveries");
    dr_pack_pair(out, "value", text);
    dr_pack_pair(out, "wid", q->wid);
}

static void tell_record(struct queue *q, struct script_call *c, const struct expired *e, bool dead)
{
    char jid[DR_JOB_ID_MAX + 1], dig[65];
    struct dr_buf map;
    struct dr_err err = {0};
    redisReply *r = NULL;
    if (!dr_envelope_peek(e->raw, e->len, jid, dig))
        return;
    dr_buf_init(&map, 4096);
    dr_pack_map(&map, 3);
    dr_pack_pair(&map, "kind", "poison");
    dr_pack_pair(&map, "class", "permanent");
    dr_pack_pair(&map, "message", "its workers died too often");
    script_begin(c, "lost");
    script_key(c, &q->keys, "job:", jid);
    script_key(c, &q->keys, "ev", "");
    script_key(c, &q->keys, "ev:", jid);
    script_key(c, &q->keys, "stat", "");
    script_arg(c, e->ticket);
    script_arg(c, jid);
    script_arg(c, e->lane);
    script_arg(c, dead ? "dead" : "lost");
    script_arg(c, dig);
    script_bytes(c, map.data, map.len);
    script_number(c, (int64_t)RECORD_TTL_DAYS * 86400000);
    if (script_run(c, q->scripts, q->conn, &r, &err))
        dr_log_err(DR_LOG_WARN, "queue.lost", &err, "job", jid, NULL);
    freeReplyObject(r);
    dr_buf_fini(&map);
}

static void reap_one(struct queue *q, struct script_call *c, struct expired *e)
{
    struct dr_buf info;
    struct dr_err err = {0};
    redisReply *r = NULL;
    if (!read_run(q, e))
        return;
    unsigned limit = q->o.poison_limit ? q->o.poison_limit(q->o.arg, e->lane, e->mid) : 5;
    dr_buf_init(&info, 4096);
    dead_info(q, e, limit, &info);
    script_begin(c, "reap1");
    script_key(c, &q->keys, "lease:", e->lane);
    script_key(c, &q->keys, "run", "");
    script_key(c, &q->keys, "own:", e->wid);
    script_key(c, &q->keys, "deliv", "");
    script_key(c, &q->keys, "q:", e->lane);
    script_key(c, &q->keys, "dead", "");
    script_key(c, &q->keys, "deadraw", "");
    script_key(c, &q->keys, "deadinfo", "");
    script_key(c, &q->keys, "stat", "");
    script_arg(c, e->ticket);
    script_arg(c, e->score);
    script_arg(c, e->mid);
    script_number(c, limit);
    script_bytes(c, info.data, info.len);
    if (script_run(c, q->scripts, q->conn, &r, &err)) {
        dr_log_err(DR_LOG_WARN, "queue.reap", &err, NULL);
    } else if (strcmp(script_text(r, 0), "CHANGED") != 0) {
        bool dead = strcmp(script_text(r, 0), "DEAD") == 0;
        dr_log(DR_LOG_WARN, "queue.reaped", "lane", e->lane, "ticket", e->ticket, "wid", e->wid,
               "to", dead ? "dead" : "queue", NULL);
        tell_record(q, c, e, dead);
        if (dead && q->o.on_poison)
            q->o.on_poison(q->o.arg, e->lane, e->raw, e->len);
    }
    freeReplyObject(r);
    dr_buf_fini(&info);
}

void queue_reap(struct queue *q, struct script_call *c)
{
    redisReply *r = NULL;
    struct dr_err err = {0};
    script_begin(c, "reap");
    script_key(c, &q->keys, "reap", "");
    for (const char *const *lane = q->o.lanes; *lane; lane++)
        script_key(c, &q->keys, "lease:", *lane);
    script_number(c, q->o.lease_ms / 3);
    script_number(c, q->o.lease_ms);
    script_number(c, SWEEP_MOST);
    if (script_run(c, q->scripts, q->conn, &r, &err)) {
        dr_log_err(DR_LOG_WARN, "queue.sweep", &err, NULL);
        return;
    }
    if (strcmp(script_text(r, 0), "OK") != 0)
        goto out;
    for (size_t i = 1; i + 2 < r->elements; i += 3) {
        struct expired e = {.lane = q->o.lanes[script_integer(r, i) - 1]};
        (void)snprintf(e.ticket, sizeof e.ticket, "%s", script_text(r, i + 1));
        (void)snprintf(e.score, sizeof e.score, "%s", script_text(r, i + 2));
        reap_one(q, c, &e);
        free(e.raw);
    }
out:
    freeReplyObject(r);
}

void queue_forget(struct queue *q, struct script_call *c)
{
    char key[DR_KEY_MAX], now[24], most[12];
    redisReply *due = NULL;
    struct dr_err err = {0};
    (void)snprintf(now, sizeof now, "%lld", (long long)queue_now_ms(q));
    (void)snprintf(most, sizeof most, "%d", SWEEP_MOST);
    const char *argv[] = {
        "ZRANGEBYSCORE", dr_key(&q->keys, key, "rt", ""), "-inf", now, "LIMIT", "0", most};
    size_t len[7];
    for (int i = 0; i < 7; i++)
        len[i] = strlen(argv[i]);
    if (queue_conn_call(q->conn, 7, argv, len, 0, NULL, &due, &err))
        return;
    for (size_t i = 0; due->type == REDIS_REPLY_ARRAY && i < due->elements; i++) {
        redisReply *r = NULL;
        struct dr_err one = {0};
        script_begin(c, "forget");
        script_key(c, &q->keys, "rt", "");
        script_key(c, &q->keys, "job:", script_text(due, i));
        script_arg(c, script_text(due, i));
        if (script_run(c, q->scripts, q->conn, &r, &one))
            dr_log_err(DR_LOG_WARN, "queue.forget", &one, "job", script_text(due, i), NULL);
        freeReplyObject(r);
    }
    freeReplyObject(due);
}
