/* Giving backups up and taking that back. A backup that is given up is recorded `tombstoned`, then
 * its folder goes to trash/; after a time of grace its data are removed, then its manifest, then
 * `purged` is recorded. Until then it can be brought back. Pins keep a backup for a reason.
 *
 * Every act is under the catalog lock, durable when it returns, and may be repeated: done says
 * whether it was this call that did it. Killed anywhere, the catalog's last record decides, and
 * store_open to work, the same act again or the next one for that backup moves the folder where it
 * says. A backup that somebody reads (handle.h) is never touched. Blocking, for pool threads.
 * Source: formats.md 1, anchors dr.md 2.3 (S6, S12). */
#ifndef DR_WORKER_BACKUP_TRASH_H
#define DR_WORKER_BACKUP_TRASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct store;

enum { STORE_POLICY_MAX = 1024 };

/* What an act rests upon. */
struct trash_grounds {
    /* The catalog's newest record about a backup when it was decided (store_list_at). A newer one
     * of somebody else: LOCKED, reason moved; decide again. Counts on with our own. NULL: whatever.
     */
    uint64_t *seq;
    const char *plan; /* hash of the plan, for the record; NULL: by hand */
    /* A person's own decision, and why: also what lost its manifest or its folder. NULL: a plan's
     */
    const char *actor, *reason;
    /* Asked last, with the catalog and the backup locked: anything but DR_OK keeps it. */
    enum dr_rc (*still)(void *arg, const char *backup_id, struct dr_err *err);
    void *arg;
};

/* Kept, with the reason: LOCKED in_use (somebody reads it), LOCKED moved; REFUSED pinned, or base
 * (another backup that is not purged needs it), or grace (its time is not over); EXISTS (it lies in
 * both folders). NOT_FOUND: unknown, or purged. Any other error: nothing was done. */
enum dr_rc store_tombstone(struct store *s, const char *backup_id, const struct trash_grounds *why,
                           bool *done, struct dr_err *err) DR_MUST_CHECK;
/* until_ms: only what was given up before. freed: bytes of the files that were removed. */
enum dr_rc store_purge(struct store *s, const char *backup_id, const struct trash_grounds *why,
                       int64_t until_ms, uint64_t *freed, bool *done,
                       struct dr_err *err) DR_MUST_CHECK;
/* INTEGRITY, reason purge-begun, when not all of it is there any more; REFUSED, base: what it is
 * built upon is given up itself. */
enum dr_rc store_undelete(struct store *s, const char *backup_id, const char *actor, bool *done,
                          struct dr_err *err) DR_MUST_CHECK;
/* Folders go where the catalog says. */
enum dr_rc store_settle(struct store *s, struct dr_err *err) DR_MUST_CHECK;
/* Folders of trash/ that are no backup which is given up: nothing ever purges them. */
enum dr_rc store_count_unknown_trash(struct store *s, unsigned *count,
                                     struct dr_err *err) DR_MUST_CHECK;
/* By the newest record: given up, or purged already. */
enum dr_rc store_given_up(struct store *s, const char *backup_id, bool *out,
                          struct dr_err *err) DR_MUST_CHECK;
/* A reader holds it at this moment. */
bool store_in_use(struct store *s, const char *backup_id);
struct store_pin {
    char actor[128], reason[257]; /* UTF-8 */
    int64_t until_ms;             /* 0: until it is taken off */
    int64_t at_ms;                /* when it was set; filled in */
};

/* Sets the pin, or another reason or end. REFUSED: it is given up already. */
enum dr_rc store_set_pin(struct store *s, const char *backup_id, const struct store_pin *pin,
                         bool *done, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc store_unpin(struct store *s, const char *backup_id, const char *actor, bool *done,
                       struct dr_err *err) DR_MUST_CHECK;
/* false: not pinned, or no longer. As last read. */
bool store_pin_of(struct store *s, const char *backup_id, struct store_pin *out);

/* A person has seen that its time is wrong: its series is no longer held up by that. */
enum dr_rc store_acknowledge(struct store *s, const char *backup_id, const char *actor, bool *done,
                             struct dr_err *err) DR_MUST_CHECK;

/* The policy that retention applied last, `NAME=value\n` each; "": never. */
enum dr_rc store_last_policy(struct store *s, char out[STORE_POLICY_MAX],
                             struct dr_err *err) DR_MUST_CHECK;
enum dr_rc store_note_policy(struct store *s, const char *policy, const char *plan,
                             struct dr_err *err) DR_MUST_CHECK;

/* A plan that waits to be confirmed: results/plan-<hash> is the very text that its hash is of, so
 * nothing in it needs to be believed. The newest STORE_PLANS_MAX are kept. */
enum { STORE_PLANS_MAX = 16 };
enum dr_rc store_keep_plan(struct store *s, const char *policy, const char *const *ids, size_t n,
                           const char *hash, struct dr_err *err) DR_MUST_CHECK;
/* Its ids; *out is freed by free(). REFUSED: not kept here, or made under another policy. */
enum dr_rc store_read_plan(struct store *s, const char *policy, const char *hash, char (**out)[64],
                           size_t *n, struct dr_err *err) DR_MUST_CHECK;

/* The backups that this one's chain needs, as last read; *out is freed by free(). */
void store_bases(struct store *s, const char *backup_id, char (**out)[64], unsigned *count);

#endif
