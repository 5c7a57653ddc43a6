/* COPY statements and quoted names of PostgreSQL, read and written. The statement that verifies a
 * restored table is built here from the very names and columns that the dump's own statement gave,
 * so that both give the same rows. Names are raw bytes (no quotes). Any thread. */
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
/* Always quoted: "a""b". */
void copy_stmt_ident(struct dr_buf *out, const struct pipe_bytes *name);
/* COPY "schema"."table" ("a", "b") TO STDOUT; without columns: no list. */
void copy_stmt_out(struct dr_buf *out, const struct pipe_table *t);

#endif
