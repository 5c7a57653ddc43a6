/* Taking a backup from a job's fiber: the phases of the task `backup`, and the emergency backup
 * of a recovery. Loop thread; what blocks goes to the pool. */
#ifndef DR_WORKER_BACKUP_TAKE_H
#define DR_WORKER_BACKUP_TAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/backup/manifest.h"

struct job;
struct job_services;
struct cancel;
struct take;

struct take_order {
    const struct job_services *env;
    const char *kind;            /* database, files or config */
    const char *class;           /* scheduled, manual, critical or emergency */
    const char *job_id, *ticket; /* copied */
    struct cancel *cancel;       /* borrowed, as progress */
    _Atomic uint64_t *progress; /* plain bytes read while taking, stored bytes while reading back */
    const char *dbname;         /* NULL: the one of DATABASE_URL */
};

struct take_sums {
    uint64_t plain_bytes, stored_bytes;
    uint64_t files, rows, tables, unreadable, excluded;
    uint64_t ms, read_back_ms;
    bool adopted;          /* an earlier delivery of the job had published it */
    bool digests_unknown;  /* a dump format this version does not read */
    const char *backup_id; /* once published */
};

/* In this order, each in a fiber. take_begin finds what is to be saved (NOT_FOUND, UNREACHABLE,
 * PREFLIGHT with the path or database), take_data reads it, take_read_back proves what was
 * written, take_publish lets it exist. */
enum dr_rc take_begin(const struct take_order *o, struct take **out,
                      struct dr_err *err) DR_MUST_CHECK;
enum dr_rc take_data(struct take *t, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc take_read_back(struct take *t, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc take_publish(struct take *t, struct dr_err *err) DR_MUST_CHECK;
/* All four. */
enum dr_rc take_all(struct take *t, struct dr_err *err) DR_MUST_CHECK;
void take_free(struct take *t); /* removes what was not published; NULL is allowed */

const struct take_sums *take_sums(const struct take *t);
const struct manifest *take_manifest(const struct take *t);
uint64_t take_stored_estimate(const struct take *t); /* for the progress of the read-back */

#endif
