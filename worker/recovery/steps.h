/* What the step tables of every procedure are written with: the choice of the backup, and the job
 * engine's step functions around those that take a struct recovery. */
#ifndef DR_WORKER_RECOVERY_STEPS_H
#define DR_WORKER_RECOVERY_STEPS_H

#include <stdint.h>

#include "worker/backup/prove.h"
#include "worker/recovery/procedure.h"

/* Opens the ordered backup (r->backup, r->chosen_id): by its id, or the latest of the series. */
enum dr_rc recovery_select(struct recovery *r, const char *kind, const char *series,
                           struct dr_err *err) DR_MUST_CHECK;
/* A drill leaves the emergency reserve of the store's volume to recoveries: REFUSED when bytes more
 * would touch it. folder: where they go, "" for the store's own. Pool thread. */
enum dr_rc recovery_spares_reserve(const struct recovery *r, const char *folder, uint64_t bytes,
                                   struct dr_err *err) DR_MUST_CHECK;
/* After a proof that failed: a backup that is damaged, or cannot be read while the store answers,
 * is recorded so, as `verify` does, for retention, health and the next `latest`; why is then
 * INTEGRITY. What cannot be recorded is logged only. The kind of why. Pool thread. */
enum dr_rc recovery_condemn(const struct recovery *r, const struct prove_sums *sums,
                            struct dr_err *why);
uint64_t recovery_stored_bytes(const struct recovery *r); /* of all objects of the chosen backup */

/* Begins the run, then fn. */
#define RECOVERY_FIRST(name, fn)                                                                   \
    static enum dr_rc run_##name(struct job *j, struct dr_err *err)                                \
    {                                                                                              \
        struct recovery *r = recovery_of(j);                                                       \
        return recovery_begin(r, err) || r->settled ? err->rc : fn(r, err);                        \
    }
#define RECOVERY_STEP(name, fn)                                                                    \
    static enum dr_rc run_##name(struct job *j, struct dr_err *err)                                \
    {                                                                                              \
        struct recovery *r = recovery_of(j);                                                       \
        return recovery_skips(r) ? DR_OK : fn(r, err);                                             \
    }
#define RECOVERY_UNDO(name, fn)                                                                    \
    static enum dr_rc undo_##name(struct job *j, struct dr_err *err)                               \
    {                                                                                              \
        struct recovery *r = recovery_of(j);                                                       \
        return r->settled ? DR_OK : fn(r, err);                                                    \
    }

#endif
