/* Backups of a PostgreSQL database: pg_dump's stream through counter and container, the globals,
 * the properties. See take.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "worker/backup/take.h"
#include "worker/backup/take_internal.h"
#include "worker/core/pg.h"
#include "worker/core/pool.h"
#include "worker/core/proc.h"
#include "worker/pipe/pgarchive.h"

enum {
    POLL_MS = 500,
    LOCK_WAIT_S = 60,
    PIPE_BYTES = 1 << 20, /* what the system lets anybody have */
    GULP = PIPE_BYTES / 4,
    NAP_NS = 1000000
};

/* One tool's output on its way into an object. */
struct stream {
    struct take *t;
    const char *role;
    int fd;
    uint64_t stall_ms;
    bool roomy;            /* the pipe holds PIPE_BYTES */
    struct pgarchive *tap; /* NULL: nothing is counted */
};

static enum dr_rc on_table(void *arg, const struct pipe_table *x, struct dr_err *err)
{
    struct take *t = arg;
    t->sums.tables++;
    t->sums.rows += x->has_rows ? x->rows : 0;
    return index_put_table(create_index(t->create), x, err);
}

static enum dr_rc on_sequence(void *arg, const struct pipe_sequence *x, struct dr_err *err)
{
    struct take *t = arg;
    return index_put_sequence(create_index(t->create), x, err);
}

static enum dr_rc on_blobs(void *arg, const struct pipe_blobs *x, struct dr_err *err)
{
    struct take *t = arg;
    return index_put_blobs(create_index(t->create), x, err);
}

/* Waits for data with an eye on cancel and on a tool that went silent. */
static enum dr_rc wait_readable(const struct stream *s, struct cancel *cancel, struct dr_err *err)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    for (int64_t until = dr_clock_ms() + (int64_t)s->stall_ms;;) {
        int n = poll(&p, 1, POLL_MS);
        if (n > 0)
            return DR_OK;
        if (n < 0 && errno != EINTR)
            return dr_fail_errno(err, DR_E_IO, "poll");
        if (cancel_pending(cancel))
            return dr_fail(err, DR_E_CANCELLED, "cancelled");
        if (dr_clock_ms() >= until)
            return dr_fail(err, DR_E_TIMEOUT, "silent for %llu s",
                           (unsigned long long)(s->stall_ms / 1000));
    }
}

/* pg_dump writes 4 KiB at a time, and a reader that is awake for each of them costs a switch for
 * each: in all 220,000 for a dump of 660 MB, with naps 48,000, and 3.9 s instead of 4.9 on two
 * cores. What the pipe holds keeps pg_dump busy for 5 ms. */
static void let_it_gather(const struct stream *s, size_t got, size_t room)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    if (s->roomy && got < GULP && got < room)
        (void)nanosleep(&nap, NULL);
}

static enum dr_rc copy(struct stream *s, struct container_writer *w, struct cancel *cancel,
                       struct dr_err *err)
{
    for (;;) {
        void *room;
        size_t len;
        if (container_reserve(w, &room, &len, err) || wait_readable(s, cancel, err))
            return err->rc;
        ssize_t n = read(s->fd, room, len);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "read");
        if (n > 0 && s->tap && pgarchive_feed(s->tap, room, (size_t)n, err))
            return err->rc;
        if (container_commit(w, (size_t)n, err))
            return err->rc;
        if (n == 0)
            return DR_OK;
        let_it_gather(s, (size_t)n, len);
    }
}

static enum dr_rc stream_in(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct stream *s = item;
    struct take *t = s->t;
    struct container_writer *w = NULL;
    if (create_object_begin(t->create, s->role, cancel, t->o.progress, &w, err) ||
        (s->tap && take_facts_put(t->facts, create_index(t->create), err)) ||
        copy(s, w, cancel, err) || create_object_end(t->create, err))
        return err->rc;
    if (!s->tap)
        return DR_OK;
    if (pgarchive_finish(s->tap, NULL, err))
        return err->rc;
    (void)snprintf(t->sums.digests_unknown, sizeof t->sums.digests_unknown, "%s",
                   pgarchive_why(s->tap));
    return DR_OK;
}

/* Runs a tool and takes what it prints as an object. A tool that failed explains a stream that
 * ended too early; a stream that failed explains a tool that was stopped. */
static enum dr_rc run_tool(struct take *t, const char *const *argv, struct pg_child_env *env,
                           const char *role, struct pgarchive *tap, struct dr_err *err)
{
    struct proc *p = NULL;
    struct dr_err tool = {0}, data = {0};
    const struct proc_spec spec = {.argv = argv,
                                   .env = (const char *const *)env->env,
                                   .keep_fds = env->keep_fds,
                                   .pipe_stdout = true,
                                   .cancel = t->o.cancel};
    if (proc_start(t->o.env->loop, &spec, &p, err))
        return err->rc;
    struct stream s = {.t = t, .role = role, .fd = proc_take_stdout(p), .tap = tap};
    s.stall_ms = (uint64_t)dr_config_int(t->o.env->config, "DR_STALL_TIMEOUT_S") * 1000;
    s.roomy = fcntl(s.fd, F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES;
    enum dr_rc streamed = pool_run_long(t->o.env->pool, stream_in, &s, t->o.cancel, &data);
    (void)close(s.fd);
    if (streamed && streamed != DR_E_MALFORMED)
        proc_stop(p);
    enum dr_rc ran = proc_wait(p, streamed ? NULL : t->o.cancel, NULL, &tool);
    if (ran && (!streamed || streamed == DR_E_MALFORMED))
        *err = tool;
    else if (streamed)
        *err = data;
    return err->rc ? dr_wrap(err, "%s", strrchr(argv[0], '/') + 1) : DR_OK;
}

static enum dr_rc dump(struct take *t, struct pg_child_env *env, const char *bin_dir,
                       const char *snapshot, struct dr_err *err)
{
    unsigned char key[32];
    char path[4096], use[128];
    struct pgarchive *tap = NULL;
    const struct pgarchive_events on = {
        .table = on_table, .sequence = on_sequence, .blobs = on_blobs, .arg = t};
    (void)snprintf(use, sizeof use, "--snapshot=%s", snapshot);
    char wait[48];
    (void)snprintf(wait, sizeof wait, "--lock-wait-timeout=%ds", LOCK_WAIT_S);
    const char *const argv[] = {path, "-Fc", "-Z0", "--no-password", wait, use, NULL};
    if (pg_tool_path(t->o.env->loop, t->o.cancel, bin_dir, t->facts->major, "pg_dump", path, err))
        return err->rc;
    enum dr_rc rc = keyring_derive(store_keys(t->o.env->store), 1, "row-digest", key, 32, err);
    if (!rc)
        rc = pgarchive_new(key, &on, &tap, err);
    if (!rc)
        rc = run_tool(t, argv, env, "database", tap, err);
    dr_wipe(key, sizeof key);
    pgarchive_free(tap);
    return rc;
}

static enum dr_rc globals(struct take *t, struct pg_child_env *env, const char *bin_dir,
                          struct dr_err *err)
{
    char path[4096];
    const char *const argv[] = {
        path,         "--globals-only", "--no-password",
        "--database", t->dbname,        t->facts->reads_passwords ? NULL : "--no-role-passwords",
        NULL};
    if (pg_tool_path(t->o.env->loop, t->o.cancel, bin_dir, t->facts->major, "pg_dumpall", path,
                     err))
        return err->rc;
    return run_tool(t, argv, env, "globals", NULL, err);
}

/* The session whose snapshot pg_dump sees: what is read of the database itself, and the point in
 * time, are then those of the dump. */
static enum dr_rc open_snapshot(struct take *t, struct pg_conn **c, char name[64],
                                struct dr_err *err)
{
    struct pg_rows *rows = NULL;
    const struct pg_options o = {
        .dbname = t->dbname, .application_name = "drworker backup", .options = PG_NO_TIMEOUTS};
    if (pg_connect(t->o.env->loop, t->o.env->pool, &t->url, &o, t->o.cancel, c, err) ||
        pg_query(*c, t->o.cancel, NULL, err, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                 NULL) ||
        pg_query(*c, t->o.cancel, &rows, err, "SELECT pg_export_snapshot()", NULL))
        return err->rc;
    create_manifest(t->create)->t_point_ms = dr_wall_ms();
    const char *value = pg_rows_value(rows, 0, 0);
    (void)snprintf(name, 64, "%s", value ? value : "");
    pg_rows_free(rows);
    return take_facts_read(*c, t->o.cancel, &t->facts, err);
}

static void describe(struct take *t)
{
    struct manifest *m = create_manifest(t->create);
    manifest_tool(m, "drworker", DR_VERSION);
    manifest_server(m, "version_num", t->facts->version_num);
    manifest_server(m, "system_identifier", t->facts->system_identifier);
    manifest_server(m, "database", t->dbname);
}

static enum dr_rc data(struct take *t, struct take_part *p, struct dr_err *err)
{
    (void)p;
    struct pg_conn *c = NULL;
    struct pg_child_env *env = NULL;
    char snapshot[64];
    const char *bin_dir = dr_config_str(t->o.env->config, "PG_BIN_DIR");
    enum dr_rc rc = open_snapshot(t, &c, snapshot, err);
    if (!rc)
        rc = pg_child_env_new(&t->url, t->dbname, TAKE_PGOPTIONS, &env, err);
    if (!rc) {
        describe(t);
        rc = dump(t, env, bin_dir, snapshot, err);
    }
    pg_close(c);
    if (!rc)
        rc = globals(t, env, bin_dir, err);
    pg_child_env_free(env);
    return rc;
}

static enum dr_rc begin(struct take *t, struct take_part *p, struct dr_err *err)
{
    (void)p;
    const struct dr_secret *url = dr_config_secret(t->o.env->config, "DATABASE_URL");
    if (!url->len)
        return dr_fail(err, DR_E_CONFIG, "DATABASE_URL is not set");
    if (dr_pg_url_parse((const char *)url->bytes, &t->url, err))
        return dr_wrap(err, "DATABASE_URL");
    (void)snprintf(t->dbname, sizeof t->dbname, "%s", t->o.dbname ? t->o.dbname : t->url.dbname);
    return DR_OK;
}

const struct take_kind take_kind_database = {"database", "DATABASE_URL", 2, begin, data};
