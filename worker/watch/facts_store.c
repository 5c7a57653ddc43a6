/* Facts of the store: what lies in BACKUP_DIRECTORY and around it. Blocking, for pool threads. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "worker/backup/keyring.h"
#include "worker/backup/space.h"
#include "worker/backup/store.h"
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

static void look_at_keys(struct store *s, struct facts_store *f)
{
    const struct keyring *k = store_keys(s);
    struct keyring_slot_view v;
    f->key_slots = keyring_slots(k);
    f->key_slots_proven = 0;
    for (unsigned i = 0; i < f->key_slots; i++) {
        keyring_slot_view(k, i, &v);
        f->key_slots_proven += v.opened;
    }
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
    facts_fold(f, list, count);
    free(list);
    store_head(s, &head);
    f->head_seq = head.seq;
    f->head_mtime_ns = head_ns;
    f->listed_ms = now_ms;
    return DR_OK;
}

void facts_look_at_store(struct store *s, const struct dr_config *c, struct facts_store *f)
{
    struct dr_err err = {0};
    look_at_keys(s, f);
    look_at_disk(s, c, &f->disk);
    bool ok = !look_at_backups(s, f, &err) && !look_at_runs(s, f, &err);
    (void)snprintf(f->why, sizeof f->why, "%s", ok ? "" : err.msg);
    f->ok = ok;
    f->at_ms = dr_wall_ms();
}
