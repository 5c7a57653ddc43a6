/* Staging folders: staging/<run>.<ticket>/, each under an OFD lock on its `lock` as long as its
 * delivery lives. A folder whose lock is free belongs to nobody: whoever gets the lock removes it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "worker/backup/disk.h"
#include "worker/backup/lock.h"
#include "worker/backup/staging_internal.h"
#include "worker/backup/store_internal.h"

enum { NEW_TRIES = 20, SWEEPER_WAIT_MS = 2000 };

int staging_dirfd(const struct staging *g)
{
    return g->dirfd;
}

const char *staging_path(const struct staging *g)
{
    return g->path;
}

static bool is_part(const char *s, size_t max)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return n > 0 && n <= max && !s[n];
}

static enum dr_rc remove_entry(void *arg, const char *name, struct dr_err *err)
{
    return disk_remove_tree(*(const int *)arg, name, err);
}

/* The folder is ours by its lock; the lock goes last, so that nobody takes half a folder over. */
static enum dr_rc wipe(int dirfd, struct dr_err *err)
{
    return disk_each(dirfd, ".", remove_entry, &dirfd, err);
}

/* DR_OK with g->lockfd -1: a sweeper was faster, try again. */
static enum dr_rc try_new(struct staging *g, struct dr_err *err)
{
    struct dr_err why = {0};
    enum dr_rc rc = disk_mkdir(g->rootfd, g->name, NULL, err);
    if (!rc)
        rc = disk_open_dir(g->rootfd, g->name, &g->dirfd, &why);
    if (!rc && !why.rc)
        rc = lock_take(g->dirfd, "lock", LOCK_ALONE_MAKE, SWEEPER_WAIT_MS, &g->lockfd, &why);
    if (rc == DR_E_NOT_FOUND) {
        lock_drop(&g->dirfd);
        return DR_OK;
    }
    if (rc && why.rc)
        return dr_fail(err, rc, "staging/%s: %s", g->name, why.msg);
    /* Left by a former run of this delivery. */
    return rc ? rc : wipe(g->dirfd, err);
}

static enum dr_rc open_folder(struct store *s, const char *folder, int *fd, struct dr_err *err)
{
    if (!folder[0])
        return disk_open_dir(s->dirfd, "staging", fd, err);
    *fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *fd < 0 ? dr_fail_errno(err, DR_E_IO, "%s", folder) : DR_OK;
}

enum dr_rc store_staging_new(struct store *s, const char *run, const char *ticket,
                             struct staging **out, struct dr_err *err)
{
    return store_staging_at(s, "", run, ticket, out, err);
}

enum dr_rc store_staging_at(struct store *s, const char *folder, const char *run,
                            const char *ticket, struct staging **out, struct dr_err *err)
{
    struct staging *g;
    if (strlen(run) != 16 || !is_part(run, 16) || !is_part(ticket, 24))
        return dr_fail(err, DR_E_BUG, "staging: '%s.%s' is no name", run, ticket);
    g = dr_xalloc(sizeof *g);
    g->rootfd = g->dirfd = g->lockfd = -1;
    (void)snprintf(g->name, sizeof g->name, "%s.%s", run, ticket);
    g->path = folder[0] ? dr_xasprintf("%s/%s", folder, g->name)
                        : dr_xasprintf("%s/staging/%s", s->path, g->name);
    enum dr_rc rc = open_folder(s, folder, &g->rootfd, err);
    for (unsigned i = 0; !rc && g->lockfd < 0 && i < NEW_TRIES; i++)
        rc = try_new(g, err);
    if (!rc && g->lockfd < 0)
        rc = dr_fail(err, DR_E_LOCKED, "staging/%s: it was removed again and again", g->name);
    if (!rc) {
        *out = g;
        return DR_OK;
    }
    g->published = true; /* not ours to remove */
    staging_free(g);
    return rc;
}

void staging_free(struct staging *g)
{
    struct dr_err err = {0};
    if (!g)
        return;
    if (!g->published && g->dirfd >= 0 &&
        (wipe(g->dirfd, &err) || disk_remove_tree(g->rootfd, g->name, &err)))
        dr_log_err(DR_LOG_WARN, "staging.remove", &err, "folder", g->name, NULL);
    lock_drop(&g->lockfd);
    lock_drop(&g->dirfd);
    lock_drop(&g->rootfd);
    free(g->path);
    free(g);
}

struct sweep {
    int rootfd;
    unsigned removed;
};

static enum dr_rc sweep_one(void *arg, const char *name, struct dr_err *err)
{
    struct sweep *w = arg;
    struct dr_err why = {0};
    int dirfd = -1, lockfd = -1;
    char run[17];
    size_t dot = strcspn(name, ".");
    (void)err;
    (void)snprintf(run, sizeof run, "%.*s", (int)dot, name);
    if (dot != 16 || !name[dot] || !is_part(run, 16) || !is_part(name + dot + 1, 24))
        return DR_OK; /* not a delivery's */
    /* One folder that cannot be removed is not to keep the others. */
    if (disk_open_dir(w->rootfd, name, &dirfd, &why) == DR_OK &&
        lock_take(dirfd, "lock", LOCK_ALONE_MAKE, 0, &lockfd, &why) == DR_OK &&
        wipe(dirfd, &why) == DR_OK && disk_remove_tree(w->rootfd, name, &why) == DR_OK)
        w->removed++;
    else if (why.rc != DR_E_LOCKED && why.rc != DR_E_NOT_FOUND)
        dr_log_err(DR_LOG_WARN, "staging.sweep", &why, "folder", name, NULL);
    lock_drop(&lockfd);
    lock_drop(&dirfd);
    return DR_OK;
}

enum dr_rc store_sweep_staging(struct store *s, unsigned *removed, struct dr_err *err)
{
    return store_sweep_staging_at(s, "", removed, err);
}

enum dr_rc store_sweep_staging_at(struct store *s, const char *folder, unsigned *removed,
                                  struct dr_err *err)
{
    struct sweep w = {.rootfd = -1};
    enum dr_rc rc = open_folder(s, folder, &w.rootfd, err);
    if (!rc)
        rc = disk_each(w.rootfd, ".", sweep_one, &w, err);
    lock_drop(&w.rootfd);
    if (removed)
        *removed = w.removed;
    return rc;
}
