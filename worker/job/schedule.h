/* Schedules at work: a fiber that waits for the next slot and fires it. Every worker has one and
 * none leads; who comes second is told so by the script. Redis' clock decides. Loop thread. */
#ifndef DR_WORKER_JOB_SCHEDULE_H
#define DR_WORKER_JOB_SCHEDULE_H

#include "common/mem.h"
#include "worker/job/schedule_set.h"

struct loop;
struct queue;
struct schedule_runner;

struct schedule_options {
    struct loop *loop;
    struct queue *queue;
    const struct schedule_set *set; /* borrowed, as the rest */
    const struct dr_secret *key;    /* derive(RK_1, "sched-sign", 32) */
    const char *ns;
    int64_t tick_ms; /* how often the clock is looked at */
    void (*on_end)(void *arg);
    void *arg;
};

/* NULL: nothing is to be served, and on_end will not be called. */
struct schedule_runner *schedule_start(const struct schedule_options *o);
/* It comes to its end at the next turn of the loop, or when Redis has answered; then on_end. */
void schedule_stop(struct schedule_runner *r);
void schedule_free(struct schedule_runner *r); /* after on_end; NULL is allowed */

#endif
