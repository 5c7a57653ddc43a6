/* /metrics, /healthz, /readyz: from memory, so that a scrape waits for nobody. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "worker/core/httpd.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/queue/queue.h"
#include "worker/queue/survey.h"
#include "worker/watch/alert.h"
#include "worker/watch/metrics.h"
#include "worker/watch/watch_internal.h"

enum { TURN_MAX_MS = 10000, SURVEY_STALE_MS = 6 * WATCH_EVERY_MS };

static double seconds(int64_t ms)
{
    return (double)ms / 1000;
}

static double age(int64_t then_ms, int64_t now_ms)
{
    return now_ms > then_ms ? seconds(now_ms - then_ms) : 0;
}

static void gauge(struct dr_buf *b, const char *name, const char *help, uint64_t value)
{
    exposition_family(b, name, "gauge", help);
    exposition_uint(b, name, value, NULL);
}

static void gauge_real(struct dr_buf *b, const char *name, const char *help, double value)
{
    exposition_family(b, name, "gauge", help);
    exposition_real(b, name, value, NULL);
}

static void counter(struct dr_buf *b, const char *name, const char *help, uint64_t value)
{
    exposition_family(b, name, "counter", help);
    exposition_uint(b, name, value, NULL);
}

static void tell_loop(const struct watch *w, struct dr_buf *b)
{
    struct loop_lag lag;
    double bounds[LOOP_LAG_BOUNDS + 1] = {0};
    struct exposition_histogram h = {.bounds = bounds};
    loop_lag_read(w->o.services->loop, &lag);
    for (unsigned i = 0; i < LOOP_LAG_BOUNDS; i++) {
        bounds[i] = (double)loop_lag_bounds_ms[i] / 1000;
        h.counts[i] = lag.counts[i];
    }
    h.counts[EXPOSITION_BUCKETS_MAX] = lag.counts[LOOP_LAG_BOUNDS];
    h.sum = (double)lag.sum_ms / 1000;
    exposition_family(b, "drworker_loop_lag_seconds", "histogram",
                      "How late a timer of 100 ms was: somebody held the loop.");
    exposition_buckets(b, "drworker_loop_lag_seconds", &h, NULL, NULL);
    gauge_real(b, "drworker_loop_lag_max_seconds", "The latest turn since the start.",
               (double)lag.max_ms / 1000);
}

static void tell_process(const struct watch *w, struct dr_buf *b)
{
    struct pool_load load;
    uint64_t made = queue_connections(w->o.queue);
    pool_look(w->o.services->pool, &load);
    exposition_family(b, "drworker_build_info", "gauge", "Always 1; the version is its label.");
    exposition_uint(b, "drworker_build_info", 1, "version", DR_VERSION, NULL);
    gauge_real(b, "process_start_time_seconds", "When this worker started, unix time.",
               seconds(w->started_ms));
    if (w->rss_bytes)
        gauge(b, "process_resident_memory_bytes", "Resident memory of this worker.", w->rss_bytes);
    gauge(b, "drworker_draining", "1: this worker takes no jobs any more.",
          w->o.is_draining(w->o.arg));
    gauge(b, "drworker_redis_up", "1: connected to Redis.", queue_is_up(w->o.queue));
    counter(b, "drworker_redis_reconnects_total", "Connections to Redis made after the first one.",
            made ? made - 1 : 0);
    gauge(b, "drworker_pool_threads", "Threads for blocking work.", load.threads);
    gauge(b, "drworker_pool_running", "Of them at work.", load.running);
    gauge(b, "drworker_pool_queue_length", "Pieces of work that wait for a thread.", load.waiting);
    gauge_real(b, "drworker_scrape_duration_seconds",
               "How long the loop was held by the answer to the previous scrape.",
               (double)w->scrape_us / 1e6);
}

static void tell_jobs(const struct watch *w, struct dr_buf *b)
{
    static const char ended[] = "drworker_jobs_ended_total",
                      took[] = "drworker_job_duration_seconds";
    exposition_family(b, ended, "counter", "Jobs that ended in this worker.");
    for (unsigned i = 0; i < w->lane_count; i++)
        for (unsigned o = 0; o < WATCH_OUTCOMES; o++)
            exposition_uint(b, ended, w->lanes[i].ended[o], "lane", w->lanes[i].lane, "outcome",
                            job_outcome_name((enum job_outcome)o), NULL);
    exposition_family(b, took, "histogram",
                      "From the first step to the result, of jobs that ended in this worker.");
    for (unsigned i = 0; i < w->lane_count; i++)
        exposition_buckets(b, took, &w->lanes[i].seconds, "lane", w->lanes[i].lane);
}

static void tell_health(const struct watch *w, struct dr_buf *b)
{
    if (!w->judged)
        return;
    gauge(b, "drworker_health_status",
          "Of the last health job in this worker: 1 ok, 2 warning, 3 critical.", w->health_status);
    gauge(b, "drworker_health_score", "The score beside it, 0 to 100.", w->health_score);
    gauge_real(b, "drworker_health_timestamp_seconds", "When that was, unix time.",
               seconds(w->judged_ms));
}

/* Families whose samples are one a lane, read from a survey. */
static void tell_lanes(const struct facts *f, struct dr_buf *b, int64_t now_ms)
{
    static const struct {
        const char *name, *help;
    } families[] = {
        {"drworker_queue_waiting_jobs", "Messages in the lists of a lane."},
        {"drworker_queue_delayed_jobs", "Messages that wait for their time."},
        {"drworker_queue_running_jobs", "Messages that some worker holds."},
        {"drworker_queue_paused", "1: nobody takes from this lane."},
    };
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        exposition_family(b, families[i].name, "gauge", families[i].help);
        for (unsigned n = 0; n < f->survey.lane_count; n++) {
            const struct survey_lane *l = &f->survey.lanes[n];
            const uint64_t values[] = {l->waiting, l->delayed, l->running, l->paused};
            exposition_uint(b, families[i].name, values[i], "lane", l->lane, NULL);
        }
    }
    exposition_family(b, "drworker_queue_oldest_age_seconds", "gauge",
                      "How long the message waits that is next in line; 0: none does.");
    for (unsigned n = 0; n < f->survey.lane_count; n++)
        exposition_real(b, "drworker_queue_oldest_age_seconds",
                        f->oldest_ms[n] ? age(f->oldest_ms[n], now_ms) : 0, "lane",
                        f->survey.lanes[n].lane, NULL);
}

static uint64_t counted(const struct survey *s, const char *name)
{
    for (unsigned i = 0; i < s->counter_count; i++)
        if (strcmp(s->counters[i].name, name) == 0)
            return s->counters[i].value;
    return 0;
}

static void tell_queue(const struct facts *f, struct dr_buf *b, int64_t now_ms)
{
    const struct survey *s = &f->survey;
    if (!f->survey_ms)
        return;
    tell_lanes(f, b, now_ms);
    exposition_family(b, "drworker_queue_events_total", "counter",
                      "What Redis counted for all workers together: the same from each.");
    for (unsigned i = 0; i < s->counter_count; i++)
        exposition_uint(b, "drworker_queue_events_total", s->counters[i].value, "event",
                        s->counters[i].name, NULL);
    counter(b, "drworker_queue_given_up_total",
            "Messages given up after their workers died, counted by Redis for all workers.",
            counted(s, "poison"));
    gauge(b, "drworker_dead_letters", "Messages in the dead letters.", s->dead);
    if (s->retention_ms)
        gauge(b, "drworker_retention_waiting_backups",
              "Given up by the last plan of retention as soon as somebody confirms it.",
              s->retention_waits);
    gauge(b, "drworker_workers_alive", "Workers that beat.", s->worker_count);
    gauge_real(b, "drworker_redis_clock_offset_seconds", "Redis' clock less the worker's.",
               seconds(s->offset_ms));
    if (!s->schedule_count)
        return;
    exposition_family(
        b, "drworker_schedule_late_seconds", "gauge",
        "How long a schedule's next slot and its jitter are over and nobody has fired it.");
    for (unsigned i = 0; i < s->schedule_count; i++)
        exposition_real(b, "drworker_schedule_late_seconds",
                        age(s->schedules[i].due_ms, now_ms + s->offset_ms), "schedule",
                        s->schedules[i].name, NULL);
}

void metrics_write(struct watch *w, struct dr_buf *b, int64_t now_ms)
{
    const struct facts *f = &w->facts;
    tell_process(w, b);
    tell_loop(w, b);
    tell_jobs(w, b);
    exposition_family(b, "drworker_facts_timestamp_seconds", "gauge",
                      "When queue and store were looked at last, unix time; 0: not yet.");
    exposition_real(b, "drworker_facts_timestamp_seconds", seconds(f->survey_ms), "of", "queue",
                    NULL);
    if (f->has_store)
        exposition_real(b, "drworker_facts_timestamp_seconds", seconds(f->store.at_ms), "of",
                        "store", NULL);
    tell_queue(f, b, now_ms);
    metrics_write_store(f, w->o.services->config, b, now_ms);
    alert_write_metrics(w->o.services->alerts, b);
    tell_health(w, b);
}

static void serve_metrics(void *arg, struct httpd_reply *r)
{
    struct watch *w = arg;
    int64_t began_us = dr_clock_us();
    r->content_type = EXPOSITION_CONTENT_TYPE;
    metrics_write(w, &r->body, dr_wall_ms());
    w->scrape_us = dr_clock_us() - began_us;
}

/* An answer at all says that the loop turns; its lag says whether it does so in time. */
static void serve_healthz(void *arg, struct httpd_reply *r)
{
    const struct watch *w = arg;
    struct loop_lag lag;
    loop_lag_read(w->o.services->loop, &lag);
    int64_t still_ms = dr_clock_ms() - lag.turned_ms;
    if (lag.turned_ms && still_ms > TURN_MAX_MS) {
        r->status = 503;
        dr_buf_printf(&r->body, "the loop has not turned for %lld ms\n", (long long)still_ms);
    } else {
        dr_buf_str(&r->body, "ok\n");
    }
}

static void reason(struct httpd_reply *r, const char *text)
{
    if (r->status != 503)
        r->status = 503;
    else
        dr_buf_str(&r->body, "; ");
    dr_buf_str(&r->body, text);
}

static void serve_readyz(void *arg, struct httpd_reply *r)
{
    const struct watch *w = arg;
    const struct facts *f = &w->facts;
    if (w->o.is_draining(w->o.arg))
        reason(r, "it drains");
    if (!queue_is_up(w->o.queue))
        reason(r, "Redis does not answer");
    else if (f->survey_ms && dr_wall_ms() - f->survey_ms > SURVEY_STALE_MS)
        reason(r, "Redis has not told of the queue for a minute");
    if (f->has_store && f->store.at_ms && !f->store.ok)
        reason(r, "the store cannot be read");
    dr_buf_str(&r->body, r->status == 503 ? "\n" : "ok\n");
}

const struct httpd_route watch_routes[] = {{"/metrics", serve_metrics},
                                           {"/healthz", serve_healthz},
                                           {"/readyz", serve_readyz},
                                           {NULL, NULL}};
