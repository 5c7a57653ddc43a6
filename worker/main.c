/* drworker: options, tables, wiring. The only file that knows all. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "common/config.h"
#include "common/log.h"
#include "common/redis_url.h"
#include "common/str.h"
#include "common/wire/keyfile.h"
#include "common/wire/pack.h"
#include "common/wire/sched.h"
#include "worker/backup/audit_order.h"
#include "worker/backup/keyring.h"
#include "worker/backup/store.h"
#include "worker/cli/cli.h"
#include "worker/core/fiber.h"
#include "worker/core/httpd.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/job/dispatch.h"
#include "worker/job/schedule_set.h"
#include "worker/recovery/drill_target.h"
#include "worker/recovery/procedure.h"
#include "worker/recovery/takeover.h"
#include "worker/task/tasks.h"
#include "worker/watch/alert.h"
#include "worker/watch/head.h"
#include "worker/watch/watch.h"

/* Segments of backups are megabytes, made and freed by threads that come and go. glibc would let
 * its threshold for mappings of their own grow with them and keep each thread's heap: 85 MiB after
 * six backups instead of 28. */
enum { OWN_MAPPING_BYTES = 128 << 10, HEAPS = 2 };

enum { POOL_THREADS = 6, TAKEOVER_EVERY_MS = 60000, INFO_MAX = 65536 };

struct worker {
    struct dr_config *config;
    struct dr_redis_url url;
    struct dr_keyfile *keys;
    struct store *store; /* NULL without BACKUP_DIRECTORY */
    struct dr_secret sched_key;
    struct loop *loop;
    struct pool *pool;
    struct job_services services;
    struct audit_orders audit;
    struct dispatch *dispatch;
    struct schedule_set *schedules;
    struct watch *watch;
    struct alerts *alerts;
    struct httpd_address listen;
    struct httpd *httpd;       /* NULL: off, or its address is taken */
    struct takeover *takeover; /* NULL: no store, or no lane that keeps journals is served */
};

static const char usage_text[] =
    "usage: drworker [--config FILE] [COMMAND]\n"
    "  run              take jobs from Redis until SIGTERM (the default)\n"
    "  config [--json]  the effective configuration and where each value comes from\n"
    "  open FILE [-o OUT]  the plain bytes of one .drb; needs only the passphrase\n"
    "  keys init|list|add-recovery|change-passphrase  slots of the keyring\n"
    "  backups [--json] the catalog: what is kept, how old, proven when\n"
    "  backups --pin ID --reason TEXT [--until TIME] | --unpin ID |\n"
    "          --give-up ID --reason TEXT | --undelete ID | --acknowledge ID\n"
    "  retention-plan [--now TIME]  what retention keeps and gives up, and why; also --simulate "
    "YEARS\n"
    "                   [--start TIME], and --oracle [--no-keep-oldest] over a list on standard "
    "input\n"
    "  leftovers [--json]  old databases and trees that recoveries keep, and until when\n"
    "  audit show|verify  who ordered what and what came of it; the log's proof\n"
    "  schedule [--json]  the schedules: what they order, their next slots, their last run\n"
    "  drills [--json]  recoveries that were rehearsed: how long they took, against the targets\n"
    "  check            everything a worker will need, one line each; changes nothing\n"
    "  --version, --help\n";

static void on_terminate(void *arg)
{
    struct worker *w = arg;
    dispatch_drain(w->dispatch);
}

static void stop(void *arg)
{
    struct worker *w = arg;
    loop_stop(w->loop);
}

static void stop_watch(void *arg)
{
    struct worker *w = arg;
    watch_stop(w->watch, stop, w);
}

/* A journal that is being resolved is brought to its end first. */
static void stop_takeover(void *arg)
{
    struct worker *w = arg;
    if (w->takeover)
        takeover_stop(w->takeover, stop_watch, w);
    else
        stop_watch(w);
}

static void on_end(void *arg, const struct job_task *task, const struct job *j,
                   enum job_outcome outcome)
{
    struct worker *w = arg;
    watch_job_ended(w->watch, task, j, outcome);
}

static bool is_draining(const void *dispatch)
{
    return dispatch_is_draining(dispatch);
}

static void tell_head(struct worker *w, const struct catalog_head *head)
{
    char sha256[65];
    dr_hex(head->sha256, sizeof head->sha256, sha256);
    dispatch_tell_head(w->dispatch, head->seq, sha256);
}

static void on_drained(void *arg)
{
    struct worker *w = arg;
    alert_stop(w->alerts, stop_takeover, w);
}

static void on_order(void *arg, const struct dispatch_order *o)
{
    struct worker *w = arg;
    audit_order(&w->audit, o);
    alert_on_order(w->alerts, o);
    tell_head(w, &w->audit.catalog);
}

static void on_poison(void *arg, const char *lane, const void *raw, size_t len)
{
    struct worker *w = arg;
    alert_on_poison(w->alerts, lane, raw, len);
}

static void on_other_head(void *arg, uint64_t seq, const char *sha256_hex)
{
    struct worker *w = arg;
    struct catalog_head now;
    if (!head_went_back(&w->services, seq, sha256_hex, &now))
        tell_head(w, &now);
}

static enum dr_rc set_up_logs(const struct dr_config *c, struct dr_err *err)
{
    enum dr_log_level level;
    const char *format = dr_config_str(c, "DR_LOG_FORMAT"),
               *text = dr_config_str(c, "DR_LOG_LEVEL");
    if (!dr_log_parse_level(text, &level)) {
        (void)dr_fail(err, DR_E_CONFIG, "DR_LOG_LEVEL: not debug, info, warn or error");
        return dr_err_field(err, "DR_LOG_LEVEL", text, strlen(text));
    }
    if (strcmp(format, "json") != 0 && strcmp(format, "text") != 0) {
        (void)dr_fail(err, DR_E_CONFIG, "DR_LOG_FORMAT: not json or text");
        return dr_err_field(err, "DR_LOG_FORMAT", format, strlen(format));
    }
    dr_log_setup(level, strcmp(format, "json") == 0);
    return DR_OK;
}

static enum dr_rc read_settings(struct worker *w, const char *file, struct dr_err *err)
{
    if (dr_config_load(file, &w->config, err) || set_up_logs(w->config, err))
        return err->rc;
    const struct dr_secret *url = dr_config_redis_url(w->config);
    const char *keys = dr_config_str(w->config, "DR_SIGN_KEYS_FILE");
    if (dr_redis_url_parse(url->len ? (const char *)url->bytes : "redis://127.0.0.1:6379/0",
                           &w->url, err))
        return err->rc;
    if (httpd_parse(dr_config_str(w->config, "DR_HTTP_LISTEN"), &w->listen, err))
        return err->rc;
    if (keys[0] && dr_keyfile_load(keys, &w->keys, err))
        return dr_wrap(err, "DR_SIGN_KEYS_FILE");
    if (drill_check_targets(w->config, err))
        return err->rc;
    return schedule_set_load(w->config, task_table, &w->schedules, err);
}

/* Blocking, before the loop turns: a passphrase that opens nothing stops the worker here. */
static enum dr_rc open_store(struct worker *w, struct dr_err *err)
{
    unsigned char key[KEYRING_KEY];
    if (!dr_config_str(w->config, "BACKUP_DIRECTORY")[0])
        return DR_OK;
    if (store_open(w->config, STORE_WORK, &w->store, err) ||
        keyring_derive(store_keys(w->store), 1, "sched-sign", key, sizeof key, err))
        return err->rc;
    dr_secret_set(&w->sched_key, key, sizeof key);
    dr_wipe(key, sizeof key);
    return DR_OK;
}

static enum dr_rc wire(struct worker *w, struct dr_err *err)
{
    if (loop_new(&w->loop, err) || pool_new(w->loop, POOL_THREADS, &w->pool, err) ||
        loop_on_signal(w->loop, SIGTERM, on_terminate, w, err) ||
        loop_on_signal(w->loop, SIGINT, on_terminate, w, err))
        return err->rc;
    w->services = (struct job_services){.loop = w->loop,
                                        .pool = w->pool,
                                        .config = w->config,
                                        .store = w->store,
                                        .keep_result = w->store ? store_keep_result : NULL,
                                        .resolved = &alert_resolved,
                                        .ns = dr_config_str(w->config, "DR_NAMESPACE")};
    w->audit.services = &w->services;
    const struct dispatch_options o = {
        .services = &w->services,
        .tasks = task_table,
        .url = &w->url,
        .lanes = dr_config_str(w->config, "DR_LANES"),
        .concurrency = (unsigned)dr_config_int(w->config, "DR_CONCURRENCY"),
        .lease_ms = dr_config_int(w->config, "DR_LEASE_MS"),
        .drain_ms = dr_config_int(w->config, "DR_DRAIN_MS"),
        .keys = w->keys,
        .sched_key = w->store ? &w->sched_key : NULL,
        .schedules = w->schedules,
        .allow_unsigned = dr_config_bool(w->config, "DR_ALLOW_UNSIGNED"),
        .store_id = w->store ? store_id(w->store) : NULL,
        .open_run = w->store ? takeover_is_open : NULL,
        .closed_run = w->store ? takeover_is_closed : NULL,
        .journals = &w->services,
        .on_order = on_order,
        .on_other_head = on_other_head,
        .on_poison = on_poison,
        .on_end = on_end,
        .on_drained = on_drained,
        .arg = w};
    if (dispatch_new(&o, &w->dispatch, err) ||
        alert_new(&w->services, dispatch_queue(w->dispatch), o.lease_ms, &w->alerts, err))
        return err->rc;
    w->services.alerts = w->alerts;
    w->services.redis_ms = dispatch_redis_ms;
    w->services.queue = w->services.dispatch = w->dispatch;
    const struct watch_options wo = {.services = &w->services,
                                     .tasks = task_table,
                                     .queue = dispatch_queue(w->dispatch),
                                     .is_draining = is_draining,
                                     .arg = w->dispatch};
    w->watch = w->services.watch = watch_new(&wo);
    return DR_OK;
}

/* A worker recovers also where nobody can measure it: a busy address is a warning. */
static void serve(struct worker *w)
{
    struct dr_err err = {0};
    char where[160];
    if (w->listen.off)
        return;
    if (httpd_new(w->loop, &w->listen, watch_routes, w->watch, &w->httpd, &err)) {
        dr_log_err(DR_LOG_WARN, "http.off", &err, "DR_HTTP_LISTEN",
                   dr_config_str(w->config, "DR_HTTP_LISTEN"), NULL);
        return;
    }
    httpd_where(w->httpd, where, sizeof where);
    dr_log(DR_LOG_INFO, "http.listen", "at", where, NULL);
}

/* What clients read instead of asking workers: the procedures with their steps, and the key that
 * seals settings for us. */
static enum dr_rc announce(struct worker *w, struct dr_err *err)
{
    unsigned char pub[KEYRING_KEY];
    struct catalog_head head;
    struct dr_buf b;
    enum dr_rc rc = DR_OK;
    dr_buf_init(&b, INFO_MAX);
    recovery_procedures_pack(&b);
    dispatch_tell(w->dispatch, "procedures", b.data, b.len);
    dr_buf_reset(&b);
    if (w->store) {
        store_head(w->store, &head);
        tell_head(w, &head);
    }
    if (w->store && w->keys && !(rc = keyring_seal_public(store_keys(w->store), pub, err)) &&
        !(rc = dr_seal_pub_pack(w->services.ns, pub, w->keys, &b, err)))
        dispatch_tell(w->dispatch, "seal_pub", b.data, b.len);
    dr_buf_fini(&b);
    return rc;
}

static int run(const struct cli *c)
{
    struct worker w = {0};
    struct dr_err err = {0};
    char url[512];
    int code = 0;
    if (read_settings(&w, c->config_file, &err) || open_store(&w, &err) || wire(&w, &err) ||
        announce(&w, &err) || dispatch_start(w.dispatch, &err)) {
        code = cli_fail(&err);
        goto out;
    }
    dr_redis_url_show(&w.url, url);
    dr_log(DR_LOG_INFO, "worker.start", "version", DR_VERSION, "redis", url, NULL);
    loop_lag_start(w.loop);
    alert_start(w.alerts);
    watch_start(w.watch);
    serve(&w);
    if (w.store &&
        (dispatch_serves(w.dispatch, "execute") || dispatch_serves(w.dispatch, "test-recovery")))
        w.takeover = takeover_start(&w.services, TAKEOVER_EVERY_MS);
    if (loop_run(w.loop) != 0)
        code = 1;
    if (dispatch_refusal(w.dispatch))
        code = cli_fail(dispatch_refusal(w.dispatch));
    dr_log(DR_LOG_INFO, "worker.stop", NULL);
out:
    httpd_free(w.httpd);
    alert_free(w.alerts);
    dispatch_free(w.dispatch);
    watch_free(w.watch);
    takeover_free(w.takeover);
    pool_free(w.pool);
    loop_free(w.loop);
    fiber_cache_drop();
    dr_keyfile_free(w.keys);
    dr_secret_free(&w.sched_key);
    schedule_set_free(w.schedules);
    store_close(w.store);
    dr_redis_url_free(&w.url);
    dr_config_free(w.config);
    return code;
}

static const struct {
    const char *name;
    int (*fn)(const struct cli *c);
    bool words; /* takes what follows it */
} commands[] = {
    {"run", run, false},
    {"config", cli_config, false},
    {"backups", cli_backups, true},
    {"drills", cli_drills, false},
    {"check", cli_check, false},
    {"leftovers", cli_leftovers, false},
    {"open", cli_open, true},
    {"keys", cli_keys, true},
    {"retention-plan", cli_retention_plan, true},
    {"audit", cli_audit, true},
    {"schedule", cli_schedule, false},
};

static int usage(FILE *to, int code)
{
    (void)fputs(usage_text, to);
    return code;
}

int main(int argc, char **argv)
{
    struct cli c = {0};
    const char *command = NULL;
    char *rest[64];
    (void)mallopt(M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
    (void)mallopt(M_ARENA_MAX, HEAPS);
    (void)prctl(PR_SET_DUMPABLE, 0); /* no core file holds a key */
    (void)signal(SIGPIPE, SIG_IGN);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return usage(stdout, 0);
        if (strcmp(argv[i], "--version") == 0)
            return printf("drworker %s\n", DR_VERSION) > 0 ? 0 : 1;
        if (strcmp(argv[i], "--json") == 0)
            c.json = true;
        else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
            c.config_file = argv[++i];
        else if (!command && argv[i][0] != '-')
            command = argv[i];
        else if (c.argc < 64)
            rest[c.argc++] = argv[i];
    }
    c.argv = rest;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(command ? command : "run", commands[i].name) == 0) {
            if (c.argc > 0 && !commands[i].words) {
                (void)fprintf(stderr, "drworker: %s takes no '%s'\n", commands[i].name, rest[0]);
                return usage(stderr, 2);
            }
            return commands[i].fn(&c);
        }
    (void)fprintf(stderr, "drworker: unknown command '%s'\n", command);
    return usage(stderr, 2);
}
