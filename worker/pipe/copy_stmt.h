/* The COPY statement of a dump, read: names as raw bytes, without their quotes. Any thread. */
#ifndef DR_WORKER_PIPE_COPY_STMT_H
#define DR_WORKER_PIPE_COPY_STMT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "worker/pipe/records.h"

/* "COPY schema.table (a, "b c") FROM stdin;" (no list: no columns). Names are written unquoted into
 * out, in the order schema, table, columns; views point into out->data once all is read. columns:
 * room for max. False: not such a statement, or it does not fit. */
bool copy_stmt_parse(const char *text, size_t len, struct dr_buf *out, struct pipe_bytes *schema,
                     struct pipe_bytes *table, struct pipe_bytes *columns, unsigned max,
                     unsigned *count);

#endif
