/* Open journals of other runs: locked, looked at, brought to their end. In a fiber on the loop
 * thread. */
#ifndef DR_WORKER_RECOVERY_RESOLVE_H
#define DR_WORKER_RECOVERY_RESOLVE_H

#include "common/err.h"
#include "worker/recovery/procedure.h"

/* Who is told of recoveries that go on without their message; in a fiber, must not wait. */
struct resolve_end {
    const char *procedure, *run, *job_id, *summary;
    bool rehearsed, no_swap; /* not upon live; beside live */
    enum job_outcome outcome;
};
struct resolve_listener {
    void (*ended)(const struct job_services *env, const struct resolve_end *e);
    /* This open run needs a human, and again every ten minutes; run NULL: none does. */
    void (*stuck)(const struct job_services *env, const char *run, const struct dr_err *why);
};

/* One journal. DR_OK: it is closed, or it changed nothing and waits for its message. LOCKED:
 * somebody works on it; NOT_FOUND. Any other error: it could not be seen what is, it stays open. */
enum dr_rc resolve_run(const struct job_services *env, const char *run,
                       struct dr_err *err) DR_MUST_CHECK;

/* The names of all open runs, NULL-ended; journal_list_free. */
enum dr_rc resolve_list(const struct job_services *env, char ***out,
                        struct dr_err *err) DR_MUST_CHECK;
/* One journal with its lock; journal_free. LOCKED, NOT_FOUND as above. */
enum dr_rc resolve_open(const struct job_services *env, const char *run, struct journal **out,
                        struct dr_err *err) DR_MUST_CHECK;
/* As it stands, without its lock; NULL: there is none. */
struct journal *resolve_peek(const struct job_services *env, const char *run);

/* A run that died past quiesce left its target shut and its services down: nobody may begin a new
 * one upon that. Called with the target's lock held, so that none gets there meanwhile: run (16
 * letters and NUL) names another run of this procedure and target that is open past quiesce, or is
 * "". The caller then gives the lock away, calls resolve_run, and asks again. */
enum dr_rc resolve_blocking(struct recovery *r, char run[JOURNAL_RUN_BYTES + 1],
                            struct dr_err *err) DR_MUST_CHECK;

#endif
