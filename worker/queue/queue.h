/* The queue as the worker sees it: one blocking call a transition of the protocol, in a fiber. What
 * must not get lost (finish, fail, bury, ...) waits for Redis to come back and repeats itself,
 * which the scripts allow: the waiting fiber with its result is the outbox. */
#ifndef DR_WORKER_QUEUE_QUEUE_H
#define DR_WORKER_QUEUE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/keys.h"
#include "common/redis_url.h"

struct loop;
struct pool;
struct queue;

enum {
    QUEUE_BATCH = 16,       /* most messages a claim */
    QUEUE_RAW_MAX = 262144, /* longest message in bytes */
    QUEUE_TICKET_MAX = 24,
};

struct queue_options {
    struct loop *loop;
    struct pool *pool;
    const struct dr_redis_url *url;
    const char *ns;
    int64_t lease_ms;
    const char *const *lanes; /* all lanes of the namespace that are swept, ended by NULL */
    /* The worker's own words in wk:<wid>: pairs of name and value, ended by NULL; borrowed. */
    const char *const *info;
    /* Of the store that the workers of a namespace share; borrowed; NULL: no store. The first
     * worker writes it; queue_claim answers CONFIG where another one stands. */
    const char *store_id;
    /* Redis has seen a newer head of the catalog than we told (another worker wrote it, or the
     * store was put back), or another one of the same record. In a fiber: may wait. */
    void (*on_other_head)(void *arg, uint64_t seq, const char *sha256_hex);
    /* A held ticket was cancelled (CANCELLED) or belongs to another delivery (STALE). */
    void (*on_stop)(void *arg, void *holder, enum dr_rc why);
    /* Deliveries that may be lost before a message is poison (0: unlimited) and given up (NULL is
     * allowed; the bytes are borrowed). */
    unsigned (*poison_limit)(void *arg, const char *lane, const char *mid);
    void (*on_poison)(void *arg, const char *lane, const void *raw, size_t len);
    void *arg;
};

/* A claimed message; the bytes are the caller's copy. */
struct queue_message {
    char ticket[QUEUE_TICKET_MAX];
    char mid[41];
    const char *lane;
    unsigned char *raw; /* NULL, and no ticket: too long (len), so it was buried */
    size_t len;
    uint64_t lost; /* deliveries without an end before this one */
};

/* A ticket that this worker holds: embedded by the holder, from queue_hold to queue_unhold. */
struct queue_held {
    struct queue_held *next, **prev;
    void *holder;
    const char *lane, *ticket, *jid, *mid;
    char dig[65];
    bool started;     /* there is a record of ours */
    unsigned telling; /* progress reports without a reply */
};

enum queue_started {
    QUEUE_RUN,
    QUEUE_GONE,
    QUEUE_DUP_DONE,
    QUEUE_DUP_RUN,
    QUEUE_COLLISION,
    QUEUE_NOT_YET,
    QUEUE_EXPIRED, /* ended while it waited: the message is to be dropped */
    QUEUE_CANCELLED,
};

enum queue_claim_of {
    QUEUE_FRESH,
    QUEUE_RESUME,   /* its journal is open: only a run elsewhere stops the start */
    QUEUE_RECORDED, /* its journal is closed: so does an end that was reported */
};
struct queue_start {
    int64_t exp_ms, nbf_ms, ttl_ms;
    const char *kid, *actor;
    enum queue_claim_of journal;
};

struct queue_end {
    const char *st, *outcome;
    const void *res, *err; /* msgpack */
    size_t res_len, err_len;
    int64_t ttl_ms, res_ttl_ms; /* res_ttl_ms 0: as the record */
};

struct queue_progress {
    bool new_step;
    unsigned pct;
    const char *step, *msg;
    uint64_t done, total, rate, eta_ms;
};

struct queue_refusal {
    const char *reason;
    bool record; /* write st=dead where the rules allow */
    const void *info, *err;
    size_t info_len, err_len;
};

enum dr_rc queue_new(const struct queue_options *o, struct queue **out,
                     struct dr_err *err) DR_MUST_CHECK;
void queue_free(struct queue *q);
enum dr_rc queue_start_service(struct queue *q, struct dr_err *err) DR_MUST_CHECK; /* connects */
void queue_stop_service(struct queue *q);  /* beats end; calls that wait return UNREACHABLE */
void queue_give_up(struct queue *q);       /* what is under way returns UNREACHABLE */
bool queue_at_rest(const struct queue *q); /* no fiber of its own runs any more */
void queue_wake_waiters(struct queue *q);  /* they look again whether there is still work to do */
bool queue_is_up(const struct queue *q);
const char *queue_wid(const struct queue *q);
const struct dr_keys *queue_keys(const struct queue *q);
int64_t queue_now_ms(const struct queue *q); /* Redis' clock, as last seen */
/* Returns when Redis answers; UNREACHABLE once the service was stopped. */
enum dr_rc queue_wait_up(struct queue *q, struct dr_err *err);

/* Up to max messages into out; *wait_ms: until the next delayed one is due, -1: none; *paused. */
enum dr_rc queue_claim(struct queue *q, const char *lane, unsigned max, struct queue_message *out,
                       unsigned *count, int64_t *wait_ms, bool *paused, struct dr_err *err);
void queue_message_fini(struct queue_message *m);
void queue_hold(struct queue *q, struct queue_held *h);
void queue_unhold(struct queue *q, struct queue_held *h);
/* *n: attempts so far with this one; *nbf_ms for NOT_YET. */
enum dr_rc queue_start_job(struct queue *q, struct queue_held *h, const struct queue_start *s,
                           enum queue_started *out, unsigned *n, struct dr_err *err);
enum dr_rc queue_drop(struct queue *q, struct queue_held *h, bool clear_deliv, struct dr_err *err);
enum dr_rc queue_park(struct queue *q, struct queue_held *h, int64_t due_ms, int64_t ttl_ms,
                      struct dr_err *err);
enum dr_rc queue_finish(struct queue *q, struct queue_held *h, const struct queue_end *e,
                        const char **reply, struct dr_err *err);
enum dr_rc queue_fail(struct queue *q, struct queue_held *h, const void *err_map, size_t err_len,
                      int64_t wait_ms, struct dr_err *err);
enum dr_rc queue_bury(struct queue *q, struct queue_held *h, const struct queue_refusal *r,
                      struct dr_err *err);
enum dr_rc queue_release(struct queue *q, struct queue_held *h, struct dr_err *err);
/* Not waited for; may get lost, terminal events may not. */
void queue_progress(struct queue *q, struct queue_held *h, const struct queue_progress *p);

#endif
