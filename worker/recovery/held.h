/* Backups that an open recovery needs: its journal names one, or none yet, and then it may be any
 * of its kind. Blocking. */
#ifndef DR_WORKER_RECOVERY_HELD_H
#define DR_WORKER_RECOVERY_HELD_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct held {
    char (*ids)[64];
    size_t count;
    bool database, files, all; /* of that kind; of any */
};
/* NEEDS_HUMAN: a journal cannot be read, so nobody knows what it needs. */
enum dr_rc held_read(int store_dirfd, struct held *out, struct dr_err *err) DR_MUST_CHECK;
bool held_names(const struct held *h, const char *backup_id);
void held_free(struct held *h);

#endif
