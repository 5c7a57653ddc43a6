/* Retention applied to a store: what stands there, who needs it, the plan, tombstones and purges.
 * Nothing is given up but upon the very catalog that the plan was made of: when somebody writes to
 * it meanwhile, the plan is made again and only what both plans give up goes. So two workers may
 * run it at once. Blocking, for pool threads; what is opened here has one owner. Source: formats.md
 * 4, anchors dr.md 2.3. */
#ifndef DR_WORKER_RECOVERY_EXPIRY_H
#define DR_WORKER_RECOVERY_EXPIRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"
#include "worker/backup/retain.h"
#include "worker/backup/store.h"
#include "worker/backup/trash.h"

struct cancel;
struct dr_zone;

struct expiry_terms {
    struct retain_policy policy;
    char policy_text[STORE_POLICY_MAX], warning[160];
    struct dr_zone *zone; /* owned */
    bool offsite_configured;
    int64_t now_ms;
    bool clock_wrong;
};
/* CONFIG names variable, value and range. now_ms and clock_wrong are the caller's. */
enum dr_rc expiry_terms_read(const struct dr_config *c, struct expiry_terms *out,
                             struct dr_err *err) DR_MUST_CHECK;
void expiry_terms_free(struct expiry_terms *t);

/* The store at one record of its catalog, and the plan for it. */
struct expiry_view {
    struct store_entry *entries; /* newest first, those given up too */
    size_t entry_count;
    uint64_t seq;              /* the newest record about a backup */
    struct retain_item *items; /* what was planned: recorded ones */
    const struct store_entry **of, **by_id;
    struct retain_plan *plan;
    char (**bases)[64];
    const char ***base_names;
};
/* given_up_too: those in trash/ as well, as candidates for a purge. */
enum dr_rc expiry_look(struct store *s, const struct expiry_terms *t, bool given_up_too,
                       struct expiry_view *out, struct dr_err *err) DR_MUST_CHECK;
void expiry_view_free(struct expiry_view *v);
const struct store_entry *expiry_entry(const struct expiry_view *v, const char *backup_id);
/* The verdict on one; NULL: it was not planned. */
const struct retain_verdict *expiry_verdict(const struct expiry_view *v, const char *backup_id);

struct expiry_ids {
    char (*ids)[64];
    size_t count;
};
void expiry_ids_add(struct expiry_ids *l, const char *id);

/* A backup that stays although it might have gone, and why: a word of retain_words.def, or in_use
 * (somebody reads it). */
struct expiry_spared {
    char backup_id[64], why[32];
};

struct expiry_done {
    struct expiry_ids tombstoned, purged;
    struct expiry_spared *spared, *held; /* live ones; ones in trash/ that are needed again */
    size_t spared_count, held_count;
    size_t waiting; /* in trash/, their time is not over */
    uint64_t freed_bytes;
};
void expiry_done_free(struct expiry_done *d);

/* Keeps the plan for a confirmation. */
enum dr_rc expiry_keep_plan(struct store *s, const struct expiry_terms *t,
                            const struct expiry_view *v, struct dr_err *err) DR_MUST_CHECK;
/* What may go of a plan: all that needs no confirmation; with the hash of this plan all of it, with
 * that of another one what both give up. REFUSED as store_read_plan. */
enum dr_rc expiry_allowed(struct store *s, const struct expiry_terms *t,
                          const struct expiry_view *v, const char *confirmed,
                          struct expiry_ids *out, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc expiry_tombstone(struct store *s, const struct expiry_terms *t,
                            const struct expiry_view *v, const struct expiry_ids *allowed,
                            struct expiry_done *done, struct cancel *cancel,
                            struct dr_err *err) DR_MUST_CHECK;
/* Those whose time of grace is over and that a plan over everything gives up again. */
enum dr_rc expiry_purge(struct store *s, const struct expiry_terms *t, struct expiry_done *done,
                        struct cancel *cancel, struct dr_err *err) DR_MUST_CHECK;

#endif
