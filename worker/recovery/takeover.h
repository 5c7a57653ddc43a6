/* Open journals are taken up without a message and without Redis: at the worker's start and then
 * every minute. One fiber on the loop thread; only workers that serve lane execute start it. */
#ifndef DR_WORKER_RECOVERY_TAKEOVER_H
#define DR_WORKER_RECOVERY_TAKEOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/job/dispatch.h"

struct takeover;

/* every_ms between two looks at journal/. services and its store outlive it. */
struct takeover *takeover_start(const struct job_services *services, uint64_t every_ms);
/* Ends after the run it is just resolving; on_stopped is called from the loop, at once or later. */
void takeover_stop(struct takeover *t, void (*on_stopped)(void *arg), void *arg);
void takeover_free(struct takeover *t); /* after on_stopped, or after the loop has ended */

/* For dispatch_options open_run and closed_run, arg a const struct job_services *; in a fiber. An
 * open journal of this job with this mid: its redelivery resumes, whatever signature, exp, nbf,
 * cancel and the poison limit say. A run that never came to quiesce counts only for its first
 * deliveries, so that a message which kills its workers ends. */
bool takeover_is_open(void *services, const char *mid, const char *job_id);
enum dispatch_known takeover_is_closed(void *services, const char *mid, const char *job_id,
                                       struct dispatch_recorded *out);

#endif
