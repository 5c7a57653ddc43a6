/* Mount points of this process, from /proc/self/mountinfo (st_dev does not see bind mounts).
 * Immutable once read; blocking read, then any thread. */
#ifndef DR_WORKER_PIPE_MOUNTS_H
#define DR_WORKER_PIPE_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct mounts;

enum dr_rc mounts_read(struct mounts **out, struct dr_err *err) DR_MUST_CHECK;
/* The same from text of the same form, for tests. */
enum dr_rc mounts_parse(const char *text, size_t len, struct mounts **out,
                        struct dr_err *err) DR_MUST_CHECK;
void mounts_free(struct mounts *m);

bool mounts_has(const struct mounts *m, const char *path);
/* The i-th mount point strictly below path, sorted bytewise; NULL: no more. */
const char *mounts_below(const struct mounts *m, const char *path, size_t i);

#endif
