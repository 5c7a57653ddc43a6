/* Removes a tree of ours. Folders deeper than we keep open are moved up first, so that no depth is
 * too much. No symlink is followed and no mount is entered. Owns one fd a level. Pool threads. */
#include "worker/recovery/swap_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/core/cancel.h"

enum { DEPTH_MAX = 100, BLOCK = 512 };

struct prune {
    int top; /* where deep folders are moved to */
    unsigned moved;
    struct cancel *cancel;
    uint64_t *freed; /* NULL: nobody wants to know */
};

/* Where openat2 is missing or forbidden (seccomp), st_dev tells most mounts. */
static int open_plain(int dir, const char *name)
{
    struct stat above, here;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || (fstat(dir, &above) == 0 && fstat(fd, &here) == 0 && above.st_dev == here.st_dev))
        return fd;
    (void)close(fd);
    errno = EXDEV;
    return -1;
}

static int open_here(int dir, const char *name)
{
    const struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
                                 .resolve =
                                     RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
    return fd < 0 && (errno == ENOSYS || errno == EPERM) ? open_plain(dir, name) : fd;
}

static int open_dir(int dir, const char *name)
{
    int fd = open_here(dir, name);
    if (fd >= 0 || errno != EACCES)
        return fd;
    return fchmodat(dir, name, 0700, 0) == 0 ? open_here(dir, name) : -1;
}

static enum dr_rc cannot_open(const char *name, struct dr_err *err)
{
    return errno == EXDEV ? dr_fail(err, DR_E_REFUSED, "%s is a mount point", name)
                          : dr_fail_errno(err, DR_E_IO, "open %s", name);
}

/* A file that has other names frees nothing. */
static uint64_t size_of(const struct prune *p, int dir, const char *name)
{
    struct stat st;
    return p->freed && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink == 1
               ? (uint64_t)st.st_blocks * BLOCK
               : 0;
}

static bool remove_file(struct prune *p, int dir, const char *name)
{
    uint64_t bytes = size_of(p, dir, name);
    if (unlinkat(dir, name, 0) != 0)
        return false;
    if (p->freed)
        *p->freed += bytes;
    return true;
}

static enum dr_rc empty_dir(struct prune *p, int fd, unsigned depth, struct dr_err *err);

static enum dr_rc remove_dir(struct prune *p, int dir, const char *name, unsigned depth,
                             struct dr_err *err)
{
    char moved[32];
    enum dr_rc rc;
    int fd;
    if (depth == DEPTH_MAX) {
        (void)snprintf(moved, sizeof moved, ".dr-deep-%u", ++p->moved);
        if (renameat(dir, name, p->top, moved) != 0)
            return dr_fail_errno(err, DR_E_IO, "remove a deep folder");
        return DR_OK; /* met again at the top */
    }
    fd = open_dir(dir, name);
    if (fd < 0)
        return errno == ENOENT ? DR_OK : cannot_open(name, err);
    rc = empty_dir(p, fd, depth, err);
    if (!rc && unlinkat(dir, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        rc = dr_fail_errno(err, DR_E_IO, "remove %s", name);
    return rc;
}

/* Takes fd. */
static enum dr_rc empty_dir(struct prune *p, int fd, unsigned depth, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    struct dirent *e;
    DIR *d;
    (void)fchmod(fd, 0700); /* to be emptied it must be writable; it is going anyway */
    d = fdopendir(fd);
    if (!d) {
        rc = dr_fail_errno(err, DR_E_IO, "list a folder");
        (void)close(fd);
        return rc;
    }
    while (!rc && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (cancel_pending(p->cancel))
            rc = dr_fail(err, DR_E_CANCELLED, "%s", cancel_reason(p->cancel));
        else if (e->d_type != DT_DIR && remove_file(p, dirfd(d), e->d_name))
            continue;
        else
            rc = remove_dir(p, dirfd(d), e->d_name, depth + 1, err);
    }
    (void)closedir(d);
    return rc;
}

enum dr_rc prune_tree(int dir, const char *name, struct cancel *cancel, struct dr_err *err)
{
    return prune_counted(dir, name, NULL, cancel, err);
}

enum dr_rc prune_counted(int dir, const char *name, uint64_t *freed, struct cancel *cancel,
                         struct dr_err *err)
{
    struct prune p = {.cancel = cancel, .freed = freed};
    unsigned seen;
    int fd = open_dir(dir, name);
    if (fd < 0)
        return errno == ENOENT ? DR_OK : cannot_open(name, err);
    do { /* again for what was moved up behind the reader's back */
        int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        enum dr_rc rc = DR_OK;
        seen = p.moved;
        p.top = fd;
        if (again < 0)
            rc = dr_fail_errno(err, DR_E_IO, "open %s", name);
        if (rc || empty_dir(&p, again, 0, err)) {
            (void)close(fd);
            return err ? err->rc : DR_E_IO;
        }
    } while (p.moved != seen);
    (void)close(fd);
    if (unlinkat(dir, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        return dr_fail_errno(err, DR_E_IO, "remove %s", name);
    return DR_OK;
}
