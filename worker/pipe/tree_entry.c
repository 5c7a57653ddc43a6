/* One entry of a tree: opened relative to its folder, never followed; what the list of names said
 * of its type is only a hint. Owns nothing. */
#include "worker/pipe/tree_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int tree_open(int dir, const char *name, int flags)
{
    int fd;

    flags |= O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    fd = openat(dir, name, flags | O_NOATIME);
    if (fd < 0 && errno == EPERM) /* not ours */
        fd = openat(dir, name, flags);
    return fd;
}

enum dr_rc tree_skip_now(struct tree_walk *w, struct pipe_bytes path, const char *why,
                         struct dr_err *err)
{
    struct pipe_skip x = {path, why};

    w->sums.skipped++;
    w->sums.unreadable += why[0] == 'u';
    w->sums.changed += why[0] == 'c';
    return w->spec->on.skipped ? w->spec->on.skipped(w->spec->on.arg, &x, err) : DR_OK;
}

enum dr_rc tree_skip(struct tree_walk *w, const char *why, struct dr_err *err)
{
    struct pipe_bytes path = {w->path.data + 1, w->path.len - 1};

    return tree_ahead_flush(w->ahead, err) ? err->rc : tree_skip_now(w, path, why, err);
}

enum dr_rc tree_unreadable(struct tree_walk *w, const char *what, struct dr_err *err)
{
    if (errno == ENOENT || errno == ESTALE)
        return tree_skip(w, "changed", err);
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || !w->spec->allow_unreadable)
        return dr_fail_errno(err, DR_E_IO, "%s %s", what, (const char *)w->path.data);
    return tree_skip(w, "unreadable", err);
}

void tree_fill(struct tree_walk *w, const struct stat *st, char type, struct pipe_file *f)
{
    memset(f, 0, sizeof *f);
    f->path = (struct pipe_bytes){w->path.data + 1, w->path.len - 1};
    f->type = type;
    f->mode = st->st_mode & 07777;
    f->uid = st->st_uid;
    f->gid = st->st_gid;
    tree_owners_put(&w->owners, f);
    f->mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    f->xattrs = w->xattrs.list;
    f->xattr_count = w->xattrs.count;
}

enum dr_rc tree_emit_now(struct tree_walk *w, const struct pipe_file *f, uint32_t group,
                         struct dr_err *err)
{
    enum dr_rc rc = digest_tree_add(w->digest, f, group, err);

    w->sums.entries++;
    w->sums.files += f->type == 'f' || f->type == 'h';
    w->sums.bytes += f->type == 'f' ? f->size : 0;
    if (!rc && w->spec->on.file)
        rc = w->spec->on.file(w->spec->on.arg, f, err);
    return rc;
}

enum dr_rc tree_emit(struct tree_walk *w, const struct pipe_file *f, uint32_t group,
                     struct dr_err *err)
{
    return tree_ahead_flush(w->ahead, err) ? err->rc : tree_emit_now(w, f, group, err);
}

static enum dr_rc put(struct tree_walk *w, const struct pipe_file *f, struct dr_err *err)
{
    enum dr_rc rc = w->tar ? tree_tar_entry(w->tar, f, err) : DR_OK;

    return rc ? rc : tree_emit(w, f, 0, err);
}

enum dr_rc tree_folder(struct tree_walk *w, int dir, const char *name, bool entry, int *out,
                       struct dr_err *err)
{
    int fd = tree_open(dir, name, O_DIRECTORY);
    enum dr_rc rc = DR_OK;
    struct pipe_file f;
    struct stat st;

    *out = -1;
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP)) /* another thing has its name now */
        return tree_skip(w, "changed", err);
    if (fd < 0)
        return tree_unreadable(w, "open", err);
    if (entry) {
        if (fstat(fd, &st) || !tree_xattrs_read(&w->xattrs, fd, NULL)) {
            rc = tree_unreadable(w, "attributes of", err);
            close(fd);
            return rc;
        }
        tree_fill(w, &st, 'd', &f);
        rc = put(w, &f, err);
    }
    if (rc)
        close(fd);
    else
        *out = fd;
    return rc;
}

static enum dr_rc symlink_entry(struct tree_walk *w, int dir, const char *name,
                                const struct stat *st, struct dr_err *err)
{
    struct pipe_file f;
    ssize_t n = readlinkat(dir, name, w->target, PATH_MAX);

    if (n < 0 && errno == EINVAL)
        return tree_skip(w, "changed", err);
    if (n < 0)
        return tree_unreadable(w, "read link", err);
    w->xattrs.count = 0; /* a link can have none of those we keep */
    tree_fill(w, st, 'l', &f);
    f.has_target = true;
    f.target = (struct pipe_bytes){(const unsigned char *)w->target, (size_t)n};
    return put(w, &f, err);
}

static enum dr_rc special_entry(struct tree_walk *w, int dir, const char *name,
                                const struct stat *st, struct dr_err *err)
{
    char path[NAME_MAX + 64], device[32];
    struct pipe_file f;

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dir, name);
    if (!tree_xattrs_read(&w->xattrs, -1, path))
        return tree_unreadable(w, "attributes of", err);
    tree_fill(w, st, S_ISFIFO(st->st_mode) ? 'p' : S_ISCHR(st->st_mode) ? 'c' : 'b', &f);
    if (!S_ISFIFO(st->st_mode)) {
        f.has_target = true;
        f.target.data = (const unsigned char *)device;
        f.target.len = (size_t)snprintf(device, sizeof device, "%u:%u", major(st->st_rdev),
                                        minor(st->st_rdev));
    }
    return put(w, &f, err);
}

/* Whatever it is now, if it is not what the list said. */
static enum dr_rc other_entry(struct tree_walk *w, int dir, const char *name, struct dr_err *err)
{
    struct stat st;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return tree_unreadable(w, "stat", err);
    if (S_ISLNK(st.st_mode))
        return symlink_entry(w, dir, name, &st, err);
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
        return special_entry(w, dir, name, &st, err);
    return S_ISSOCK(st.st_mode) ? DR_OK : tree_skip(w, "changed", err);
}

enum dr_rc tree_entry(struct tree_walk *w, int dir, const char *name, unsigned char type,
                      struct dr_err *err)
{
    enum dr_rc rc;
    struct stat st;
    int fd;

    if (type != DT_REG)
        return other_entry(w, dir, name, err);
    fd = tree_open(dir, name, 0);
    if (fd < 0 && (errno == ELOOP || errno == ENXIO || errno == ENODEV))
        return other_entry(w, dir, name, err); /* a link, a socket, a device without driver */
    if (fd < 0)
        return tree_unreadable(w, "open", err);
    if (fstat(fd, &st))
        rc = tree_unreadable(w, "stat", err);
    else if (S_ISREG(st.st_mode))
        rc = tree_file(w, fd, &st, err);
    else
        rc = other_entry(w, dir, name, err);
    close(fd);
    return rc;
}
