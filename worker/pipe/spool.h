/* File records that wait for the end of a restore (directories, links), in an unlinked file of the
 * staging folder: no memory of ours grows with the tree. Only what the end needs is kept: no user
 * names, no hash. One owner; blocking. */
#ifndef DR_WORKER_PIPE_SPOOL_H
#define DR_WORKER_PIPE_SPOOL_H

#include <stdbool.h>

#include "common/err.h"
#include "worker/pipe/records.h"

struct spool;

enum dr_rc spool_new(int dir, struct spool **out, struct dr_err *err) DR_MUST_CHECK;
void spool_free(struct spool *s);
enum dr_rc spool_add(struct spool *s, const struct pipe_file *f, struct dr_err *err) DR_MUST_CHECK;
/* No more is added; the records can be read, each valid until the next call. */
enum dr_rc spool_seal(struct spool *s, struct dr_err *err) DR_MUST_CHECK;
void spool_rewind(struct spool *s, bool to_end);
bool spool_next(struct spool *s, struct pipe_file *f);  /* false: there is no more */
bool spool_prior(struct spool *s, struct pipe_file *f); /* backwards, from the end */

#endif
