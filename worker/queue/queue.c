/* The service: connection, the fibers that beat and sweep, what this worker holds. */
#include "worker/queue/queue_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"

enum { TELLING_MOST = 4, CLOCK_JUMP_MS = 1000 };

static void wake_all(struct queue *q)
{
    struct queue_waiter *w = q->waiters;
    q->waiters = NULL;
    while (w) {
        struct queue_waiter *next = w->next; /* lies on the stack of the fiber that is woken */
        fiber_wake(w->fiber);
        w = next;
    }
}

static void on_up(void *arg)
{
    struct queue *q = arg;
    dr_log(DR_LOG_INFO, "redis.up", "wid", q->wid, NULL);
    q->send_whole = true;
    queue_told_write(q);
    wake_all(q);
}

static void on_down(void *arg, const struct dr_err *err)
{
    (void)arg;
    dr_log_err(DR_LOG_WARN, "redis.down", err, NULL);
}

enum dr_rc queue_new(const struct queue_options *o, struct queue **out, struct dr_err *err)
{
    struct queue *q = dr_xalloc(sizeof *q);
    unsigned char id[16];
    dr_random_bytes(id, sizeof id);
    dr_hex(id, sizeof id, q->wid);
    q->o = *o;
    q->scripts = script_set_new();
    const struct queue_conn_options co = {
        .url = o->url, .name = "drworker", .on_up = on_up, .on_down = on_down, .arg = q};
    if (dr_keys_init(&q->keys, o->ns, err) ||
        queue_conn_new(o->loop, o->pool, &co, &q->conn, err)) {
        queue_free(q);
        return err->rc;
    }
    *out = q;
    return DR_OK;
}

void queue_free(struct queue *q)
{
    if (!q)
        return;
    queue_hint_free(q->hint);
    queue_told_free(q);
    queue_conn_free(q->conn);
    script_set_free(q->scripts);
    free(q);
}

bool queue_is_up(const struct queue *q)
{
    return queue_conn_is_up(q->conn);
}

const char *queue_wid(const struct queue *q)
{
    return q->wid;
}

const struct dr_keys *queue_keys(const struct queue *q)
{
    return &q->keys;
}

int64_t queue_now_ms(const struct queue *q)
{
    return dr_wall_ms() + q->clock_offset_ms;
}

void queue_saw_clock(struct queue *q, int64_t server_ms)
{
    if (server_ms <= 0)
        return;
    int64_t before = q->clock_offset_ms;
    q->clock_offset_ms = server_ms - dr_wall_ms();
    if (q->on_clock && llabs(q->clock_offset_ms - before) > CLOCK_JUMP_MS)
        q->on_clock(q->clock_arg);
}

enum dr_rc queue_wait_up(struct queue *q, struct dr_err *err)
{
    while (!q->stopped && !queue_is_up(q)) {
        struct queue_waiter w = {.next = q->waiters, .fiber = fiber_self()};
        q->waiters = &w;
        fiber_suspend();
    }
    return q->stopped ? dr_fail(err, DR_E_UNREACHABLE, "Redis: the queue was stopped") : DR_OK;
}

/* Repeats a call until it was answered: every script is idempotent under a lost reply. An error
 * reply (OOM, a key of a wrong type) is repeated too, more slowly: nothing may get lost by it. */
enum dr_rc queue_run_sure(struct queue *q, struct script_call *c, bool refusal_ends,
                          redisReply **out, struct dr_err *err)
{
    for (uint64_t wait_ms = 100;; wait_ms = wait_ms < 5000 ? wait_ms * 2 : wait_ms) {
        struct dr_err one = {0};
        if (queue_wait_up(q, err))
            return err->rc;
        if (script_run(c, q->scripts, q->conn, out, &one) == DR_OK)
            return DR_OK;
        dr_log_err(DR_LOG_WARN, "queue.repeat", &one, NULL);
        if (one.rc == DR_E_BUG || (refusal_ends && one.rc == DR_E_REDIS))
            return *err = one, one.rc;
        if (fiber_sleep(wait_ms, NULL))
            continue;
    }
}

void queue_hold(struct queue *q, struct queue_held *h)
{
    h->next = q->held;
    h->prev = &q->held;
    if (q->held)
        q->held->prev = &h->next;
    q->held = h;
    q->held_count++;
}

void queue_unhold(struct queue *q, struct queue_held *h)
{
    if (!h->prev)
        return;
    *h->prev = h->next;
    if (h->next)
        h->next->prev = h->prev;
    h->prev = NULL;
    q->held_count--;
}

void queue_wake_waiters(struct queue *q)
{
    wake_all(q);
}

static bool holds(const struct queue *q, const char *ticket)
{
    for (const struct queue_held *h = q->held; h; h = h->next)
        if (strcmp(h->ticket, ticket) == 0)
            return true;
    return false;
}

static struct queue_held *find_held(struct queue *q, const char *ticket)
{
    for (struct queue_held *h = q->held; h; h = h->next)
        if (strcmp(h->ticket, ticket) == 0)
            return h;
    return NULL;
}

struct queue_told {
    struct queue *queue;
    char ticket[QUEUE_TICKET_MAX];
};

struct queue_told *queue_told_new(struct queue *q, struct queue_held *h)
{
    if (h->telling >= TELLING_MOST)
        return NULL; /* Redis is slow: the next report says more */
    struct queue_told *t = dr_xalloc(sizeof *t);
    t->queue = q;
    (void)snprintf(t->ticket, sizeof t->ticket, "%s", h->ticket);
    h->telling++;
    return t;
}

void queue_told_done(struct queue_told *t, const char *code, bool unknown)
{
    struct queue *q = t->queue;
    q->send_whole = q->send_whole || unknown;
    struct queue_held *h = find_held(q, t->ticket);
    if (h) {
        h->telling--;
        if (strcmp(code, "STALE") == 0 || strcmp(code, "CANCELLED") == 0)
            q->o.on_stop(q->o.arg, h->holder, code[0] == 'S' ? DR_E_STALE : DR_E_CANCELLED);
    }
    free(t);
}

enum { BEAT_MOST = 200 };

static unsigned pairs_of(const char *const *info)
{
    unsigned n = 0;
    while (info && info[2 * n])
        n++;
    return n;
}

/* Beats up to BEAT_MOST tickets from position `from`. */
static void beat_some(struct queue *q, struct script_call *c, unsigned from)
{
    struct queue_held *h = q->held;
    char(*keys)[2][DR_KEY_MAX] = dr_xarray(BEAT_MOST, sizeof *keys);
    char(*tickets)[QUEUE_TICKET_MAX] = dr_xarray(BEAT_MOST, sizeof *tickets);
    unsigned n = 0, fields = pairs_of(q->o.info);
    redisReply *r = NULL;
    struct dr_err err = {0};
    for (unsigned i = 0; i < from && h; i++)
        h = h->next;
    script_begin(c, "beat");
    script_key(c, &q->keys, "own:", q->wid);
    script_key(c, &q->keys, "run", "");
    script_key(c, &q->keys, "wk", "");
    script_key(c, &q->keys, "wk:", q->wid);
    for (; h && n < BEAT_MOST; h = h->next, n++) {
        script_key_text(c, dr_key(&q->keys, keys[n][0], "lease:", h->lane));
        script_key_text(c, dr_key(&q->keys, keys[n][1], "job:", h->jid)); /* "" before its check */
        (void)snprintf(tickets[n], sizeof tickets[n], "%s", h->ticket);
    }
    script_arg(c, q->wid);
    script_number(c, q->o.lease_ms);
    script_number(c, q->o.lease_ms * 4);
    script_number(c, fields);
    for (unsigned i = 0; i < 2 * fields; i++)
        script_arg(c, q->o.info[i]);
    for (unsigned i = 0; i < n; i++)
        script_arg(c, tickets[i]);
    if (script_run(c, q->scripts, q->conn, &r, &err)) {
        dr_log_err(DR_LOG_WARN, "queue.beat", &err, NULL);
        goto out;
    }
    queue_saw_clock(q, script_integer(r, 0));
    for (unsigned i = 0; i < n && i + 1 < r->elements; i++) {
        struct queue_held *at = find_held(q, tickets[i]); /* it may have ended meanwhile */
        char letter = script_text(r, i + 1)[0];
        if (at && (letter == 's' || letter == 'c'))
            q->o.on_stop(q->o.arg, at->holder, letter == 's' ? DR_E_STALE : DR_E_CANCELLED);
    }
out:
    freeReplyObject(r);
    free(keys);
    free(tickets);
}

void queue_beat_all(struct queue *q)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    unsigned from = 0;
    do {
        beat_some(q, c, from);
        from += BEAT_MOST;
    } while (from < q->held_count);
    free(c);
}

/* A worker that ended by itself is not listed until its keys would expire. */
static void say_goodbye(struct queue *q)
{
    char wk[DR_KEY_MAX], own[DR_KEY_MAX];
    const char *const words[][3] = {{"ZREM", dr_key(&q->keys, wk, "wk", ""), q->wid},
                                    {"DEL", dr_key(&q->keys, own, "wk:", q->wid), NULL}};
    for (size_t i = 0; i < 2; i++) {
        const char *argv[3] = {words[i][0], words[i][1], words[i][2]};
        int argc = argv[2] ? 3 : 2;
        size_t len[3] = {strlen(argv[0]), strlen(argv[1]), argv[2] ? strlen(argv[2]) : 0};
        redisReply *r = NULL;
        struct dr_err err = {0};
        if (queue_conn_call(q->conn, argc, argv, len, 1000, NULL, &r, &err))
            return;
        freeReplyObject(r);
    }
}

/* The first beat comes as soon as Redis answers, also after an outage. */
static void beat_fiber(void *arg)
{
    struct queue *q = arg;
    struct dr_err err = {0};
    while (queue_wait_up(q, &err) == DR_OK) {
        queue_beat_all(q);
        (void)fiber_sleep((uint64_t)q->o.lease_ms / 3, &q->stop);
    }
    if (queue_is_up(q))
        say_goodbye(q);
    q->fibers--;
}

/* Tickets that Redis says are ours and we do not know: a claim whose reply was lost. They are
 * handed back on the second sight, since a reply may just be on its way. */
static void reconcile(struct queue *q, struct script_call *c)
{
    char own[DR_KEY_MAX];
    const char *argv[] = {"SMEMBERS", dr_key(&q->keys, own, "own:", q->wid)};
    size_t len[] = {8, strlen(own)};
    redisReply *r = NULL;
    struct dr_err err = {0};
    char seen[QUEUE_TICKET_MAX] = "";
    if (queue_conn_call(q->conn, 2, argv, len, 0, NULL, &r, &err) || r->type != REDIS_REPLY_ARRAY)
        goto out;
    for (size_t i = 0; i < r->elements; i++) {
        const char *ticket = script_text(r, i);
        if (holds(q, ticket) || q->claiming)
            continue;
        if (strcmp(ticket, q->suspect) == 0) {
            dr_log(DR_LOG_INFO, "queue.reconcile", "ticket", ticket, NULL);
            queue_release_unknown(q, c, ticket);
        } else if (!seen[0]) {
            (void)snprintf(seen, sizeof seen, "%s", ticket);
        }
    }
    (void)snprintf(q->suspect, sizeof q->suspect, "%s", seen);
out:
    freeReplyObject(r);
}

static void sweep_fiber(void *arg)
{
    struct queue *q = arg;
    struct script_call *c = dr_xalloc(sizeof *c);
    while (!q->stopped) {
        double jitter = 0.8 + 0.4 * dr_random_unit();
        (void)fiber_sleep((uint64_t)((double)q->o.lease_ms / 3 * jitter), &q->stop);
        if (q->stopped || !queue_is_up(q))
            continue;
        queue_reap(q, c);
        queue_forget(q, c);
        reconcile(q, c);
    }
    free(c);
    q->fibers--;
}

enum dr_rc queue_start_service(struct queue *q, struct dr_err *err)
{
    if (queue_hint_new(q, &q->hint, err))
        return err->rc;
    cancel_init(&q->stop, q->o.loop);
    queue_conn_start(q->conn);
    q->fibers = 2;
    fiber_start(q->o.loop, beat_fiber, q);
    fiber_start(q->o.loop, sweep_fiber, q);
    return DR_OK;
}

void queue_give_up(struct queue *q)
{
    queue_conn_reset(q->conn, "the worker ends");
}

bool queue_at_rest(const struct queue *q)
{
    return q->fibers == 0;
}

void queue_stop_service(struct queue *q)
{
    q->stopped = true;
    cancel_fire(&q->stop, DR_E_CANCELLED, "stopped");
    wake_all(q);
}
