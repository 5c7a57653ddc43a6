/* Facts of the store: what lies in BACKUP_DIRECTORY and around it. Blocking, for pool threads. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/str.h"
#include "worker/backup/disk.h"
#include "worker/backup/keyring.h"
#include "worker/backup/space.h"
#include "worker/backup/store.h"
#include "worker/backup/verdict.h"
#include "worker/recovery/drill.h"
#include "worker/recovery/journal.h"
#include "worker/watch/facts.h"

enum { LIST_AGAIN_MS = 300000 };

static int64_t mtime_ns(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* Which catalog this is: a head that was replaced is another file. */
static int64_t head_time(struct store *s)
{
    struct stat st;
    return fstatat(store_dirfd(s), "catalog/head.json", &st, AT_SYMLINK_NOFOLLOW) == 0
               ? mtime_ns(&st) ^ (int64_t)st.st_ino << 20
               : 0;
}

/* Slots that somebody has opened the keyring with: this worker at its start, or a drill with the
 * recovery code, which the catalog remembers. */
struct slots {
    char id[KEYRING_SLOTS_MAX][24];
    bool proven[KEYRING_SLOTS_MAX];
    unsigned count;
};

/* Records of ours, signed: a slot is named by its quoted id. */
static enum dr_rc note_proven(void *arg, const struct catalog_record *r, struct dr_err *err)
{
    struct slots *all = arg;
    (void)err;
    if (!r->data_json || !strstr(r->data_json, "\"proven\""))
        return DR_OK;
    for (unsigned i = 0; i < all->count; i++) {
        char quoted[32];
        (void)snprintf(quoted, sizeof quoted, "\"%s\"", all->id[i]);
        if (strstr(r->data_json, quoted))
            all->proven[i] = true;
    }
    return DR_OK;
}

/* The keyring as it stands on disk may have more slots than the one this worker opened. */
static enum dr_rc look_at_keys(struct store *s, struct facts_store *f, struct dr_err *err)
{
    struct dr_buf json;
    struct keyring *now = NULL;
    struct keyring_slot_view v;
    struct slots all = {0};
    dr_buf_init(&json, KEYRING_JSON_MAX);
    enum dr_rc rc = disk_read(store_dirfd(s), "keyring.json", &json, err);
    if (!rc)
        rc = keyring_renew(store_keys(s), json.data, json.len, &now, err);
    dr_buf_fini(&json);
    if (rc)
        return rc;
    for (; all.count < keyring_slots(now) && all.count < KEYRING_SLOTS_MAX; all.count++) {
        keyring_slot_view(now, all.count, &v);
        (void)snprintf(all.id[all.count], sizeof all.id[0], "%s", v.id);
        all.proven[all.count] = v.opened;
    }
    keyring_free(now);
    rc = store_each_record(s, "keys", note_proven, &all, err);
    f->key_slots = all.count;
    f->key_slots_proven = 0;
    for (unsigned i = 0; i < all.count; i++)
        f->key_slots_proven += all.proven[i];
    return rc;
}

static struct facts_drill *drill_of(struct facts_store *f, const char *procedure)
{
    for (unsigned i = 0; i < f->drill_count; i++)
        if (strcmp(f->drills[i].procedure, procedure) == 0)
            return &f->drills[i];
    return NULL;
}

static void measured(int64_t value, int64_t *out)
{
    if (*out < 0)
        *out = value;
}

static enum dr_rc look_at_drills(struct store *s, struct facts_store *f, struct dr_err *err)
{
    struct drill_line *lines = NULL;
    size_t count = 0;
    f->drill_count = 0;
    if (drill_history(s, false, &lines, &count, err))
        return err->rc;
    for (size_t i = 0; i < count; i++) { /* newest first */
        const struct drill_line *l = &lines[i];
        if (strcmp(l->level, "drill") != 0)
            continue; /* an exercise's time has the swap in it: another series */
        struct facts_drill *d = drill_of(f, l->procedure);
        if (!d && f->drill_count == FACTS_DRILLS)
            continue;
        if (!d) {
            d = &f->drills[f->drill_count++];
            *d = (struct facts_drill){.ok = l->ok,
                                      .at_ms = l->at_ms,
                                      .rto_target_ms = l->rto_target_ms,
                                      .rpo_target_s = l->rpo_target_s,
                                      .rto_ms = -1,
                                      .rpo_s = -1};
            (void)snprintf(d->procedure, sizeof d->procedure, "%s", l->procedure);
        }
        measured(l->rto_ms, &d->rto_ms);
        measured(l->rpo_s, &d->rpo_s);
    }
    free(lines);
    return DR_OK;
}

static void look_at_disk(struct store *s, const struct dr_config *c, struct facts_disk *d)
{
    struct space space;
    struct dr_err err = {0};
    d->known = space_look(store_dirfd(s), c, &space, &err) == DR_OK;
    if (!d->known)
        return;
    d->free_bytes = space.free_bytes;
    d->total_bytes = space.total_bytes;
    d->reserve_bytes = space.reserve_bytes;
    d->free_inodes = space.free_inodes;
    d->inodes = space.inodes;
    d->reserve_inodes = space.reserve_inodes;
}

static enum dr_rc look_at_runs(struct store *s, struct facts_store *f, struct dr_err *err)
{
    char **runs = NULL, path[64];
    struct stat st;
    f->open_runs = 0;
    f->open_run_ms = 0;
    if (journal_list_open(store_dirfd(s), &runs, err))
        return err->rc;
    for (char **r = runs; r && *r; r++) {
        (void)snprintf(path, sizeof path, "journal/%.32s.log", *r);
        if (fstatat(store_dirfd(s), path, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue; /* it ended meanwhile */
        int64_t ms = mtime_ns(&st) / 1000000;
        f->open_runs++;
        if (!f->open_run_ms || ms < f->open_run_ms)
            f->open_run_ms = ms;
    }
    journal_list_free(runs);
    return DR_OK;
}

/* What was read once is believed: that it still lies there is asked of the folder. */
static enum dr_rc answers(struct store *s, const struct store_entry *list, size_t count,
                          struct dr_err *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        kept += !list[i].tombstoned_at_ms;
    return kept ? verdict_store_answers(s, kept < 2, err) : DR_OK;
}

static enum dr_rc look_at_backups(struct store *s, struct facts_store *f, struct dr_err *err)
{
    struct store_entry *list = NULL;
    size_t count = 0;
    struct catalog_head head;
    int64_t head_ns = head_time(s), now_ms = dr_clock_ms();
    if (f->ok && f->listed_ms && head_ns == f->head_mtime_ns &&
        now_ms - f->listed_ms < LIST_AGAIN_MS)
        return DR_OK;
    if (store_list(s, &list, &count, err))
        return err->rc;
    enum dr_rc rc = answers(s, list, count, err);
    if (!rc)
        facts_fold(f, list, count);
    free(list);
    if (rc)
        return rc;
    if (look_at_drills(s, f, err) || look_at_keys(s, f, err))
        return err->rc;
    store_head(s, &head);
    f->head_seq = head.seq;
    dr_hex(head.sha256, sizeof head.sha256, f->head_sha256);
    f->head_mtime_ns = head_ns;
    f->listed_ms = now_ms;
    return DR_OK;
}

static void head_is(struct facts_store *f, enum facts_found found, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void head_is(struct facts_store *f, enum facts_found found, const char *fmt, ...)
{
    va_list ap;
    f->head = found;
    va_start(ap, fmt);
    (void)vsnprintf(f->head_why, sizeof f->head_why, fmt, ap);
    va_end(ap);
}

/* Redis is told of a head when it lies on disk. So what Redis had seen before we looked lies there,
 * or something newer, whoever writes meanwhile; unless the store was put back. */
static void hold_head(struct facts_store *f, const struct dr_err *err)
{
    unsigned long long seen = f->seen_seq, here = f->head_seq;
    if (strcmp(err->reason, "head-rollback") == 0)
        head_is(f, FACTS_BAD, "%s", err->msg);
    else if (!f->ok)
        head_is(f, FACTS_UNKNOWN, "the store cannot be read");
    else if (!seen)
        head_is(f, FACTS_NOT_CONFIGURED, "Redis has seen none yet");
    else if (here < seen)
        head_is(f, FACTS_BAD, "Redis has seen record %llu, the catalog ends at %llu", seen, here);
    else if (here == seen && strcmp(f->head_sha256, f->seen_sha256) != 0)
        head_is(f, FACTS_BAD, "record %llu is another one than Redis has seen", here);
    else
        head_is(f, FACTS_GOOD, "record %llu; Redis has seen none that is newer", here);
}

void facts_look_at_store(struct store *s, const struct dr_config *c, struct facts_store *f)
{
    struct dr_err err = {0};
    look_at_disk(s, c, &f->disk);
    bool ok = !look_at_backups(s, f, &err) && !look_at_runs(s, f, &err);
    (void)snprintf(f->why, sizeof f->why, "%s", ok ? "" : err.msg);
    f->ok = ok;
    if (f->seen_store[0] && strcmp(f->seen_store, store_id(s)) != 0)
        f->seen_seq = 0; /* of the store that was here before */
    hold_head(f, &err);
    f->at_ms = dr_wall_ms();
}
