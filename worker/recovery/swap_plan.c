/* The pairs of a swap: made from the trees as they stand, checked, carried paths added. Pool
 * threads. */
#include "worker/recovery/swap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/pipe/mounts.h"
#include "worker/pipe/tree.h"
#include "worker/recovery/swap_internal.h"

struct swap_pair *swap_add_pair(struct swap *s, unsigned root, enum swap_pair_kind kind,
                                const char *name)
{
    struct swap_pair *p;
    if (s->pair_count == s->pair_cap) {
        s->pair_cap = s->pair_cap ? 2 * s->pair_cap : 256;
        s->pairs = dr_xrealloc(s->pairs, s->pair_cap * sizeof *s->pairs);
    }
    p = &s->pairs[s->pair_count++];
    *p = (struct swap_pair){.name = dr_xstrdup(name), .root = root, .kind = kind};
    s->carried += kind != PAIR_ENTRY;
    return p;
}

uint64_t swap_pairs(const struct swap *s)
{
    return s->pair_count;
}

uint64_t swap_carried(const struct swap *s)
{
    return s->carried;
}

void swap_drop_names(struct swap_names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->list[i].text);
    free(n->list);
    *n = (struct swap_names){0};
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct swap_name *)a)->text, ((const struct swap_name *)b)->text);
}

static bool is_mount(const struct swap_root *r, const struct mounts *m, const char *name)
{
    char *path = dr_xasprintf("%s/%s", r->path, name);
    bool is = mounts_has(m, path);
    free(path);
    return is;
}

/* What the entry says itself is enough, but for folders: moving them may need their mode. */
static enum dr_rc add_name(struct swap_names *out, int dir, bool listed, const struct dirent *e,
                           struct dr_err *err)
{
    struct swap_name n = {.ino = e->d_ino, .mode = (uint32_t)DTTOIF(e->d_type)};
    struct stat st;
    if (!listed || e->d_type == DT_UNKNOWN || e->d_type == DT_DIR) {
        if (fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            return errno == ENOENT ? DR_OK : dr_fail_errno(err, DR_E_IO, "%s", e->d_name);
        n.ino = st.st_ino;
        n.mode = st.st_mode;
    }
    if (out->count == out->cap) {
        out->cap = out->cap ? 2 * out->cap : 256;
        out->list = dr_xrealloc(out->list, out->cap * sizeof *out->list);
    }
    n.text = dr_xstrdup(e->d_name);
    out->list[out->count++] = n;
    return DR_OK;
}

/* The direct entries of dir, sorted; our own and mount points are left out when m is given. */
static enum dr_rc list(const struct swap_root *r, int dir, const struct mounts *m,
                       struct swap_names *out, struct dr_err *err)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    enum dr_rc rc = DR_OK;
    if (!d) {
        rc = dr_fail_errno(err, DR_E_IO, "list root %s", r->path);
        if (fd >= 0)
            (void)close(fd);
        return rc;
    }
    bool listed = swap_lists_inodes(fd);
    for (errno = 0; !rc && (e = readdir(d)); errno = 0) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            (m && (tree_own_name(e->d_name) || is_mount(r, m, e->d_name))))
            continue;
        if (add_name(out, fd, listed, e, err))
            rc = dr_wrap(err, "root %s", r->path);
    }
    if (!rc && errno)
        rc = dr_fail_errno(err, DR_E_IO, "list root %s", r->path);
    (void)closedir(d);
    if (out->count)
        qsort(out->list, out->count, sizeof *out->list, by_name);
    return rc;
}

enum dr_rc swap_live_names(const struct swap_root *r, char ***out, struct dr_err *err)
{
    struct mounts *m = NULL;
    struct swap_names n = {0};
    enum dr_rc rc = mounts_read(&m, err);
    if (!rc)
        rc = list(r, r->fd, m, &n, err);
    mounts_free(m);
    if (rc) {
        swap_drop_names(&n);
        return rc;
    }
    *out = dr_xarray(n.count + 1, sizeof **out);
    for (size_t i = 0; i < n.count; i++)
        (*out)[i] = n.list[i].text;
    free(n.list);
    return DR_OK;
}

void swap_free_names(char **names)
{
    for (size_t i = 0; names && names[i]; i++)
        free(names[i]);
    free(names);
}

static void merge(struct swap *s, unsigned root, const struct swap_names *old,
                  const struct swap_names *new)
{
    size_t o = 0, n = 0;
    s->roots[root].first = s->pair_count;
    while (o < old->count || n < new->count) {
        int order = o == old->count   ? 1
                    : n == new->count ? -1
                                      : strcmp(old->list[o].text, new->list[n].text);
        const char *text = order <= 0 ? old->list[o].text : new->list[n].text;
        struct swap_pair *p = swap_add_pair(s, root, PAIR_ENTRY, text);
        if (order <= 0) {
            p->old_ino = old->list[o].ino;
            p->old_mode = old->list[o++].mode;
        }
        if (order >= 0) {
            p->new_ino = new->list[n].ino;
            p->new_mode = new->list[n++].mode;
        }
    }
    s->roots[root].count = s->pair_count - s->roots[root].first;
}

static enum dr_rc plan_root(struct swap *s, unsigned i, const struct mounts *m, bool keep_owner,
                            struct dr_err *err)
{
    struct swap_root *r = &s->roots[i];
    struct swap_names old = {0};
    struct stat now, staged;
    enum dr_rc rc;
    if (r->fresh < 0)
        return dr_fail(err, DR_E_BUG, "root %s has no staged tree", r->path);
    if (fstat(r->fd, &now) != 0 || fstat(r->fresh, &staged) != 0)
        return dr_fail_errno(err, DR_E_IO, "root %s", r->path);
    r->old_side = swap_side_of(&now);
    r->new_side = swap_side_of(&staged);
    if (keep_owner) {
        r->new_side.uid = r->old_side.uid;
        r->new_side.gid = r->old_side.gid;
    }
    rc = list(r, r->fd, m, &old, err);
    if (!rc && !r->ahead.list)
        rc = list(r, r->fresh, NULL, &r->ahead, err);
    if (!rc)
        merge(s, i, &old, &r->ahead);
    swap_drop_names(&old);
    swap_drop_names(&r->ahead);
    return rc;
}

enum dr_rc swap_list_staged(struct swap *s, struct dr_err *err)
{
    for (unsigned i = 0; i < s->count; i++) {
        struct swap_root *r = &s->roots[i];
        swap_drop_names(&r->ahead);
        if (r->fresh >= 0 && list(r, r->fresh, NULL, &r->ahead, err)) {
            swap_drop_names(&r->ahead);
            return err->rc;
        }
    }
    return DR_OK;
}

enum dr_rc swap_plan(struct swap *s, bool keep_owner, struct dr_err *err)
{
    struct mounts *m = NULL;
    enum dr_rc rc = mounts_read(&m, err);
    swap_drop_pairs(s);
    for (unsigned i = 0; i < s->count && !rc; i++)
        rc = plan_root(s, i, m, keep_owner, err);
    mounts_free(m);
    return rc;
}

struct swap_pair *swap_find_entry(const struct swap *s, unsigned root, const char *path)
{
    size_t len = strcspn(path, "/"), low = s->roots[root].first, high = low + s->roots[root].count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        const char *name = s->pairs[mid].name;
        int order = strncmp(name, path, len);
        if (order == 0 && name[len])
            order = 1;
        if (order == 0)
            return &s->pairs[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

int swap_open_parent(int dir, const char *path, const char **last)
{
    int at = openat(dir, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (const char *slash; at >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
        char name[NAME_MAX + 1];
        int next = -1, kept;
        if ((size_t)(slash - path) > NAME_MAX)
            errno = ENAMETOOLONG;
        else {
            memcpy(name, path, (size_t)(slash - path));
            name[slash - path] = 0;
            next = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        }
        kept = errno;
        (void)close(at);
        errno = kept;
        at = next;
    }
    *last = path;
    return at;
}

/* 1: st is filled, 0: nothing there, -1: no such parent. */
static int look(int dir, const char *path, struct stat *st)
{
    const char *last;
    int parent = swap_open_parent(dir, path, &last), found;
    if (parent < 0)
        return -1;
    found = fstatat(parent, last, st, AT_SYMLINK_NOFOLLOW) == 0;
    (void)close(parent);
    return found;
}

enum dr_rc swap_carry(struct swap *s, unsigned root, const void *path, size_t len,
                      struct dr_err *err)
{
    struct swap_root *r = &s->roots[root];
    char *text = dr_xstrndup(path, len);
    struct swap_pair *top, *p;
    struct stat live, staged;
    bool direct = !strchr(text, '/');
    if (!len || strlen(text) != len) {
        free(text);
        return dr_fail(err, DR_E_INVALID, "carried path");
    }
    top = swap_find_entry(s, root, text);
    if (!top || top->kind != PAIR_ENTRY || !top->old_ino || look(r->fd, text, &live) != 1 ||
        look(r->fresh, text, &staged) != 0) {
        free(text);
        return DR_OK;
    }
    if (direct) {
        top->kind = PAIR_STAY;
        s->carried++;
    } else {
        p = swap_add_pair(s, root, PAIR_CARRY, text);
        p->old_ino = live.st_ino;
        p->old_mode = live.st_mode;
    }
    free(text);
    return DR_OK;
}

/* ---- whether it can work ---- */

static enum dr_rc check_mounts(const struct swap *s, const struct swap_root *r,
                               const struct mounts *m, struct dr_err *err)
{
    const char *path;
    size_t skip = strlen(r->path) + 1;
    for (size_t i = 0; (path = mounts_below(m, r->path, i)); i++) {
        char *name = dr_xstrndup(path + skip, strcspn(path + skip, "/"));
        bool direct = is_mount(r, m, name), taken = false;
        struct stat st;
        if (direct && r->fresh >= 0)
            taken = fstatat(r->fresh, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
        free(name);
        if (!direct)
            return dr_fail(err, DR_E_PREFLIGHT,
                           "root %s: the mount %s lies deeper than a direct entry: its folder "
                           "cannot be moved",
                           r->path, path);
        if (taken)
            return dr_fail(err, DR_E_PREFLIGHT,
                           "root %s: the backup holds an entry where %s is mounted now", r->path,
                           path);
    }
    for (unsigned i = 0; i < s->count; i++) {
        const char *inner = s->roots[i].path;
        if (strncmp(inner, r->path, skip - 1) == 0 && inner[skip - 1] == '/' &&
            !mounts_has(m, inner))
            return dr_fail(err, DR_E_PREFLIGHT, "root %s lies in root %s and is no mount point",
                           inner, r->path);
    }
    return DR_OK;
}

static enum dr_rc check_entry(const struct swap_root *r, const struct stat *root, const char *name,
                              struct dr_err *err)
{
    uid_t me = geteuid();
    struct statx x;
    if (statx(r->fd, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &x) != 0)
        return DR_OK; /* gone meanwhile */
    if (x.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND))
        return dr_fail(err, DR_E_PREFLIGHT, "root %s: %s is immutable or append-only", r->path,
                       name);
    if (me == 0)
        return DR_OK;
    if ((root->st_mode & S_ISVTX) && root->st_uid != me && x.stx_uid != me)
        return dr_fail(err, DR_E_PREFLIGHT, "root %s is sticky and %s belongs to uid %u", r->path,
                       name, x.stx_uid);
    if (S_ISDIR(x.stx_mode) && x.stx_uid != me && faccessat(r->fd, name, W_OK, AT_EACCESS) != 0)
        return dr_fail(err, DR_E_PREFLIGHT,
                       "root %s: the folder %s of uid %u may not be moved by uid %u", r->path, name,
                       x.stx_uid, me);
    return DR_OK;
}

static enum dr_rc check_entries(const struct swap_root *r, const struct mounts *m,
                                struct dr_err *err)
{
    struct swap_names old = {0};
    struct stat st;
    enum dr_rc rc = fstat(r->fd, &st) != 0 ? dr_fail_errno(err, DR_E_IO, "root %s", r->path)
                                           : list(r, r->fd, m, &old, err);
    for (size_t i = 0; i < old.count && !rc; i++)
        rc = check_entry(r, &st, old.list[i].text, err);
    swap_drop_names(&old);
    return rc;
}

enum dr_rc swap_check(struct swap *s, struct dr_err *err)
{
    struct mounts *m = NULL;
    enum dr_rc rc = mounts_read(&m, err);
    for (unsigned i = 0; i < s->count && !rc; i++) {
        if (s->roots[i].fd < 0)
            continue;
        rc = check_mounts(s, &s->roots[i], m, err);
        if (!rc)
            rc = check_entries(&s->roots[i], m, err);
    }
    mounts_free(m);
    return rc;
}
