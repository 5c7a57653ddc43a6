/* What dispatch decided on an order, as records of the audit log. A log that cannot be written
 * stops no order, least of all a recovery on a full disk: it is said in the worker's own log. */
#ifndef DR_WORKER_BACKUP_AUDIT_ORDER_H
#define DR_WORKER_BACKUP_AUDIT_ORDER_H

#include "worker/backup/catalog.h"
#include "worker/job/dispatch.h"

enum { AUDIT_REFUSED_A_MINUTE = 60 };

struct audit_orders {
    const struct job_services *services; /* borrowed; its store too */
    /* A flood of garbage shall not fill the disk: refusals over the limit are counted only, and the
     * next record that is written says how many there were. */
    int64_t minute; /* since boot */
    unsigned refused, unwritten;
    struct catalog_head catalog; /* after the last record: what the job appended is in it */
};

/* For dispatch_options on_order; in a fiber, waits until the record is durable. Does nothing
 * without a store, and for a trivial task's orders unless they are refused. */
void audit_order(struct audit_orders *a, const struct dispatch_order *o);

#endif
