/* One call of start or finish for the jobs of a lane that ask for it in the same tick of the loop:
 * what such a script asks once for all is most of its cost. Not for other folders. */
#ifndef DR_WORKER_QUEUE_SHARED_H
#define DR_WORKER_QUEUE_SHARED_H

#include <stddef.h>

#include "worker/queue/script.h"

struct queue;
struct queue_held;

/* One job's part, on its fiber's stack. */
struct shared_part {
    const struct queue_held *held;
    const void *what;   /* as the kind's put_args reads it */
    size_t bytes;       /* of its long arguments */
    redisReply *answer; /* the job's own: an array; the caller's to free */
    struct dr_err err;
    struct fiber *fiber;
    struct shared_part *next;
    bool over, refused;
};

struct shared_kind {
    const char *script;
    const char *const *keys; /* that follow run, lease and own; ended by NULL */
    bool wid;                /* the second argument, after the lane */
    void (*put_args)(struct script_call *c, const struct shared_part *p);
};

/* Suspends the fiber; repeats itself until Redis has answered. A call for many that Redis refuses
 * is made anew for each alone: a damaged record holds up nobody else. */
enum dr_rc shared_run(struct queue *q, const struct shared_kind *kind, struct shared_part *part,
                      struct dr_err *err) DR_MUST_CHECK;

#endif
