/* How long one answer to /metrics holds the loop, with every table full: 10 lanes, 64 series, 64
 * schedules, 8 drills, all histograms. Prints one line. Run: ninja bench_metrics && bench_metrics
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/redis_url.h"
#include "common/wire/lanes.h"
#include "worker/core/httpd_internal.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/queue/queue.h"
#include "worker/watch/gates.h"
#include "worker/watch/watch_internal.h"

enum { SCRAPES = 2001, LANES = 10 };

static bool is_draining(const void *arg)
{
    (void)arg;
    return false;
}

static void fill_queue(struct facts *f, int64_t now_ms)
{
    struct survey *s = &f->survey;
    f->survey_ms = s->now_ms = now_ms;
    for (; s->lane_count < LANES; s->lane_count++) {
        s->lanes[s->lane_count].lane = dr_lanes[s->lane_count].name;
        s->lanes[s->lane_count].waiting = 123456;
        f->oldest_ms[s->lane_count] = now_ms - 98765;
    }
    for (; s->schedule_count < SURVEY_MOST; s->schedule_count++)
        (void)snprintf(s->schedules[s->schedule_count].name, sizeof s->schedules[0].name,
                       "a-schedule-with-a-long-name-%u", s->schedule_count);
    for (; s->counter_count < SURVEY_COUNTERS; s->counter_count++)
        (void)snprintf(s->counters[s->counter_count].name, sizeof s->counters[0].name,
                       "something_%u", s->counter_count);
}

static void fill_store(struct facts *f, int64_t now_ms)
{
    struct facts_store *s = &f->store;
    f->has_store = s->ok = true;
    s->at_ms = now_ms;
    s->disk = (struct facts_disk){true, 1, 2, 3, 4, 5, 6};
    for (; s->series_count < FACTS_SERIES; s->series_count++) {
        struct facts_series *one = &s->series[s->series_count];
        (void)snprintf(one->series, sizeof one->series, "7312345678901234567/\"database\" %u",
                       s->series_count);
        (void)snprintf(one->kind, sizeof one->kind, "database");
        one->backups = 100;
        one->newest_ms = one->newest_proven_ms = one->oldest_proof_ms = now_ms - 1234567;
    }
    for (; s->drill_count < FACTS_DRILLS; s->drill_count++)
        (void)snprintf(s->drills[s->drill_count].procedure, sizeof s->drills[0].procedure,
                       "procedure_%u", s->drill_count);
}

/* Of this thread: what others do on the machine is not the answer's. */
static int64_t spent_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void measure(struct watch *w)
{
    static int64_t took[SCRAPES];
    size_t bytes = 0;
    for (int i = 0; i < SCRAPES; i++) {
        struct httpd_reply r = {.status = 200};
        struct dr_buf out;
        int64_t began_us = spent_us();
        dr_buf_init(&r.body, 16 << 20);
        dr_buf_init(&out, 16 << 20);
        watch_routes[0].fn(w, &r);
        httpd_write(&out, &r, false, dr_wall_ms());
        bytes = out.len;
        dr_buf_fini(&r.body);
        dr_buf_fini(&out);
        took[i] = spent_us() - began_us;
    }
    qsort(took, SCRAPES, sizeof took[0], by_time);
    (void)printf("/metrics: %zu bytes, %lld us of the loop (median of %d), %lld us at p99\n", bytes,
                 (long long)took[SCRAPES / 2], SCRAPES, (long long)took[SCRAPES - SCRAPES / 100]);
}

int main(void)
{
    static struct job_task tasks[LANES];
    static const struct job_task *table[LANES + 1];
    const char *lanes[LANES + 1] = {NULL};
    struct job_services env = {0};
    struct dr_redis_url url;
    struct dr_err err = {0};
    struct dr_config *config = NULL;
    struct queue *queue = NULL;
    for (size_t i = 0; i < LANES; i++) {
        tasks[i].type = lanes[i] = dr_lanes[i].name;
        table[i] = &tasks[i];
    }
    const struct queue_options qo = {.lanes = lanes, .ns = "dr", .url = &url, .lease_ms = 15000};
    struct queue_options o = qo;
    if (dr_config_load(NULL, &config, &err) || loop_new(&env.loop, &err) ||
        pool_new(env.loop, 2, &env.pool, &err) ||
        dr_redis_url_parse("redis://127.0.0.1:1/0", &url, &err)) {
        (void)fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    o.loop = env.loop;
    o.pool = env.pool;
    if (queue_new(&o, &queue, &err)) {
        (void)fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    env.config = config;
    const struct watch_options wo = {
        .services = &env, .tasks = table, .queue = queue, .is_draining = is_draining};
    struct watch *w = watch_new(&wo);
    struct gates g = {.status = GATE_OK, .score = 100};
    fill_queue(&w->facts, dr_wall_ms());
    fill_store(&w->facts, dr_wall_ms());
    watch_judged(w, &g);
    measure(w);
    watch_free(w);
    queue_free(queue);
    pool_free(env.pool);
    loop_free(env.loop);
    dr_redis_url_free(&url);
    dr_config_free(config);
    return 0;
}
