/* OFD locks on files of the store: they belong to the open file, so threads exclude each other too,
 * and end with the process. After locking, the path must still name the same inode, else it is
 * looked for again. An NFS mount without locks is refused by store_open. Blocking, any thread. */
#ifndef DR_WORKER_BACKUP_LOCK_H
#define DR_WORKER_BACKUP_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct cancel;

enum lock_kind {
    LOCK_SHARED,    /* opens read-only */
    LOCK_ALONE,     /* opens read-write */
    LOCK_ALONE_MAKE /* as LOCK_ALONE, makes the file */
};

/* *fd holds the lock until it is closed. wait_ms 0: LOCKED at once. NOT_FOUND: no such file. */
enum dr_rc lock_take(int dirfd, const char *path, enum lock_kind kind, uint64_t wait_ms, int *fd,
                     struct dr_err *err) DR_MUST_CHECK;
/* Somebody holds a read lock on it at this moment; asked without taking one. */
bool lock_is_shared(int dirfd, const char *path);
void lock_drop(int *fd); /* closes, sets -1; -1 is allowed */

#endif
