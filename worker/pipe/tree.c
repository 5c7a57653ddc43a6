/* The walk: root after root, folder in folder on a stack of its own. Of a deep path only the last
 * KEEP_OPEN folders are kept open; on the way back a closed one is opened again as ".." of its
 * child and must be the same inode. Owns everything in struct tree_walk. */
#include "worker/pipe/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/core/cancel.h"
#include "worker/pipe/exclude.h"
#include "worker/pipe/mounts.h"
#include "worker/pipe/tree_internal.h"

enum { KEEP_OPEN = 64 };

struct level {
    int fd; /* -1: closed for now */
    dev_t dev;
    ino_t ino;
    uint64_t mount;  /* id of its mount; 0: the kernel does not say */
    size_t path_len; /* of the folder */
    struct tree_list list;
    size_t next;
};

struct stack {
    struct level *list;
    size_t count, room;
};

/* The check by name has seen the mounts at the beginning; one that came since, or an automount that
 * we caused, has another id. */
static uint64_t mount_of(const struct tree_walk *w, int fd)
{
    struct statx x;

    if (w->spec->at || statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &x) ||
        !(x.stx_mask & STATX_MNT_ID))
        return 0;
    return x.stx_mnt_id;
}

static enum dr_rc push(struct tree_walk *w, struct stack *s, int fd, struct dr_err *err)
{
    uint64_t mount = mount_of(w, fd);
    struct level *l;
    struct stat st;

    if (fstat(fd, &st)) {
        close(fd);
        return dr_fail_errno(err, DR_E_IO, "stat %s", (const char *)w->path.data);
    }
    if (s->count && mount != s->list[0].mount) {
        close(fd);
        return dr_fail(err, DR_E_PREFLIGHT, "%s became a mount point while it was read",
                       (const char *)w->path.data);
    }
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 32;
        s->list = dr_xrealloc(s->list, s->room * sizeof *s->list);
    }
    if (s->count >= KEEP_OPEN) {
        close(s->list[s->count - KEEP_OPEN].fd);
        s->list[s->count - KEEP_OPEN].fd = -1;
    }
    l = &s->list[s->count++];
    *l = (struct level){
        .fd = fd, .dev = st.st_dev, .ino = st.st_ino, .mount = mount, .path_len = w->path.len};
    return tree_list_read(&l->list, fd, s->count == 1, (const char *)w->path.data, err);
}

static enum dr_rc pop(struct tree_walk *w, struct stack *s, struct dr_err *err)
{
    struct level *l = &s->list[--s->count], *up = s->count ? l - 1 : NULL;
    enum dr_rc rc = DR_OK;
    struct stat st;

    if (up && up->fd < 0) {
        up->fd = openat(l->fd, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (up->fd < 0 || fstat(up->fd, &st))
            rc = dr_fail_errno(err, DR_E_IO, "go back from %s", (const char *)w->path.data);
        else if (st.st_dev != up->dev || st.st_ino != up->ino)
            rc =
                dr_fail(err, DR_E_IO, "%s was moved while it was read", (const char *)w->path.data);
    }
    tree_list_fini(&l->list);
    close(l->fd);
    return rc;
}

static void stack_fini(struct stack *s)
{
    for (size_t i = 0; i < s->count; i++) {
        tree_list_fini(&s->list[i].list);
        if (s->list[i].fd >= 0)
            close(s->list[i].fd);
    }
    free(s->list);
}

static void set_path(struct tree_walk *w, size_t folder_len, const char *name, size_t name_len)
{
    w->path.len = folder_len;
    dr_buf_add(&w->path, "/", 1);
    dr_buf_add(&w->path, name, name_len);
}

static bool is_root(const struct tree_walk *w)
{
    for (const char *const *r = w->spec->roots; *r; r++)
        if (strcmp(*r, (const char *)w->path.data) == 0)
            return true;
    return false;
}

/* "name" of a folder. Its entries mostly follow at once: then it is entered here. */
static enum dr_rc folder_entry(struct tree_walk *w, struct stack *s, const char *name,
                               struct dr_err *err)
{
    struct level *l = &s->list[s->count - 1];
    size_t len = strlen(name);
    const char *after = l->next < l->list.count ? l->list.names[l->next] : "";
    enum dr_rc rc;
    int fd;

    rc = tree_folder(w, l->fd, name, true, &fd, err);
    if (rc || fd < 0) {
        tree_list_forget(&l->list, name);
        return rc;
    }
    if (strncmp(after, name, len) == 0 && after[len] == '/') {
        l->next++;
        return push(w, s, fd, err);
    }
    close(fd);
    return DR_OK;
}

static enum dr_rc step(struct tree_walk *w, struct stack *s, struct dr_err *err)
{
    struct level *l = &s->list[s->count - 1];
    char *name = l->list.names[l->next++];
    unsigned char type = (unsigned char)name[-1];
    size_t len = strlen(name);
    bool inside = name[len - 1] == '/';
    enum dr_rc rc;
    int fd;

    if (!type)
        return DR_OK; /* its "name" was left out */
    if (cancel_pending(w->spec->cancel))
        return dr_fail(err, DR_E_CANCELLED, "cancelled");
    set_path(w, l->path_len, name, inside ? len - 1 : len);
    if (w->path.failed)
        return dr_fail(err, DR_E_TOO_BIG, "a path below %.200s is longer than %d bytes",
                       (const char *)w->path.data, TREE_PATH_MAX);
    if (inside) {
        name[len - 1] = 0;
        rc = tree_folder(w, l->fd, name, false, &fd, err);
        return rc || fd < 0 ? rc : push(w, s, fd, err);
    }
    if (is_root(w)) { /* walked as itself */
        tree_list_forget(&l->list, name);
        return DR_OK;
    }
    if (exclude_match(w->spec->exclude, (const char *)w->path.data)) {
        tree_list_forget(&l->list, name);
        return tree_skip(w, "excluded", err);
    }
    return type == DT_DIR ? folder_entry(w, s, name, err) : tree_entry(w, l->fd, name, type, err);
}

static enum dr_rc walk_root(struct tree_walk *w, const char *root, const char *at,
                            struct pipe_root *r, struct dr_err *err)
{
    struct stack s = {0};
    enum dr_rc rc;
    int fd;

    dr_buf_reset(&w->path);
    dr_buf_str(&w->path, root);
    fd = tree_open(AT_FDCWD, at, O_DIRECTORY);
    if (fd < 0)
        return dr_fail_errno(err, DR_E_IO, "open %s", at);
    close(fd);
    rc = tree_folder(w, AT_FDCWD, at, true, &fd, err);
    if (!rc && fd >= 0)
        rc = push(w, &s, fd, err);
    while (!rc && s.count) {
        struct level *l = &s.list[s.count - 1];
        rc = l->next < l->list.count ? step(w, &s, err) : pop(w, &s, err);
    }
    if (!rc)
        rc = tree_ahead_flush(w->ahead, err);
    stack_fini(&s);
    tree_links_fini(&w->links);
    if (!rc)
        rc = digest_tree_end(w->digest, r->content, r->meta, err);
    r->path = (struct pipe_bytes){(const unsigned char *)root + 1, strlen(root) - 1};
    return rc;
}

static enum dr_rc begin(struct tree_walk *w, struct dr_err *err)
{
    enum dr_rc rc = digest_tree_new(w->spec->spool_dir, &w->digest, err);

    if (!rc && w->spec->tar)
        rc = tree_tar_new(w->spec->tar, &w->tar, err);
    dr_buf_init(&w->path, TREE_PATH_MAX);
    w->target = dr_try_alloc(PATH_MAX);
    if (!rc && !w->target)
        rc = dr_fail(err, DR_E_NOMEM, "buffer of a walk");
    if (!rc)
        rc = tree_reader_init(&w->reader, err);
    if (!rc && !w->tar && w->spec->threads)
        rc = tree_ahead_new(w, &w->ahead, err);
    return rc;
}

static void end(struct tree_walk *w)
{
    tree_ahead_free(w->ahead);
    tree_tar_free(w->tar);
    digest_tree_free(w->digest);
    tree_links_fini(&w->links);
    tree_xattrs_fini(&w->xattrs);
    dr_buf_fini(&w->path);
    free(w->target);
    tree_reader_fini(&w->reader);
}

enum dr_rc tree_walk(const struct tree_spec *spec, struct tree_sums *out, struct dr_err *err)
{
    struct tree_walk *w = dr_xalloc(sizeof *w);
    struct mounts *m = NULL;
    struct pipe_root *roots = dr_xarray(TREE_ROOTS_MAX, sizeof *roots);
    struct dr_err own = {0};
    size_t count = 0;
    enum dr_rc rc;

    err = err ? err : &own;
    w->spec = spec;
    rc = begin(w, err);
    if (!rc && !spec->at)
        rc = tree_check_roots(spec->roots, spec->exclude, err);
    if (!rc)
        rc = mounts_read(&m, err);
    for (; !rc && spec->roots[count]; count++) {
        const char *root = spec->roots[count];
        if (count == TREE_ROOTS_MAX)
            rc = dr_fail(err, DR_E_TOO_BIG, "more than %d roots", (int)TREE_ROOTS_MAX);
        else
            rc = walk_root(w, root, spec->at ? spec->at[count] : root, &roots[count], err);
        if (!rc)
            roots[count].mount = mounts_has(m, root);
    }
    if (!rc && w->tar)
        rc = tree_tar_end(w->tar, err);
    for (size_t i = 0; !rc && i < count && spec->on.root; i++)
        rc = spec->on.root(spec->on.arg, &roots[i], err);
    if (out)
        *out = w->sums;
    mounts_free(m);
    free(roots);
    end(w);
    free(w);
    return rc;
}
