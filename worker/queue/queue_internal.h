/* Shared by queue.c (service), transition.c (a script a function), record.c, reap.c. Not for other
 * folders.
 */
#ifndef DR_WORKER_QUEUE_INTERNAL_H
#define DR_WORKER_QUEUE_INTERNAL_H

#include "worker/core/cancel.h"
#include "worker/queue/conn.h"
#include "worker/queue/queue.h"
#include "worker/queue/script.h"

enum { QUEUE_INFO_MAX = 16, QUEUE_DEAD_MAX = 10000, QUEUE_DEAD_DAYS = 90 };

struct fiber;
struct queue_hint;
struct queue_info;
struct shared_call;

struct queue_waiter {
    struct queue_waiter *next;
    struct fiber *fiber;
};

struct queue {
    struct queue_options o;
    struct dr_keys keys;
    char wid[33];
    struct queue_conn *conn;
    struct queue_hint *hint;
    struct script_set *scripts;
    struct queue_waiter *waiters; /* fibers that wait for Redis */
    struct queue_held *held;
    unsigned held_count, fibers, claiming;
    struct shared_call *gathering; /* calls that others may still join */
    int64_t clock_offset_ms;
    void (*on_clock)(void *arg); /* it jumped */
    void *clock_arg;
    struct cancel stop;
    bool stopped, send_whole; /* the next progress script is sent as text */
    struct queue_info *told;  /* fields of info */
    bool telling;             /* they are about to be written */
    uint64_t head_seq;        /* of the catalog; 0: none */
    char head_sha256[65];
    bool heading;                   /* it is about to be told */
    uint64_t store_checked;         /* generation of the connection */
    char suspect[QUEUE_TICKET_MAX]; /* unknown ticket seen by the last reconcile */
};

/* A progress report under way: it finds its holder by the ticket, which may be gone by then. */
struct queue_told;
struct queue_told *queue_told_new(struct queue *q,
                                  struct queue_held *h); /* NULL: one is on its way */
/* code: the script's answer or ""; unknown: the server did not know the script. */
void queue_told_done(struct queue_told *t, const char *code, bool unknown);

enum dr_rc queue_hint_new(struct queue *q, struct queue_hint **out,
                          struct dr_err *err) DR_MUST_CHECK;
void queue_hint_free(struct queue_hint *h);
void queue_told_write(struct queue *q);
void queue_told_free(struct queue *q);
enum dr_rc queue_told_store(struct queue *q, struct dr_err *err) DR_MUST_CHECK;
void queue_beat_all(struct queue *q);
void queue_saw_clock(struct queue *q, int64_t server_ms);
/* Repeats itself while Redis cannot be reached; also, unless refusal_ends, while it answers with an
 * error: what it refuses today it may take tomorrow, and nothing may be lost. */
enum dr_rc queue_run_sure(struct queue *q, struct script_call *c, bool refusal_ends,
                          redisReply **out, struct dr_err *err) DR_MUST_CHECK;
void queue_release_unknown(struct queue *q, struct script_call *c, const char *ticket);
void queue_reap(struct queue *q, struct script_call *c);
void queue_forget(struct queue *q, struct script_call *c); /* results that outlived their rt */

#endif
