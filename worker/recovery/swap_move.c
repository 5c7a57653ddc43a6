/* The renames of a swap, what they look like from outside, and their undo. Every decision is made
 * from where inodes lie, never from how far a run came. Pool threads. */
#include "worker/recovery/swap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/core/fault.h"
#include "worker/pipe/inode.h"
#include "worker/recovery/swap_internal.h"

struct where {
    bool old_home, old_away, new_staged, new_live;
};

/* Without renameat2 (some network file systems): looked at, then renamed. The folders are ours
 * alone or under our lock, with the services down. */
static int rename_new(int from, const char *name, int to, const char *to_name)
{
    struct stat st;
    if (renameat2(from, name, to, to_name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != EPERM)
        return -1;
    if (fstatat(to, to_name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    return renameat(from, name, to, to_name);
}

/* mode: of what is moved. An ordinary user moves a folder only while it is writable. */
static int move(int from, const char *name, int to, uint32_t mode)
{
    if (rename_new(from, name, to, name) == 0)
        return 0;
    if (errno != EACCES || !S_ISDIR(mode) || (mode & 0200))
        return -1;
    if (fchmodat(from, name, (mode & 07777) | 0700, 0) != 0)
        return -1;
    if (rename_new(from, name, to, name) != 0)
        return -1; /* the mode is set right by who undoes */
    return fchmodat(to, name, mode & 07777, 0);
}

static enum dr_rc cannot(const struct swap *s, const struct swap_pair *p, const char *what,
                         struct dr_err *err)
{
    const char *hint = errno == EXDEV ? "; this file system cannot rename it (a lower layer of an "
                                        "overlay, or another project quota)"
                                      : "";
    (void)dr_fail_errno(err, DR_E_IO, "root %s: %s%s", s->roots[p->root].path, what, hint);
    return dr_err_field(err, "entry", p->name, strlen(p->name));
}

static bool is_there(int dir, const char *name, uint64_t ino)
{
    struct stat st;
    return ino && dir >= 0 && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == ino;
}

static bool occupied(int dir, const char *name)
{
    struct stat st;
    return dir >= 0 && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* What a look at a pair means. */
static struct where where_of(const struct swap_pair *p, struct swap_look at)
{
    struct where w = {
        .old_home = p->old_ino && at.home == p->old_ino,
        .old_away = p->old_ino && at.before == p->old_ino,
        .new_live = p->new_ino && at.home == p->new_ino,
    };
    w.new_staged = p->new_ino && !w.new_live &&
                   (at.before == p->new_ino || at.fresh == p->new_ino || at.failed == p->new_ino);
    return w;
}

static struct where find(const struct swap *s, const struct swap_pair *p)
{
    return where_of(p, swap_look_at(s, p));
}

/* The folder that holds the new entry while it is not live; -1: none does. */
static int staged_in(const struct swap_root *r, const struct swap_pair *p, struct swap_look at)
{
    return !p->new_ino               ? -1
           : at.before == p->new_ino ? r->before
           : at.fresh == p->new_ino  ? r->fresh
           : at.failed == p->new_ino ? r->failed
                                     : -1;
}

/* ---- forward ---- */

/* Attributes of a root, on an empty folder that appears with them, or not at all. */
static enum dr_rc keep_attributes(struct swap_root *r, int from, const char *name,
                                  struct dr_err *err)
{
    int part = -1, there = -1;
    if (swap_open_part(r, name, &there, err))
        return err->rc;
    if (there >= 0) {
        (void)close(there);
        return DR_OK;
    }
    enum dr_rc rc = swap_make_part(r, "meta.part", &part, err);
    if (!rc)
        rc = inode_copy_xattrs(from, part, err);
    if (!rc && renameat(r->ours, "meta.part", r->ours, name) != 0)
        rc = dr_fail_errno(err, DR_E_IO, "make %s", name);
    if (part >= 0)
        (void)close(part);
    return rc ? dr_wrap(err, "root %s", r->path) : DR_OK;
}

static bool can_exchange(const struct swap_root *r)
{
    bool can = mkdirat(r->ours, "probe-a", 0700) == 0 && mkdirat(r->ours, "probe-b", 0700) == 0 &&
               renameat2(r->ours, "probe-a", r->ours, "probe-b", RENAME_EXCHANGE) == 0;
    (void)unlinkat(r->ours, "probe-a", AT_REMOVEDIR);
    (void)unlinkat(r->ours, "probe-b", AT_REMOVEDIR);
    return can;
}

/* Where entries can be exchanged, one rename does for two: the staged tree becomes `before`, and
 * each old entry takes the place of its new one. Else old entries move to a `before` of its own. */
static enum dr_rc begin_root(struct swap_root *r, struct dr_err *err)
{
    if (keep_attributes(r, r->fresh, "meta-new", err) || keep_attributes(r, r->fd, "meta-old", err))
        return err->rc;
    if (fchmod(r->fresh, 0700) != 0)
        return dr_fail_errno(err, DR_E_IO, "root %s: open the staged tree", r->path);
    if (r->before < 0 && can_exchange(r)) {
        if (renameat(r->ours, "new", r->ours, "before") != 0)
            return dr_fail_errno(err, DR_E_IO, "root %s: make before", r->path);
        r->before = r->fresh;
        r->fresh = -1;
    }
    if (swap_make_part(r, "before", &r->before, err))
        return err->rc;
    if (fsync(r->ours) != 0)
        return dr_fail_errno(err, DR_E_IO, "root %s: sync", r->path);
    return DR_OK;
}

/* Two entries of one name take each other's place. old_home: as the caller has seen it. */
static int exchange(struct swap_root *r, const struct swap_pair *p, bool old_home)
{
    uint32_t here = old_home ? p->old_mode : p->new_mode;
    uint32_t there = old_home ? p->new_mode : p->old_mode;
    if (renameat2(r->fd, p->name, r->before, p->name, RENAME_EXCHANGE) == 0)
        return 0;
    if (errno != EACCES)
        return -1;
    if ((S_ISDIR(here) && fchmodat(r->fd, p->name, (here & 07777) | 0700, 0) != 0) ||
        (S_ISDIR(there) && fchmodat(r->before, p->name, (there & 07777) | 0700, 0) != 0) ||
        renameat2(r->fd, p->name, r->before, p->name, RENAME_EXCHANGE) != 0)
        return -1; /* the modes are set right by who undoes */
    if (S_ISDIR(here) && fchmodat(r->before, p->name, here & 07777, 0) != 0)
        return -1;
    return S_ISDIR(there) ? fchmodat(r->fd, p->name, there & 07777, 0) : 0;
}

static enum dr_rc swap_entry(struct swap *s, const struct swap_pair *p, struct dr_err *err)
{
    struct swap_root *r = &s->roots[p->root];
    bool exchanging = r->fresh < 0;
    if (p->old_ino && !is_there(r->fd, p->name, p->old_ino)) {
        (void)dr_fail(err, DR_E_IO, "root %s: an entry changed while the services were down",
                      r->path);
        return dr_err_field(err, "entry", p->name, strlen(p->name));
    }
    if (fault_point("files.swap.rename", err))
        return err->rc;
    if (exchanging && p->old_ino && p->new_ino)
        return exchange(r, p, true) == 0 ? DR_OK : cannot(s, p, "exchange an entry", err);
    if (p->old_ino && move(r->fd, p->name, r->before, p->old_mode) != 0)
        return cannot(s, p, "move an old entry away", err);
    if (!p->new_ino)
        return DR_OK;
    if (p->old_ino && fault_point("files.swap.rename", err))
        return err->rc;
    if (move(exchanging ? r->before : r->fresh, p->name, r->fd, p->new_mode) != 0)
        return cannot(s, p, "move a new entry in", err);
    return DR_OK;
}

/* Moves path from one tree to the other; the folders that hold it keep their times. */
static int carry(int from, int to, const struct swap_pair *p)
{
    const char *last;
    struct stat a, b;
    int there = swap_open_parent(from, p->name, &last), here, rc = -1, kept;
    here = there < 0 ? -1 : swap_open_parent(to, p->name, &last);
    if (here >= 0 && fstat(there, &a) == 0 && fstat(here, &b) == 0)
        rc = move(there, last, here, p->old_mode);
    kept = errno;
    if (rc == 0) {
        struct timespec at[2] = {a.st_atim, a.st_mtim}, bt[2] = {b.st_atim, b.st_mtim};
        (void)utimensat(there, "", at, AT_EMPTY_PATH);
        (void)utimensat(here, "", bt, AT_EMPTY_PATH);
    }
    if (here >= 0)
        (void)close(here);
    if (there >= 0)
        (void)close(there);
    errno = kept;
    return rc;
}

static enum dr_rc set_side(int fd, const struct swap_side *side, struct dr_err *err)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, swap_time(side->mtime_ns)};
    struct stat st;
    if (fstat(fd, &st) != 0 ||
        ((st.st_uid != side->uid || st.st_gid != side->gid) &&
         fchown(fd, side->uid, side->gid) != 0) ||
        ((st.st_mode & 07777) != side->mode && fchmod(fd, side->mode) != 0) ||
        futimens(fd, times) != 0)
        return dr_fail_errno(err, DR_E_IO, "metadata");
    return DR_OK;
}

/* Attributes first, as everywhere: an ACL goes with the mode. Once they were discarded, `before`
 * has the old ones and the root the new ones. */
static enum dr_rc dress(struct swap_root *r, const char *kept, const struct swap_side *side,
                        struct dr_err *err)
{
    int from = -1;
    enum dr_rc rc = r->ours < 0 ? DR_OK : swap_open_part(r, kept, &from, err);
    if (!rc && from < 0 && r->before >= 0 && side == &r->old_side)
        rc = swap_open_part(r, "before", &from, err);
    if (!rc && from >= 0)
        rc = inode_copy_xattrs(from, r->fd, err);
    if (!rc)
        rc = set_side(r->fd, side, err);
    if (from >= 0)
        (void)close(from);
    return rc ? dr_wrap(err, "root %s", r->path) : DR_OK;
}

/* `before` is the old tree with all that it had. */
static enum dr_rc dress_before(struct swap_root *r, struct dr_err *err)
{
    int from = -1;
    if (r->before < 0 || swap_open_part(r, "meta-old", &from, err))
        return err->rc;
    enum dr_rc rc = from < 0 ? DR_OK : inode_copy_xattrs(from, r->before, err);
    if (from >= 0)
        (void)close(from);
    return rc;
}

enum dr_rc swap_run(struct swap *s, struct dr_err *err)
{
    for (unsigned i = 0; i < s->count; i++)
        if (begin_root(&s->roots[i], err))
            return err->rc;
    for (size_t i = 0; i < s->pair_count; i++)
        if (s->pairs[i].kind == PAIR_ENTRY && swap_entry(s, &s->pairs[i], err))
            return err->rc;
    for (size_t i = 0; i < s->pair_count; i++) {
        const struct swap_pair *p = &s->pairs[i];
        if (p->kind != PAIR_CARRY)
            continue;
        if (fault_point("files.swap.rename", err))
            return err->rc;
        if (carry(s->roots[p->root].before, s->roots[p->root].fd, p) != 0)
            return cannot(s, p, "carry over", err);
    }
    return swap_finish(s, err);
}

/* For the time of its move. */
static bool made_writable(uint32_t mode)
{
    return S_ISDIR(mode) && !(mode & 0200);
}

/* Whoever was killed while a folder was writable for its move left it so. */
static enum dr_rc set_mode(int dir, const char *name, uint32_t mode, struct dr_err *err)
{
    struct stat st;
    if (!made_writable(mode) || dir < 0 || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        st.st_mode == mode)
        return DR_OK;
    return fchmodat(dir, name, mode & 07777, 0) == 0
               ? DR_OK
               : dr_fail_errno(err, DR_E_IO, "set the mode of %s", name);
}

static enum dr_rc set_modes(const struct swap *s, struct dr_err *err)
{
    for (size_t i = 0; i < s->pair_count && geteuid() != 0; i++) {
        const struct swap_pair *p = &s->pairs[i];
        const struct swap_root *r = &s->roots[p->root];
        if (p->kind != PAIR_ENTRY || (!made_writable(p->old_mode) && !made_writable(p->new_mode)))
            continue;
        struct where w = find(s, p);
        if ((w.old_home && set_mode(r->fd, p->name, p->old_mode, err)) ||
            (w.old_away && set_mode(r->before, p->name, p->old_mode, err)) ||
            (w.new_live && set_mode(r->fd, p->name, p->new_mode, err)))
            return err->rc;
    }
    return DR_OK;
}

enum dr_rc swap_finish(struct swap *s, struct dr_err *err)
{
    if (set_modes(s, err))
        return err->rc;
    for (unsigned i = 0; i < s->count; i++)
        if (dress(&s->roots[i], "meta-new", &s->roots[i].new_side, err) ||
            dress_before(&s->roots[i], err))
            return err->rc;
    return swap_sync(s, err);
}

/* ---- observation ---- */

/* A carried path lies where its direct entry's old or new tree lies now. */
static void find_trees(const struct swap *s, const struct swap_pair *p, int *old, int *new)
{
    const struct swap_root *r = &s->roots[p->root];
    const struct swap_pair *top = swap_find_entry(s, p->root, p->name);
    struct swap_look at = top ? swap_look_at(s, top) : (struct swap_look){0};
    struct where w = top ? where_of(top, at) : (struct where){0};
    *old = w.old_away ? r->before : w.old_home ? r->fd : -1;
    *new = w.new_live ? r->fd : top ? staged_in(r, top, at) : -1;
}

static bool has(int dir, const struct swap_pair *p, bool any)
{
    const char *last;
    int parent = dir < 0 ? -1 : swap_open_parent(dir, p->name, &last);
    bool is = parent >= 0 && (any ? occupied(parent, last) : is_there(parent, last, p->old_ino));
    if (parent >= 0)
        (void)close(parent);
    return is;
}

/* Adds to *before when the pair is as it was, to *after when it is as it shall be. */
static enum dr_rc observe(const struct swap *s, const struct swap_pair *p, struct swap_look at,
                          size_t *before, size_t *after, struct dr_err *err)
{
    struct where w = where_of(p, at);
    int old, new;
    if (p->kind == PAIR_CARRY) {
        find_trees(s, p, &old, &new);
        *before += has(old, p, false);
        *after += !has(old, p, false);
        return DR_OK;
    }
    if (p->old_ino && !w.old_home && !w.old_away && !w.new_staged) {
        (void)dr_fail(err, DR_E_NEEDS_HUMAN, "root %s: an old entry is nowhere to be found",
                      s->roots[p->root].path);
        return dr_err_field(err, "entry", p->name, strlen(p->name));
    }
    *before += !w.old_away && (!p->new_ino || w.new_staged);
    *after += (!p->old_ino || w.old_away) && !w.new_staged;
    return DR_OK;
}

enum dr_rc swap_observe(struct swap *s, enum swap_state *out, struct dr_err *err)
{
    size_t before = 0, after = 0, all = 0;
    struct swap_look *at;
    enum dr_rc rc = swap_look_all(s, &at, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < s->pair_count && !rc; i++) {
        if (s->pairs[i].kind == PAIR_STAY)
            continue;
        all++;
        rc = observe(s, &s->pairs[i], at[i], &before, &after, err);
    }
    free(at);
    if (!rc)
        *out = after == all ? SWAP_AFTER : before == all ? SWAP_BEFORE : SWAP_MIXED;
    return rc;
}

/* ---- back ---- */

static enum dr_rc carry_back(const struct swap *s, const struct swap_pair *p, bool committed,
                             struct dr_err *err)
{
    int old, new;
    find_trees(s, p, &old, &new);
    /* What lies there now belongs to both trees, even if services have replaced it since. */
    if (old < 0 || has(old, p, true) || !has(new, p, committed))
        return DR_OK;
    if (fault_point("files.swap.undo", err))
        return err->rc;
    if (carry(new, old, p) != 0 && !(committed && errno == ENOENT))
        return cannot(s, p, "carry back", err);
    return DR_OK;
}

/* Everything live but carried entries, mounts and old entries that are back already. */
static enum dr_rc sweep(struct swap *s, unsigned root, struct dr_err *err)
{
    struct swap_root *r = &s->roots[root];
    char **names = NULL;
    enum dr_rc rc;
    if (swap_make_part(r, "failed", &r->failed, err) || swap_live_names(r, &names, err))
        return err->rc;
    rc = DR_OK;
    for (size_t i = 0; names[i] && !rc; i++) {
        const struct swap_pair *p = swap_find_entry(s, root, names[i]);
        struct swap_pair own = {.name = names[i], .root = root, .new_mode = S_IFDIR};
        if (p && (p->kind == PAIR_STAY || is_there(r->fd, p->name, p->old_ino)))
            continue;
        rc = fault_point("files.swap.undo", err);
        if (!rc && move(r->fd, names[i], r->failed, p ? p->new_mode : own.new_mode) != 0)
            rc = cannot(s, p ? p : &own, "move aside what was live", err);
    }
    swap_free_names(names);
    return rc;
}

static enum dr_rc entry_back(struct swap *s, const struct swap_pair *p, struct dr_err *err)
{
    struct swap_root *r = &s->roots[p->root];
    struct where w = find(s, p);
    if (!w.new_live && !w.old_away)
        return DR_OK;
    if (fault_point("files.swap.undo", err))
        return err->rc;
    if (w.new_live && w.old_away && r->fresh < 0)
        return exchange(r, p, false) == 0 ? DR_OK : cannot(s, p, "exchange an entry back", err);
    if (w.new_live && move(r->fd, p->name, r->fresh < 0 ? r->before : r->fresh, p->new_mode) != 0)
        return cannot(s, p, "move a new entry out", err);
    if (!w.old_away)
        return DR_OK;
    if (w.new_live && fault_point("files.swap.undo", err))
        return err->rc;
    if (move(r->before, p->name, r->fd, p->old_mode) != 0)
        return cannot(s, p, "move an old entry back", err);
    return DR_OK;
}

/* A `before` without any old entry is the staged tree again. */
static enum dr_rc rename_back(struct swap *s, unsigned root, struct dr_err *err)
{
    struct swap_root *r = &s->roots[root];
    if (r->before < 0 || r->fresh >= 0)
        return DR_OK;
    for (size_t i = 0; i < s->pair_count; i++)
        if (s->pairs[i].root == root && find(s, &s->pairs[i]).old_away)
            return DR_OK;
    if (renameat(r->ours, "before", r->ours, "new") != 0)
        return dr_fail_errno(err, DR_E_IO, "root %s: name the staged tree", r->path);
    r->fresh = r->before;
    r->before = -1;
    return DR_OK;
}

enum dr_rc swap_undo(struct swap *s, bool committed, struct dr_err *err)
{
    for (size_t i = s->pair_count; i-- > 0;)
        if (s->pairs[i].kind == PAIR_CARRY && carry_back(s, &s->pairs[i], committed, err))
            return err->rc;
    for (unsigned i = s->count; committed && i-- > 0;)
        if (sweep(s, i, err))
            return err->rc;
    for (size_t i = s->pair_count; i-- > 0;)
        if (s->pairs[i].kind == PAIR_ENTRY && entry_back(s, &s->pairs[i], err))
            return err->rc;
    if (set_modes(s, err))
        return err->rc;
    for (unsigned i = s->count; i-- > 0;)
        if (dress(&s->roots[i], "meta-old", &s->roots[i].old_side, err) ||
            (!committed && rename_back(s, i, err)))
            return err->rc;
    return swap_sync(s, err);
}
