/* What the policy leaves of the default schedules after years: every hour a database backup, every
 * day one of the files, of the configuration and a full one, retention every night. Pure, any
 * thread. */
#ifndef DR_WORKER_BACKUP_RETAIN_SIMULATE_H
#define DR_WORKER_BACKUP_RETAIN_SIMULATE_H

#include "worker/backup/retain.h"

enum { RETAIN_SIM_SERIES = 4, RETAIN_SIM_YEARS = 50 };

struct retain_sim_options {
    const struct retain_policy *policy;
    int32_t (*offset)(const void *zone, int64_t utc_s); /* NULL: UTC */
    const void *zone;
    int64_t start_ms; /* midnight of its day in UTC is the first slot */
    int years;
};
struct retain_sim_day { /* after the retention of that night */
    int64_t t_ms;
    uint32_t kept[RETAIN_SIM_SERIES];
    bool waited; /* the plan would have needed confirmation, and was not applied */
};
struct retain_sim_backup {
    int series;
    int64_t t_ms;
    retain_mask reasons; /* of the last plan */
};
struct retain_sim {
    uint32_t made[RETAIN_SIM_SERIES];
    struct retain_sim_day *days;
    size_t day_count, waited;
    struct retain_sim_backup *left; /* by series, newest first */
    size_t left_count;
};
const char *retain_sim_name(int series); /* "database:default" */
/* INVALID: years are not 1..50, or the start lies so that the end is beyond year 9999. */
enum dr_rc retain_simulate(const struct retain_sim_options *o, struct retain_sim **out,
                           struct dr_err *err) DR_MUST_CHECK;
void retain_sim_free(struct retain_sim *s);

#endif
