/* Roots, locks, folders of a swap. Owns the fds of the roots and of `.dr-<run>`. Pool threads. */
#include "worker/recovery/swap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/backup/lock.h"
#include "worker/pipe/inode.h"
#include "worker/recovery/swap_internal.h"

enum { NS = 1000000000 };

struct timespec swap_time(int64_t ns)
{
    int64_t s = ns / NS, rest = ns % NS;
    if (rest < 0) {
        rest += NS;
        s--;
    }
    return (struct timespec){.tv_sec = s, .tv_nsec = (long)rest};
}

struct swap_side swap_side_of(const struct stat *st)
{
    return (struct swap_side){st->st_mode & 07777, st->st_uid, st->st_gid,
                              (int64_t)st->st_mtim.tv_sec * NS + st->st_mtim.tv_nsec};
}

struct swap *swap_new(const char *run)
{
    struct swap *s = dr_xalloc(sizeof *s);
    (void)snprintf(s->run, sizeof s->run, "%s", run);
    (void)snprintf(s->ours_name, sizeof s->ours_name, ".dr-%s", run);
    return s;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

void swap_drop_pairs(struct swap *s)
{
    for (size_t i = 0; i < s->pair_count; i++)
        free(s->pairs[i].name);
    s->pair_count = s->carried = 0;
}

void swap_close(struct swap *s)
{
    if (!s)
        return;
    for (unsigned i = s->count; i-- > 0;) {
        struct swap_root *r = &s->roots[i];
        close_fd(&r->failed);
        close_fd(&r->before);
        close_fd(&r->fresh);
        close_fd(&r->ours);
        close_fd(&r->fd);
        lock_drop(&r->lock);
        swap_drop_names(&r->ahead);
        free(r->staged);
        free(r->path);
    }
    swap_drop_pairs(s);
    free(s->pairs);
    free(s->roots);
    free(s);
}

unsigned swap_count(const struct swap *s)
{
    return s->count;
}

int swap_root_fd(const struct swap *s, unsigned root)
{
    return s->roots[root].fd;
}

const char *swap_root_path(const struct swap *s, unsigned root)
{
    return s->roots[root].path;
}

bool swap_created(const struct swap *s, unsigned root)
{
    return s->roots[root].created;
}

const char *swap_staged_path(const struct swap *s, unsigned root)
{
    return s->roots[root].staged;
}

/* What we make and remove in a live root leaves no trace in its times, where we may set them. */
static void keep_times(int fd, const struct stat *st)
{
    struct timespec times[2] = {st->st_atim, st->st_mtim};
    int kept = errno;
    (void)futimens(fd, times);
    errno = kept;
}

static enum dr_rc make_root(const char *path, struct dr_err *err)
{
    char *copy = dr_xstrdup(path);
    int rc = 0;
    for (char *slash = strchr(copy + 1, '/'); slash && rc == 0; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        rc = mkdir(copy, 0755) != 0 && errno != EEXIST ? -1 : 0;
        *slash = '/';
    }
    free(copy);
    if (rc == 0)
        rc = mkdir(path, 0700);
    return rc == 0 ? DR_OK : dr_fail_errno(err, DR_E_PREFLIGHT, "root %s cannot be made", path);
}

static enum dr_rc open_root(struct swap_root *r, const struct swap_spec *spec, struct dr_err *err)
{
    struct stat st;
    r->fd = open(r->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (r->fd < 0 && errno == ENOENT && spec->create) {
        if (make_root(r->path, err))
            return err->rc;
        r->created = true;
        r->fd = open(r->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (r->fd < 0 && errno == ENOENT && spec->look)
        return DR_OK;
    if (r->fd < 0 && errno == ENOENT)
        return dr_fail(err, DR_E_NOT_FOUND, "root %s is not there", r->path);
    if (r->fd < 0)
        return dr_fail_errno(err, DR_E_PREFLIGHT, "root %s", r->path);
    if (faccessat(r->fd, ".", R_OK | W_OK | X_OK, AT_EACCESS) != 0)
        return dr_fail_errno(err, DR_E_PREFLIGHT, "root %s may not be written", r->path);
    if (spec->look)
        return DR_OK;
    if (fstat(r->fd, &st) != 0)
        return dr_fail_errno(err, DR_E_IO, "root %s", r->path);
    if (lock_take(r->fd, ".dr-lock", LOCK_ALONE_MAKE, 0, &r->lock, err))
        return dr_wrap(err, "root %s", r->path);
    keep_times(r->fd, &st);
    return DR_OK;
}

enum dr_rc swap_open_roots(struct swap *s, const struct swap_spec *spec, struct dr_err *err)
{
    const char *const *paths = spec->roots;
    unsigned n = 0;
    while (paths[n])
        n++;
    s->roots = dr_xarray(n, sizeof *s->roots);
    for (unsigned i = 0; i < n; i++) {
        struct swap_root *r = &s->roots[s->count++];
        r->fd = r->lock = r->ours = r->fresh = r->before = r->failed = -1;
        r->path = dr_xstrdup(paths[i]);
        r->staged = dr_xasprintf("%s/%s/new", paths[i], s->ours_name);
        if (i && strcmp(paths[i - 1], paths[i]) >= 0)
            return dr_fail(err, DR_E_INVALID, "roots are not sorted: %s", paths[i]);
        if (open_root(r, spec, err))
            return err->rc;
        if (spec->look)
            continue;
        if (swap_open_part(r, s->ours_name, &r->ours, err))
            return err->rc;
        if (r->ours >= 0 && (swap_open_part(r, "new", &r->fresh, err) ||
                             swap_open_part(r, "before", &r->before, err) ||
                             swap_open_part(r, "failed", &r->failed, err)))
            return err->rc;
    }
    return DR_OK;
}

enum dr_rc swap_open(const struct swap_spec *spec, struct swap **out, struct dr_err *err)
{
    struct swap *s = swap_new(spec->run);
    if (swap_open_roots(s, spec, err)) {
        struct dr_err ignored = {0};
        if (swap_discard(s, NULL, &ignored)) /* roots that were just made */
            (void)dr_wrap(err, "and %s", ignored.msg);
        swap_close(s);
        return err->rc;
    }
    *out = s;
    return DR_OK;
}

/* `.dr-<run>` lies in the root, the others in it. */
static int holder(const struct swap_root *r, const char *name)
{
    return name[0] == '.' ? r->fd : r->ours;
}

enum dr_rc swap_open_part(const struct swap_root *r, const char *name, int *fd, struct dr_err *err)
{
    *fd = openat(holder(r, name), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0 && errno != ENOENT)
        return dr_fail_errno(err, DR_E_IO, "open %s of root %s", name, r->path);
    return DR_OK;
}

enum dr_rc swap_make_part(const struct swap_root *r, const char *name, int *fd, struct dr_err *err)
{
    struct stat st, there;
    int dir = holder(r, name);
    if (*fd >= 0)
        return DR_OK;
    if (fstat(dir, &st) != 0)
        return dr_fail_errno(err, DR_E_IO, "root %s", r->path);
    if (mkdirat(dir, name, 0700) != 0 && errno != EEXIST)
        return dr_fail_errno(err, DR_E_IO, "make %s in root %s", name, r->path);
    if (dir == r->fd)
        keep_times(dir, &st);
    if (swap_open_part(r, name, fd, err))
        return err->rc;
    if (*fd < 0 || fstat(*fd, &there) != 0 || there.st_dev != st.st_dev)
        return dr_fail(err, DR_E_PREFLIGHT, "%s of root %s lies on another file system", name,
                       r->path);
    return inode_bare(*fd, err);
}

/* But for that name. */
static bool is_empty(int dir, const char *but)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    bool empty = d != NULL;
    if (!d) {
        close_fd(&fd);
        return false;
    }
    while (empty && (e = readdir(d)))
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
                strcmp(e->d_name, but) == 0;
    (void)closedir(d);
    return empty;
}

/* Empty folders that a swap needs for a while. */
static const char *const passing[] = {"meta-old", "meta-new", "meta.part", "probe-a", "probe-b"};

bool swap_keeps(const struct swap *s, unsigned root, bool failed)
{
    const struct swap_root *r = &s->roots[root];
    int fd = failed ? r->failed : r->before;
    return fd >= 0 && !is_empty(fd, "");
}

uint64_t swap_part_inode(const struct swap *s, unsigned root, const char *part)
{
    const struct swap_root *r = &s->roots[root];
    struct stat st;
    return r->ours >= 0 && fstatat(r->ours, part, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_ino : 0;
}

enum dr_rc swap_stage(struct swap *s, unsigned root, struct cancel *cancel, int *fd,
                      struct dr_err *err)
{
    struct swap_root *r = &s->roots[root];
    if (swap_make_part(r, s->ours_name, &r->ours, err))
        return err->rc;
    if ((r->before >= 0 && !is_empty(r->before, "")) ||
        (r->failed >= 0 && !is_empty(r->failed, "")))
        return dr_fail(err, DR_E_NEEDS_HUMAN, "root %s: %s holds an old tree", r->path,
                       s->ours_name);
    close_fd(&r->fresh);
    swap_drop_names(&r->ahead);
    for (unsigned i = 0; i < sizeof passing / sizeof passing[0]; i++)
        (void)unlinkat(r->ours, passing[i], AT_REMOVEDIR);
    if (prune_tree(r->ours, "new", cancel, err))
        return dr_wrap(err, "root %s", r->path);
    if (swap_make_part(r, "new", &r->fresh, err))
        return err->rc;
    *fd = r->fresh;
    return DR_OK;
}

enum dr_rc swap_sync(struct swap *s, struct dr_err *err)
{
    for (unsigned i = 0; i < s->count; i++) {
        struct stat a, b;
        bool seen = false;
        if (fstat(s->roots[i].fd, &a) != 0)
            return dr_fail_errno(err, DR_E_IO, "root %s", s->roots[i].path);
        for (unsigned k = 0; k < i && !seen; k++)
            seen = fstat(s->roots[k].fd, &b) == 0 && a.st_dev == b.st_dev;
        if (!seen && syncfs(s->roots[i].fd) != 0)
            return dr_fail_errno(err, DR_E_IO, "sync root %s", s->roots[i].path);
    }
    return DR_OK;
}

static enum dr_rc discard_root(struct swap *s, struct swap_root *r, struct cancel *cancel,
                               struct dr_err *err)
{
    struct stat st;
    if (r->fd < 0 || r->lock < 0)
        return DR_OK;
    if (r->ours >= 0) {
        close_fd(&r->fresh);
        if (prune_tree(r->ours, "new", cancel, err) || fstat(r->fd, &st) != 0)
            return dr_wrap(err, "root %s", r->path);
        close_fd(&r->before);
        close_fd(&r->failed);
        for (unsigned i = 0; i < sizeof passing / sizeof passing[0]; i++)
            (void)unlinkat(r->ours, passing[i], AT_REMOVEDIR);
        (void)unlinkat(r->ours, "before", AT_REMOVEDIR); /* only when they are empty */
        (void)unlinkat(r->ours, "failed", AT_REMOVEDIR);
        if (unlinkat(r->fd, s->ours_name, AT_REMOVEDIR) == 0)
            close_fd(&r->ours);
        keep_times(r->fd, &st);
        if (r->ours >= 0 && (swap_open_part(r, "before", &r->before, err) ||
                             swap_open_part(r, "failed", &r->failed, err)))
            return err->rc;
    }
    if (r->created && r->ours < 0 && is_empty(r->fd, ".dr-lock")) {
        (void)unlinkat(r->fd, ".dr-lock", 0);
        (void)rmdir(r->path);
    }
    return DR_OK;
}

enum dr_rc swap_discard(struct swap *s, struct cancel *cancel, struct dr_err *err)
{
    for (unsigned i = s->count; i-- > 0;)
        if (discard_root(s, &s->roots[i], cancel, err))
            return err->rc;
    return DR_OK;
}
