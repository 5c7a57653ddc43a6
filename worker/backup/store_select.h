/* Which backup: an id, or `latest`. Blocking, for pool threads. */
#ifndef DR_WORKER_BACKUP_STORE_SELECT_H
#define DR_WORKER_BACKUP_STORE_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct backup_handle;
struct store;
struct store_entry;

/* Of that kind and series (NULL: any), or a full backup that holds them. */
bool store_fits(const struct store_entry *e, const char *kind, const char *series);

/* Newer ones that `latest` did not take. */
enum { STORE_PASSED_MAX = 8, STORE_PASSED_TEXT = 224 };
struct store_passed {
    unsigned count; /* also of those that the list has no room for */
    struct store_passed_one {
        char backup_id[64], class[32];
        int64_t found_at_ms; /* when that was recorded; 0: it is seen now */
    } list[STORE_PASSED_MAX];
};
/* "passed over as damaged: ID (CLASS, found TIME), and 1 more"; "" for none. */
void store_passed_text(const struct store_passed *p, char *out, size_t size);

struct store_wish {
    const char *kind;            /* NULL: any, by id only */
    const char *series;          /* NULL: any of the kind */
    const char *which;           /* an id, or "latest" */
    int64_t before_ms;           /* 0: no limit */
    struct store_passed *passed; /* NULL: nobody asks */
};
/* latest: the newest consistent point, never of class emergency, that is not known as damaged and
 * whose manifest verifies; INTEGRITY, all-damaged, when there are damaged ones only. By id a
 * damaged one is opened as well. NOT_FOUND names what there is; REFUSED when the id is of another
 * kind or tombstoned; INTEGRITY as manifest_read. */
enum dr_rc store_select(struct store *s, const struct store_wish *w, struct backup_handle **out,
                        struct dr_err *err) DR_MUST_CHECK;

#endif
