/* What stands in Redis of orders, beside their transitions: records of jobs, dead letters. For
 * fibers on the loop thread. */
#ifndef DR_WORKER_QUEUE_RECORD_H
#define DR_WORKER_QUEUE_RECORD_H

#include "worker/queue/queue.h"

enum { QUEUE_BY_MAX = 129 };

/* Who cancelled the job, as they say themselves; "": nobody said, or Redis does not answer. */
void queue_cancelled_by(struct queue *q, const char *jid, char out[QUEUE_BY_MAX]);
/* Old dead letters, and those over the most that are kept. */
enum dr_rc queue_forget_dead(struct queue *q, uint64_t *removed, struct dr_err *err) DR_MUST_CHECK;

#endif
