/* Removes a tree of ours. Folders deeper than we keep open are moved up first, so that no depth is
 * too much. Owns one fd a level. Pool threads. */
#include "worker/recovery/swap_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/core/cancel.h"

enum { DEPTH_MAX = 100 };

struct prune {
    int top; /* where deep folders are moved to */
    unsigned moved;
    struct cancel *cancel;
};

static int open_dir(int dir, const char *name)
{
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(dir, name, flags);
    if (fd >= 0 || errno != EACCES)
        return fd;
    return fchmodat(dir, name, 0700, 0) == 0 ? openat(dir, name, flags) : -1;
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
        return errno == ENOENT ? DR_OK : dr_fail_errno(err, DR_E_IO, "open %s", name);
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
        else if (e->d_type != DT_DIR && unlinkat(dirfd(d), e->d_name, 0) == 0)
            continue;
        else
            rc = remove_dir(p, dirfd(d), e->d_name, depth + 1, err);
    }
    (void)closedir(d);
    return rc;
}

enum dr_rc prune_tree(int dir, const char *name, struct cancel *cancel, struct dr_err *err)
{
    struct prune p = {.cancel = cancel};
    unsigned seen;
    int fd = open_dir(dir, name);
    if (fd < 0)
        return errno == ENOENT ? DR_OK : dr_fail_errno(err, DR_E_IO, "open %s", name);
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
