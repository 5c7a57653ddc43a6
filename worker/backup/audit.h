/* The audit log: who ordered what, what was decided, what came of it. Records in the form of the
 * catalog (catalog.h) under audit/, with a head of their own; backup_id is always empty. So that
 * nobody takes the whole log away or puts back an older one, the catalog's chain witnesses it: a
 * record `audit` {seq, sha256} for its first record and every AUDIT_WITNESS_EVERY after.
 *
 * Types and members of data:
 *   refused   job lane reason kind field value actor kid claimed_actor worker unwritten message;
 *             args where they were read. kid "" and actor "": no signature that was good.
 *   started   job lane attempt actor kid claimed_actor worker args
 *   ended     job lane actor worker outcome kind message; outcome also retry, parked, handed_back,
 *             stale. Of one that ended while it waited (expired, cancelled) with what `started`
 *             has. cancelled_by: by their own words, whoever cancelled it.
 *   resolved  run job procedure outcome message: an open journal, taken up without its message
 *   changed   actor action subject reason: by a command of drworker
 *
 * Blocking, for pool threads, any number of them and of processes. */
#ifndef DR_WORKER_BACKUP_AUDIT_H
#define DR_WORKER_BACKUP_AUDIT_H

#include "worker/backup/catalog.h"
#include "worker/backup/store.h"

enum { AUDIT_WITNESS_EVERY = 32, AUDIT_DATA_MAX = 32768 };

struct dr_buf;

struct catalog_log audit_log(int store_dirfd); /* audit/ */

/* Durable when it returns. data_json: an object. INTEGRITY: the log that is there is damaged, and
 * nothing is appended to it. */
enum dr_rc audit_append(struct store *s, const char *type, const char *data_json,
                        struct dr_err *err) DR_MUST_CHECK;
/* `changed` by whoever runs the command: actor cli/<user>. subject: what was changed. */
enum dr_rc audit_changed(struct store *s, const char *action, const char *subject,
                         const char *reason, struct dr_err *err) DR_MUST_CHECK;

struct audit_state {
    uint64_t records, witnessed; /* the last record that the catalog witnesses; 0: none */
    bool ahead; /* a writer was cut off: what lies behind the head is not believed */
    unsigned generation;
    unsigned char sha256[32];
};
/* Reads every record, oldest first (fn may be NULL), and holds it against its neighbours, the
 * signed head and the catalog's witnesses. INTEGRITY with the class: audit-form, audit-chain,
 * audit-short, head-missing, head-form, head-sig, head-mismatch, audit-witness. out: what was read.
 * No log and no witness: no records. */
enum dr_rc audit_verify(struct store *s, catalog_fn *fn, void *arg, struct audit_state *out,
                        struct dr_err *err) DR_MUST_CHECK;

bool audit_is_of_job(const struct catalog_record *r, const char *job_id);
/* One line for a person, without its newline, appended to out. */
void audit_text(const struct catalog_record *r, struct dr_buf *out);

#endif
