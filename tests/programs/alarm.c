/* alarm raise|clear RULE SUBJECT SEVERITY SUMMARY DETAILS: says one word to the alerts as a part of
 * a worker would, for tests/integration/test_alerts.py; ends when all targets have it. SEVERITY
 * "-": the rule's. Prints the counters. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "common/redis_url.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/queue/queue.h"
#include "worker/watch/alert.h"

enum { LEASE_MS = 1000, LOOK_MS = 10, THREADS = 2 };

struct alarm_state {
    char **words;
    struct loop *loop;
    struct queue *queue;
    struct alerts *alerts;
};

static void on_stop(void *arg, void *holder, enum dr_rc why)
{
    (void)arg;
    (void)holder;
    (void)why;
}

static unsigned poison_limit(void *arg, const char *lane, const char *mid)
{
    (void)arg;
    (void)lane;
    (void)mid;
    return 0;
}

static void leave(void *arg)
{
    struct alarm_state *s = arg;
    while (!queue_at_rest(s->queue))
        (void)fiber_sleep(LOOK_MS, NULL);
    loop_stop(s->loop);
}

static void stopped(void *arg)
{
    struct alarm_state *s = arg;
    fiber_start(s->loop, leave, s);
}

static void say_and_wait(void *arg)
{
    struct alarm_state *s = arg;
    char **w = s->words;
    struct alert_counts c = {0};
    if (strcmp(w[0], "raise") == 0)
        alert_raise(s->alerts, w[1], w[2], strcmp(w[3], "-") == 0 ? NULL : w[3], w[4], w[5]);
    else
        alert_clear(s->alerts, w[1], w[2], w[4]);
    do {
        (void)fiber_sleep(LOOK_MS, NULL);
        alert_read_counts(s->alerts, &c);
    } while (c.raised + c.resolved + c.repeated == 0 || c.target[0].waiting || c.target[1].waiting);
    for (unsigned i = 0; i < 2; i++)
        (void)printf("%s sent=%llu failed_tries=%llu given_up=%llu\n", c.target[i].name,
                     (unsigned long long)c.target[i].sent,
                     (unsigned long long)c.target[i].failed_tries,
                     (unsigned long long)c.target[i].given_up);
    queue_stop_service(s->queue);
    alert_stop(s->alerts, stopped, s);
}

int main(int argc, char **argv)
{
    static const char *const lanes[] = {"noop", NULL};
    struct alarm_state s = {.words = argv + 1};
    struct job_services services = {0};
    struct dr_redis_url url = {0};
    struct dr_config *config = NULL;
    struct pool *pool = NULL;
    struct dr_err err = {0};
    int code = 1;
    if (argc != 7)
        return 2;
    (void)signal(SIGPIPE, SIG_IGN);
    if (dr_config_load(NULL, &config, &err) ||
        dr_redis_url_parse((const char *)dr_config_redis_url(config)->bytes, &url, &err) ||
        loop_new(&s.loop, &err) || pool_new(s.loop, THREADS, &pool, &err))
        goto out;
    services = (struct job_services){.loop = s.loop, .pool = pool, .config = config, .ns = "dr"};
    const struct queue_options o = {.loop = s.loop,
                                    .pool = pool,
                                    .url = &url,
                                    .ns = "dr",
                                    .lease_ms = LEASE_MS,
                                    .lanes = lanes,
                                    .on_stop = on_stop,
                                    .poison_limit = poison_limit};
    if (queue_new(&o, &s.queue, &err) || alert_new(&services, s.queue, LEASE_MS, &s.alerts, &err) ||
        queue_start_service(s.queue, &err))
        goto out;
    alert_start(s.alerts);
    fiber_start(s.loop, say_and_wait, &s);
    code = loop_run(s.loop) == 0 ? 0 : 1;
out:
    if (err.rc)
        (void)fprintf(stderr, "alarm: %s [%s=%s]\n", err.msg, err.field, err.value);
    alert_free(s.alerts);
    queue_free(s.queue);
    pool_free(pool);
    loop_free(s.loop);
    fiber_cache_drop();
    dr_redis_url_free(&url);
    dr_config_free(config);
    return code;
}
