/* drworker schedule: what this configuration orders by itself, the slots that come next, and what
 * Redis, where it answers, knows of the last one. Changes nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/redis_url.h"
#include "common/str.h"
#include "worker/cli/cli.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/job/schedule_set.h"
#include "worker/queue/conn.h"
#include "worker/queue/schedule.h"
#include "worker/task/tasks.h"

enum { THREADS = 1, REDIS_WAIT_MS = 3000, SHOWN_SLOTS = 3, OUT_MAX = 1 << 20 };

struct shown {
    const struct dr_config *config;
    struct schedule_set *set;
    struct queue_schedule_state state[SCHEDULES_MAX];
    struct loop *loop;
    struct pool *pool;
    struct dr_redis_url url;
    bool up, known; /* known: state was read */
    struct dr_err why;
};

static void on_up(void *arg)
{
    ((struct shown *)arg)->up = true;
}

static void on_down(void *arg, const struct dr_err *err)
{
    struct shown *s = arg;
    if (err && !s->why.rc)
        s->why = *err;
}

static enum dr_rc read_states(struct shown *s, struct dr_err *err)
{
    struct queue_conn *conn = NULL;
    struct dr_keys keys;
    const struct queue_conn_options o = {
        .url = &s->url, .name = "drworker-schedule", .on_up = on_up, .on_down = on_down, .arg = s};
    int64_t until = dr_clock_ms() + REDIS_WAIT_MS;
    if (dr_keys_init(&keys, dr_config_str(s->config, "DR_NAMESPACE"), err) ||
        queue_conn_new(s->loop, s->pool, &o, &conn, err))
        return err->rc;
    queue_conn_start(conn);
    while (!s->up && !s->why.rc && dr_clock_ms() < until)
        (void)fiber_sleep(10, NULL);
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; s->up && i < s->set->count && !rc; i++)
        rc = queue_schedule_read(conn, &keys, s->set->at[i].name, &s->state[i], err);
    s->known = s->up && !rc;
    queue_conn_free(conn);
    if (!s->up)
        rc = dr_fail(err, DR_E_UNREACHABLE, "Redis: %s", s->why.rc ? s->why.msg : "no answer");
    return rc;
}

static void read_fiber(void *arg)
{
    struct shown *s = arg;
    struct dr_err err = {0};
    if (read_states(s, &err))
        (void)fprintf(stderr, "drworker: the last runs are not known: %s\n", err.msg);
    loop_stop(s->loop);
}

static void put_time(struct dr_buf *b, int64_t ms)
{
    char text[DR_TIME_TEXT];
    dr_format_time(ms, text);
    dr_buf_json(b, text, strlen(text));
}

static void put_text(struct dr_buf *b, const char *name, const char *value)
{
    dr_buf_printf(b, ",\"%s\":", name);
    dr_buf_json(b, value, strlen(value));
}

static void put_last(struct dr_buf *b, const struct queue_schedule_state *state)
{
    if (state->last.slot_ms) {
        dr_buf_str(b, ",\"last\":{\"slot\":");
        put_time(b, (int64_t)state->last.slot_ms);
        dr_buf_str(b, ",\"at\":");
        put_time(b, (int64_t)state->last.at_ms);
        put_text(b, "job", state->last.jid);
        put_text(b, "st", state->st);
        put_text(b, "outcome", state->outcome);
        dr_buf_str(b, "}");
    }
    if (state->passed.slot_ms) {
        dr_buf_str(b, ",\"passed\":{\"slot\":");
        put_time(b, (int64_t)state->passed.slot_ms);
        put_text(b, "why", state->passed.why);
        dr_buf_str(b, "}");
    }
}

static void put_json(const struct shown *s, unsigned i, int64_t now, struct dr_buf *b)
{
    const struct schedule *one = &s->set->at[i];
    dr_buf_str(b, i ? ",\n {\"name\":" : "[\n {\"name\":");
    dr_buf_json(b, one->name, strlen(one->name));
    put_text(b, "lane", one->lane);
    put_text(b, "cron", one->info.cron);
    put_text(b, "zone", one->info.zone);
    put_text(b, "misfire", one->info.misfire);
    put_text(b, "overlap", one->info.overlap);
    dr_buf_printf(b, ",\"late_ms\":%lld,\"jitter_ms\":%lld,\"args\":{", (long long)one->late_ms,
                  (long long)one->jitter_ms);
    for (unsigned k = 0; one->args[k][0]; k++) {
        dr_buf_str(b, k ? "," : "");
        dr_buf_json(b, one->args[k][0], strlen(one->args[k][0]));
        dr_buf_str(b, ":");
        dr_buf_json(b, one->args[k][1], strlen(one->args[k][1]));
    }
    dr_buf_str(b, "}");
    if (one->off)
        put_text(b, "off", one->off);
    dr_buf_str(b, ",\"next\":[");
    for (unsigned k = 0; !one->off && k < SHOWN_SLOTS; k++) {
        dr_buf_str(b, k ? "," : "");
        put_time(b, now = schedule_next(one, now));
    }
    dr_buf_str(b, "]");
    if (s->known)
        put_last(b, &s->state[i]);
    dr_buf_str(b, "}");
}

static void put_line(const struct shown *s, unsigned i, int64_t now, struct dr_buf *b)
{
    const struct schedule *one = &s->set->at[i];
    const struct queue_schedule_state *state = &s->state[i];
    char text[DR_TIME_TEXT];
    dr_buf_printf(b, "%-20s %-14s %-16s %-16s", one->name, one->lane, one->info.cron,
                  one->info.zone);
    if (one->off)
        dr_buf_printf(b, " off: %s", one->off);
    for (unsigned k = 0; !one->off && k < SHOWN_SLOTS; k++) {
        dr_format_time(now = schedule_next(one, now), text);
        dr_buf_printf(b, " %.16sZ", text);
    }
    if (!one->off && s->known && state->last.slot_ms) {
        dr_format_time((int64_t)state->last.slot_ms, text);
        dr_buf_printf(b, "  last %.16sZ %s", text,
                      state->outcome[0] ? state->outcome
                      : state->st[0]    ? state->st
                                        : "forgotten");
    } else if (!one->off && s->known) {
        dr_buf_str(b, "  never ran");
    }
    dr_buf_str(b, "\n");
}

static void print(const struct shown *s, bool json)
{
    struct dr_buf b;
    int64_t now = dr_wall_ms();
    dr_buf_init(&b, OUT_MAX);
    if (!json)
        dr_buf_printf(&b, "%-20s %-14s %-16s %-16s %s\n", "NAME", "LANE", "CRON", "ZONE",
                      "NEXT, IN UTC");
    for (unsigned i = 0; i < s->set->count; i++)
        json ? put_json(s, i, now, &b) : put_line(s, i, now, &b);
    if (json)
        dr_buf_str(&b, "\n]\n");
    (void)fputs((const char *)b.data, stdout);
    dr_buf_fini(&b);
}

static enum dr_rc load(const struct cli *c, struct dr_config **config, struct shown *s,
                       struct dr_err *err)
{
    if (dr_config_load(c->config_file, config, err) ||
        schedule_set_load(*config, task_table, &s->set, err))
        return err->rc;
    s->config = *config;
    const struct dr_secret *url = dr_config_redis_url(*config);
    if (dr_redis_url_parse(url->len ? (const char *)url->bytes : "redis://127.0.0.1:6379/0",
                           &s->url, err) ||
        loop_new(&s->loop, err) || pool_new(s->loop, THREADS, &s->pool, err))
        return err->rc;
    bool store =
        dr_config_str(*config, "BACKUP_DIRECTORY")[0]; /* or nobody can sign its messages */
    for (unsigned i = 0; (!store || s->set->none) && i < s->set->count; i++)
        s->set->at[i].off = store ? "off" : "no BACKUP_DIRECTORY";
    return DR_OK;
}

int cli_schedule(const struct cli *c)
{
    struct shown *s = dr_xalloc(sizeof *s);
    struct dr_config *config = NULL;
    struct dr_err err = {0};
    int code = load(c, &config, s, &err) ? cli_fail(&err) : 0;
    if (!code) {
        fiber_start(s->loop, read_fiber, s);
        if (loop_run(s->loop) != 0)
            code = 1;
        else
            print(s, c->json);
    }
    pool_free(s->pool);
    loop_free(s->loop);
    fiber_cache_drop();
    schedule_set_free(s->set);
    dr_redis_url_free(&s->url);
    dr_config_free(config);
    free(s);
    return fflush(stdout) == 0 ? code : 1;
}
