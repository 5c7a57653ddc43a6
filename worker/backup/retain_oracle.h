/* The pure policy over a list of times, to be compared with `restic forget --keep-within-daily ..`.
 * The hourly rule and every rule of safety are off. Pure, any thread. */
#ifndef DR_WORKER_BACKUP_RETAIN_ORACLE_H
#define DR_WORKER_BACKUP_RETAIN_ORACLE_H

#include "worker/backup/retain.h"

enum {
    RETAIN_ORACLE_ITEMS = 200000,
    RETAIN_ORACLE_ITEM_BYTES = 1024,
    RETAIN_ORACLE_BYTES = 64 << 20,
};

/* text: [{"id":TEXT,"time":RFC 3339},..], each id once, nothing else in it. A backup lies in the
 * day of the offset its time is written with; times count in milliseconds, equal ones in the order
 * of the list. Appends [{"id":..,"keep":bool,"reasons":[..]},..] in the same order. MALFORMED and
 * INVALID name the element; CONFIG when every rule is off. */
enum dr_rc retain_oracle(const struct retain_policy *policy, int64_t now_ms, const char *text,
                         size_t len, struct dr_buf *out, struct dr_err *err) DR_MUST_CHECK;

#endif
