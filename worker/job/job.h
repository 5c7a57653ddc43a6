/* One run of one delivery: its steps, progress, cancel, outcome. Owned by the fiber that runs it;
 * loop thread only. Pool work gets its own data, never a struct job; progress counters are the
 * exception: they are atomics (job_progress_counter). */
#ifndef DR_WORKER_JOB_JOB_H
#define DR_WORKER_JOB_JOB_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/keys.h"
#include "worker/core/cancel.h"
#include "worker/job/handler.h"

struct dispatch;
struct dr_config;
struct loop;
struct pool;
struct store;
struct watch;
struct alerts;
struct resolve_listener;

/* What every job may use; borrowed, lives as long as the worker. */
struct job_services {
    struct loop *loop;
    struct pool *pool;
    const struct dr_config *config;
    const char *ns;
    struct store *store;                     /* of worker/backup; NULL without BACKUP_DIRECTORY */
    struct dispatch *dispatch;               /* NULL in programs that have none */
    struct watch *watch;                     /* of worker/watch; NULL in programs that have none */
    struct alerts *alerts;                   /* of worker/watch; NULL in programs that have none */
    const struct resolve_listener *resolved; /* of worker/recovery; NULL: nobody listens */
    /* Keeps a result that is too long for Redis as results/<run>.msgpack of the store, written
     * anew each time. In a pool thread. NULL: there is no store. */
    enum dr_rc (*keep_result)(struct store *store, const char *run, const void *bytes, size_t len,
                              struct dr_err *err);
    /* Redis' clock as this worker last saw it, unix ms; on the loop thread. NULL: no queue. */
    int64_t (*redis_ms)(const void *queue);
    const void *queue;
};

enum job_outcome {
    JOB_DONE,
    JOB_PARTIAL,
    JOB_FAILED,
    JOB_REFUSED,
    JOB_ROLLED_BACK,
    JOB_NEEDS_HUMAN,
    JOB_CANCELLED,
};
const char *job_outcome_name(enum job_outcome o);
const char *job_outcome_state(enum job_outcome o); /* st of the record: done, failed, cancelled */

struct job_progress {
    unsigned pct;     /* 0..100, never falls */
    const char *step; /* static text */
    char msg[160];
    uint64_t done, total; /* bytes */
    uint64_t rate;        /* bytes/s over the step */
    uint64_t eta_ms;      /* 0: unknown */
};

struct job_spec {
    const struct job_services *services;
    const struct job_task *task;
    const char *id, *ticket, *actor, *mid;
    bool resume;                /* the message belongs to an open journal */
    const struct dr_args *args; /* borrowed for job_new only */
    uint64_t soft_s, hard_s;    /* timeouts of the envelope; 0: none */
    /* Called on the loop thread after a change worth telling (new step, 1 %, 250 ms at the most).
     */
    void (*on_progress)(void *arg, const struct job_progress *p, bool new_step);
    void *arg;
};

enum dr_rc job_new(const struct job_spec *spec, struct job **out, struct dr_err *err) DR_MUST_CHECK;
void job_free(struct job *j);

/* Runs all steps, undoes on failure; in a fiber. The outcome and the result map are then ready. */
enum job_outcome job_run(struct job *j);
/* The one entry: user, deadline, drain, stale. Ignored past a STEP_POINT but for STALE's note. */
void job_cancel(struct job *j, enum dr_rc why, const char *reason);
enum dr_rc job_cancel_kind(const struct job *j); /* DR_OK: nobody cancelled it */
bool job_handed_back(const struct job *j); /* cancelled by the drain: another worker goes on */

/* The result: msgpack map of interface.md, section 5. */
const struct dr_buf *job_result(struct job *j);
const struct dr_err *job_error(const struct job *j);
uint64_t job_ran_ms(const struct job *j); /* from the first step to the result; 0: not ended */

/* For steps. */
void *job_state(struct job *j);
const struct job_services *job_services(const struct job *j);
const char *job_id(const struct job *j);
const char *job_ticket(const struct job *j);
const char *job_actor(const struct job *j);
const char *job_mid(const struct job *j); /* hex SHA-1 of the message: names it in the journal */
bool job_resume(const struct job *j);     /* an open journal of this message was found at start */
struct cancel *job_cancel_token(struct job *j); /* a fresh one while undoing */
enum dr_rc job_sleep(struct job *j, uint64_t ms, struct dr_err *err);
void job_message(struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Bytes done of total in this step; any thread may add to *job_progress_counter. */
void job_progress_total(struct job *j, uint64_t total_bytes);
_Atomic uint64_t *job_progress_counter(struct job *j);
/* A step that ended well but incompletely: the outcome becomes partial. */
void job_mark_partial(struct job *j);
/* What the result says of this step instead of `done`; static text. */
void job_step_outcome(struct job *j, const char *outcome);
/* A step's own summary sentence; the last one stands in the result. */
void job_summary(struct job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* From a failing step: what the failure amounts to, where it is not plain `failed`.
 * A step that fails with LOCKED and dr_err_reason(err, "park") ends nothing: started steps are
 * undone, then the message waits some seconds; no attempt is charged, nobody is alerted. */
void job_outcome_is(struct job *j, enum job_outcome o);

#endif
