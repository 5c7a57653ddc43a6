/* Taking a backup from a fiber: the phases of the task `backup`, and the emergency backup of a
 * recovery. Loop thread; what blocks goes to the pool. */
#ifndef DR_WORKER_BACKUP_TAKE_H
#define DR_WORKER_BACKUP_TAKE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/backup/manifest.h"
#include "worker/core/pg.h"

struct cancel;
struct dr_config;
struct job_services;
struct take;

/* Settings under which rows have one text only: pg_dump and whoever compares with it use both. */
#define TAKE_PGOPTIONS PG_NO_TIMEOUTS " -c TimeZone=UTC -c row_security=off -c bytea_output=hex"

struct take_order {
    const struct job_services *env;
    const char *kind;            /* database, files, config, or full: all that are configured */
    const char *class;           /* scheduled, manual, critical or emergency */
    const char *job_id, *ticket; /* copied */
    const char *dbname;          /* NULL: the one of DATABASE_URL */
    struct cancel *cancel;       /* borrowed, as progress */
    _Atomic uint64_t *progress;  /* plain bytes, while taking and while reading back */
};

struct take_sums {
    uint64_t plain_bytes, stored_bytes;
    uint64_t files, entries, tables, rows, skipped, unreadable, changed;
    uint64_t data_ms, read_back_ms;
    bool adopted;             /* an earlier delivery of the job had published it */
    char digests_unknown[96]; /* why rows could not be counted; "": they were */
};

/* In this order, each in a fiber. take_begin finds what is to be saved (CONFIG, UNREACHABLE, SQL,
 * PREFLIGHT), take_data reads it, take_read_back proves what was written, take_publish lets it
 * exist. A job that is delivered again and had published already is only read back. */
enum dr_rc take_begin(const struct take_order *o, struct take **out,
                      struct dr_err *err) DR_MUST_CHECK;
enum dr_rc take_data(struct take *t, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc take_read_back(struct take *t, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc take_publish(struct take *t, struct dr_err *err) DR_MUST_CHECK;
/* The last three. */
enum dr_rc take_all(struct take *t, struct dr_err *err) DR_MUST_CHECK;
/* In a fiber; removes what was not published; NULL is allowed. */
void take_free(struct take *t);

const struct take_sums *take_sums(const struct take *t);
const struct manifest *take_manifest(const struct take *t);
uint64_t take_expected_bytes(const struct take *t); /* plain, by the last backup; 0: unknown */

/* The roots of an option (BACKUP_FILES_PATHS, BACKUP_CONFIG_PATHS): absolute, normalised, sorted,
 * distinct; CONFIG otherwise, and when there is none. Both lists end with NULL. */
enum dr_rc take_roots(const struct dr_config *c, const char *option, char ***out,
                      struct dr_err *err) DR_MUST_CHECK;
char **take_list(const struct dr_config *c, const char *option); /* parts between colons */
void take_list_free(char **list);

#endif
