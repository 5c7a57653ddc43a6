/* What the store knows of its backups: the catalog folded into a compact list, and the manifests
 * it names. A manifest is read once while it is believed; damage is looked at again each time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/disk.h"
#include "worker/backup/keyring.h"
#include "worker/backup/lock.h"
#include "worker/backup/store_internal.h"
#include "worker/backup/strict.h"

/* Open addressing over the ids: the log is folded once, and never forgets an id. */
static size_t hash_of(const char *id)
{
    uint64_t h = 14695981039346656037u;
    for (; *id; id++)
        h = (h ^ (unsigned char)*id) * 1099511628211u;
    return (size_t)(h ^ h >> 32);
}

static size_t *slot_of(struct store *s, const char *id)
{
    size_t at = hash_of(id) & (s->slot_count - 1);
    while (s->slots[at] && strcmp(s->items[s->slots[at] - 1].entry.backup_id, id) != 0)
        at = (at + 1) & (s->slot_count - 1);
    return &s->slots[at];
}

struct store_item *store_find(struct store *s, const char *backup_id)
{
    size_t at = s->slot_count ? *slot_of(s, backup_id) : 0;
    return at ? &s->items[at - 1] : NULL;
}

static void index_items(struct store *s)
{
    free(s->slots);
    s->slot_count = s->cap * 2;
    s->slots = dr_xarray(s->slot_count, sizeof *s->slots);
    for (size_t i = 0; i < s->count; i++)
        *slot_of(s, s->items[i].entry.backup_id) = i + 1;
}

/* What the id alone tells, for a backup whose manifest is not believed. */
static void entry_from_id(struct store_entry *e, const char *id)
{
    char t[DR_TIME_TEXT];
    (void)snprintf(e->backup_id, sizeof e->backup_id, "%s", id);
    (void)snprintf(e->kind, sizeof e->kind, "%.*s", (int)strcspn(id + 17, "-"), id + 17);
    (void)snprintf(t, sizeof t, "%.4s-%.2s-%.2sT%.2s:%.2s:%.2sZ", id, id + 4, id + 6, id + 9,
                   id + 11, id + 13);
    if (dr_parse_time(t, &e->t_start_ms))
        e->t_point_ms = e->t_end_ms = e->t_start_ms;
}

static struct store_item *add_item(struct store *s, const char *backup_id)
{
    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->items = dr_xrealloc(s->items, s->cap * sizeof *s->items);
        index_items(s);
    }
    struct store_item *it = &s->items[s->count++];
    memset(it, 0, sizeof *it);
    entry_from_id(&it->entry, backup_id);
    *slot_of(s, backup_id) = s->count;
    it->entry.recorded = true;
    return it;
}

static void forget_one(struct store_item *it)
{
    free(it->pin);
    free(it->bases);
    it->pin = NULL;
    it->bases = NULL;
    it->base_count = 0;
}

void store_forget(struct store *s)
{
    for (size_t i = 0; i < s->count; i++)
        forget_one(&s->items[i]);
    s->count = 0;
    s->policy[0] = 0;
    s->about = 0;
}

bool store_is_pinned(const struct store_item *it, int64_t now_ms)
{
    return it->pin && (!it->pin->until_ms || now_ms < it->pin->until_ms);
}

/* What cannot be read of a pin does not make it less of one. */
static void fold_pin(struct store_item *it, const struct catalog_record *r)
{
    json_t *data = strict_parse(r->data_json, strlen(r->data_json), NULL);
    free(it->pin);
    it->pin = dr_xalloc(sizeof *it->pin);
    it->pin->at_ms = r->at_ms;
    (void)strict_copy(data, "actor", it->pin->actor, sizeof it->pin->actor);
    (void)strict_copy(data, "reason", it->pin->reason, sizeof it->pin->reason);
    if (!strict_time(data, "until", &it->pin->until_ms))
        it->pin->until_ms = 0;
    json_decref(data);
}

static void fold_tombstone(struct store_item *it, const struct catalog_record *r)
{
    json_t *data = strict_parse(r->data_json, strlen(r->data_json), NULL);
    it->entry.tombstoned_at_ms = r->at_ms;
    it->entry.by_hand = json_object_get(data, "actor") != NULL;
    json_decref(data);
}

static void fold_policy(struct store *s, const struct catalog_record *r)
{
    json_t *data = strict_parse(r->data_json, strlen(r->data_json), NULL);
    (void)strict_copy(data, "policy", s->policy, sizeof s->policy);
    json_decref(data);
}

static void fold_verified(struct store_item *it, const struct catalog_record *r)
{
    it->entry.verified_at_ms = r->at_ms;
    it->entry.verified_ok = it->entry.deep = r->has_ok ? r->ok : true;
    it->entry.finding[0] = 0;
    if (!it->entry.verified_ok) {
        json_t *data = strict_parse(r->data_json, strlen(r->data_json), NULL);
        (void)strict_copy(data, "class", it->entry.finding, sizeof it->entry.finding);
        json_decref(data);
    }
    if (r->has_unreadable)
        it->entry.unreadable = r->unreadable > 0;
}

static void fold_added(struct store *s, struct store_item *it, const struct catalog_record *r)
{
    if (!it)
        it = add_item(s, r->backup_id);
    it->loaded = it->purged = false;
    memcpy(it->entry.manifest_sha256, r->manifest_sha256, 32);
    it->entry.verified_at_ms = r->verified_at_ms;
    it->entry.verified_ok = r->verified_at_ms > 0;
    it->entry.deep = it->entry.differs = false;
    it->entry.finding[0] = 0;
    it->entry.unreadable = r->has_unreadable && r->unreadable > 0;
    it->entry.tombstoned_at_ms = 0;
}

/* A drill that failed proves nothing, but it is the last word. One that found no fault with the
 * content (no room, no right) leaves an earlier finding as it is. */
static void fold_drilled(struct store_item *it, const struct catalog_record *r)
{
    it->entry.drill_tried_at_ms = r->at_ms;
    it->entry.drill_ok = !r->has_ok || r->ok;
    if (it->entry.drill_ok || r->differs)
        it->entry.differs = !it->entry.drill_ok;
    if (it->entry.drill_ok)
        it->entry.drilled_at_ms = r->at_ms;
}

static enum dr_rc fold(void *arg, const struct catalog_record *r, struct dr_err *err)
{
    struct store *s = arg;
    struct store_item *it = r->backup_id[0] ? store_find(s, r->backup_id) : NULL;
    (void)err;
    if (r->backup_id[0] || strcmp(r->type, "policy") == 0)
        s->about = r->seq;
    if (strcmp(r->type, "added") == 0 && r->backup_id[0])
        fold_added(s, it, r);
    else if (strcmp(r->type, "policy") == 0)
        fold_policy(s, r);
    else if (!it)
        return DR_OK; /* of another kind, or a later version's */
    else if (strcmp(r->type, "verified") == 0)
        fold_verified(it, r);
    else if (strcmp(r->type, "drilled") == 0)
        fold_drilled(it, r);
    else if (strcmp(r->type, "offsite") == 0)
        it->entry.offsite_at_ms = r->at_ms;
    else if (strcmp(r->type, "tombstoned") == 0)
        fold_tombstone(it, r);
    else if (strcmp(r->type, "restored") == 0)
        it->entry.tombstoned_at_ms = 0;
    else if (strcmp(r->type, "purged") == 0)
        it->purged = true;
    else if (strcmp(r->type, "pinned") == 0)
        fold_pin(it, r);
    else if (strcmp(r->type, "unpinned") == 0) {
        free(it->pin);
        it->pin = NULL;
    } else if (strcmp(r->type, "acknowledged") == 0)
        it->entry.acknowledged = true;
    return DR_OK;
}

static enum dr_rc went_back(struct store *s, const struct catalog_head *now, struct dr_err *err)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "catalog: the head went back from record %llu to %llu",
                  (unsigned long long)s->head.seq, (unsigned long long)now->seq);
    return dr_err_reason(err, "head-rollback");
}

enum dr_rc store_refresh(struct store *s, struct dr_err *err)
{
    struct catalog_head now;
    const struct catalog_log log = catalog_log(s->dirfd);
    enum dr_rc rc = catalog_read_head(&log, s->keys, &now, err);
    if (rc)
        return rc;
    if (now.seq < s->head.seq ||
        (now.seq == s->head.seq && memcmp(now.sha256, s->head.sha256, 32) != 0))
        return went_back(s, &now, err);
    if (s->head.seq == 0 && s->count > 0) { /* half folded before */
        store_forget(s);
        index_items(s);
    }
    rc = catalog_replay(&log, &now, s->head.seq + 1, s->head.sha256, fold, s, NULL, err);
    if (rc)
        memset(&s->head, 0, sizeof s->head);
    else
        s->head = now;
    return rc;
}

static void source_from_manifest(struct store_entry *e, const struct manifest *m)
{
    const char *server = "", *version = "";
    uint64_t number = 0;
    for (unsigned i = 0; i < m->server_count; i++)
        if (strcmp(m->server[i].name, "system_identifier") == 0)
            server = m->server[i].value;
        else if (strcmp(m->server[i].name, "version_num") == 0)
            version = m->server[i].value;
    e->source[0] = 0;
    if (server[0] && dr_parse_u64(version, 10000, 9999999, &number))
        (void)snprintf(e->source, sizeof e->source, "%.32s/%u", server, (unsigned)(number / 10000));
}

static void entry_from_manifest(struct store_entry *e, const struct manifest *m)
{
    memcpy(e->job_id, m->job_id, sizeof e->job_id);
    memcpy(e->kind, m->kind, sizeof e->kind);
    memcpy(e->class, m->class, sizeof e->class);
    memcpy(e->series, m->series, sizeof e->series);
    e->seq = m->seq;
    e->t_start_ms = m->t_start_ms;
    e->t_point_ms = m->t_point_ms;
    e->t_end_ms = m->t_end_ms;
    source_from_manifest(e, m);
    e->plain_bytes = e->stored_bytes = 0;
    for (unsigned i = 0; i < m->object_count; i++) {
        e->plain_bytes += m->objects[i].plain_bytes;
        e->stored_bytes += m->objects[i].stored_bytes;
    }
}

static void keep_bases(struct store_item *it, const struct manifest *m)
{
    free(it->bases);
    it->bases = NULL;
    it->base_count = 0;
    for (unsigned i = 0; i < m->container_count; i++) {
        const char *id = m->containers[i].backup_id;
        bool known = strcmp(id, m->backup_id) == 0;
        for (unsigned k = 0; !known && k < it->base_count; k++)
            known = strcmp(it->bases[k], id) == 0;
        if (known)
            continue;
        it->bases = dr_xrealloc(it->bases, (it->base_count + 1) * sizeof *it->bases);
        (void)snprintf(it->bases[it->base_count++], NAMES_ID_SIZE, "%s", id);
    }
}

/* A folder may still lie where it was before the last record: its writer was killed between record
 * and rename, and who only reads does not move it. */
static enum dr_rc read_either(struct store *s, const struct store_item *it, struct manifest **m,
                              unsigned char sha[32], struct dr_err *err)
{
    const char *here = it->entry.tombstoned_at_ms ? "trash" : "backups";
    const char *there = it->entry.tombstoned_at_ms ? "backups" : "trash";
    struct dr_err why = {0};
    enum dr_rc rc = handle_read_manifest(s, here, it->entry.backup_id, m, sha, err);
    if (rc != DR_E_NOT_FOUND)
        return rc;
    if (handle_read_manifest(s, there, it->entry.backup_id, m, sha, &why) == DR_E_NOT_FOUND)
        return rc;
    *err = why;
    return why.rc;
}

static void load(struct store *s, struct store_item *it)
{
    struct manifest *m = NULL;
    struct dr_err why = {0};
    unsigned char sha[32];
    enum dr_rc rc = read_either(s, it, &m, sha, &why);
    it->entry.bad[0] = 0;
    if (it->entry.tombstoned_at_ms &&
        (rc == DR_E_NOT_FOUND || strcmp(why.reason, "missing-file") == 0))
        return; /* its purge is under way, or was cut off: no damage */
    if (rc)
        (void)snprintf(it->entry.bad, sizeof it->entry.bad, "%s",
                       why.reason[0] ? why.reason : dr_rc_name(rc));
    else if (memcmp(sha, it->entry.manifest_sha256, 32) != 0)
        (void)snprintf(it->entry.bad, sizeof it->entry.bad, "catalog-manifest");
    if (!rc) {
        it->key_generation = m->key_generation;
        keep_bases(it, m);
        if (!it->entry.bad[0])
            entry_from_manifest(&it->entry, m);
    }
    it->loaded = !it->entry.bad[0];
    manifest_free(m);
}

void store_load_manifests(struct store *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (!s->items[i].loaded && !s->items[i].purged)
            load(s, &s->items[i]);
}

enum dr_rc store_check_generation(struct store *s, struct dr_err *err)
{
    store_load_manifests(s);
    for (size_t i = 0; i < s->count; i++)
        if (!s->items[i].purged && s->items[i].key_generation > s->head.generation) {
            (void)dr_fail(err, DR_E_INTEGRITY,
                          "catalog/head.json is signed by generation %u, but %s is of %u",
                          s->head.generation, s->items[i].entry.backup_id,
                          s->items[i].key_generation);
            return dr_err_reason(err, "head-generation");
        }
    return DR_OK;
}

struct unrecorded {
    struct store *store;
    enum dr_rc (*fn)(void *arg, const char *id, struct dr_err *err);
    void *arg;
};

static enum dr_rc one_folder(void *arg, const char *name, struct dr_err *err)
{
    struct unrecorded *u = arg;
    const struct store_item *it = names_is_backup_id(name) ? store_find(u->store, name) : NULL;
    /* A purged one that lies here again was laid back from a copy. */
    if (!names_is_backup_id(name) || (it && !it->purged))
        return DR_OK;
    return u->fn(u->arg, name, err);
}

enum dr_rc store_each_unrecorded(struct store *s,
                                 enum dr_rc (*fn)(void *arg, const char *id, struct dr_err *err),
                                 void *arg, struct dr_err *err)
{
    struct unrecorded u = {s, fn, arg};
    if (!disk_exists(s->dirfd, "backups"))
        return DR_OK;
    return disk_each(s->dirfd, "backups", one_folder, &u, err);
}

struct listing {
    struct store *store;
    struct store_entry *entries;
    size_t count, cap;
};

static struct store_entry *list_add(struct listing *l)
{
    if (l->count == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->entries = dr_xrealloc(l->entries, l->cap * sizeof *l->entries);
    }
    return memset(&l->entries[l->count++], 0, sizeof *l->entries);
}

static enum dr_rc list_unrecorded(void *arg, const char *id, struct dr_err *err)
{
    struct listing *l = arg;
    struct store_item it = {0};
    (void)err;
    entry_from_id(&it.entry, id);
    struct manifest *m = NULL;
    struct dr_err why = {0};
    enum dr_rc rc =
        handle_read_manifest(l->store, "backups", id, &m, it.entry.manifest_sha256, &why);
    if (rc)
        (void)snprintf(it.entry.bad, sizeof it.entry.bad, "%s",
                       why.reason[0] ? why.reason : dr_rc_name(rc));
    else
        entry_from_manifest(&it.entry, m);
    manifest_free(m);
    *list_add(l) = it.entry;
    return DR_OK;
}

static int newest_first(const void *a, const void *b)
{
    const struct store_entry *x = a, *y = b;
    if (x->t_point_ms != y->t_point_ms)
        return x->t_point_ms < y->t_point_ms ? 1 : -1;
    return strcmp(y->backup_id, x->backup_id);
}

enum dr_rc store_list_at(struct store *s, struct store_entry **out, size_t *count, uint64_t *seq,
                         struct dr_err *err)
{
    struct listing l = {.store = s};
    int64_t now = dr_wall_ms();
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc =
        s->head.seq || disk_exists(s->dirfd, "catalog/head.json") ? store_refresh(s, err) : DR_OK;
    if (!rc)
        store_load_manifests(s);
    for (size_t i = 0; !rc && i < s->count; i++)
        if (!s->items[i].purged) {
            s->items[i].entry.pinned = store_is_pinned(&s->items[i], now);
            *list_add(&l) = s->items[i].entry;
        }
    if (!rc)
        rc = store_each_unrecorded(s, list_unrecorded, &l, err);
    *seq = s->about;
    (void)pthread_mutex_unlock(&s->mutex);
    if (rc) {
        free(l.entries);
        return rc;
    }
    if (l.count)
        qsort(l.entries, l.count, sizeof *l.entries, newest_first);
    *out = l.entries;
    *count = l.count;
    return DR_OK;
}

enum dr_rc store_list(struct store *s, struct store_entry **out, size_t *count, struct dr_err *err)
{
    uint64_t seq;
    return store_list_at(s, out, count, &seq, err);
}

static enum dr_rc count_one(void *arg, const char *id, struct dr_err *err)
{
    (void)id;
    (void)err;
    ++*(unsigned *)arg;
    return DR_OK;
}

static enum dr_rc audit(struct store *s, unsigned *unrecorded, struct dr_err *err)
{
    static const unsigned char zeros[32];
    const struct catalog_log log = catalog_log(s->dirfd);
    bool ahead = false;
    enum dr_rc rc = store_refresh(s, err);
    if (!rc)
        rc = catalog_replay(&log, &s->head, 1, zeros, NULL, NULL, &ahead, err);
    if (!rc && ahead) {
        (void)dr_fail(err, rc = DR_E_INTEGRITY, "catalog: records lie behind the signed head %llu",
                      (unsigned long long)s->head.seq);
        (void)dr_err_reason(err, "catalog-ahead");
    }
    if (!rc)
        rc = store_check_generation(s, err);
    *unrecorded = 0;
    return rc ? rc : store_each_unrecorded(s, count_one, unrecorded, err);
}

enum dr_rc store_audit(struct store *s, unsigned *unrecorded, struct dr_err *err)
{
    unsigned found = 0;
    int lock = -1;
    enum dr_rc rc = DR_OK;
    /* Keeps writers out, so that nothing can lie behind the head for a good reason. */
    if (disk_exists(s->dirfd, "catalog/lock"))
        rc = lock_take(s->dirfd, "catalog/lock", LOCK_SHARED, STORE_LOCK_WAIT_MS, &lock, err);
    if (rc)
        return rc;
    (void)pthread_mutex_lock(&s->mutex);
    rc = audit(s, &found, err);
    (void)pthread_mutex_unlock(&s->mutex);
    lock_drop(&lock);
    if (unrecorded)
        *unrecorded = found;
    return rc;
}
