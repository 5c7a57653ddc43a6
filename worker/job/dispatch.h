/* From claim to finish: one fiber a lane claims what it has free slots and permits for, one fiber a
 * job checks, starts, runs and reports it. Loop thread. */
#ifndef DR_WORKER_JOB_DISPATCH_H
#define DR_WORKER_JOB_DISPATCH_H

#include "common/err.h"
#include "common/redis_url.h"
#include "common/wire/keyfile.h"
#include "worker/job/job.h"

struct dispatch;

struct dispatch_options {
    const struct job_services *services;
    const struct job_task *const *tasks; /* ended by NULL */
    const struct dr_redis_url *url;
    const char *lanes; /* DR_LANES: "" for all */
    unsigned concurrency;
    int64_t lease_ms, drain_ms;
    const struct dr_keyfile *keys; /* NULL: no key file */
    const struct dr_secret *sched_key;
    bool allow_unsigned;
    void (*on_drained)(
        void *arg); /* nothing runs any more, everything is reported or handed back */
    void *arg;
};

enum dr_rc dispatch_new(const struct dispatch_options *o, struct dispatch **out,
                        struct dr_err *err) DR_MUST_CHECK;
enum dr_rc dispatch_start(struct dispatch *d, struct dr_err *err) DR_MUST_CHECK;
/* Stops taking; running jobs have drain_ms, then they are cancelled and handed back. Called again:
 * handed back at once. */
void dispatch_drain(struct dispatch *d);
void dispatch_free(struct dispatch *d);

#endif
