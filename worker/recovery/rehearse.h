/* The preflight of a database recovery without an order: for `drworker check`, so that what would
 * refuse a recovery is learnt by day. Changes nothing. In a fiber. */
#ifndef DR_WORKER_RECOVERY_REHEARSE_H
#define DR_WORKER_RECOVERY_REHEARSE_H

#include "common/err.h"
#include "worker/backup/names.h"
#include "worker/backup/store_select.h"
#include "worker/core/cancel.h"
#include "worker/job/job.h"

struct rehearsed {
    char backup_id[NAMES_ID_SIZE];
    struct store_passed passed; /* newer ones that are damaged */
};

/* The newest good backup of the protected database against the server as it is: roles, extensions,
 * locales, space, pooler. The whole dump is read once. NOT_FOUND: there is no backup yet;
 * INTEGRITY: only damaged ones; LOCKED: a recovery is running, or an interrupted one is open;
 * PREFLIGHT names what is missing. */
enum dr_rc rehearse_database(const struct job_services *env, struct cancel *cancel,
                             struct rehearsed *out, struct dr_err *err) DR_MUST_CHECK;

#endif
