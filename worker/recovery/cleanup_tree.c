/* Trees that recoveries left in `.dr-<run>` of a root: looked at under the root's lock, renamed to
 * `drop` there, removed. The work in a pool thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"
#include "worker/backup/disk.h"
#include "worker/core/fault.h"
#include "worker/core/pool.h"
#include "worker/recovery/cleanup_internal.h"
#include "worker/recovery/swap_internal.h"

enum { MOUNTINFO_MAX = 64 << 20, PATH_BYTES = 4200 };

static const char doomed[] = "drop";

struct tree {
    struct leftover *l;
    int store_fd;
    char root[PATH_BYTES];
    const char *part; /* of l->what: before, failed or new */
    struct swap *swap;
};

/* what = <root of the run>/.dr-<run>/<part>: nothing else is ours. */
static bool split(struct tree *t)
{
    static const char *const parts[] = {"before", "failed", "new"};
    const struct leftover *l = t->l;
    const json_t *roots = json_object_get(recovery_find_intent(l->r, "restore"), "roots");
    for (size_t i = 0; i < json_array_size(roots); i++) {
        const char *root = json_string_value(json_array_get(roots, i));
        for (size_t k = 0; root && k < sizeof parts / sizeof parts[0]; k++) {
            char path[PATH_BYTES];
            (void)snprintf(path, sizeof path, "%s/.dr-%s/%s", root, l->r->run, parts[k]);
            if (strcmp(path, l->what) != 0)
                continue;
            (void)snprintf(t->root, sizeof t->root, "%s", root);
            t->part = parts[k];
            return true;
        }
    }
    return false;
}

/* Mounted upon, mounted below, or the source of a bind mount somewhere else. */
static enum dr_rc check_mounts(struct tree *t, struct dr_err *err)
{
    struct dr_buf text;
    char ours[32];
    (void)snprintf(ours, sizeof ours, "/.dr-%s", t->l->r->run);
    dr_buf_init(&text, MOUNTINFO_MAX);
    enum dr_rc rc = disk_read(AT_FDCWD, "/proc/self/mountinfo", &text, err);
    if (!rc && memmem(text.data, text.len, ours, strlen(ours)))
        (void)cleanup_keep(t->l, "in use: it is mounted, or something is mounted in it");
    dr_buf_fini(&text);
    return rc;
}

/* Is the folder under that name the one of the journal? 0: there is none. */
static int compare(struct tree *t, const char *name)
{
    const struct swap_root *r = &t->swap->roots[0];
    struct stat here, root;
    if (r->ours < 0 || fstatat(r->ours, name, &here, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    return S_ISDIR(here.st_mode) && here.st_ino == t->l->id && fstat(r->fd, &root) == 0 &&
                   root.st_dev == here.st_dev
               ? 1
               : -1;
}

/* `before` holds what the plan moved there, and nothing that was put there since. */
static enum dr_rc check_entries(struct tree *t, struct dr_err *err)
{
    const struct recovery *r = t->l->r;
    const char *sha256 =
        json_string_value(json_object_get(recovery_find_intent(r, "swap"), "sha256"));
    char name[64], odd[256];
    if (strcmp(t->part, "before") != 0)
        return DR_OK;
    (void)snprintf(name, sizeof name, "journal/%s.pairs", r->run);
    const struct swap_plan_file file = {t->store_fd, name, sha256 ? sha256 : "", r->run};
    if (swap_find_odd(&file, t->root, t->swap->roots[0].before, odd, err))
        return err->rc;
    if (odd[0])
        return cleanup_keep(t->l, "entry '%s' of it is not what the recovery moved there", odd);
    return DR_OK;
}

static enum dr_rc doom(struct tree *t, struct dr_err *err)
{
    struct swap_root *r = &t->swap->roots[0];
    if (journal_append(t->l->r->journal, "leftover-drop", cleanup_record(t->l), err) ||
        fault_point("cleanup.tree.intent", err))
        return err->rc;
    if (renameat2(r->ours, t->part, r->ours, doomed, RENAME_NOREPLACE) != 0 && errno != EINVAL)
        return dr_fail_errno(err, DR_E_IO, "rename %s", t->l->what);
    if (compare(t, t->part) == 1 && renameat(r->ours, t->part, r->ours, doomed) != 0)
        return dr_fail_errno(err, DR_E_IO, "rename %s", t->l->what); /* a file system without */
    return fsync(r->ours) == 0 ? DR_OK : dr_fail_errno(err, DR_E_IO, "root %s: fsync", t->root);
}

/* A root that never was locked by us is not the one of the run: its volume may not be mounted. */
static enum dr_rc open_root(struct tree *t, struct dr_err *err)
{
    const char *const roots[] = {t->root, NULL};
    const struct swap_spec spec = {.roots = roots, .run = t->l->r->run};
    struct dr_err why = {0};
    struct stat st;
    char lock[PATH_BYTES];
    (void)snprintf(lock, sizeof lock, "%s/.dr-lock", t->root);
    if (lstat(lock, &st) != 0)
        return cleanup_keep(
            t->l, "root %s is not there, or has no .dr-lock: is its volume mounted?", t->root);
    if (swap_open(&spec, &t->swap, &why) == DR_OK)
        return DR_OK;
    if (why.rc == DR_E_LOCKED)
        return cleanup_keep(t->l, "a recovery of root %s is running", t->root);
    *err = why;
    return err->rc;
}

/* The root's lock is given away meanwhile: a recovery must not wait for it, and never touches the
 * folder of another run. */
static enum dr_rc prune(struct tree *t, struct dr_err *err)
{
    struct leftover *l = t->l;
    int ours = fcntl(t->swap->roots[0].ours, F_DUPFD_CLOEXEC, 0);
    if (ours < 0)
        return dr_fail_errno(err, DR_E_IO, "root %s", t->root);
    swap_close(t->swap);
    t->swap = NULL;
    if (fault_point("cleanup.tree.renamed", err) == DR_OK &&
        prune_counted(ours, doomed, &l->bytes, l->terms->cancel, err) == DR_OK)
        err->rc = fault_point("cleanup.tree.removed", err);
    (void)close(ours);
    return err->rc;
}

static enum dr_rc drop(struct tree *t, struct dr_err *err)
{
    struct leftover *l = t->l;
    if (prune(t, err)) {
        if (err->rc != DR_E_REFUSED)
            return err->rc;
        (void)cleanup_keep(l, "in use: something is mounted in it (%s)", err->msg);
        dr_err_clear(err);
        return DR_OK;
    }
    l->fate = LEFTOVER_DROPPED;
    if (open_root(t, err) || !t->swap) { /* the next cleanup removes the empty folder around it */
        l->why[0] = 0;
        l->fate = LEFTOVER_DROPPED;
        return err->rc;
    }
    return swap_discard(t->swap, l->terms->cancel, err)
               ? err->rc
               : journal_append(l->r->journal, "leftover-gone", cleanup_record(l), err);
}

static enum dr_rc judge(struct tree *t, struct dr_err *err)
{
    struct leftover *l = t->l;
    int begun = compare(t, doomed), there = compare(t, t->part);
    if (begun == 1 && journal_says(l->r->journal, "leftover-drop", l->what))
        return cleanup_is_due(l) ? drop(t, err) : DR_OK; /* an earlier cleanup was killed at it */
    if (there == 0) {
        l->fate = LEFTOVER_GONE;
        return swap_discard(t->swap, l->terms->cancel, err); /* the empty folder around it */
    }
    if (there < 0)
        return cleanup_keep(l, "it is not the folder that the run left");
    if (!cleanup_is_due(l) || check_entries(t, err) || l->why[0])
        return err->rc;
    return doom(t, err) ? err->rc : drop(t, err);
}

static enum dr_rc tree_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct tree *t = item;
    (void)cancel;
    if (check_mounts(t, err) || t->l->why[0] || open_root(t, err) || t->l->why[0])
        return err->rc;
    enum dr_rc rc = judge(t, err);
    swap_close(t->swap);
    return rc;
}

enum dr_rc cleanup_tree(struct leftover *l, struct dr_err *err)
{
    struct tree t = {.l = l, .store_fd = recovery_store_fd(l->r)};
    if (!split(&t))
        return cleanup_keep(l, "the journal names no root that it lies in");
    (void)snprintf(l->where, sizeof l->where, "%s", t.root);
    if (!l->id)
        return cleanup_keep(l, "the journal does not say which folder it is");
    return pool_run_long(l->r->env->pool, tree_item, &t, l->terms->cancel, err);
}
