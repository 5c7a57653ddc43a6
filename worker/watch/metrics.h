/* The text of /metrics. Formatting only: everything is in memory. Loop thread. */
#ifndef DR_WORKER_WATCH_METRICS_H
#define DR_WORKER_WATCH_METRICS_H

#include <stdint.h>

#include "common/buf.h"

struct dr_config;
struct facts;
struct watch;

void metrics_write(struct watch *w, struct dr_buf *b, int64_t now_ms);
/* Backups, proofs, drills, keys, runs, disk; nothing without a store. */
void metrics_write_store(const struct facts *f, const struct dr_config *c, struct dr_buf *b,
                         int64_t now_ms);

#endif
