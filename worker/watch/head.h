/* The catalog's head: Redis' word against the disk's. */
#ifndef DR_WORKER_WATCH_HEAD_H
#define DR_WORKER_WATCH_HEAD_H

#include <stdbool.h>

#include "worker/backup/catalog.h"
#include "worker/job/job.h"

/* Redis has seen this head and we told an older one, or another of the same record. In a fiber:
 * reads the head from disk again, since another worker may have written it meanwhile. True: the
 * store was put back, whole or in part; it is logged. now: the head on disk, if false. */
bool head_went_back(const struct job_services *env, uint64_t seen_seq, const char *seen_sha256,
                    struct catalog_head *now);

#endif
