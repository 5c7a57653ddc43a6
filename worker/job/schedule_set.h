/* The schedules of this worker's configuration: a table of its own (schedules.def), changed by
 * DR_SCHEDULES. Pure but for the zone files; any thread, read-only once loaded. */
#ifndef DR_WORKER_JOB_SCHEDULE_SET_H
#define DR_WORKER_JOB_SCHEDULE_SET_H

#include "common/config.h"
#include "common/cron.h"
#include "common/wire/sched_info.h"
#include "worker/job/handler.h"

enum { SCHEDULES_MAX = 32, SCHEDULE_MISFIRES_MAX = 100 };

enum schedule_misfire { SCHEDULE_SKIP, SCHEDULE_ONCE, SCHEDULE_ALL };

struct schedule {
    char name[DR_SCHED_NAME_MAX + 1];
    const char *lane;
    const struct job_task *task; /* NULL: this worker has none for the lane */
    struct dr_sched_info info;   /* as text, for Redis and people */
    struct dr_cron cron;
    struct dr_zone *zone;
    char *args_text;                            /* what args point into */
    const char *args[DR_SCHED_ARGS_MAX + 1][2]; /* by name, ended by NULL */
    enum schedule_misfire misfire;              /* of slots at which nobody lived */
    unsigned most;                              /* of SCHEDULE_ALL */
    int64_t late_ms, jitter_ms;
    bool skip_overlap;   /* pass a slot over while the run before it lives */
    const char *off;     /* why it is not served; NULL: it is */
    char when[340];      /* cron and zone */
    struct dr_buf bytes; /* definition; empty: off by DR_SCHEDULES, or not served */
};

struct schedule_set {
    struct schedule at[SCHEDULES_MAX];
    unsigned count;
    bool none;     /* DR_SCHEDULES=off: this worker serves none */
    char hash[17]; /* of all definitions; equal where workers agree */
};

/* CONFIG names entry, field and value. tasks: a lane without a task is off, or refused where
 * DR_SCHEDULES made it, and so are arguments that the task refuses. */
enum dr_rc schedule_set_load(const struct dr_config *c, const struct job_task *const *tasks,
                             struct schedule_set **out, struct dr_err *err) DR_MUST_CHECK;
void schedule_set_free(struct schedule_set *set);

/* After an instant, in ms. */
int64_t schedule_next(const struct schedule *s, int64_t after_ms);

/* What to do at now_ms about the slot from_ms, which has come. */
struct schedule_step {
    bool fire;
    int64_t slot_ms, next_ms; /* the slot to fire or to pass over (the ones before it too) */
    const char *why;          /* of passing over: misfire, late */
};
void schedule_decide(const struct schedule *s, int64_t from_ms, int64_t now_ms,
                     struct schedule_step *out);
/* When a slot is due: jitter is drawn from name and slot, alike in every worker. */
int64_t schedule_due(const struct schedule *s, int64_t slot_ms);

#endif
