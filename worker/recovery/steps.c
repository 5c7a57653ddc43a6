/* See steps.h. In fibers. */
#include "worker/recovery/steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/backup/handle.h"
#include "worker/backup/manifest.h"
#include "worker/backup/space.h"
#include "worker/backup/store.h"
#include "worker/backup/store_select.h"
#include "worker/backup/verdict.h"
#include "worker/core/pool.h"

struct selecting {
    struct recovery *r;
    const char *kind, *series;
};

static enum dr_rc select_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct selecting *s = item;
    struct recovery *r = s->r;
    bool latest = strcmp(r->order.backup_id, "latest") == 0;
    (void)cancel;
    const struct store_wish wish = {.kind = s->kind,
                                    .series = latest ? s->series : NULL,
                                    .which = r->order.backup_id,
                                    .before_ms = r->order.before_ms,
                                    .passed = &r->passed};
    return store_select(r->env->store, &wish, &r->backup, err);
}

enum dr_rc recovery_select(struct recovery *r, const char *kind, const char *series,
                           struct dr_err *err)
{
    struct selecting s = {.r = r, .kind = kind, .series = series};
    if (pool_run(r->env->pool, select_item, &s, recovery_cancel(r), err))
        return err->rc;
    (void)snprintf(r->chosen_id, sizeof r->chosen_id, "%s", handle_manifest(r->backup)->backup_id);
    job_message(r->job, "%s", r->chosen_id);
    return DR_OK;
}

/* Whether backups/ is expected to hold no other. */
static bool is_lone(struct store *s)
{
    struct store_entry *list = NULL;
    size_t count = 0, kept = 0;
    struct dr_err ignored = {0};
    if (store_list(s, &list, &count, &ignored))
        return false;
    for (size_t i = 0; i < count; i++)
        kept += !list[i].tombstoned_at_ms;
    free(list);
    return kept < 2;
}

enum dr_rc recovery_condemn(const struct recovery *r, const struct prove_sums *sums,
                            struct dr_err *why)
{
    const struct manifest *m = handle_manifest(r->backup);
    struct store *s = r->env->store;
    struct dr_err found = *why, err = {0};
    if (verdict_of(s, m->backup_id, is_lone(s), &found) != VERDICT_BAD)
        return why->rc;
    const struct verdict_record v = {.backup_id = m->backup_id,
                                     .by = r->order.drill ? "drill" : "recovery",
                                     .m = m,
                                     .sums = sums,
                                     .found = &found};
    if (verdict_record(s, &v, &err))
        dr_log_err(DR_LOG_ERROR, "recovery.unrecorded", &err, "backup", m->backup_id, NULL);
    *why = found;
    return why->rc;
}

enum dr_rc recovery_spares_reserve(const struct recovery *r, const char *folder, uint64_t bytes,
                                   struct dr_err *err)
{
    struct space space;
    if (!r->order.drill || folder[0])
        return DR_OK;
    if (space_look(store_dirfd(r->env->store), r->env->config, &space, err))
        return err->rc;
    return space_allows(&space, bytes, err) ? dr_wrap(err, "scratch of a drill") : DR_OK;
}

uint64_t recovery_stored_bytes(const struct recovery *r)
{
    const struct manifest *m = handle_manifest(r->backup);
    uint64_t total = 0;
    for (unsigned i = 0; i < m->object_count; i++)
        total += m->objects[i].stored_bytes;
    return total;
}
