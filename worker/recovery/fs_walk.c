/* Names and stats of a live root. Owns one fd a level. Pool threads. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "worker/core/cancel.h"
#include "worker/pipe/mounts.h"
#include "worker/pipe/tree.h"
#include "worker/recovery/fs_internal.h"

enum { DEPTH_MAX = 200, PATH_BYTES_MAX = 1 << 20 };

struct walk {
    const struct fs_walk *spec;
    struct mounts *mounts;
    struct dr_buf path; /* root and what is below it */
    size_t root_len;
};

static enum dr_rc walk_dir(struct walk *w, int fd, unsigned depth, struct dr_err *err);

static enum dr_rc enter(struct walk *w, int dir, const char *name, unsigned depth,
                        struct dr_err *err)
{
    int fd;
    if (depth == DEPTH_MAX)
        return dr_fail(err, DR_E_PREFLIGHT, "root %s: folders lie more than %d deep", w->spec->root,
                       (int)DEPTH_MAX);
    fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return DR_OK;
    if (fd < 0)
        return dr_fail_errno(err, DR_E_IO, "root %s: open a folder", w->spec->root);
    return walk_dir(w, fd, depth, err);
}

static enum dr_rc visit(struct walk *w, int dir, const char *name, unsigned depth,
                        struct dr_err *err)
{
    const char *below = (const char *)w->path.data + w->root_len;
    struct stat st;
    bool into = false;
    if (mounts_has(w->mounts, (const char *)w->path.data))
        return DR_OK;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? DR_OK
                               : dr_fail_errno(err, DR_E_IO, "root %s: look", w->spec->root);
    if (S_ISSOCK(st.st_mode))
        return DR_OK;
    if (w->spec->visit(w->spec->arg, below, &st, &into, err))
        return err->rc;
    return S_ISDIR(st.st_mode) && into ? enter(w, dir, name, depth + 1, err) : DR_OK;
}

/* Takes fd. */
static enum dr_rc walk_dir(struct walk *w, int fd, unsigned depth, struct dr_err *err)
{
    size_t len = w->path.len;
    enum dr_rc rc = DR_OK;
    struct dirent *e;
    DIR *d = fdopendir(fd);
    if (!d) {
        (void)close(fd);
        return dr_fail_errno(err, DR_E_IO, "root %s: list", w->spec->root);
    }
    while (!rc && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            (depth == 0 && tree_own_name(e->d_name)))
            continue;
        if (cancel_pending(w->spec->cancel)) {
            rc = dr_fail(err, DR_E_CANCELLED, "%s", cancel_reason(w->spec->cancel));
            break;
        }
        dr_buf_str(&w->path, "/");
        dr_buf_str(&w->path, e->d_name);
        rc = w->path.failed ? dr_fail(err, DR_E_TOO_BIG, "path")
                            : visit(w, dirfd(d), e->d_name, depth, err);
        w->path.len = len;
        w->path.data[len] = 0;
    }
    (void)closedir(d);
    return rc;
}

enum dr_rc fs_walk(const struct fs_walk *spec, struct dr_err *err)
{
    struct walk w = {.spec = spec};
    enum dr_rc rc = mounts_read(&w.mounts, err);
    if (rc)
        return rc;
    dr_buf_init(&w.path, PATH_BYTES_MAX);
    dr_buf_str(&w.path, spec->root);
    w.root_len = w.path.len + 1;
    rc = enter(&w, spec->fd, ".", 0, err);
    mounts_free(w.mounts);
    dr_buf_fini(&w.path);
    return rc;
}
