/* The task types this worker knows: one row a file of this folder. */
#ifndef DR_WORKER_TASK_TASKS_H
#define DR_WORKER_TASK_TASKS_H

#include "worker/job/handler.h"

#define TASK(name) extern const struct job_task task_##name;
#include "worker/task/tasks.def"
#undef TASK

extern const struct job_task *const task_table[]; /* ended by NULL */

#endif
