/* Alerts: what is raised and cleared is decided once for all workers (queue/alert.h), and delivered
 * by webhook and mail from fibers of its own, so that no target holds up a job. Loop thread only.
 *
 * A change of state is delivered at least once to each target that was configured where it was
 * decided, within DR_ALERT_TRIES tries, also when the worker that decided it dies. */
#ifndef DR_WORKER_WATCH_ALERT_H
#define DR_WORKER_WATCH_ALERT_H

#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/job/dispatch.h"

struct alerts;
struct resolve_listener;
struct dr_config;
struct gates;
struct queue;

/* CONFIG with field and value; nothing is connected to. services->alerts is for the caller to set.
 */
enum dr_rc alert_new(const struct job_services *services, struct queue *queue, int64_t lease_ms,
                     struct alerts **out, struct dr_err *err) DR_MUST_CHECK;
void alert_start(struct alerts *a);
/* What is under way is cut off; done runs when nothing of it waits any more. What was not delivered
 * is taken over by another worker, or by this one's successor, when its lease has run out. */
void alert_stop(struct alerts *a, void (*done)(void *arg), void *arg);
void alert_free(struct alerts *a); /* stopped, or never started; NULL is allowed */

/* rule: a row of alerts.def, anything else aborts. subject names what it is about, the same text
 * each time: together they are one alert. severity NULL: the rule's; a higher one than before is
 * news. Copied; never waits; may be called as often as one likes: only a change is told. While
 * Redis is away the last word on each alert waits, up to 64 of them. a NULL: nothing happens.
 * Whoever raised it, what stands is told again every DR_ALERT_REPEAT, until nobody has raised it
 * for a week. */
void alert_raise(struct alerts *a, const char *rule, const char *subject, const char *severity,
                 const char *summary, const char *details);
void alert_clear(struct alerts *a, const char *rule, const char *subject, const char *summary);
/* Unless somebody has raised it within quiet_ms: workers that see it differently do not take turns.
 */
void alert_clear_quiet(struct alerts *a, const char *rule, const char *subject, const char *summary,
                       int64_t quiet_ms);

/* For dispatch_options.on_order: raises and clears what hangs on the ends of jobs, and waits until
 * Redis has it: only then the job may end, so that who dies before runs it, and decides it, again.
 */
void alert_on_order(struct alerts *a, const struct dispatch_order *o);

/* For dispatch_options.on_poison: the alert of a job that failed, cleared like it. Never waits; a
 * message that cannot be read says nothing of what it was about, and raises nothing. */
void alert_on_poison(struct alerts *a, const char *lane, const void *raw, size_t len);

/* For job_services resolved: recoveries that ended, or cannot end, without their message. */
extern const struct resolve_listener alert_resolved;

/* Raises and clears what health found: backup_missing, backup_stale, disk_low, schedule_late,
 * chain_broken, retention_waits, health_drop. */
void alert_on_gates(struct alerts *a, const struct gates *g);
/* One gate of them: of what each worker looks at by itself, so without the chains that only a
 * health job walks, and without health_drop. quiet_ms: as of alert_clear_quiet. */
struct gate;
void alert_on_gate(struct alerts *a, const struct gate *g, int64_t quiet_ms);

struct alert_counts {                    /* since the start, of this worker */
    uint64_t raised, resolved, repeated; /* decided: news, news that it is over, counted only */
    uint64_t reminded;                   /* told again */
    uint64_t taken_over;                 /* notices of workers that died */
    uint64_t dropped;                    /* for which there was no room, here or in Redis */
    struct alert_target_counts {
        const char *name; /* webhook, mail */
        bool configured;
        uint64_t sent, failed_tries, given_up;
        unsigned waiting; /* notices held for it */
    } target[2];
};
void alert_read_counts(const struct alerts *a, struct alert_counts *out);
void alert_write_metrics(const struct alerts *a, struct dr_buf *b); /* a NULL: nothing */

/* For drworker check: one line on each target, without sending anything; secrets stay out of it. */
enum dr_rc alert_describe(const struct dr_config *c, bool *any, struct dr_buf *out,
                          struct dr_err *err) DR_MUST_CHECK;

#endif
