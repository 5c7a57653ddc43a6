/* Names that go to disk: never an id from outside as it came. Any thread. Source: formats.md 1,
 * formats-bytes 5. */
#ifndef DR_WORKER_BACKUP_NAMES_H
#define DR_WORKER_BACKUP_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NAMES_ID_SIZE = 64, NAMES_RUN_SIZE = 17, NAMES_JOB_SIZE = 9, NAMES_SERIES_SIZE = 257 };

/* First 16 letters of base32(SHA-256("dr-run" 00 ns 00 job)): names staging, journal, databases. */
void names_run(const char *ns, const char *job_id, char out[NAMES_RUN_SIZE]);
void names_job(const char *job_id, char out[NAMES_JOB_SIZE]); /* the 8 letters of a backup_id */
/* <UTC yyyymmddThhmmssZ>-<kind>-<8 letters>; the time is cut to seconds. */
void names_backup_id(int64_t t_start_ms, const char *kind, const char *job_id,
                     char out[NAMES_ID_SIZE]);
bool names_is_kind(const char *s); /* database files config full */
bool names_is_backup_id(const char *s);
/* Folder name of kind and job: *-<kind>-<8 letters>. */
bool names_is_of_job(const char *id, const char *kind, const char job[NAMES_JOB_SIZE]);
/* "<kind>:<name>" (len 0: default); control characters, % and bytes that are no UTF-8 as %XX. */
void names_series(const char *kind, const void *name, size_t len, char out[NAMES_SERIES_SIZE]);

#endif
