/* What stands in Redis of a schedule: its definition (`sched`) and its last slot (`schedlast`), as
 * msgpack. Workers write them, every program reads them. Any thread. */
#ifndef DR_COMMON_WIRE_SCHED_INFO_H
#define DR_COMMON_WIRE_SCHED_INFO_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/keys.h"

enum { DR_SCHED_ARGS_MAX = 16, DR_SCHED_NAME_MAX = 43 /* "sched:<name>:<slot ms>" is a job id */ };

struct dr_sched_info {
    char lane[24], cron[256], zone[72];
    char misfire[16]; /* skip, once, all:N */
    uint64_t late_ms, jitter_ms;
    char overlap[8]; /* skip, queue */
};

/* args: name and value as text, ended by {NULL, NULL}; in the order of their names, so that equal
 * schedules are equal bytes. */
void dr_sched_info_pack(const struct dr_sched_info *s, const char *const (*args)[2],
                        struct dr_buf *out);
/* What is missing or of another type is empty. false: no map. */
bool dr_sched_info_read(const void *bytes, size_t len, struct dr_sched_info *out);

struct dr_sched_last {
    uint64_t slot_ms, at_ms; /* of the slot; when it was fired, or passed over */
    char jid[DR_JOB_ID_MAX + 1];
    char why[24]; /* of a slot that was passed over: overlap, late, misfire */
};
bool dr_sched_last_read(const void *bytes, size_t len, struct dr_sched_last *out);

#endif
