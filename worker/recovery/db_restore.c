/* Restore beside live: a scratch database from template0, pg_restore with two jobs from the plain
 * dump. In a fiber. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "worker/backup/handle.h"
#include "worker/backup/store.h"
#include "worker/core/fault.h"
#include "worker/core/pool.h"
#include "worker/core/proc.h"
#include "worker/recovery/db_dump.h"
#include "worker/recovery/db_internal.h"
#include "worker/recovery/steps.h"

enum {
    READERS = 2,
    JOBS = 2,           /* of pg_restore */
    LEAST_MS = 1800000, /* what pg_restore may take: half an hour, and a second a MB */
    BYTES_PER_MS = 1 << 10,
};

/* ---- the scratch database ---- */

bool db_swap_was_live(const struct recovery *r)
{
    return recovery_find_done(r, "swap") || recovery_find_intent(r, "swap-back");
}

static enum dr_rc drop(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    return db_conn_run(r, d->lock, err, "DROP DATABASE IF EXISTS %I WITH (FORCE)", d->scratch);
}

enum dr_rc db_restore_drop(struct recovery *r, struct dr_err *err)
{
    if (!recovery_pending(r, "restore") || db_swap_was_live(r))
        return DR_OK;
    if (db_lock_take(r, 10000, err) || drop(r, err))
        return err->rc;
    db_of(r)->scratch_oid = 0;
    return recovery_undone(r, "restore", NULL, err);
}

static void add_option(struct dr_buf *sql, const char *name, const char *value)
{
    if (!value)
        return;
    char *quoted = pg_quote_literal(value);
    dr_buf_printf(sql, " %s %s", name, quoted);
    free(quoted);
}

static enum dr_rc create_scratch(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct db_expected *e = &d->expected;
    int version = pg_server_version(d->lock);
    struct dr_buf more;
    dr_buf_init(&more, 4096);
    add_option(&more, "ENCODING", e->encoding);
    add_option(&more, "LC_COLLATE", e->collate);
    add_option(&more, "LC_CTYPE", e->ctype);
    if (version >= 150000 && e->provider && e->provider[0] == 'i') {
        add_option(&more, "LOCALE_PROVIDER", "icu");
        add_option(&more, version >= 170000 ? "LOCALE" : "ICU_LOCALE", e->locale);
    } else if (version >= 170000 && e->provider && e->provider[0] == 'b') {
        add_option(&more, "LOCALE_PROVIDER", "builtin");
        add_option(&more, "BUILTIN_LOCALE", e->locale);
    } else if (version >= 150000) {
        add_option(&more, "LOCALE_PROVIDER", "libc");
    }
    if (e->tablespace && strcmp(e->tablespace, "pg_default") != 0) {
        char *quoted = pg_quote_ident(e->tablespace);
        dr_buf_printf(&more, " TABLESPACE %s", quoted);
        free(quoted);
    }
    enum dr_rc rc = more.failed
                        ? dr_fail(err, DR_E_TOO_BIG, "properties of the database")
                        : db_conn_run(r, d->lock, err, "CREATE DATABASE %I TEMPLATE template0%s",
                                      d->scratch, more.len ? (const char *)more.data : "");
    dr_buf_fini(&more);
    if (rc)
        return dr_wrap(err, "scratch database %s", d->scratch);
    /* Nobody but us until it is proven. */
    if (db_conn_run(r, d->lock, err, "REVOKE ALL ON DATABASE %I FROM PUBLIC", d->scratch))
        return err->rc;
    return db_lock_oid(r, d->scratch, &d->scratch_oid, err);
}

/* A scratch database that this run did not make is not ours to drop. */
static enum dr_rc make_room(struct recovery *r, bool ours, struct dr_err *err)
{
    struct db *d = db_of(r);
    uint32_t there = 0;
    if (db_lock_oid(r, d->scratch, &there, err))
        return err->rc;
    if (there && (!ours || db_swap_was_live(r)))
        return dr_fail(err, DR_E_EXISTS, "database %s is there and this run has not made it",
                       d->scratch);
    return there ? drop(r, err) : DR_OK;
}

/* ---- the plain dump ---- */

struct staging_dump {
    struct recovery *r;
    const char *folder;
    uint64_t bytes;
    _Atomic uint64_t *progress;
};

const char *db_restore_folder(struct recovery *r, char out[4096])
{
    const char *work = dr_config_str(r->env->config, "DR_WORK_DIRECTORY");
    (void)snprintf(out, 4096, "%s%s", work[0] ? work : store_path(r->env->store),
                   work[0] ? "" : "/staging");
    return out;
}

/* Only when the proof could not write it. */
static enum dr_rc stage(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct staging_dump *s = item;
    struct db *d = db_of(s->r);
    struct object_reader *reader = NULL;
    const struct prove_options o = {.cancel = cancel, .progress = s->progress, .threads = READERS};
    const void *bytes;
    size_t len = 1;
    enum dr_rc rc = recovery_spares_reserve(
        s->r, dr_config_str(s->r->env->config, "DR_WORK_DIRECTORY"), s->bytes, err);
    if (!rc)
        rc = db_dump_new(s->folder, &d->dump, err);
    if (!rc)
        rc = object_reader_open(s->r->backup, "database", &o, &reader, err);
    while (!rc && len > 0) {
        rc = object_reader_read(reader, &bytes, &len, err);
        if (!rc && len > 0)
            rc = db_dump_add(d->dump, bytes, len, err);
    }
    object_reader_close(reader);
    return rc;
}

static enum dr_rc drop_dump(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct db *d = item;
    (void)cancel;
    (void)err;
    db_dump_free(d->dump);
    d->dump = NULL;
    return DR_OK;
}

/* Giving back the pages of a large one takes a while. */
void db_restore_drop_dump(struct recovery *r)
{
    struct dr_err ignored = {0};
    if (db_of(r)->dump)
        (void)pool_run(r->env->pool, drop_dump, db_of(r), NULL, &ignored);
}

/* ---- pg_restore ---- */

/* For our own sessions only. The commit of the swap is synchronous and flushes all that was written
 * before it; until then a crash of the server only means that scratch is made again. Where two jobs
 * have all processors of the server, more processes for an index only take them from each other. */
static const char *restore_options(const struct db *d)
{
    const char *host = d->admin.host;
    bool here = host[0] == 0 || host[0] == '/' || strcmp(host, "localhost") == 0 ||
                strcmp(host, "127.0.0.1") == 0 || strcmp(host, "::1") == 0;
    return here && sysconf(_SC_NPROCESSORS_ONLN) <= JOBS
               ? "-c synchronous_commit=off -c max_parallel_maintenance_workers=0"
               : "-c synchronous_commit=off";
}

static enum dr_rc run_pg_restore(struct recovery *r, int fd, uint64_t bytes, struct dr_err *err)
{
    struct db *d = db_of(r);
    unsigned major = (unsigned)pg_server_version(d->lock) / 10000;
    char tool[4096], file[32], dbname[96], jobs[16];
    struct pg_child_env *env = NULL;
    struct proc_result result = {0};
    if (pg_tool_path(r->env->loop, recovery_cancel(r), dr_config_str(r->env->config, "PG_BIN_DIR"),
                     major, "pg_restore", tool, err) ||
        pg_child_env_new(&d->admin, d->scratch, restore_options(d), &env, err))
        return err->rc;
    (void)snprintf(d->tool, sizeof d->tool, "%.*s", (int)sizeof d->tool - 1, tool);
    const int keep[] = {fd, env->keep_fds[0], -1};
    (void)snprintf(file, sizeof file, "/proc/self/fd/%d", fd);
    (void)snprintf(jobs, sizeof jobs, "--jobs=%d", (int)JOBS);
    (void)snprintf(dbname, sizeof dbname, "--dbname=%s", d->scratch);
    const char *const argv[] = {tool, "--exit-on-error", jobs, "--no-password", dbname, file, NULL};
    const struct proc_spec spec = {.argv = argv,
                                   .env = (const char *const *)env->env,
                                   .keep_fds = keep,
                                   .deadline_ms = LEAST_MS + bytes / BYTES_PER_MS,
                                   .name = "pg_restore"};
    enum dr_rc rc = proc_run(r->env->loop, &spec, recovery_cancel(r), &result, err);
    dr_buf_fini(&result.out);
    pg_child_env_free(env);
    return rc;
}

enum dr_rc db_restore(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    int64_t began = dr_clock_ms();
    char folder[4096];
    const struct manifest_object *dump = manifest_object(handle_manifest(r->backup), "database");
    struct staging_dump s = {
        .r = r, .folder = db_restore_folder(r, folder), .progress = job_progress_counter(r->job)};
    bool ours = recovery_find_intent(r, "restore") != NULL;
    s.bytes = dump ? dump->plain_bytes : 0;
    job_progress_total(r->job, dump && !d->dump ? dump->plain_bytes : 0);
    if (db_lock_take(r, 10000, err) ||
        recovery_intent(r, "restore", json_pack("{s:o}", "scratch", recovery_text(d->scratch)),
                        err) ||
        make_room(r, ours, err) || create_scratch(r, err) ||
        fault_point("execute.restore.created", err))
        return err->rc;
    enum dr_rc rc =
        d->dump ? DR_OK : pool_run_long(r->env->pool, stage, &s, recovery_cancel(r), err);
    if (!rc) {
        job_message(r->job, "pg_restore into %s", d->scratch);
        rc = run_pg_restore(r, db_dump_fd(d->dump), dump ? dump->plain_bytes : 0, err);
    }
    db_restore_drop_dump(r);
    if (rc)
        return rc;
    d->restore_ms = (uint64_t)(dr_clock_ms() - began);
    return recovery_done(r, "restore",
                         json_pack("{s:I,s:I,s:I,s:I}", "scratch_oid", (json_int_t)d->scratch_oid,
                                   "ms", (json_int_t)d->restore_ms, "bytes",
                                   (json_int_t)(dump ? dump->plain_bytes : 0), "rows",
                                   (json_int_t)d->proven.rows),
                         err);
}
