/* Schedules in Redis: what this worker has, and one slot fired. For fibers on the loop thread. */
#ifndef DR_WORKER_QUEUE_SCHEDULE_H
#define DR_WORKER_QUEUE_SCHEDULE_H

#include <stddef.h>
#include <stdint.h>

#include "common/keys.h"
#include "common/wire/sched_info.h"
#include "worker/queue/queue.h"

enum { QUEUE_SCHEDULES_MAX = 32 };

struct queue_schedule {
    const char *name, *lane, *when; /* when: cron and zone; another one moves the next slot */
    const void *definition;
    size_t definition_len; /* 0: off, which is said too */
    int64_t first_ms;      /* the first slot after now */
    int64_t next_ms;       /* the slot that comes next, as Redis said last; 0: not known */
    bool ours;             /* Redis holds this definition: slots are this worker's to fire */
    char last_jid[DR_JOB_ID_MAX + 1]; /* of the slot that was fired last, last_ms */
    int64_t last_ms;
};

/* Tells what this worker has and reads next_ms, ours and last_jid. *since_ms: 0 at first, then kept
 * by the caller as it came back: of two configurations the one started later counts. Nothing is
 * repeated: UNREACHABLE, REDIS. */
enum dr_rc queue_seed(struct queue *q, struct queue_schedule *s, unsigned count, int64_t *since_ms,
                      struct dr_err *err) DR_MUST_CHECK;

enum queue_fired {
    QUEUE_FIRED,
    QUEUE_PASSED,
    QUEUE_OVERLAP, /* passed over: the last slot's job still lives */
    QUEUE_EXISTS,  /* the slot has a job already */
    QUEUE_EARLY,
    QUEUE_ALREADY, /* another worker was faster, or the reply to this one was lost */
    QUEUE_NO_SLOT, /* FLUSHALL */
    QUEUE_OTHER,   /* another definition stands there */
};

struct queue_slot {
    int64_t slot_ms, next_ms; /* the slot, at or after s->next_ms; the one after it */
    const void *raw;          /* signed message; NULL: the slot is passed over */
    size_t len;
    const char *jid, *dig, *why; /* why: of a slot passed over */
    int64_t ttl_ms;              /* of the record */
    bool unless_live;            /* OVERLAP: the last slot's job runs, or waits for less than */
    int64_t waits_ms;            /* that: its message has expired then, and may be gone */
};

/* s->next_ms and last_jid follow. Errors as above; the outcome is unknown then, and asking again
 * is safe. */
enum dr_rc queue_fire(struct queue *q, struct queue_schedule *s, const struct queue_slot *slot,
                      enum queue_fired *out, struct dr_err *err) DR_MUST_CHECK;

/* What Redis knows of a schedule; times 0 and texts "" where it knows nothing. */
struct queue_schedule_state {
    int64_t next_ms;
    struct dr_sched_last last, passed; /* the slot that was fired last, that was passed over last */
    char st[16], outcome[24];          /* of the last one's job, while there is a record */
};
struct queue_conn;
enum dr_rc queue_schedule_read(struct queue_conn *c, const struct dr_keys *k, const char *name,
                               struct queue_schedule_state *out, struct dr_err *err) DR_MUST_CHECK;

uint64_t queue_generation(const struct queue *q); /* another one: connected anew */
/* fn is called when Redis' clock jumped against ours. */
void queue_on_clock(struct queue *q, void (*fn)(void *arg), void *arg);

#endif
