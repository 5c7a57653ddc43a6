/* Shared by dispatch.c (lanes) and delivery.c (one message). Not for other folders. */
#ifndef DR_WORKER_JOB_DISPATCH_INTERNAL_H
#define DR_WORKER_JOB_DISPATCH_INTERNAL_H

#include "common/str.h"
#include "common/wire/lanes.h"
#include "worker/job/dispatch.h"
#include "worker/queue/queue.h"

enum { LANE_SLOTS_MAX = 256, LANES_MAX = 16 };

struct fiber;
struct delivery;

struct lane {
    struct dispatch *dispatch;
    const struct dr_lane *row;
    const struct job_task *task;
    unsigned slots, running;
    unsigned shared_held; /* permits of DR_CONCURRENCY */
    bool reserved_held;
    struct fiber *waiting; /* the lane's fiber, while nothing is free */
    struct queue_bell *bell;
    struct loop_timer *due; /* a message that this worker delayed comes due */
    int64_t due_ms;         /* dr_clock_ms; 0: not armed */
};

struct dispatch {
    struct dispatch_options o;
    struct queue *queue;
    struct lane lanes[LANES_MAX];
    unsigned lane_count, running, permits_used, lane_fibers;
    struct delivery *deliveries;
    bool draining, drained;
    struct loop_timer *drain_timer;
    const char *all_lanes[LANES_MAX + 1];
    char host[65], pid[12], since[DR_TIME_TEXT], lane_text[512];
    const char *info[12]; /* pairs, ended by NULL */
};

/* Takes over the message's bytes. */
void delivery_start(struct lane *l, struct queue_message *m);
void delivery_stop(struct delivery *x, enum dr_rc why, const char *reason);
struct delivery *delivery_next(struct delivery *x);

void dispatch_give_back(struct lane *l);
/* A message of this lane was delayed by wait_ms: claim then, whatever the doorbell does. */
void dispatch_due(struct lane *l, int64_t wait_ms);
void dispatch_check_drained(struct dispatch *d);

#endif
