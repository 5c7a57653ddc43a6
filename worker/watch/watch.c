/* Collecting facts and counting jobs. */
#include "worker/watch/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "worker/core/fiber.h"
#include "worker/core/pool.h"
#include "worker/queue/queue.h"
#include "worker/watch/gates.h"
#include "worker/watch/watch_internal.h"

/* Of jobs, in seconds: from a noop to a recovery of hours. */
static const double durations[] = {0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 900, 3600, 7200, 21600, 0};

struct watch *watch_new(const struct watch_options *o)
{
    struct watch *w = dr_xalloc(sizeof *w);
    w->o = *o;
    w->started_ms = dr_wall_ms();
    for (const struct job_task *const *t = o->tasks; *t && w->lane_count < WATCH_LANES; t++) {
        w->lanes[w->lane_count].lane = (*t)->type;
        w->lanes[w->lane_count++].seconds.bounds = durations;
    }
    w->facts.has_store = o->services->store != NULL;
    facts_configure(&w->facts, o->services->config);
    cancel_init(&w->stop, o->services->loop);
    return w;
}

void watch_free(struct watch *w)
{
    if (!w)
        return;
    cancel_fini(&w->stop);
    free(w);
}

struct facts *watch_facts(struct watch *w)
{
    return &w->facts;
}

struct queue *watch_queue(struct watch *w)
{
    return w->o.queue;
}

void watch_job_ended(struct watch *w, const struct job_task *task, const struct job *j,
                     enum job_outcome outcome)
{
    for (unsigned i = 0; i < w->lane_count; i++) {
        struct watch_lane *l = &w->lanes[i];
        if (strcmp(l->lane, task->type) != 0)
            continue;
        l->ended[outcome]++;
        if (j)
            exposition_observe(&l->seconds, (double)job_ran_ms(j) / 1000);
        return;
    }
}

void watch_judged(struct watch *w, const struct gates *g)
{
    w->judged = true;
    w->health_status = (unsigned)g->status;
    w->health_score = g->score;
    w->judged_ms = g->at_ms;
}

struct looking {
    struct store *store;
    const struct dr_config *config;
    struct facts_store found;
    uint64_t rss_bytes;
};

static uint64_t resident_bytes(void)
{
    unsigned long long size, resident;
    FILE *f = fopen("/proc/self/statm", "re");
    int n = f ? fscanf(f, "%llu %llu", &size, &resident) : 0;
    if (f)
        (void)fclose(f);
    return n == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static enum dr_rc look(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct looking *l = item;
    (void)cancel;
    (void)err;
    l->rss_bytes = resident_bytes();
    if (l->store)
        facts_look_at_store(l->store, l->config, &l->found);
    return DR_OK;
}

void watch_collect(struct watch *w, struct cancel *cancel)
{
    struct dr_err err = {0};
    struct survey *s = dr_xalloc(sizeof *s);
    struct looking *l = dr_xalloc(sizeof *l);
    const struct job_services *env = w->o.services;
    if (queue_survey(w->o.queue, s, &err) == DR_OK)
        facts_take_survey(&w->facts, s, dr_wall_ms());
    else if (err.rc != DR_E_UNREACHABLE)
        dr_log_err(DR_LOG_WARN, "watch.survey", &err, NULL);
    l->store = env->store;
    l->config = env->config;
    l->found = w->facts.store;
    l->found.seen_seq = w->facts.survey.head_seq; /* before the disk: see hold_head */
    memcpy(l->found.seen_sha256, w->facts.survey.head_sha256, sizeof l->found.seen_sha256);
    memcpy(l->found.seen_store, w->facts.survey.head_store, sizeof l->found.seen_store);
    dr_err_clear(&err);
    if (pool_run(env->pool, look, l, cancel, &err) == DR_OK) {
        w->rss_bytes = l->rss_bytes;
        if (strcmp(w->facts.store.why, l->found.why) != 0 && l->found.why[0])
            dr_log(DR_LOG_WARN, "watch.store", "msg", l->found.why, NULL);
        w->facts.store = l->found;
    }
    free(l);
    free(s);
}

static void collect_fiber(void *arg)
{
    struct watch *w = arg;
    while (!cancel_fired(&w->stop)) {
        if (!queue_is_up(w->o.queue)) /* the first look comes as soon as Redis answers, or soon */
            (void)fiber_sleep(WATCH_EVERY_MS / 20, &w->stop);
        watch_collect(w, &w->stop);
        watch_alarm(w);
        (void)fiber_sleep(WATCH_EVERY_MS, &w->stop);
    }
    w->running = false;
    if (w->done)
        w->done(w->done_arg);
}

void watch_start(struct watch *w)
{
    w->running = true;
    fiber_start(w->o.services->loop, collect_fiber, w);
}

void watch_stop(struct watch *w, void (*done)(void *arg), void *arg)
{
    if (!w->running) {
        done(arg);
        return;
    }
    w->done = done;
    w->done_arg = arg;
    cancel_fire(&w->stop, DR_E_CANCELLED, "stopped");
}
