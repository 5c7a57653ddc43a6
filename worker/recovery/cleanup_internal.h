/* One leftover on its way to a verdict. Not for other folders. */
#ifndef DR_WORKER_RECOVERY_CLEANUP_INTERNAL_H
#define DR_WORKER_RECOVERY_CLEANUP_INTERNAL_H

#include "worker/recovery/cleanup.h"
#include "worker/recovery/procedure.h"

enum leftover_fate {
    LEFTOVER_KEPT,
    LEFTOVER_FOREIGN, /* not what the run left, or no longer: told, but its journal may go */
    LEFTOVER_GONE,
    LEFTOVER_DROPPED,
};

struct leftover {
    struct recovery *r; /* its run; the journal is open and locked */
    const struct cleanup_terms *terms;
    const char *what;
    uint64_t id;      /* OID or inode; 0: the journal does not say */
    int64_t until_ms; /* 0: without end */
    const char *hold; /* why nothing is dropped now; "": nothing speaks against it */
    /* The verdict. */
    enum leftover_fate fate;
    bool trouble;
    char why[512], where[512];
    uint64_t bytes;
};

/* A verdict: LEFTOVER_KEPT with the reason. */
enum dr_rc cleanup_keep(struct leftover *l, const char *fmt, ...) DR_PRINTF(2, 3);
/* Whether its time is over and nothing holds it; otherwise it is kept, and why. */
bool cleanup_is_due(struct leftover *l);
/* The record about it, for leftover-drop and leftover-gone. */
json_t *cleanup_record(const struct leftover *l);
/* In a fiber; in a pool thread it is journal_append. */
enum dr_rc cleanup_note(struct leftover *l, const char *type, struct dr_err *err) DR_MUST_CHECK;

/* Both in a fiber. An error: nothing was decided, it stays. */
enum dr_rc cleanup_database(struct leftover *l, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc cleanup_tree(struct leftover *l, struct dr_err *err) DR_MUST_CHECK;

#endif
