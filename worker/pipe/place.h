/* Where an entry of a tar lies: the innermost root that holds it, and its parent directory, opened
 * component by component without following anything. Directories on the way to the last entry stay
 * open, so that a tree in order costs one open a directory. One owner; blocking. */
#ifndef DR_WORKER_PIPE_PLACE_H
#define DR_WORKER_PIPE_PLACE_H

#include <limits.h>

#include "common/err.h"
#include "worker/pipe/extract.h"

struct place;

/* roots are borrowed. */
enum dr_rc place_new(const struct extract_root *roots, unsigned count, struct place **out,
                     struct dr_err *err) DR_MUST_CHECK;
void place_free(struct place *p);

/* Why a path must not be used, or NULL: empty or absolute, an empty, `.` or `..` part, a NUL, a
 * part of more than 255 bytes, more than 4096 parts. */
const char *place_unsafe(const struct pipe_bytes *path);

/* Opens the parent (an O_PATH fd, borrowed until the next call); name is the last part, or "" when
 * the path is a root itself and *dir stands for it. INTEGRITY, reason tar-unsafe: outside of all
 * roots, or below what is no directory. */
enum dr_rc place_parent(struct place *p, const struct pipe_bytes *path, int *dir,
                        char name[NAME_MAX + 1], struct dr_err *err) DR_MUST_CHECK;

#endif
