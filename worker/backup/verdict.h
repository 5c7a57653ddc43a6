/* What a proof said of a backup: whether it speaks of the backup at all, and its record `verified`
 * in the catalog, which freezes the series of a bad one. Blocking, for pool threads. */
#ifndef DR_WORKER_BACKUP_VERDICT_H
#define DR_WORKER_BACKUP_VERDICT_H

#include <stdbool.h>

#include "common/err.h"
#include "worker/backup/manifest.h"
#include "worker/backup/prove.h"

struct store;

enum verdict {
    VERDICT_BAD,  /* it is damaged, or cannot be read: found is INTEGRITY or KEY, with a class */
    VERDICT_GONE, /* it was given up meanwhile, and is not asked for any more */
    VERDICT_NONE  /* nothing is known of it: the store, this worker or a cancel is the reason */
};

/* Of an error that handle_open or prove_backup ended in. A backup that cannot be read while the
 * store answers is a bad one: INTEGRITY, class io or missing-file. NONE leaves the reason in found.
 * lone: it is the only one that is expected in backups/. */
enum verdict verdict_of(struct store *s, const char *backup_id, bool lone, struct dr_err *found);

/* The catalog can be read, and backups/ is there and not empty: what cannot be read of one backup
 * is that backup's. An empty one beside a catalog of several is a volume that is not mounted. */
enum dr_rc verdict_store_answers(struct store *s, bool lone, struct dr_err *err) DR_MUST_CHECK;

struct verdict_record {
    const char *backup_id, *by; /* by: verify, drill, recovery */
    const struct manifest *m;   /* NULL: not even its manifest is believed */
    const struct prove_sums *sums;
    const struct dr_err *found; /* rc DR_OK: every byte is right */
};
enum dr_rc verdict_record(struct store *s, const struct verdict_record *v,
                          struct dr_err *err) DR_MUST_CHECK;
/* backup_id/object where it failed. */
const char *verdict_object(const char *backup_id, const struct prove_sums *sums);

#endif
