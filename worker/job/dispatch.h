/* From claim to finish: one fiber a lane claims what it has free slots and permits for, one fiber a
 * job checks, starts, runs and reports it. Loop thread. */
#ifndef DR_WORKER_JOB_DISPATCH_H
#define DR_WORKER_JOB_DISPATCH_H

#include "common/err.h"
#include "common/redis_url.h"
#include "common/wire/keyfile.h"
#include "worker/job/job.h"

struct dispatch;
struct dr_args;
struct schedule_set;
struct queue;

/* What the journals on disk say of a message; heavy tasks only are asked about. Called in the
 * delivery's fiber (or the sweep's): it may wait, it must not block. */
enum dispatch_known {
    DISPATCH_UNKNOWN, /* no closed journal of this job */
    DISPATCH_CLOSED,  /* one of this very message: out holds how it ended */
    DISPATCH_OTHER,   /* a journal of the job, open or closed, that another message (mid) opened */
};
struct dispatch_recorded {
    enum job_outcome outcome;
    struct dr_buf result; /* the result map; freed by dispatch */
    struct dr_err err;    /* of an outcome that is neither done nor partial */
};

/* What was decided on an order, for the audit log. Texts are borrowed for the call. */
enum dispatch_verdict { DISPATCH_REFUSED, DISPATCH_STARTED, DISPATCH_ENDED };
struct dispatch_order {
    enum dispatch_verdict verdict;
    const char *lane;
    bool trivial;                /* of a task that leaves no trace */
    const char *job_id, *worker; /* job_id "": it had no valid id */
    /* Verified, as in the envelope; a refused order's as far as its checks came. */
    const char *actor, *kid, *claimed_actor;
    const struct dr_args *args; /* NULL: the order was refused before they were read */
    unsigned attempt;           /* 0: it never started */
    /* ENDED: of enum job_outcome, or retry, parked, handed_back, stale; expired, cancelled */
    const char *outcome;
    const char *cancelled_by; /* whoever cancelled it, by their own words; "" */
    const struct dr_err *err; /* REFUSED, and ENDED unless it went well */
    const char *reason;       /* REFUSED: of the dead letter */
};

struct dispatch_options {
    const struct job_services *services;
    const struct job_task *const *tasks; /* ended by NULL */
    const struct dr_redis_url *url;
    const char *lanes; /* DR_LANES: "" for all */
    unsigned concurrency;
    int64_t lease_ms, drain_ms;
    const struct dr_keyfile *keys; /* NULL: no key file */
    const struct dr_secret *sched_key;
    const struct schedule_set *schedules; /* NULL: none are served; without sched_key neither */
    bool allow_unsigned;
    const char *store_id; /* of services->store; NULL: none. Another one in Redis: see below */
    /* True: the message belongs to an open journal. Signature, iat, exp, nbf, cancel, mx and the
     * poison limit no longer count, the job runs with job_resume. job_id NULL: by mid alone. */
    bool (*open_run)(void *arg, const char *mid_hex, const char *job_id);
    /* Asked when open_run said no. CLOSED: the job ends with what is in out and does not run.
     * OTHER: dead letter id-collision. */
    enum dispatch_known (*closed_run)(void *arg, const char *mid_hex, const char *job_id,
                                      struct dispatch_recorded *out);
    void *journals; /* arg of both */
    /* A job came to its end and Redis knows: on the loop thread, must not wait. j NULL: nothing ran
     * here, a closed journal told how it ended, or its arguments were refused. Not called for what
     * is tried again, parked, handed back or owned by another delivery. NULL is allowed. */
    void (*on_end)(void *arg, const struct job_task *task, const struct job *j,
                   enum job_outcome outcome);
    /* Before a refused order is buried, before a job's first step, and before its end is reported;
     * of one that ended while it waited, before its message is dropped. In the delivery's fiber,
     * so it may wait. After a message was buried by a script: poison that the reaper found, too
     * big. NULL is allowed. */
    void (*on_order)(void *arg, const struct dispatch_order *o);
    void (*on_other_head)(void *arg, uint64_t seq, const char *sha256_hex);
    /* A message, as it came, was given up: too many workers died over it. Must not wait. NULL is
     * allowed. */
    void (*on_poison)(void *arg, const char *lane, const void *raw, size_t len);
    void (*on_drained)(
        void *arg); /* nothing runs any more, everything is reported or handed back */
    void *arg;
};

enum dr_rc dispatch_new(const struct dispatch_options *o, struct dispatch **out,
                        struct dr_err *err) DR_MUST_CHECK;
enum dr_rc dispatch_start(struct dispatch *d, struct dr_err *err) DR_MUST_CHECK;
bool dispatch_serves(const struct dispatch *d, const char *lane);
/* Stops taking; running jobs have drain_ms, then they are cancelled and handed back. Called again:
 * handed back at once. */
void dispatch_drain(struct dispatch *d);
bool dispatch_is_draining(const struct dispatch *d);
struct queue *dispatch_queue(struct dispatch *d); /* borrowed */
/* Why it drains by itself: Redis names another store (CONFIG). NULL: it does not. */
const struct dr_err *dispatch_refusal(const struct dispatch *d);
/* A field of `info` as msgpack (procedures, retention, offsite, health, seal_pub), the same from
 * every worker; written at each connect and when it changes. */
void dispatch_tell(struct dispatch *d, const char *field, const void *msgpack, size_t len);
/* The catalog's head after a change; Redis witnesses it. An older one than Redis has seen is an
 * alarm: on_other_head. */
void dispatch_tell_head(struct dispatch *d, uint64_t seq, const char *sha256_hex);
int64_t dispatch_redis_ms(const void *dispatch); /* for job_services */
void dispatch_free(struct dispatch *d);

#endif
