/* Doorbells: BLMOVE of a list onto itself blocks while it is empty and moves nothing when it is
 * not. One connection a lane, since whatever is sent behind a blocked command waits. */
#include "worker/queue/bell.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/core/fiber.h"
#include "worker/queue/queue_internal.h"

enum { RING_MAX_MS = 5000, RING_GRACE_MS = 2000, NO_BELL_MS = 1000 };

struct queue_bell {
    struct queue *q;
    struct queue_conn *conn;
    char key[DR_KEY_MAX];
    struct cancel stop;
};

struct queue_bell *queue_bell_new(struct queue *q, const char *lane, struct dr_err *err)
{
    struct queue_bell *b = dr_xalloc(sizeof *b);
    const struct queue_conn_options co = {.url = q->o.url, .name = "drworker-bell"};
    b->q = q;
    (void)dr_key(&q->keys, b->key, "q:", lane);
    cancel_init(&b->stop, q->o.loop);
    if (queue_conn_new(q->o.loop, q->o.pool, &co, &b->conn, err)) {
        queue_bell_free(b);
        return NULL;
    }
    queue_conn_start(b->conn);
    return b;
}

void queue_bell_free(struct queue_bell *b)
{
    if (!b)
        return;
    queue_conn_free(b->conn);
    cancel_fini(&b->stop);
    free(b);
}

/* Without a bell (connection down, Redis refuses BLMOVE under maxmemory) a timer takes its place.
 */
void queue_bell_wait(struct queue_bell *b, int64_t wait_ms)
{
    char seconds[24];
    if (cancel_fired(&b->stop))
        return;
    if (wait_ms < 0 || wait_ms > RING_MAX_MS)
        wait_ms = RING_MAX_MS;
    if (wait_ms < 10 || !queue_conn_is_up(b->conn)) {
        (void)fiber_sleep(wait_ms < NO_BELL_MS ? (uint64_t)wait_ms : NO_BELL_MS / 4, &b->stop);
        return;
    }
    (void)snprintf(seconds, sizeof seconds, "%lld.%03lld", (long long)wait_ms / 1000,
                   (long long)wait_ms % 1000);
    const char *argv[] = {"BLMOVE", b->key, b->key, "RIGHT", "RIGHT", seconds};
    size_t len[] = {6, strlen(b->key), strlen(b->key), 5, 5, strlen(seconds)};
    redisReply *r = NULL;
    struct dr_err err = {0};
    if (queue_conn_call(b->conn, 6, argv, len, wait_ms + RING_GRACE_MS, NULL, &r, &err) ||
        r->type == REDIS_REPLY_ERROR)
        (void)fiber_sleep(NO_BELL_MS, &b->stop);
    freeReplyObject(r);
}

/* Closing a blocked BLMOVE of a key onto itself is always safe: nothing is moved. */
void queue_bell_stop(struct queue_bell *b)
{
    cancel_fire(&b->stop, DR_E_CANCELLED, "stopped");
    queue_conn_reset(b->conn, "the worker drains");
}
