/* From the catalog's entry to the plan's item. */
#include <string.h>

#include "worker/backup/retain.h"
#include "worker/backup/store.h"

static enum retain_class class_of(const char *class)
{
    if (strcmp(class, "scheduled") == 0)
        return RETAIN_SCHEDULED;
    if (strcmp(class, "critical") == 0)
        return RETAIN_CRITICAL;
    return strcmp(class, "emergency") == 0 ? RETAIN_EMERGENCY : RETAIN_MANUAL;
}

static enum retain_proof proof_of(const struct store_entry *e)
{
    if (store_is_damaged(e))
        return RETAIN_DAMAGED;
    if (!e->recorded || !e->verified_at_ms)
        return RETAIN_UNPROVEN;
    return e->deep || e->drilled_at_ms ? RETAIN_DEEP : RETAIN_PROVEN;
}

void retain_item_of(const struct store_entry *e, struct retain_item *out)
{
    *out = (struct retain_item){.id = e->backup_id,
                                .series = e->bad[0] ? "" : e->series,
                                .source = e->source[0] ? e->source : NULL,
                                .t_ms = e->t_point_ms,
                                .end_ms = e->t_end_ms,
                                .seq = e->seq,
                                .bytes = e->stored_bytes,
                                .drilled_ms = e->drilled_at_ms,
                                .class = class_of(e->class),
                                .proof = proof_of(e),
                                .offsite = e->offsite_at_ms != 0,
                                .pinned = e->pinned,
                                .suspect = e->unreadable || e->differs};
}
