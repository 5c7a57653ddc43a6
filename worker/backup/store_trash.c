/* Backups that are given up, brought back, purged: a record first, then the folder. */
#include "worker/backup/trash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/disk.h"
#include "worker/backup/lock.h"
#include "worker/backup/store_internal.h"
#include "worker/core/fault.h"

enum { PATH_BYTES = 96, DATA_MAX = 1024 };

/* One act: the catalog lock, and what the catalog says of the backup under it. */
struct act {
    struct store *store;
    const char *id;
    int lock, dirfd, manifest; /* -1: not held */
    const char *folder;        /* backups or trash, where it lies; NULL: nowhere */
    bool purged;
    struct store_entry entry; /* as of the newest record */
};

static enum dr_rc kept(struct dr_err *err, enum dr_rc rc, const char *reason, const char *what)
{
    (void)dr_fail(err, rc, "%s", what);
    return dr_err_reason(err, reason);
}

static bool lies_in(struct store *s, const char *folder, const char *id)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", folder, id);
    return disk_exists(s->dirfd, path);
}

static void end(struct act *a)
{
    lock_drop(&a->manifest);
    lock_drop(&a->dirfd);
    lock_drop(&a->lock);
}

static enum dr_rc look(struct act *a, struct dr_err *err)
{
    struct store *s = a->store;
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    const struct store_item *it = rc ? NULL : store_find(s, a->id);
    if (it && !it->purged) {
        a->entry = it->entry;
        a->entry.pinned = store_is_pinned(it, dr_wall_ms());
    } else if (!rc) {
        a->purged = it != NULL;
        (void)dr_fail(err, rc = DR_E_NOT_FOUND,
                      it ? "backup %s is purged" : "the catalog has no backup %s", a->id);
        (void)dr_err_field(err, "backup_id", a->id, strlen(a->id));
    }
    (void)pthread_mutex_unlock(&s->mutex);
    bool live = !rc && lies_in(s, "backups", a->id), given_up = !rc && lies_in(s, "trash", a->id);
    a->folder = live ? "backups" : given_up ? "trash" : NULL;
    if (live && given_up)
        rc = dr_fail(err, DR_E_EXISTS,
                     "backup %s lies in backups/ and in trash/: somebody copied it; remove the "
                     "one that `verify` does not pass",
                     a->id);
    return rc;
}

/* On failure, too, end() is to be called. */
static enum dr_rc begin(struct store *s, const char *id, struct act *a, struct dr_err *err)
{
    *a = (struct act){.store = s, .id = id, .lock = -1, .dirfd = -1, .manifest = -1};
    if (!names_is_backup_id(id)) {
        (void)dr_fail(err, DR_E_NOT_FOUND, "not the id of a backup");
        return dr_err_field(err, "backup_id", id, strlen(id));
    }
    enum dr_rc rc = store_lock_catalog(s, &a->lock, err);
    return rc ? rc : look(a, err);
}

static enum dr_rc open_folder(struct act *a, struct dr_err *err)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", a->folder, a->id);
    return disk_open_dir(a->store->dirfd, path, &a->dirfd, err);
}

/* Keeps readers out; one that is there keeps us out. A manifest that is not there locks nothing. */
static enum dr_rc lock_manifest(struct act *a, struct dr_err *err)
{
    struct dr_err why = {0};
    char text[128];
    enum dr_rc rc = open_folder(a, &why);
    if (!rc)
        rc = lock_take(a->dirfd, "manifest.json", LOCK_ALONE, 0, &a->manifest, &why);
    if (rc == DR_E_LOCKED) {
        (void)snprintf(text, sizeof text, "backup %s is being read", a->id);
        return kept(err, DR_E_LOCKED, "in_use", text);
    }
    return rc ? dr_fail(err, rc, "%s/%s: %s", a->folder, a->id, why.msg) : DR_OK;
}

/* without: a folder without a manifest will do. Nobody can be reading it. */
static enum dr_rc lock_if_there(struct act *a, bool without, struct dr_err *err)
{
    struct dr_err why = {0};
    if (!a->folder || !lock_manifest(a, &why) ||
        (without && why.rc == DR_E_NOT_FOUND && a->dirfd >= 0))
        return DR_OK;
    if (err && !err->rc)
        *err = why;
    return why.rc;
}

enum dr_rc store_given_up(struct store *s, const char *backup_id, bool *out, struct dr_err *err)
{
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    const struct store_item *it = rc ? NULL : store_find(s, backup_id);
    *out = it && (it->purged || it->entry.tombstoned_at_ms);
    (void)pthread_mutex_unlock(&s->mutex);
    return rc ? dr_wrap(err, "catalog") : DR_OK;
}

bool store_in_use(struct store *s, const char *backup_id)
{
    char path[PATH_BYTES + 16];
    const char *folder = lies_in(s, "backups", backup_id) ? "backups" : "trash";
    (void)snprintf(path, sizeof path, "%s/%s/manifest.json", folder, backup_id);
    return lock_is_shared(s->dirfd, path);
}

/* ---- where a folder belongs ---- */

static enum dr_rc move(struct store *s, const char *from, const char *to, const char *id,
                       struct dr_err *err)
{
    int source = -1, target = -1;
    enum dr_rc rc = disk_open_dir(s->dirfd, from, &source, err);
    if (!rc)
        rc = disk_open_dir(s->dirfd, to, &target, err);
    /* rename(2) replaces an empty folder at most. */
    if (!rc && renameat(source, id, target, id) != 0)
        rc = dr_fail_errno(err, errno == ENOTEMPTY || errno == EEXIST ? DR_E_EXISTS : DR_E_IO,
                           "move %s/%s to %s/", from, id, to);
    if (!rc && !(rc = disk_sync(target, to, err)))
        rc = disk_sync(source, from, err);
    lock_drop(&source);
    lock_drop(&target);
    return rc;
}

/* It lies where the catalog says, or nowhere. */
static enum dr_rc put_right(struct act *a, struct dr_err *err)
{
    const char *right = a->entry.tombstoned_at_ms ? "trash" : "backups";
    if (!a->folder || strcmp(a->folder, right) == 0)
        return DR_OK;
    struct dr_err none = {0};
    if (a->entry.tombstoned_at_ms && lock_manifest(a, &none) == DR_E_LOCKED) {
        if (err && !err->rc) /* who found it there goes on finding it there */
            *err = none;
        return none.rc;
    }
    enum dr_rc rc = move(a->store, a->folder, right, a->id, err);
    lock_drop(&a->manifest);
    lock_drop(&a->dirfd);
    if (!rc)
        a->folder = right;
    return rc;
}

struct strays { /* folders that are not where they belong; names first, since moving changes lists
                 */
    struct store *store;
    bool in_trash;
    char (*ids)[NAMES_ID_SIZE];
    size_t count;
};

static enum dr_rc note_stray(void *arg, const char *name, struct dr_err *err)
{
    struct strays *x = arg;
    (void)err;
    const struct store_item *it = names_is_backup_id(name) ? store_find(x->store, name) : NULL;
    if (!it && x->in_trash)
        dr_log(DR_LOG_WARN, "store.trash_unknown", "name", name, NULL);
    if (!it || it->purged || (it->entry.tombstoned_at_ms != 0) == x->in_trash)
        return DR_OK;
    x->ids = dr_xrealloc(x->ids, (x->count + 1) * sizeof *x->ids);
    (void)snprintf(x->ids[x->count++], NAMES_ID_SIZE, "%s", name);
    return DR_OK;
}

static void settle_one(struct store *s, const char *id)
{
    struct act a = {.store = s, .id = id, .lock = -1, .dirfd = -1, .manifest = -1};
    struct dr_err why = {0};
    enum dr_rc rc = look(&a, &why);
    if (!rc)
        rc = put_right(&a, &why);
    end(&a);
    if (rc)
        dr_log_err(DR_LOG_WARN, "store.misplaced", &why, "backup_id", id, NULL);
    else
        dr_log(DR_LOG_INFO, "store.put_right", "backup_id", id, "folder", a.folder ? a.folder : "",
               NULL);
}

void store_settle_folders(struct store *s)
{
    struct strays x = {.store = s};
    struct dr_err why = {0};
    (void)pthread_mutex_lock(&s->mutex);
    for (int i = 0; i < 2; i++) {
        const char *folder = i ? "trash" : "backups";
        x.in_trash = i > 0;
        if (disk_exists(s->dirfd, folder) && disk_each(s->dirfd, folder, note_stray, &x, &why))
            break;
    }
    (void)pthread_mutex_unlock(&s->mutex);
    for (size_t i = 0; i < x.count; i++)
        settle_one(s, x.ids[i]);
    free(x.ids);
    if (why.rc)
        dr_log_err(DR_LOG_WARN, "store.misplaced", &why, NULL);
}

enum dr_rc store_settle(struct store *s, struct dr_err *err)
{
    int lock = -1;
    enum dr_rc rc = store_lock_catalog(s, &lock, err);
    (void)pthread_mutex_lock(&s->mutex);
    if (!rc)
        rc = store_refresh(s, err);
    (void)pthread_mutex_unlock(&s->mutex);
    if (!rc)
        store_settle_folders(s);
    lock_drop(&lock);
    return rc;
}

struct unknown {
    struct store *store;
    unsigned count;
};

/* One that is purged and lies there again was laid back from a copy. */
static enum dr_rc count_unknown(void *arg, const char *name, struct dr_err *err)
{
    struct unknown *u = arg;
    const struct store_item *it = names_is_backup_id(name) ? store_find(u->store, name) : NULL;
    (void)err;
    u->count += !it || it->purged;
    return DR_OK;
}

enum dr_rc store_count_unknown_trash(struct store *s, unsigned *count, struct dr_err *err)
{
    struct unknown u = {.store = s};
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    if (!rc && disk_exists(s->dirfd, "trash"))
        rc = disk_each(s->dirfd, "trash", count_unknown, &u, err);
    (void)pthread_mutex_unlock(&s->mutex);
    *count = u.count;
    return rc;
}

/* ---- what keeps a backup ---- */

static bool needs(const struct store_item *it, const char *id)
{
    for (unsigned i = 0; i < it->base_count; i++)
        if (strcmp(it->bases[i], id) == 0)
            return true;
    return false;
}

/* unless_given_up: a backup that is given up itself does not count. */
static enum dr_rc not_needed(const struct act *a, bool unless_given_up, struct dr_err *err)
{
    struct store *s = a->store;
    char text[256];
    enum dr_rc rc = DR_OK;
    (void)pthread_mutex_lock(&s->mutex);
    store_load_manifests(s);
    for (size_t i = 0; !rc && i < s->count; i++) {
        const struct store_item *it = &s->items[i];
        const struct store_entry *e = &it->entry;
        if (it->purged || (unless_given_up && e->tombstoned_at_ms) ||
            strcmp(e->backup_id, a->id) == 0)
            continue;
        if (needs(it, a->id)) {
            (void)snprintf(text, sizeof text, "backup %s is built upon %s", e->backup_id, a->id);
            rc = kept(err, DR_E_REFUSED, "base", text);
        } else if (!it->loaded && (strcmp(e->bad, dr_rc_name(DR_E_IO)) == 0 ||
                                   strcmp(e->bad, dr_rc_name(DR_E_NOMEM)) == 0)) {
            rc = dr_fail(err, DR_E_IO, "%s cannot be read at the moment: it may need %s",
                         e->backup_id, a->id);
        }
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}

static uint64_t newest_about(struct store *s)
{
    (void)pthread_mutex_lock(&s->mutex);
    uint64_t seq = s->about;
    (void)pthread_mutex_unlock(&s->mutex);
    return seq;
}

static enum dr_rc unmoved(const struct act *a, const struct trash_grounds *why, struct dr_err *err)
{
    if (!why->seq || *why->seq == newest_about(a->store))
        return DR_OK;
    return kept(err, DR_E_LOCKED, "moved", "the catalog was written meanwhile");
}

static enum dr_rc unpinned(const struct act *a, struct dr_err *err)
{
    char text[128];
    (void)snprintf(text, sizeof text, "backup %s is pinned", a->id);
    return a->entry.pinned ? kept(err, DR_E_REFUSED, "pinned", text) : DR_OK;
}

static enum dr_rc still(const struct act *a, const struct trash_grounds *why, struct dr_err *err)
{
    return why->still ? why->still(why->arg, a->id, err) : DR_OK;
}

static enum dr_rc record(const struct act *a, const struct trash_grounds *why, const char *type,
                         const char *data, struct dr_err *err)
{
    enum dr_rc rc = store_append_locked(a->store, a->store->keys, type, a->id, data, err);
    if (!rc && why && why->seq)
        *why->seq = newest_about(a->store);
    return rc;
}

/* ---- the acts ---- */

static void grounds_json(const struct trash_grounds *why, struct dr_buf *out)
{
    dr_buf_str(out, "{");
    if (why->plan)
        dr_buf_printf(out, "\"plan\":\"%s\"", why->plan);
    if (why->actor) {
        dr_buf_str(out, "\"actor\":");
        dr_buf_json(out, why->actor, strlen(why->actor));
        dr_buf_str(out, ",\"reason\":");
        dr_buf_json(out, why->reason, strlen(why->reason));
    }
    dr_buf_str(out, "}");
}

static enum dr_rc give_up(struct act *a, const struct trash_grounds *why, struct dr_err *err)
{
    struct dr_buf data;
    enum dr_rc rc;
    if ((rc = unpinned(a, err)) || (rc = unmoved(a, why, err)) || (rc = put_right(a, err)))
        return rc;
    if (!a->folder && !why->actor)
        return dr_fail(err, DR_E_INTEGRITY, "backup %s is not in backups/", a->id);
    if ((rc = not_needed(a, true, err)) || (rc = lock_if_there(a, why->actor != NULL, err)) ||
        (rc = still(a, why, err)))
        return rc;
    dr_buf_init(&data, DATA_MAX);
    grounds_json(why, &data);
    rc = record(a, why, "tombstoned", (const char *)data.data, err);
    dr_buf_fini(&data);
    if (!rc && !(rc = fault_point("trash.tombstone.record", err)) && a->folder)
        rc = move(a->store, "backups", "trash", a->id, err);
    return rc ? rc : fault_point("trash.tombstone.rename", err);
}

enum dr_rc store_tombstone(struct store *s, const char *backup_id, const struct trash_grounds *why,
                           bool *done, struct dr_err *err)
{
    struct act a;
    *done = false;
    enum dr_rc rc = begin(s, backup_id, &a, err);
    if (!rc && a.entry.tombstoned_at_ms)
        rc = put_right(&a, err);
    else if (!rc && !(rc = give_up(&a, why, err)))
        *done = true;
    end(&a);
    return rc;
}

struct removal {
    int dirfd;
    uint64_t freed;
};

static enum dr_rc remove_data(void *arg, const char *name, struct dr_err *err)
{
    struct removal *r = arg;
    struct stat st;
    if (strcmp(name, "manifest.json") == 0 || strcmp(name, "manifest.sig") == 0)
        return DR_OK;
    bool known = fstatat(r->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
    enum dr_rc rc = disk_remove_tree(r->dirfd, name, err);
    if (rc)
        return rc;
    r->freed += known ? (uint64_t)st.st_size : 0;
    return fault_point("trash.purge.object", err);
}

/* Data, then manifest, then the folder: as long as a manifest stands there it can be told what is
 * missing. */
static enum dr_rc remove_all(struct act *a, uint64_t *freed, struct dr_err *err)
{
    struct removal r = {.dirfd = a->dirfd};
    int trash = -1;
    enum dr_rc rc = disk_each(a->dirfd, ".", remove_data, &r, err);
    if (!rc)
        rc = disk_sync(a->dirfd, a->id, err);
    if (!rc)
        rc = fault_point("trash.purge.data", err);
    if (!rc)
        rc = disk_open_dir(a->store->dirfd, "trash", &trash, err);
    if (!rc)
        rc = disk_remove_tree(trash, a->id, err);
    if (!rc)
        rc = disk_sync(trash, "trash", err);
    lock_drop(&trash);
    *freed = r.freed;
    return rc ? rc : fault_point("trash.purge.manifest", err);
}

static enum dr_rc purge(struct act *a, const struct trash_grounds *why, uint64_t *freed,
                        struct dr_err *err)
{
    char data[64];
    enum dr_rc rc;
    /* Without a manifest: a purge that was cut off. */
    if ((rc = unpinned(a, err)) || (rc = unmoved(a, why, err)) || (rc = put_right(a, err)) ||
        (rc = not_needed(a, false, err)) || (rc = lock_if_there(a, true, err)))
        return rc;
    if ((rc = still(a, why, err)) || (a->folder && (rc = remove_all(a, freed, err))))
        return rc;
    (void)snprintf(data, sizeof data, "{\"bytes\":%llu}", (unsigned long long)*freed);
    rc = record(a, why, "purged", data, err);
    return rc ? rc : fault_point("trash.purge.record", err);
}

enum dr_rc store_purge(struct store *s, const char *backup_id, const struct trash_grounds *why,
                       int64_t until_ms, uint64_t *freed, bool *done, struct dr_err *err)
{
    struct act a;
    struct dr_err none = {0};
    char text[128];
    *done = false;
    *freed = 0;
    enum dr_rc rc = begin(s, backup_id, &a, &none);
    (void)snprintf(text, sizeof text, "backup %s is not given up, or not long enough", backup_id);
    if (a.purged) {
        rc = DR_OK;
    } else if (rc) {
        if (err && !err->rc)
            *err = none;
    } else if (!a.entry.tombstoned_at_ms || a.entry.tombstoned_at_ms > until_ms) {
        rc = kept(err, DR_E_REFUSED, "grace", text);
    } else if (!(rc = purge(&a, why, freed, err))) {
        *done = true;
    }
    end(&a);
    return rc;
}

/* Everything the manifest names is there, by name and size. `verify` reads it. */
static enum dr_rc whole(struct act *a, struct dr_err *err)
{
    struct manifest *m = NULL;
    struct stat st;
    unsigned char sha[32];
    char text[256];
    enum dr_rc rc;
    (void)snprintf(text, sizeof text, "nothing of backup %s is left in trash/", a->id);
    if (!a->folder)
        return kept(err, DR_E_INTEGRITY, "purge-begun", text);
    if ((rc = handle_read_manifest(a->store, a->folder, a->id, &m, sha, err)) ||
        (rc = open_folder(a, err)))
        goto out;
    if (memcmp(sha, a->entry.manifest_sha256, sizeof sha) != 0) {
        (void)snprintf(text, sizeof text, "%s: its manifest is not the one the catalog added",
                       a->id);
        rc = kept(err, DR_E_INTEGRITY, "catalog-manifest", text);
    }
    for (unsigned i = 0; !rc && i < m->object_count; i++) {
        const struct manifest_object *o = &m->objects[i];
        if (fstatat(a->dirfd, o->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
            (uint64_t)st.st_size == o->stored_bytes)
            continue;
        (void)snprintf(text, sizeof text,
                       "%s cannot be brought back: %s is gone, its purge has begun", a->id,
                       o->name);
        rc = kept(err, DR_E_INTEGRITY, "purge-begun", text);
    }
out:
    manifest_free(m);
    lock_drop(&a->dirfd);
    return rc;
}

static enum dr_rc bases_live(const struct act *a, struct dr_err *err)
{
    struct store *s = a->store;
    char text[256];
    enum dr_rc rc = DR_OK;
    (void)pthread_mutex_lock(&s->mutex);
    store_load_manifests(s);
    const struct store_item *it = store_find(s, a->id);
    for (unsigned i = 0; !rc && it && i < it->base_count; i++) {
        const struct store_item *base = store_find(s, it->bases[i]);
        bool gone = !base || base->purged;
        if (!gone && !base->entry.tombstoned_at_ms)
            continue;
        (void)snprintf(text, sizeof text, "%s is built upon %s, which is %s", a->id, it->bases[i],
                       gone ? "gone" : "given up itself: bring that one back first");
        rc = kept(err, gone ? DR_E_INTEGRITY : DR_E_REFUSED, "base", text);
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}

static enum dr_rc bring_back(struct act *a, const char *actor, struct dr_err *err)
{
    struct dr_buf data;
    enum dr_rc rc;
    if ((rc = whole(a, err)) || (rc = bases_live(a, err)))
        return rc;
    dr_buf_init(&data, DATA_MAX);
    dr_buf_str(&data, "{\"actor\":");
    dr_buf_json(&data, actor, strlen(actor));
    dr_buf_str(&data, "}");
    rc = data.failed ? dr_fail(err, DR_E_INVALID, "the actor's name is too long")
                     : record(a, NULL, "restored", (const char *)data.data, err);
    dr_buf_fini(&data);
    if (!rc && !(rc = fault_point("trash.undelete.record", err)) && strcmp(a->folder, "trash") == 0)
        rc = move(a->store, "trash", "backups", a->id, err);
    return rc ? rc : fault_point("trash.undelete.rename", err);
}

enum dr_rc store_undelete(struct store *s, const char *backup_id, const char *actor, bool *done,
                          struct dr_err *err)
{
    struct act a;
    *done = false;
    enum dr_rc rc = begin(s, backup_id, &a, err);
    if (!rc && !a.entry.tombstoned_at_ms)
        rc = put_right(&a, err);
    else if (!rc && !(rc = bring_back(&a, actor, err)))
        *done = true;
    end(&a);
    return rc;
}
