/* Between proc.c and proc_child.c. */
#ifndef DR_WORKER_CORE_PROC_INTERNAL_H
#define DR_WORKER_CORE_PROC_INTERNAL_H

#include <sys/types.h>

#include "worker/core/proc.h"

struct proc_ends {    /* the child's descriptors, any numbers; closed by us after fork */
    int in, out, err; /* become 0, 1, 2 */
    int status;       /* pipe: an int errno when it cannot become the program */
};

/* In the parent: the child's pid, or -1 and errno. */
pid_t proc_child_fork(const struct proc_spec *spec, const struct proc_ends *ends);

#endif
