/* The journal of one recovery run, journal/<run>.log: what was meant before it was done, so that
 * whoever comes after a crash can ask the world what became of it. One JSON object a line,
 * {"seq","prev","at","type","data"}; prev is the SHA-256 (hex) of the line before without its
 * newline, 64 zeros for the first; every line is fsynced before the call returns. Whoever works on
 * a run holds an OFD write lock on the file. A last line without newline, or whose newline is there
 * but not its bytes, was never acted upon: it is cut off. Any other break is NEEDS_HUMAN.
 *
 * Types: run-open, step-intent, step-done, step-undone, run-closed; behind that leftover-drop and
 * leftover-gone, which say what became of what the run left. Blocking: pool threads. One owner. */
#ifndef DR_WORKER_RECOVERY_JOURNAL_H
#define DR_WORKER_RECOVERY_JOURNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct journal;

struct journal_record {
    uint64_t seq;
    int64_t at_ms;
    const char *type; /* owned by the journal, as data is */
    json_t *data;     /* an object */
};

enum {
    JOURNAL_LINE_MAX = 64 << 20, /* a batch of file renames is one record */
    JOURNAL_MAX = 256 << 20,
    JOURNAL_RUN_BYTES = 16, /* [a-z2-7] */
};

/* Opens journal/<run>.log below the store's directory, made if `create`, and locks it. LOCKED:
 * somebody works on it; NOT_FOUND; NEEDS_HUMAN: its chain is broken (the journal is not opened). */
enum dr_rc journal_open(int store_dirfd, const char *run, bool create, struct journal **out,
                        struct dr_err *err) DR_MUST_CHECK;
/* As it stands, without the lock, for looking only: a torn end is left alone, nothing is appended.
 */
enum dr_rc journal_peek(int store_dirfd, const char *run, struct journal **out,
                        struct dr_err *err) DR_MUST_CHECK;
void journal_free(struct journal *j); /* unlocks */

/* Appends and fsyncs; takes data (NULL: {}). After a failure nothing more is appended: what stands
 * on disk is unknown until somebody opens it again. */
enum dr_rc journal_append(struct journal *j, const char *type, json_t *data,
                          struct dr_err *err) DR_MUST_CHECK;

size_t journal_count(const struct journal *j);
const struct journal_record *journal_at(const struct journal *j, size_t i);
/* The newest record of that type, for steps: with data.step = step; NULL: there is none. */
const json_t *journal_last(const struct journal *j, const char *type, const char *step);
/* Its last record is run-closed, but for what became of its leftovers since. */
bool journal_is_closed(const struct journal *j);
int64_t journal_closed_ms(const struct journal *j); /* when; 0: it is open */
/* A leftover-… record of that type about `what`, written since it was closed. */
bool journal_says(const struct journal *j, const char *type, const char *what);
const char *journal_run(const struct journal *j);
/* The journal and its list of renames are removed; it is locked until it is freed. */
enum dr_rc journal_remove(struct journal *j, int store_dirfd, struct dr_err *err) DR_MUST_CHECK;

/* The names of all runs in journal/ that do not end with run-closed, as far as one can see without
 * the lock; NULL-ended, freed by journal_list_free. No journal folder: none. */
enum dr_rc journal_list_open(int store_dirfd, char ***out, struct dr_err *err) DR_MUST_CHECK;
/* And those that do. */
enum dr_rc journal_list_all(int store_dirfd, char ***out, struct dr_err *err) DR_MUST_CHECK;
void journal_list_free(char **runs);

#endif
