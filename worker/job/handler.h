/* What a task type is: a pure decode of its arguments and a table of named steps.
 * Step functions run in the job's fiber on the loop thread: they wait by calling proc_run,
 * pool_run, pg_query, job_sleep; they never block. */
#ifndef DR_WORKER_JOB_HANDLER_H
#define DR_WORKER_JOB_HANDLER_H

#include <stddef.h>

#include "common/err.h"
#include "common/wire/pack.h"

struct job;
struct dr_args;

enum job_step_flags {
    STEP_RESUMABLE = 1, /* may be run again after it was done: a redelivery repeats nothing else */
    STEP_POINT = 2,     /* from here on only the target's own lock decides, not Redis */
    STEP_DESTRUCTIVE = 4, /* changes something live: refused when the delivery is no longer ours */
};

typedef enum dr_rc job_step_fn(struct job *j, struct dr_err *err);

struct job_step {
    const char *name; /* NULL ends the table */
    unsigned weight;  /* share of the percentage; all weights of a table together are 100 % */
    unsigned flags;
    job_step_fn *run;
    job_step_fn *undo; /* NULL: nothing to undo. Copes with a step that was only begun. */
};

enum job_task_flags {
    TASK_HEAVY = 1,           /* has thread or child work: needs a permit of DR_CONCURRENCY */
    TASK_RESERVED_PERMIT = 2, /* one permit is kept free for this lane */
    TASK_TRIVIAL = 4,         /* changes nothing and finds out nothing: not audited */
};

struct job_task {
    const char *type; /* = lane */
    unsigned flags;
    unsigned default_slots;
    unsigned deadline_s; /* 0: none, unless the envelope has one */
    size_t state_bytes;  /* zeroed memory for the steps, job_state(j); freed with the job */
    /* Pure: no I/O. Copies what the steps need into the state. */
    enum dr_rc (*decode)(const struct dr_args *args, void *state, struct dr_err *err);
    const struct job_step *steps; /* NULL: plan chooses */
    /* The table for these arguments, where a task has several; pure. */
    const struct job_step *(*plan)(const void *state);
    /* Appends the task's own keys to the result map and returns how many pairs; may be NULL. */
    unsigned (*result)(struct job *j, struct dr_buf *map);
    void (*fini)(void *state); /* frees what the state owns; may be NULL */
};

#endif
