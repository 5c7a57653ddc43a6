/* A bounded pool of threads for what may block: file work, fsync, key derivation, name lookups.
 * A function gets its own data, never a struct job, and comes back always. */
#ifndef DR_WORKER_CORE_POOL_H
#define DR_WORKER_CORE_POOL_H

#include "common/err.h"
#include "worker/core/cancel.h"

struct loop;
struct pool;

typedef enum dr_rc pool_fn(void *item, struct cancel *cancel, struct dr_err *err);

/* threads 2..64. Long items may hold all threads but one, so that short calls find a thread. */
enum dr_rc pool_new(struct loop *l, unsigned threads, struct pool **out,
                    struct dr_err *err) DR_MUST_CHECK;
void pool_free(struct pool *p); /* runs what is queued to its end; no fiber may wait any more */

/* In a fiber: returns when fn has come back. Cancelled while queued: CANCELLED without running;
 * while running: fn sees cancel_pending and comes back by itself. The queue is as long as there
 * are fibers that wait. */
enum dr_rc pool_run(struct pool *p, pool_fn *fn, void *item, struct cancel *cancel,
                    struct dr_err *err);
enum dr_rc pool_run_long(struct pool *p, pool_fn *fn, void *item, struct cancel *cancel,
                         struct dr_err *err);
struct pool_load {
    unsigned threads, waiting, running;
};
void pool_look(struct pool *p, struct pool_load *out);
/* From the loop's own stack: done(arg) runs on the loop thread; not cancelled. */
void pool_submit(struct pool *p, pool_fn *fn, void *item,
                 void (*done)(void *arg, enum dr_rc rc, const struct dr_err *err), void *arg);

#endif
