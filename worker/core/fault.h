/* Faults on demand, in builds with -DDR_FAULTS=ON only: a list of point[:nth]:action separated by
 * commas is read once from the environment. action: kill | stop (SIGKILL, SIGSTOP to ourselves),
 * fail (IO), sleep[:ms] (1000; a fiber waits, a thread blocks). nth: the nth time only, else the
 * first. A list that cannot be read aborts: a fault test injects its fault. Any thread. */
#ifndef DR_WORKER_CORE_FAULT_H
#define DR_WORKER_CORE_FAULT_H

#include "common/err.h"

#if DR_FAULTS
enum dr_rc fault_point(const char *point, struct dr_err *err) DR_MUST_CHECK;
#else
static inline enum dr_rc fault_point(const char *point, struct dr_err *err)
{
    (void)point;
    (void)err;
    return DR_OK;
}
#endif

#endif
