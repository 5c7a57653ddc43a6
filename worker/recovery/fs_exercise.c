/* The roots of an exercise of file_system_recovery: below DR_EXERCISE_DIRECTORY, each by its whole
 * path. The way there is walked without following anything, and no folder of it may be production
 * under another name: neither a mount point nor the inode of a root. Pool thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config.h"
#include "common/mem.h"
#include "worker/backup/store.h"
#include "worker/pipe/mounts.h"
#include "worker/recovery/drill_target.h"
#include "worker/recovery/fs_internal.h"

struct walk {
    const struct fs *f;
    const struct mounts *mounts;
    struct stat *roots; /* st_nlink 0: not there */
};

static enum dr_rc refuse(struct dr_err *err, const char *path, const char *why)
{
    (void)dr_fail(err, DR_E_PREFLIGHT, "DR_EXERCISE_DIRECTORY: %s %s", path, why);
    return dr_err_field(err, "path", path, strlen(path));
}

static enum dr_rc look(const struct walk *w, int fd, const char *path, struct dr_err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return dr_fail_errno(err, DR_E_PREFLIGHT, "DR_EXERCISE_DIRECTORY: %s", path);
    for (unsigned i = 0; i < w->f->root_count; i++)
        if (w->roots[i].st_nlink && w->roots[i].st_dev == st.st_dev &&
            w->roots[i].st_ino == st.st_ino)
            return refuse(err, path, "is a protected root itself");
    return DR_OK;
}

static enum dr_rc step(const struct walk *w, int at, const char *name, const char *path, int *out,
                       struct dr_err *err)
{
    if (mkdirat(at, name, 0755) != 0 && errno != EEXIST)
        return dr_fail_errno(err, DR_E_PREFLIGHT, "DR_EXERCISE_DIRECTORY: %s cannot be made", path);
    *out = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*out < 0)
        return errno == ENOTDIR || errno == ELOOP
                   ? refuse(err, path, "is no folder")
                   : dr_fail_errno(err, DR_E_PREFLIGHT, "DR_EXERCISE_DIRECTORY: %s", path);
    if (mounts_has(w->mounts, path))
        return refuse(err, path, "is a mount point: what is mounted there is not an exercise's");
    return look(w, *out, path, err);
}

/* path: top, then the root's own path; made and looked at from top on. */
static enum dr_rc walk_down(const struct walk *w, char *path, size_t top, struct dr_err *err)
{
    path[top] = 0;
    int at = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    enum dr_rc rc = at < 0 ? dr_fail_errno(err, DR_E_PREFLIGHT, "DR_EXERCISE_DIRECTORY %s", path)
                           : look(w, at, path, err);
    path[top] = '/';
    for (char *name = path + top + 1, *end; !rc && *name; name = end) {
        int next = -1;
        size_t len = strcspn(name, "/");
        end = name + len;
        bool last = !*end;
        *end = 0;
        rc = step(w, at, name, path, &next, err);
        (void)close(at);
        at = next;
        if (!last)
            *end++ = '/';
    }
    if (at >= 0)
        (void)close(at);
    return rc;
}

static bool lies_below(const char *path, const char *root)
{
    size_t len = strlen(root);
    return strncmp(path, root, len) == 0 && (path[len] == '/' || !path[len]);
}

static enum dr_rc check_apart(const struct recovery *r, const struct fs *f, struct dr_err *err)
{
    if (drill_check_targets(r->env->config, err))
        return err->rc;
    for (unsigned i = 0; i < f->root_count; i++) {
        if (drill_target_apart(r->order.target, "root", f->roots[i].path, err))
            return err->rc;
        for (unsigned k = 0; k < i; k++)
            if (lies_below(f->roots[i].path, f->roots[k].path))
                return dr_fail(err, DR_E_PREFLIGHT,
                               "root %s lies in root %s: an exercise has no place for both",
                               f->roots[i].path, f->roots[k].path);
    }
    return DR_OK;
}

enum dr_rc fs_exercise_open(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    struct mounts *mounts = NULL;
    if (f->at)
        return DR_OK;
    if (check_apart(r, f, err) || mounts_read(&mounts, err))
        return err->rc;
    char *top = realpath(r->order.target, NULL);
    struct walk w = {
        .f = f, .mounts = mounts, .roots = dr_xarray(f->root_count + 1, sizeof *w.roots)};
    const char **at = dr_xarray(f->root_count + 1, sizeof *at);
    enum dr_rc rc =
        top ? DR_OK
            : dr_fail_errno(err, DR_E_PREFLIGHT, "DR_EXERCISE_DIRECTORY %s", r->order.target);
    for (unsigned i = 0; i < f->root_count; i++)
        if (stat(f->roots[i].path, &w.roots[i]) != 0)
            w.roots[i].st_nlink = 0;
    f->at = at;
    for (unsigned i = 0; !rc && i < f->root_count; i++) {
        char *path = dr_xasprintf("%s%s", top, f->roots[i].path);
        at[i] = path;
        rc = walk_down(&w, path, strlen(top), err);
    }
    if (rc) { /* asked again, all of it is looked at again */
        for (unsigned i = 0; i < f->root_count; i++)
            free((void *)(uintptr_t)at[i]);
        free(at);
        f->at = NULL;
    }
    free(w.roots);
    free(top);
    mounts_free(mounts);
    return rc;
}
