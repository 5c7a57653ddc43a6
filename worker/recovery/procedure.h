/* What every recovery procedure shares: the order, the journal of its run, services, downtime, and
 * how a run ends. A procedure is one row of recovery_procedures: step tables for the job engine,
 * and `settle`, which brings an open journal to its end by looking at the world.
 *
 * In fibers on the loop thread; journal work goes through the pool. `struct recovery` is the state
 * of the task `execute` (job_state), or stands in takeover.c when a journal is taken up without a
 * message: then job is NULL. Steps are written against struct recovery, so that both ways share
 * them. */
#ifndef DR_WORKER_RECOVERY_PROCEDURE_H
#define DR_WORKER_RECOVERY_PROCEDURE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/backup/store_select.h"
#include "worker/job/job.h"
#include "worker/recovery/journal.h"
#include "worker/recovery/procedures.h"
#include "worker/recovery/services.h"

struct backup_handle;
struct recovery;

struct recovery_order {
    char backup_id[80]; /* or "latest" */
    int64_t before_ms;  /* 0: no limit */
    bool dry_run, no_swap, keep_newer;
    bool drill; /* everything in scratch, nothing of live is locked, nothing stays */
    /* Of an exercise: what takes the place of live, a database's name or a folder in which each
     * root lies by its whole path; "": live itself. Services are none of its business. */
    char target[2100];
    char reason[1025], actor[129];
};

struct recovery {
    const struct recovery_procedure *procedure;
    struct recovery_order order;
    void *own;
    /* Set by recovery_begin, or by the taker of a journal. */
    const struct job_services *env;
    struct job *job;       /* NULL: taken up without a message */
    struct cancel *cancel; /* of the taker; recovery_cancel finds the job's */
    char run[20], job_id[80], mid[48], ticket[24];
    struct journal *journal; /* NULL in a dry run, and once it was closed */
    struct services services;
    struct backup_handle *backup;
    char chosen_id[80];         /* the backup that was selected */
    struct store_passed passed; /* newer ones that `latest` did not take */
    /* How it went. */
    bool settled; /* an earlier delivery's end was found or made: the steps left are skipped */
    enum job_outcome outcome; /* of a settled run; past the point also of a failed one */
    char summary[512];
    bool point_passed; /* quiesce was meant: what happens now is decided by observation */
    bool undo_failed;  /* somebody has to look again: the journal stays open */
    int64_t began_ms;  /* dr_clock_ms */
    int64_t down_ms;   /* dr_clock_ms when quiesce began; 0: it did not */
    uint64_t downtime_total_ms, downtime_services_ms; /* ours = total - services */
    uint64_t total_ms;                                /* of a run that another delivery closed */
    char emergency_id[80], emergency_why[256];
    /* Of a drill: why a recovery would be refused now, though the backup restores; and what the
     * injected damage met with. */
    char obstacle[256], self_test[256];
    json_t *prepared; /* of a settled exercise: what its journal has of the time before quiesce */
    json_t *kept_old; /* array of {"what","until" (null: no expiry),"note"} */
};

/* ---- used by steps; all in a fiber ---- */
struct recovery *recovery_of(struct job *j); /* the first call binds the two */
struct cancel *recovery_cancel(struct recovery *r);
int recovery_store_fd(struct recovery *r);

/* First step of every table. Loads the services, and, unless it is a dry run, opens and locks the
 * journal (waits while another delivery of this job holds it), settles an open one, finds the
 * outcome of a closed one, and writes run-open. */
enum dr_rc recovery_begin(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
/* Undo of that first step, thus the last thing of a failed run: closes the journal with the
 * outcome, unless somebody else shall go on (stale, handed back) or something could not be undone.
 */
enum dr_rc recovery_abandon(struct job *j, struct dr_err *err);

/* The guard of every step but the first: true when the run is settled and the step has nothing to
 * do (its outcome is then "skipped (settled)"). */
bool recovery_skips(struct recovery *r);

/* Journal records; data is taken and gets "step". On disk when they return. No journal: nothing. */
enum dr_rc recovery_intent(struct recovery *r, const char *step, json_t *data,
                           struct dr_err *err) DR_MUST_CHECK;
enum dr_rc recovery_done(struct recovery *r, const char *step, json_t *data,
                         struct dr_err *err) DR_MUST_CHECK;
enum dr_rc recovery_undone(struct recovery *r, const char *step, json_t *data,
                           struct dr_err *err) DR_MUST_CHECK;
/* The newest record of the step is an intent or a done, not an undone. */
bool recovery_pending(const struct recovery *r, const char *step);
const json_t *recovery_find_intent(const struct recovery *r, const char *step);
const json_t *recovery_find_done(const struct recovery *r, const char *step);
/* run-closed {outcome, summary, backup, kept_old, downtime, emergency}; the journal is then freed.
 */
enum dr_rc recovery_close(struct recovery *r, enum job_outcome outcome,
                          struct dr_err *err) DR_MUST_CHECK;

/* Services: down notes the downtime's begin, up its end. The quiesce intent of the caller stores
 * services_to_json(&r->services) between observe and down. Before settle's up: services_from_json.
 */
enum dr_rc recovery_services_down(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc recovery_services_up(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;

/* What the run leaves behind, for result and journal (log-cleanup drops what has expired): what is
 * a database or a path; without expiry when live could not be backed up. */
void recovery_keep(struct recovery *r, const char *what, bool expires, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* "oid" or "inode" of the newest of them, for the journal: without it nobody drops it. */
void recovery_keep_id(struct recovery *r, const char *key, uint64_t id);
void recovery_say(struct recovery *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); /* summary of the run, also in the journal; what was
                                              passed over is added to it */
/* Text of any origin as JSON: what is no UTF-8 becomes '?'. Never NULL. */
json_t *recovery_text(const char *text);
/* The backup of live, of a kind of take.h. nothing: why there is nothing to protect, or NULL. One
 * that cannot be made goes to emergency_why and sets damaged: no error. */
enum dr_rc recovery_emergency(struct recovery *r, const char *kind, const char *nothing,
                              bool *damaged, struct dr_err *err) DR_MUST_CHECK;
/* The step's outcome in the result, where there is a job. */
void recovery_step_outcome(struct recovery *r, const char *outcome);
bool recovery_is_exercise(const struct recovery *r);
/* r->order.target of an open journal's run. */
void recovery_read_target(struct recovery *r);

/* r->journal is open and locked, of a run without a message: fills r from its run-open.
 * NEEDS_HUMAN: it has none, or names no procedure of ours. */
enum dr_rc recovery_adopt(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;

/* A closed journal's end is final unless nothing was changed: such a run may be tried again. Reads
 * it into r (outcome, summary, ids, downtime, kept_old) and sets settled. */
bool recovery_read_closed(struct recovery *r);

/* ---- used by the task execute ---- */
unsigned recovery_result(struct recovery *r, struct dr_buf *map);
void recovery_fini(struct recovery *r);

#endif
