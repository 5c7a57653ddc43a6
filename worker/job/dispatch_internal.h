/* Shared by dispatch.c (lanes) and delivery.c (one message). Not for other folders. */
#ifndef DR_WORKER_JOB_DISPATCH_INTERNAL_H
#define DR_WORKER_JOB_DISPATCH_INTERNAL_H

#include "common/str.h"
#include "common/wire/envelope.h"
#include "common/wire/lanes.h"
#include "worker/job/dispatch.h"
#include "worker/job/schedule.h"
#include "worker/queue/queue.h"

enum { LANE_SLOTS_MAX = 256, LANES_MAX = 16 };

struct fiber;

/* One claimed message, from claim to its end. */
struct delivery {
    struct delivery *next, **prev;
    struct lane *lane;
    struct queue_message message;
    struct queue_held held;
    struct dr_envelope *envelope;
    struct dr_refusal refusal;
    struct job *job;
    struct dispatch_recorded recorded; /* of a closed journal; has_recorded */
    bool resume, has_recorded;
    enum dr_rc stop; /* asked to stop before the job was made */
    bool drain;
    unsigned attempt;
};

struct lane {
    struct dispatch *dispatch;
    const struct dr_lane *row;
    const struct job_task *task;
    unsigned slots, running;
    unsigned shared_held; /* permits of DR_CONCURRENCY */
    bool reserved_held;
    struct fiber *waiting; /* the lane's fiber, while nothing is free */
    bool beside, again;    /* a second fiber claims; once more when it is through */
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
    struct dr_err refusal;
    struct loop_timer *drain_timer, *rest_timer;
    unsigned rest_waits;
    const char *all_lanes[LANES_MAX + 1];
    char host[65], pid[12], since[DR_TIME_TEXT], lane_text[512];
    const char *info[14];              /* pairs, ended by NULL */
    struct schedule_runner *schedules; /* NULL: none are served */
};

enum { RECORD_TTL_DAYS = 14 /* while a job waits or runs, and after a failure */ };

/* Tells on_order, if somebody listens; waits. */
void dispatch_tell_order(struct dispatch *d, const char *lane, struct dispatch_order *o);
/* The same of a delivery. outcome: of an end. */
void delivery_tell(struct delivery *x, enum dispatch_verdict verdict, const char *outcome,
                   const struct dr_err *err);
/* Takes over the message's bytes. */
void delivery_start(struct lane *l, struct queue_message *m);
void delivery_stop(struct delivery *x, enum dr_rc why, const char *reason);

/* How a delivery ends (report.c); each call waits until Redis has it. */
int64_t report_record_ttl(const struct dr_envelope *e, int64_t now_ms, int64_t days);
void report_refusal(struct delivery *x, const struct dr_err *err); /* to the dead letters */
/* why: of an outcome that is neither done nor partial. res NULL: no result. */
void report_end(struct delivery *x, enum job_outcome outcome, const struct dr_buf *res,
                const struct dr_err *why);
/* What Redis gets of a result: res itself up to 64 KiB; else `small`, with the kept file's name and
 * hash, or with a note that it was cut (keep.c). */
const struct dr_buf *keep_in_redis(struct delivery *x, const struct dr_buf *res,
                                   struct dr_buf *small);
bool report_retry(struct delivery *x, const struct dr_err *why); /* false: no attempt is left */
bool report_park(struct delivery *x, const struct dr_err *why);  /* false: it does not ask for it */

void dispatch_give_back(struct lane *l);
/* A message of this lane was delayed by wait_ms: claim then, whatever the doorbell does. */
void dispatch_due(struct lane *l, int64_t wait_ms);
void dispatch_check_drained(struct dispatch *d);

#endif
