/* How bytes pass between the parts of a pipeline. Blocking, for pool threads. */
#ifndef DR_WORKER_PIPE_SINK_H
#define DR_WORKER_PIPE_SINK_H

#include <stddef.h>

#include "common/err.h"

struct pipe_sink { /* takes all of the bytes or fails */
    enum dr_rc (*write)(void *arg, const void *bytes, size_t len, struct dr_err *err);
    void *arg;
};

struct pipe_source { /* bytes are borrowed until the next call; len 0: the end, everything proven */
    enum dr_rc (*read)(void *arg, const void **bytes, size_t *len, struct dr_err *err);
    void *arg;
};

#endif
