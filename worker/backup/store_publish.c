/* Changes of the catalog, all under its lock: a backup appears by one rename(2) and is recorded
 * then. Killed between the two, the folder is adopted at the next start, or by the next delivery of
 * its job; killed before, nothing was published. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/sha.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/str.h"
#include "worker/backup/disk.h"
#include "worker/backup/keyring.h"
#include "worker/backup/lock.h"
#include "worker/backup/staging_internal.h"
#include "worker/backup/store_internal.h"
#include "worker/core/fault.h"

enum dr_rc store_append_locked(struct store *s, const struct keyring *keys, const char *type,
                               const char *backup_id, const char *data_json, struct dr_err *err)
{
    const struct catalog_log log = catalog_log(s->dirfd);
    struct catalog_head head;
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    head = s->head;
    (void)pthread_mutex_unlock(&s->mutex);
    if (!rc)
        rc = catalog_cut(&log, &head, err);
    if (!rc)
        rc = catalog_append(&log, keys, &head, type, backup_id, dr_wall_ms(), data_json, err);
    if (rc)
        return rc;
    (void)pthread_mutex_lock(&s->mutex);
    rc = store_refresh(s, err);
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}

enum dr_rc store_append(struct store *s, const char *type, const char *backup_id,
                        const char *data_json, struct dr_err *err)
{
    int lock = -1;
    enum dr_rc rc = store_lock_catalog(s, &lock, err);
    if (!rc)
        rc = store_append_locked(s, s->keys, type, backup_id, data_json, err);
    lock_drop(&lock);
    return rc;
}

static enum dr_rc record_added(struct store *s, const char *backup_id,
                               const unsigned char sha256[32], const struct store_proof *proof,
                               struct dr_err *err)
{
    char data[192], sha[65], at[DR_TIME_TEXT], more[48] = "";
    dr_hex(sha256, 32, sha);
    dr_format_time(proof->at_ms, at);
    if (proof->unreadable)
        (void)snprintf(more, sizeof more, ",\"unreadable\":%llu",
                       (unsigned long long)proof->unreadable);
    (void)snprintf(data, sizeof data, "{\"manifest_sha256\":\"%s\",\"verified_at\":\"%s\"%s}", sha,
                   at, more);
    return store_append_locked(s, s->keys, "added", backup_id, data, err);
}

/* Another process may have recorded it since we last looked. */
static enum dr_rc is_recorded(struct store *s, const char *backup_id, bool *found,
                              struct dr_err *err)
{
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    const struct store_item *it = rc ? NULL : store_find(s, backup_id);
    *found = it && !it->purged;
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}

/* The folder of a job: looked for by kind and letters, believed by its manifest. */
struct twin {
    struct store *store;
    const char *kind, *job_id;
    char job[NAMES_JOB_SIZE];
    struct manifest *manifest; /* found */
    unsigned char sha256[32];
};

static enum dr_rc look_for_twin(void *arg, const char *name, struct dr_err *err)
{
    struct twin *t = arg;
    struct manifest *m = NULL;
    struct dr_err why = {0};
    unsigned char sha[32];
    (void)err;
    if (t->manifest || !names_is_of_job(name, t->kind, t->job))
        return DR_OK;
    if (handle_read_manifest(t->store, "backups", name, &m, sha, &why)) {
        dr_log_err(DR_LOG_WARN, "store.twin_unreadable", &why, "backup_id", name, NULL);
    } else if (strcmp(m->job_id, t->job_id) == 0) {
        t->manifest = m;
        memcpy(t->sha256, sha, sizeof sha);
        return DR_OK;
    }
    manifest_free(m);
    return DR_OK;
}

static enum dr_rc find_twin(struct store *s, const char *kind, const char *job_id, struct twin *t,
                            struct dr_err *err)
{
    memset(t, 0, sizeof *t);
    t->store = s;
    t->kind = kind;
    t->job_id = job_id;
    names_job(job_id, t->job);
    return disk_each(s->dirfd, "backups", look_for_twin, t, err);
}

/* Records a published folder that its publisher could not record any more. Its manifest was written
 * after the read-back: it was proven when it ended. What it lacks is known when it is proven again.
 */
static enum dr_rc adopt(struct store *s, const struct manifest *m, const unsigned char sha256[32],
                        struct dr_err *err)
{
    char lock[96];
    bool found;
    (void)snprintf(lock, sizeof lock, "backups/%s/lock", m->backup_id);
    (void)unlinkat(s->dirfd, lock, 0);
    enum dr_rc rc = is_recorded(s, m->backup_id, &found, err);
    if (rc || found)
        return rc;
    dr_log(DR_LOG_INFO, "store.adopt", "backup_id", m->backup_id, NULL);
    return record_added(s, m->backup_id, sha256, &(struct store_proof){.at_ms = m->t_end_ms}, err);
}

enum dr_rc store_find_job(struct store *s, const char *kind, const char *job_id,
                          struct manifest **out, struct dr_err *err)
{
    struct twin t;
    int lock = -1;
    *out = NULL;
    enum dr_rc rc = store_lock_catalog(s, &lock, err);
    if (!rc && !(rc = find_twin(s, kind, job_id, &t, err)) && t.manifest) {
        if (!(rc = adopt(s, t.manifest, t.sha256, err)))
            *out = t.manifest;
        else
            manifest_free(t.manifest);
    }
    lock_drop(&lock);
    return rc;
}

struct orphans { /* folders without a record; names first, since adopting changes the list */
    char (*ids)[NAMES_ID_SIZE];
    size_t count;
};

static enum dr_rc note_orphan(void *arg, const char *id, struct dr_err *err)
{
    struct orphans *o = arg;
    void *more = realloc(o->ids, (o->count + 1) * sizeof *o->ids);
    if (!more)
        return dr_fail(err, DR_E_NOMEM, "store: no memory for a list of folders");
    o->ids = more;
    (void)snprintf(o->ids[o->count++], NAMES_ID_SIZE, "%s", id);
    return DR_OK;
}

static bool job_is_recorded(struct store *s, const struct manifest *m)
{
    bool found = false;
    (void)pthread_mutex_lock(&s->mutex);
    store_load_manifests(s);
    for (size_t i = 0; !found && i < s->count; i++)
        found = !s->items[i].purged && strcmp(s->items[i].entry.job_id, m->job_id) == 0 &&
                strcmp(s->items[i].entry.kind, m->kind) == 0;
    (void)pthread_mutex_unlock(&s->mutex);
    return found;
}

static enum dr_rc adopt_orphan(struct store *s, const char *id, struct dr_err *err)
{
    struct manifest *m = NULL;
    struct dr_err why = {0};
    unsigned char sha[32];
    enum dr_rc rc = DR_OK;
    if (handle_read_manifest(s, "backups", id, &m, sha, &why))
        dr_log_err(DR_LOG_WARN, "store.unrecorded", &why, "backup_id", id, NULL);
    else if (job_is_recorded(s, m))
        dr_log(DR_LOG_WARN, "store.twin", "backup_id", id, "job", m->job_id, NULL);
    else
        rc = adopt(s, m, sha, err);
    manifest_free(m);
    return rc;
}

enum dr_rc store_adopt_all(struct store *s, struct dr_err *err)
{
    struct orphans o = {0};
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_each_unrecorded(s, note_orphan, &o, err);
    (void)pthread_mutex_unlock(&s->mutex);
    for (size_t i = 0; !rc && i < o.count; i++)
        rc = adopt_orphan(s, o.ids[i], err);
    free(o.ids);
    return rc;
}

/* seq and prev_sha256: the newest of the series that can still be read, in trash too. */
static enum dr_rc continue_series(struct store *s, struct manifest *m, struct dr_err *err)
{
    m->seq = 1;
    memset(m->prev_sha256, 0, sizeof m->prev_sha256);
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    if (!rc)
        store_load_manifests(s);
    for (size_t i = 0; !rc && i < s->count; i++) {
        const struct store_item *it = &s->items[i];
        if (it->purged || !it->loaded || strcmp(it->entry.series, m->series) != 0 ||
            it->entry.seq < m->seq)
            continue;
        m->seq = it->entry.seq + 1;
        memcpy(m->prev_sha256, it->entry.manifest_sha256, 32);
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}

static enum dr_rc write_manifest(struct store *s, struct staging *g, const struct manifest *m,
                                 unsigned char sha256[32], struct dr_err *err)
{
    unsigned char sig[MANIFEST_SIG_LEN];
    struct dr_buf json;
    dr_buf_init(&json, MANIFEST_BYTES_MAX);
    (void)unlinkat(g->dirfd, "manifest.json", 0); /* of a publication that failed */
    (void)unlinkat(g->dirfd, "manifest.sig", 0);
    enum dr_rc rc = manifest_write(m, s->keys, &json, sig, err);
    if (!rc)
        rc = disk_create(g->dirfd, "manifest.sig", sig, sizeof sig, err);
    if (!rc)
        rc = disk_create(g->dirfd, "manifest.json", json.data, json.len, err);
    if (!rc)
        rc = disk_sync(g->dirfd, g->name, err);
    if (!rc)
        (void)SHA256(json.data, json.len, sha256);
    dr_buf_fini(&json);
    return rc ? rc : fault_point("publish.manifest", err);
}

static enum dr_rc appear(struct store *s, struct staging *g, const char *backup_id,
                         struct dr_err *err)
{
    int backups = -1;
    enum dr_rc rc = disk_open_dir(s->dirfd, "backups", &backups, err);
    if (rc)
        return rc;
    /* rename(2) replaces an empty folder at most, never a backup. */
    if (renameat(g->rootfd, g->name, backups, backup_id) != 0) {
        rc = dr_fail_errno(err, errno == ENOTEMPTY || errno == EEXIST ? DR_E_EXISTS : DR_E_IO,
                           "publish backups/%s", backup_id);
    } else {
        g->published = true;
        (void)unlinkat(g->dirfd, "lock", 0); /* nobody looks for it here; adopting does it too */
        if (!(rc = disk_sync(backups, "backups", err)))
            rc = disk_sync(g->rootfd, "staging", err);
    }
    lock_drop(&backups);
    return rc ? rc : fault_point("publish.rename", err);
}

static enum dr_rc publish(struct store *s, struct staging *g, struct manifest *m,
                          const struct store_proof *proof, struct dr_err *err)
{
    unsigned char sha[32];
    enum dr_rc rc = continue_series(s, m, err);
    if (!rc)
        rc = write_manifest(s, g, m, sha, err);
    if (!rc)
        rc = appear(s, g, m->backup_id, err);
    return rc ? rc : record_added(s, m->backup_id, sha, proof, err);
}

enum dr_rc store_publish(struct store *s, struct staging *g, struct manifest **m,
                         const struct store_proof *proof, bool *adopted, struct dr_err *err)
{
    struct twin t = {0};
    int lock = -1;
    enum dr_rc rc = store_lock_catalog(s, &lock, err);
    *adopted = false;
    if (!rc)
        rc = find_twin(s, (*m)->kind, (*m)->job_id, &t, err);
    if (!rc && t.manifest) {
        if (!(rc = adopt(s, t.manifest, t.sha256, err))) {
            manifest_free(*m);
            *m = t.manifest;
            *adopted = true;
        } else {
            manifest_free(t.manifest);
        }
    } else if (!rc) {
        rc = publish(s, g, *m, proof, err);
    }
    lock_drop(&lock);
    return rc;
}
