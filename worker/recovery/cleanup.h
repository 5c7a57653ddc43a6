/* What recoveries leave behind: the old database or tree, what was live before a roll-back, a copy
 * beside live. It stands in the record that closed their journal, with an end or without one. Only
 * what a closed journal names is ever dropped, only after its end and RECOVERY_KEEP_OLD_HOURS since
 * the journal was closed, and only if it still is the very database (OID) or folder (inode) under
 * the very name. What is in use, what has no end, what an operator renamed, and everything while a
 * recovery is open past quiesce, stays and is told with the reason.
 *
 * What is meant stands in the journal before it is done (leftover-drop), and on the thing itself: a
 * database is renamed to <live>__drop_<run>, a folder to `drop`, so that after a kill the next
 * cleanup goes on. A journal is removed when nothing of it is left and its time is over. */
#ifndef DR_WORKER_RECOVERY_CLEANUP_H
#define DR_WORKER_RECOVERY_CLEANUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/core/cancel.h"
#include "worker/job/job.h"

/* A closed journal answers for its message; a record in Redis lives as long. */
enum { CLEANUP_JOURNAL_DAYS_LEAST = 14 };

struct cleanup_terms {
    const struct job_services *env;
    struct cancel *cancel;
    const char *job_id, *actor; /* who ordered it, for journal and audit log */
    int64_t now_ms;             /* of cleanup_clock */
    int64_t journal_ms;         /* how long a closed journal is kept at the least */
};

struct cleanup_item {
    char *what, *where, *why; /* why "": it was dropped */
    char run[20];
    int64_t until_ms; /* 0: without end, or unknown */
    uint64_t bytes;   /* that were freed */
};

struct cleanup_list {
    struct cleanup_item *items;
    size_t count, cap;
};

struct cleanup_report {
    struct cleanup_list dropped, kept;
    uint64_t freed_bytes;
    unsigned journals_removed, journals_kept;
    unsigned troubles; /* what could not be looked at or dropped: among kept, with the error */
};

/* The time that ages are told by: the host's and Redis' clock, whichever is behind. REFUSED when
 * they differ by more than five minutes: nobody knows then what is old. */
enum dr_rc cleanup_clock(int64_t redis_ms, int64_t *now_ms, struct dr_err *err) DR_MUST_CHECK;

/* Drops what is over. In a fiber. One thing that cannot be dropped does not keep the rest. */
enum dr_rc cleanup_run(const struct cleanup_terms *t, struct cleanup_report *out,
                       struct dr_err *err) DR_MUST_CHECK;
void cleanup_report_fini(struct cleanup_report *r);

/* All that is still named, without looking at databases, changing nothing: out->kept. Blocking. */
enum dr_rc cleanup_look(int store_dirfd, int64_t keep_ms, struct cleanup_report *out,
                        struct dr_err *err) DR_MUST_CHECK;

#endif
