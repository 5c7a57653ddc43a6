/* Expands tasks.def. */
#include "worker/task/tasks.h"

const struct job_task *const task_table[] = {
#define TASK(name) &task_##name,
#include "worker/task/tasks.def"
#undef TASK
    NULL,
};
