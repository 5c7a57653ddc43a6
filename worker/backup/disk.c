/* Durable files below a directory fd. */
#include "worker/backup/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TREE_DEPTH_MAX = 64 };

enum dr_rc disk_read_fd(int fd, const char *path, struct dr_buf *out, struct dr_err *err)
{
    unsigned char piece[16384];
    struct stat st;
    dr_buf_reset(out);
    if (fstat(fd, &st) != 0)
        return dr_fail_errno(err, DR_E_IO, "%s", path);
    if (!S_ISREG(st.st_mode))
        return dr_fail(err, DR_E_IO, "%s: not a regular file", path);
    for (off_t at = 0;;) {
        ssize_t n = pread(fd, piece, sizeof piece, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "read %s", path);
        if (n == 0)
            return DR_OK;
        dr_buf_add(out, piece, (size_t)n);
        if (out->failed)
            return dr_fail(err, DR_E_TOO_BIG, "%s: over %zu bytes", path, out->max);
        at += n;
    }
}

enum dr_rc disk_read(int dirfd, const char *path, struct dr_buf *out, struct dr_err *err)
{
    /* NONBLOCK: a FIFO that somebody put there must not hold the thread. */
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return dr_fail_errno(err, errno == ENOENT ? DR_E_NOT_FOUND : DR_E_IO, "open %s", path);
    enum dr_rc rc = disk_read_fd(fd, path, out, err);
    (void)close(fd);
    return rc;
}

static enum dr_rc write_all(int fd, const char *name, const void *bytes, size_t len,
                            struct dr_err *err)
{
    for (const char *p = bytes; len > 0;) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "write %s", name);
        p += n;
        len -= (size_t)n;
    }
    return disk_sync(fd, name, err);
}

static enum dr_rc write_new(int dirfd, const char *name, int flags, const void *bytes, size_t len,
                            struct dr_err *err)
{
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (fd < 0)
        return dr_fail_errno(err, errno == EEXIST ? DR_E_EXISTS : DR_E_IO, "create %s", name);
    enum dr_rc rc = write_all(fd, name, bytes, len, err);
    if (close(fd) != 0 && !rc)
        rc = dr_fail_errno(err, DR_E_IO, "close %s", name);
    if (rc)
        (void)unlinkat(dirfd, name, 0);
    return rc;
}

enum dr_rc disk_create(int dirfd, const char *name, const void *bytes, size_t len,
                       struct dr_err *err)
{
    return write_new(dirfd, name, O_EXCL, bytes, len, err);
}

enum dr_rc disk_replace(int dirfd, const char *name, const void *bytes, size_t len,
                        struct dr_err *err)
{
    char fresh[256];
    if (snprintf(fresh, sizeof fresh, ".%s.new", name) >= (int)sizeof fresh)
        return dr_fail(err, DR_E_BUG, "name too long: %s", name);
    enum dr_rc rc = write_new(dirfd, fresh, O_TRUNC, bytes, len, err);
    if (rc)
        return rc;
    if (renameat(dirfd, fresh, dirfd, name) != 0) {
        rc = dr_fail_errno(err, DR_E_IO, "rename to %s", name);
        (void)unlinkat(dirfd, fresh, 0);
        return rc;
    }
    return disk_sync(dirfd, name, err);
}

enum dr_rc disk_sync(int fd, const char *what, struct dr_err *err)
{
    while (fsync(fd) != 0)
        if (errno != EINTR)
            return dr_fail_errno(err, DR_E_IO, "fsync %s", what);
    return DR_OK;
}

enum dr_rc disk_open_dir(int dirfd, const char *path, int *fd, struct dr_err *err)
{
    *fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (*fd < 0)
        return dr_fail_errno(err, errno == ENOENT ? DR_E_NOT_FOUND : DR_E_IO, "open %s", path);
    return DR_OK;
}

enum dr_rc disk_sync_dir(int dirfd, const char *path, struct dr_err *err)
{
    int fd;
    enum dr_rc rc = disk_open_dir(dirfd, path, &fd, err);
    if (rc)
        return rc;
    rc = disk_sync(fd, path, err);
    (void)close(fd);
    return rc;
}

enum dr_rc disk_mkdir(int dirfd, const char *name, bool *created, struct dr_err *err)
{
    bool made = mkdirat(dirfd, name, 0700) == 0;
    if (!made && errno != EEXIST)
        return dr_fail_errno(err, DR_E_IO, "make the directory %s", name);
    if (created)
        *created = made;
    return made ? disk_sync(dirfd, name, err) : DR_OK;
}

bool disk_exists(int dirfd, const char *path)
{
    struct stat st;
    return fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

enum dr_rc disk_each(int dirfd, const char *path,
                     enum dr_rc (*fn)(void *arg, const char *name, struct dr_err *err), void *arg,
                     struct dr_err *err)
{
    struct dirent *e;
    DIR *d;
    int fd;
    enum dr_rc rc = disk_open_dir(dirfd, path, &fd, err);
    if (rc)
        return rc;
    if (!(d = fdopendir(fd))) {
        (void)close(fd);
        return dr_fail_errno(err, DR_E_IO, "list %s", path);
    }
    while (!rc && (errno = 0, e = readdir(d)))
        if (e->d_name[0] != '.' && strcmp(e->d_name, "lock") != 0)
            rc = fn(arg, e->d_name, err);
    if (!rc && errno != 0)
        rc = dr_fail_errno(err, DR_E_IO, "list %s", path);
    (void)closedir(d);
    return rc;
}

static enum dr_rc remove_in(int dirfd, const char *name, unsigned depth, struct dr_err *err)
{
    struct dirent *e;
    enum dr_rc rc = DR_OK;
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return DR_OK;
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP)) {
        if (unlinkat(dirfd, name, 0) != 0 && errno != ENOENT)
            return dr_fail_errno(err, DR_E_IO, "remove %s", name);
        return DR_OK;
    }
    if (fd < 0)
        return dr_fail_errno(err, DR_E_IO, "open %s", name);
    DIR *d = depth < TREE_DEPTH_MAX ? fdopendir(fd) : NULL;
    if (!d) {
        (void)close(fd);
        return dr_fail(err, DR_E_IO, "remove %s: cannot be listed, or too deep", name);
    }
    while (!rc && (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = remove_in(fd, e->d_name, depth + 1, err);
    (void)closedir(d);
    if (!rc && unlinkat(dirfd, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        rc = dr_fail_errno(err, DR_E_IO, "remove %s", name);
    return rc;
}

enum dr_rc disk_remove_tree(int dirfd, const char *name, struct dr_err *err)
{
    return remove_in(dirfd, name, 0, err);
}
