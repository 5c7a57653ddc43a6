/* Metadata of one inode, as an index record tells it. Order matters: chown clears set-id bits and
 * capabilities, chmod goes with the ACL's mask, times come last. Blocking, any thread. */
#ifndef DR_WORKER_PIPE_INODE_H
#define DR_WORKER_PIPE_INODE_H

#include <stdbool.h>

#include "common/err.h"
#include "worker/pipe/records.h"

/* fd is open (not O_PATH). ignore_owner as in extract.h. */
enum dr_rc inode_apply(int fd, const struct pipe_file *f, bool ignore_owner,
                       struct dr_err *err) DR_MUST_CHECK;
/* The same for a symlink, which has owner and times only. */
enum dr_rc inode_apply_link(int dir, const char *name, const struct pipe_file *f, bool ignore_owner,
                            struct dr_err *err) DR_MUST_CHECK;
/* Removes ACLs that a new directory inherited, and makes it 0700. */
enum dr_rc inode_bare(int fd, struct dr_err *err) DR_MUST_CHECK;
/* Extended attributes of the kinds a backup has, from one inode to the other, no more and no less.
 */
enum dr_rc inode_copy_xattrs(int from, int to, struct dr_err *err) DR_MUST_CHECK;

#endif
