/* The watch of one worker: counts jobs as they end, keeps facts fresh by a fiber of its own, and
 * answers /metrics, /healthz and /readyz from memory. Loop thread; owned by main. */
#ifndef DR_WORKER_WATCH_WATCH_H
#define DR_WORKER_WATCH_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/core/httpd.h"
#include "worker/job/job.h"
#include "worker/watch/facts.h"

struct cancel;
struct gates;
struct queue;
struct watch;

enum { WATCH_EVERY_MS = 10000 };

struct watch_options {
    const struct job_services *services;
    const struct job_task *const *tasks; /* ended by NULL */
    struct queue *queue;
    bool (*is_draining)(const void *arg);
    const void *arg;
};

struct watch *watch_new(const struct watch_options *o);
void watch_start(struct watch *w);
/* done(arg) when nothing of it runs any more; at once where nothing does. */
void watch_stop(struct watch *w, void (*done)(void *arg), void *arg);
void watch_free(struct watch *w); /* NULL is allowed */

/* For dispatch_options.on_end. */
void watch_job_ended(struct watch *w, const struct job_task *task, const struct job *j,
                     enum job_outcome outcome);
/* Looks at queue, store and disk now; in a fiber. A part that cannot be looked at keeps what was
 * known, with its age. */
void watch_collect(struct watch *w, struct cancel *cancel);
struct facts *watch_facts(struct watch *w);
struct queue *watch_queue(struct watch *w);
/* What the last `health` of this worker found, for /metrics. */
void watch_judged(struct watch *w, const struct gates *g);

/* Raises and clears what follows from the facts as they stand: backup_stale, backup_missing,
 * disk_low, schedule_late, chain_broken (catalog-head), retention_waits. Nothing without alerts. */
void watch_alarm(struct watch *w);

extern const struct httpd_route watch_routes[]; /* arg: the watch */

#endif
