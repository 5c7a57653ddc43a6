/* Files of the store below a directory fd, so that what exists is whole and durable: 0600 and 0700,
 * no symlink followed, directories fsynced. Blocking. Any thread. Errors name the path. */
#ifndef DR_WORKER_BACKUP_DISK_H
#define DR_WORKER_BACKUP_DISK_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/err.h"

/* NOT_FOUND when it is not there, TOO_BIG over out->max, IO else. */
enum dr_rc disk_read(int dirfd, const char *path, struct dr_buf *out,
                     struct dr_err *err) DR_MUST_CHECK;
enum dr_rc disk_read_fd(int fd, const char *path, struct dr_buf *out,
                        struct dr_err *err) DR_MUST_CHECK;
/* A new file, fsynced; EXISTS when there is one. The directory is not fsynced. */
enum dr_rc disk_create(int dirfd, const char *name, const void *bytes, size_t len,
                       struct dr_err *err) DR_MUST_CHECK;
/* Replaces whole: written as .<name>.new, fsynced, renamed, directory fsynced. Callers of one name
 * exclude each other by a lock, so that a killed one leaves one file at most. */
enum dr_rc disk_replace(int dirfd, const char *name, const void *bytes, size_t len,
                        struct dr_err *err) DR_MUST_CHECK;
/* There afterwards, and durable; created says whether it was made. */
enum dr_rc disk_mkdir(int dirfd, const char *name, bool *created, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc disk_open_dir(int dirfd, const char *path, int *fd, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc disk_sync(int fd, const char *what, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc disk_sync_dir(int dirfd, const char *path, struct dr_err *err) DR_MUST_CHECK;
bool disk_exists(int dirfd, const char *path);
/* Names of a directory but those that begin with a dot, and `lock`. */
enum dr_rc disk_each(int dirfd, const char *path,
                     enum dr_rc (*fn)(void *arg, const char *name, struct dr_err *err), void *arg,
                     struct dr_err *err) DR_MUST_CHECK;
/* A whole tree; what is not there is removed already. */
enum dr_rc disk_remove_tree(int dirfd, const char *name, struct dr_err *err) DR_MUST_CHECK;

#endif
