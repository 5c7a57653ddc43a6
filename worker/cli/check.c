/* drworker check: everything a worker will need, looked at before the night it is needed. One line
 * an item; the exit code is that of the worst failure. */
#include "worker/cli/check.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/redis_url.h"
#include "common/wire/keyfile.h"
#include "worker/cli/cli.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/job/schedule_set.h"
#include "worker/queue/conn.h"
#include "worker/recovery/drill_target.h"
#include "worker/task/tasks.h"
#include "worker/watch/alert.h"

enum { THREADS = 2, REDIS_WAIT_MS = 5000, DETAIL_MAX = 4096 };

struct redis_try {
    bool up;
    struct dr_err why;
};

static void on_up(void *arg)
{
    ((struct redis_try *)arg)->up = true;
}

static void on_down(void *arg, const struct dr_err *err)
{
    struct redis_try *t = arg;
    if (err && !t->why.rc)
        t->why = *err;
}

static enum dr_rc reach_redis(struct check *c, const struct dr_redis_url *url, struct redis_try *t,
                              struct dr_err *err)
{
    struct queue_conn *conn = NULL;
    const struct queue_conn_options o = {
        .url = url, .name = "drworker-check", .on_up = on_up, .on_down = on_down, .arg = t};
    int64_t until = dr_clock_ms() + REDIS_WAIT_MS;
    enum dr_rc rc = queue_conn_new(c->loop, c->pool, &o, &conn, err);
    if (rc)
        return rc;
    queue_conn_start(conn);
    while (!t->up && !t->why.rc && dr_clock_ms() < until)
        (void)fiber_sleep(10, NULL);
    struct dr_err why = t->why;
    queue_conn_free(conn);
    if (t->up)
        return DR_OK;
    return why.rc ? dr_fail(err, why.rc, "%s", why.msg)
                  : dr_fail(err, DR_E_UNREACHABLE, "no answer within %d ms", REDIS_WAIT_MS);
}

enum dr_rc check_redis(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    const struct dr_secret *text = dr_config_redis_url(c->config);
    struct dr_redis_url url = {0};
    struct redis_try t = {0};
    char shown[512];
    enum dr_rc rc = dr_redis_url_parse(
        text->len ? (const char *)text->bytes : "redis://127.0.0.1:6379/0", &url, err);
    if (rc)
        return rc;
    dr_redis_url_show(&url, shown);
    if ((rc = reach_redis(c, &url, &t, err)))
        rc = dr_wrap(err, "%s", shown);
    else
        dr_buf_printf(detail, "%s, a master that evicts nothing", shown);
    dr_redis_url_free(&url);
    return rc;
}

static enum dr_rc check_keys(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    const char *path = dr_config_str(c->config, "DR_SIGN_KEYS_FILE");
    struct dr_keyfile *keys = NULL;
    if (!path[0]) {
        c->skipped = true;
        dr_buf_str(detail, dr_config_bool(c->config, "DR_ALLOW_UNSIGNED")
                               ? "no DR_SIGN_KEYS_FILE: destructive orders run unsigned"
                               : "no DR_SIGN_KEYS_FILE: destructive orders are refused");
        return DR_OK;
    }
    if (dr_keyfile_load(path, &keys, err))
        return dr_wrap(err, "DR_SIGN_KEYS_FILE");
    dr_keyfile_free(keys);
    dr_buf_str(detail, path);
    return DR_OK;
}

static enum dr_rc check_schedules(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    struct schedule_set *set = NULL;
    unsigned on = 0;
    if (schedule_set_load(c->config, task_table, &set, err))
        return err->rc;
    for (unsigned i = 0; i < set->count; i++)
        on += !set->at[i].off;
    c->skipped = set->none || !dr_config_str(c->config, "BACKUP_DIRECTORY")[0];
    if (c->skipped)
        dr_buf_printf(detail, "none are served: %s",
                      set->none ? "DR_SCHEDULES=off" : "no BACKUP_DIRECTORY");
    else
        dr_buf_printf(detail, "%u served, %u off (drworker schedule lists them)", on,
                      set->count - on);
    schedule_set_free(set);
    return DR_OK;
}

static enum dr_rc check_alerts(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    bool any = false;
    enum dr_rc rc = alert_describe(c->config, &any, detail, err);
    c->skipped = !any;
    return rc;
}

static const struct check_item {
    const char *name;
    check_fn *fn;
} items[] = {
    {"signing keys", check_keys},
    {"redis", check_redis},
    {"backup directory", check_directory},
    {"keyring and catalog", check_keyring},
    {"work directory", check_work_directory},
    {"database", check_database},
    {"database tools", check_tools},
    {"database role", check_role},
    {"restore preflight", check_restore},
    {"files", check_files},
    {"config files", check_config_files},
    {"schedules", check_schedules},
    {"alerts", check_alerts},
};

/* The worst first: what is broken, then what is refused, then what may come back by itself. */
static unsigned badness(int code)
{
    static const int order[] = {7, 6, 9, 2, 4, 5, 10, 1};
    for (unsigned i = 0; i < sizeof order / sizeof order[0]; i++)
        if (order[i] == code)
            return 100 - i;
    return code ? 1 : 0;
}

static void report(struct check *c, const char *name, const char *state, const char *text)
{
    struct dr_buf b;
    if (!c->json) {
        (void)printf("%-5s %-20s %s\n", state, name, text);
    } else {
        dr_buf_init(&b, DETAIL_MAX * 2);
        dr_buf_printf(&b,
                      "%s{\"item\":\"%s\",\"state\":\"%s\",\"detail\":", c->items ? ",\n " : "[\n ",
                      name, state);
        dr_buf_json(&b, text, strlen(text));
        dr_buf_str(&b, "}");
        (void)fputs((const char *)b.data, stdout);
        dr_buf_fini(&b);
    }
    c->items++;
    (void)fflush(stdout);
}

static void judge(struct check *c, const char *name, enum dr_rc rc, const char *detail,
                  const struct dr_err *err)
{
    char text[DETAIL_MAX];
    if (!rc) {
        report(c, name, c->skipped ? "-" : "ok", detail);
        return;
    }
    bool value = err->field[0] && err->value[0];
    (void)snprintf(text, sizeof text, "%s%s%s%s%s%s", err->msg, value ? " [" : "",
                   value ? err->field : "", value ? "=" : "", value ? err->value : "",
                   value ? "]" : "");
    report(c, name, "FAIL", text);
    if (badness(dr_rc_exit(rc)) > badness(c->code))
        c->code = dr_rc_exit(rc);
}

static void run_items(void *arg)
{
    struct check *c = arg;
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        struct dr_err err = {0};
        struct dr_buf detail;
        dr_buf_init(&detail, DETAIL_MAX);
        c->skipped = false;
        enum dr_rc rc = items[i].fn(c, &detail, &err);
        judge(c, items[i].name, rc, detail.data ? (const char *)detail.data : "", &err);
        dr_buf_fini(&detail);
    }
    loop_stop(c->loop);
}

int cli_check(const struct cli *cli)
{
    struct check c = {.json = cli->json};
    struct dr_config *config = NULL;
    struct dr_err err = {0};
    enum dr_rc rc = dr_config_load(cli->config_file, &config, &err);
    if (!rc)
        rc = drill_check_targets(config, &err);
    judge(&c, "configuration", rc, cli->config_file ? cli->config_file : "environment", &err);
    c.config = config;
    if (!rc && (loop_new(&c.loop, &err) || pool_new(c.loop, THREADS, &c.pool, &err))) {
        judge(&c, "this process", err.rc, "", &err);
    } else if (!rc) {
        fiber_start(c.loop, run_items, &c);
        if (loop_run(c.loop) != 0)
            c.code = c.code ? c.code : 1;
    }
    if (c.json)
        (void)printf("\n]\n");
    pool_free(c.pool);
    loop_free(c.loop);
    fiber_cache_drop();
    dr_config_free(config);
    return fflush(stdout) == 0 ? c.code : 1;
}
