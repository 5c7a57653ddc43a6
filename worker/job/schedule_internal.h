/* Between the table (schedule_set.c) and the text of DR_SCHEDULES (schedule_parse.c). */
#ifndef DR_WORKER_JOB_SCHEDULE_INTERNAL_H
#define DR_WORKER_JOB_SCHEDULE_INTERNAL_H

#include "worker/job/schedule_set.h"

/* Each replaces what the schedule has. CONFIG, field DR_SCHEDULES.<name>.<what>. */
enum dr_rc schedule_put_cron(struct schedule *s, const char *text, struct dr_err *err);
enum dr_rc schedule_put_zone(struct schedule *s, const char *text, struct dr_err *err);
/* What the worker would refuse as a message, the task's own checks included, is refused here. */
enum dr_rc schedule_put_args(struct schedule *s, const char *text, struct dr_err *err);
enum dr_rc schedule_put_late(struct schedule *s, const char *text, struct dr_err *err);

/* The entries of DR_SCHEDULES, in their order. */
enum dr_rc schedule_parse(struct schedule_set *set, const char *text, const char *zone,
                          const struct job_task *const *tasks, struct dr_err *err) DR_MUST_CHECK;

/* A new one of that lane with the defaults of all. */
struct schedule *schedule_add(struct schedule_set *set, const char *name, const char *lane,
                              const struct job_task *task);
struct schedule *schedule_find(struct schedule_set *set, const char *name);
const struct job_task *schedule_task(const struct job_task *const *tasks, const char *lane);
enum dr_rc schedule_bad(const struct schedule *s, const char *what, const char *value,
                        const char *wanted, struct dr_err *err);

#endif
