/* The row of a procedure: its step tables, and what the frame (procedure.h) asks of it. */
#ifndef DR_WORKER_RECOVERY_PROCEDURES_H
#define DR_WORKER_RECOVERY_PROCEDURES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/job/job.h"

struct dr_config;
struct recovery;

struct recovery_procedure {
    const char *id;                /* procedure_id of the order */
    const char *services;          /* DR_SERVICES_DATABASE or DR_SERVICES_FILES */
    const struct job_step *steps;  /* the whole run */
    const struct job_step *plan;   /* dry_run */
    const struct job_step *beside; /* no_swap */
    const struct job_step *drill;  /* into scratch; ends with self_test and remove (drill.h) */
    const char *kind;              /* of the backups it restores */
    bool (*is_configured)(const struct dr_config *config); /* something is protected */
    const char *target;    /* option that names what an exercise swaps, with `steps` */
    const char *rto, *rpo; /* options: targets in seconds */
    size_t own_bytes;      /* zeroed memory at recovery.own */
    enum dr_rc (*series)(struct recovery *r, char out[257], struct dr_err *err);
    /* The journal is open and locked, r->journal holds its records. Looks at the world and
     * - without an intent to quiesce: removes what the run left beside live, writes step-undone,
     *   leaves r->settled false: the run may start over;
     * - with one, nothing committed: undoes, settled, outcome JOB_FAILED;
     * - committed: finishes (JOB_DONE) or swaps back (JOB_ROLLED_BACK), settled.
     * The caller closes the journal of a settled run. An error means that observation was
     * impossible: nothing was decided, it is asked again later. */
    enum dr_rc (*settle)(struct recovery *r, struct dr_err *err);
    /* Own pairs of the result map (interface.md, section 5); how many. May be NULL. */
    unsigned (*result)(struct recovery *r, struct dr_buf *map);
    /* Of a drill, once it was verified or failed: what was compared and found. lists: with names.
     */
    void (*evidence)(struct recovery *r, json_t *into, json_t *lists);
    void (*fini)(struct recovery *r); /* frees what own owns; copes with zeroes */
};
extern const struct recovery_procedure *const recovery_procedures[]; /* ended by NULL */
const struct recovery_procedure *recovery_find(const char *id);
/* Field `procedures` of info: [{id, steps: [{name, destructive}]}], msgpack. */
void recovery_procedures_pack(struct dr_buf *out);

#endif
