/* The hint channel: cancel publishes a job's id there, and what this worker holds is beaten at
 * once, so that the record itself says what is wanted. A lost hint costs nothing but the time to
 * the next beat. One connection, since a subscribed one takes no other commands. Loop thread. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "worker/core/fiber.h"
#include "worker/queue/queue_internal.h"

struct queue_hint {
    struct queue *q;
    struct queue_conn *conn;
    char channel[DR_KEY_MAX];
    bool beating;
};

static void beat_fiber(void *arg)
{
    struct queue_hint *h = arg;
    struct queue *q = h->q;
    h->beating = false; /* a hint that comes while this beat is under way asks for another one */
    if (!q->stopped && queue_is_up(q))
        queue_beat_all(q);
    q->fibers--;
}

static void on_push(void *arg, const redisReply *r)
{
    struct queue_hint *h = arg;
    const char *jid = script_text(r, 2);
    if (h->beating || h->q->stopped)
        return;
    for (const struct queue_held *held = h->q->held; held; held = held->next)
        if (strcmp(held->jid, jid) == 0) {
            h->beating = true;
            h->q->fibers++;
            fiber_start(h->q->o.loop, beat_fiber, h);
            return;
        }
}

static void on_subscribed(void *arg, redisReply *reply, const struct dr_err *why)
{
    const struct queue_hint *h = arg;
    (void)why; /* a lost connection is subscribed again when it is up */
    if (reply && reply->type == REDIS_REPLY_ERROR)
        dr_log(DR_LOG_WARN, "queue.hint", "channel", h->channel, "msg", reply->str, NULL);
}

static void on_up(void *arg)
{
    struct queue_hint *h = arg;
    const char *argv[] = {"SUBSCRIBE", h->channel};
    const size_t len[] = {9, strlen(h->channel)};
    queue_conn_send(h->conn, 2, argv, len, 0, on_subscribed, h);
}

enum dr_rc queue_hint_new(struct queue *q, struct queue_hint **out, struct dr_err *err)
{
    struct queue_hint *h = dr_xalloc(sizeof *h);
    const struct queue_conn_options co = {
        .url = q->o.url, .name = "drworker-hint", .on_up = on_up, .on_push = on_push, .arg = h};
    h->q = q;
    (void)dr_key(&q->keys, h->channel, "hint:", q->wid);
    if (queue_conn_new(q->o.loop, q->o.pool, &co, &h->conn, err)) {
        queue_hint_free(h);
        return err->rc;
    }
    queue_conn_start(h->conn);
    *out = h;
    return DR_OK;
}

void queue_hint_free(struct queue_hint *h)
{
    if (!h)
        return;
    queue_conn_free(h->conn);
    free(h);
}
