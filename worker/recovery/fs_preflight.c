/* Preflight of a file recovery: what would make a later step fail is found here. In a fiber, the
 * work in the pool. */
#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/mem.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"
#include "worker/pipe/mounts.h"
#include "worker/recovery/fs_internal.h"

enum { LOCK_WAIT_MS = 10000, LOCK_POLL_MS = 300, FREE_PERCENT = 5, BLOCK = 4096 };

static bool has_capability(unsigned number)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    if (syscall(SYS_capget, &header, data) != 0)
        return geteuid() == 0;
    return data[number / 32].effective & (1u << (number % 32));
}

static bool in_our_groups(gid_t gid)
{
    gid_t groups[1024];
    int n = getgroups(1024, groups);
    if (gid == getegid())
        return true;
    for (int i = 0; i < n; i++)
        if (groups[i] == gid)
            return true;
    return false;
}

static enum dr_rc check_owners(const struct fs *f, struct dr_err *err)
{
    if (f->ignore_owner)
        return DR_OK;
    if (f->has_capability && !has_capability(CAP_SETFCAP))
        return dr_fail(err, DR_E_PREFLIGHT,
                       "the backup holds files with capabilities, which only CAP_SETFCAP may set; "
                       "DR_RESTORE_OWNER=ignore leaves them out");
    if (has_capability(CAP_CHOWN))
        return DR_OK;
    for (unsigned i = 0; i < f->uid_count; i++)
        if (f->uids[i] != geteuid())
            return dr_fail(err, DR_E_PREFLIGHT,
                           "the backup holds files of uid %u, which uid %u may not give away; run "
                           "as root, or set DR_RESTORE_OWNER=ignore",
                           f->uids[i], geteuid());
    for (unsigned i = 0; i < f->gid_count; i++)
        if (!in_our_groups(f->gids[i]))
            return dr_fail(err, DR_E_PREFLIGHT,
                           "the backup holds files of gid %u, to which uid %u does not belong; run "
                           "as root, or set DR_RESTORE_OWNER=ignore",
                           f->gids[i], geteuid());
    return f->owners_many ? dr_fail(err, DR_E_PREFLIGHT,
                                    "the backup holds files of many owners; "
                                    "run as root")
                          : DR_OK;
}

static enum dr_rc check_content(const struct fs *f, struct dr_err *err)
{
    if (!f->device[0])
        return DR_OK;
    (void)dr_fail(err, DR_E_PREFLIGHT,
                  "the backup holds a device node: device nodes are never restored");
    return dr_err_field(err, "path", f->device, strlen(f->device));
}

static enum dr_rc check_mounts(const struct fs *f, struct dr_err *err)
{
    struct mounts *m = NULL;
    enum dr_rc rc = mounts_read(&m, err);
    for (unsigned i = 0; i < f->root_count && !rc; i++)
        if (f->roots[i].mount && !mounts_has(m, f->roots[i].path))
            rc = dr_fail(err, DR_E_PREFLIGHT,
                         "root %s was a mount point when it was backed up, and is none now: mount "
                         "it first",
                         f->roots[i].path);
    mounts_free(m);
    return rc;
}

/* Where a root that is still missing will lie. */
static bool space_at(const char *path, struct statvfs *v)
{
    char *up = dr_xstrdup(path);
    bool found = statvfs(up, v) == 0;
    while (!found && errno == ENOENT && strlen(up) > 1) {
        char *slash = strrchr(up, '/');
        slash[slash == up] = 0;
        found = statvfs(up, v) == 0;
    }
    free(up);
    return found;
}

/* Roots of one file system share its space. */
static enum dr_rc check_space(const struct fs *f, struct dr_err *err)
{
    const char *const *paths = f->at ? f->at : f->paths;
    for (unsigned i = 0; i < f->root_count; i++) {
        struct statvfs here, there;
        uint64_t bytes = 0, inodes = 0;
        if (!space_at(paths[i], &here))
            return dr_fail_errno(err, DR_E_PREFLIGHT, "root %s", f->roots[i].path);
        for (unsigned k = 0; k < f->root_count; k++) {
            if (!space_at(paths[k], &there) || there.f_fsid != here.f_fsid)
                continue;
            bytes += f->roots[k].bytes + f->roots[k].entries * BLOCK;
            inodes += f->roots[k].entries;
        }
        bytes += bytes / 100 * FREE_PERCENT;
        if ((uint64_t)here.f_bavail * here.f_frsize < bytes)
            return dr_fail(err, DR_E_NO_SPACE,
                           "root %s: %llu MB free, %llu MB are needed for the tree", paths[i],
                           (unsigned long long)here.f_bavail * here.f_frsize >> 20,
                           (unsigned long long)(bytes >> 20) + 1);
        if (here.f_files && here.f_favail < inodes)
            return dr_fail(err, DR_E_NO_SPACE, "root %s: %llu inodes free, %llu are needed",
                           paths[i], (unsigned long long)here.f_favail, (unsigned long long)inodes);
    }
    return DR_OK;
}

static void look_at_live(struct recovery *r)
{
    struct fs *f = fs_of(r);
    struct dr_err why = {0};
    fs_drill_look(r);
    if (!r->obstacle[0] && (check_mounts(f, &why) || store_apart(r->env->store, f->paths, &why)))
        (void)snprintf(r->obstacle, sizeof r->obstacle, "%.*s", (int)sizeof r->obstacle - 1,
                       why.msg);
}

/* A drill restores into scratch; what it finds of live is a finding. */
static enum dr_rc drill_item(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    if (check_content(f, err) || check_owners(f, err) || fs_drill_open(r, err) ||
        check_space(f, err))
        return err->rc;
    look_at_live(r);
    const struct swap_spec spec = {.roots = f->at, .run = r->run, .create = true};
    return swap_open(&spec, &f->swap, err);
}

/* Live is looked at as by a drill; what is locked, filled and swapped are the exercise's roots. */
static enum dr_rc exercise_item(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    if (check_content(f, err) || check_owners(f, err) || fs_exercise_open(r, err) ||
        check_space(f, err))
        return err->rc;
    look_at_live(r);
    const struct swap_spec spec = {.roots = f->at, .run = r->run};
    return swap_open(&spec, &f->swap, err) ? err->rc : swap_check(f->swap, err);
}

static enum dr_rc preflight_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct recovery *r = item;
    struct fs *f = fs_of(r);
    struct swap_spec spec = {
        .roots = f->paths, .run = r->run, .create = !r->order.dry_run, .look = r->order.dry_run};
    unsigned missing = 0;
    (void)cancel;
    if (r->order.drill)
        return drill_item(r, err);
    if (recovery_is_exercise(r))
        return exercise_item(r, err);
    if (check_content(f, err) || check_owners(f, err) || check_mounts(f, err) ||
        store_apart(r->env->store, f->paths, err) || check_space(f, err) ||
        swap_open(&spec, &f->swap, err) || swap_check(f->swap, err))
        return err->rc;
    for (unsigned i = 0; i < f->root_count; i++)
        missing += swap_created(f->swap, i) || swap_root_fd(f->swap, i) < 0;
    f->live_lost = missing == f->root_count;
    return DR_OK;
}

static enum dr_rc read_options(struct recovery *r, struct dr_err *err)
{
    const char *owner = dr_config_str(r->env->config, "DR_RESTORE_OWNER");
    const char *swap = dr_config_str(r->env->config, "DR_FILES_SWAP");
    if (strcmp(owner, "exact") != 0 && strcmp(owner, "ignore") != 0)
        return dr_fail(err, DR_E_CONFIG, "DR_RESTORE_OWNER is exact or ignore");
    if (strcmp(swap, "entries") != 0)
        return dr_fail(err, DR_E_CONFIG, "DR_FILES_SWAP: this version swaps by entries only");
    fs_of(r)->ignore_owner = strcmp(owner, "ignore") == 0;
    return DR_OK;
}

/* The roots stay locked until the run ends. Another run's lock is waited for, for a while. */
enum dr_rc fs_preflight(struct recovery *r, struct dr_err *err)
{
    int64_t end = dr_clock_ms() + LOCK_WAIT_MS;
    if (read_options(r, err) || (r->order.drill && fs_drill_begin(r, err)))
        return err->rc;
    for (;;) {
        struct dr_err why = {0};
        enum dr_rc rc = pool_run_long(r->env->pool, preflight_item, r, recovery_cancel(r), &why);
        if (rc == DR_E_LOCKED && dr_clock_ms() < end) {
            if (job_sleep(r->job, LOCK_POLL_MS, err))
                return err->rc;
            continue;
        }
        if (rc)
            *err = why;
        return rc;
    }
}
