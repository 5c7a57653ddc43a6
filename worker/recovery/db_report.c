/* Dry run: what a run would do, how long it would take by measured rates, and what would be lost.
 * It reads live (count(*) of every table) and changes nothing. In a fiber. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/pack.h"
#include "worker/backup/handle.h"
#include "worker/core/pool.h"
#include "worker/recovery/db_internal.h"

enum {
    REPORT_MAX = 8 << 20,
    GUESS_BYTES_PER_S = 25 << 20, /* nobody has restored here yet */
    FILES_MAX = 1000,
    TABLES_TOLD_MAX = 1000,
};

/* ---- the rate of the newest restore that a journal tells of ---- */

struct rate {
    int store_fd;
    uint64_t bytes, ms;
    int64_t at_ms;
    char run[JOURNAL_RUN_BYTES + 1];
};

static void read_rate(struct rate *best, const char *run)
{
    struct journal *j = NULL;
    struct dr_err ignored = {0};
    if (journal_peek(best->store_fd, run, &j, &ignored))
        return;
    for (size_t i = journal_count(j); i-- > 0;) {
        const struct journal_record *rec = journal_at(j, i);
        const char *step = json_string_value(json_object_get(rec->data, "step"));
        json_int_t ms = json_integer_value(json_object_get(rec->data, "ms"));
        if (strcmp(rec->type, "step-done") != 0 || !step || strcmp(step, "restore") != 0 ||
            ms <= 0 || rec->at_ms <= best->at_ms ||
            !json_is_integer(json_object_get(rec->data, "scratch_oid")))
            continue;
        best->at_ms = rec->at_ms;
        best->ms = (uint64_t)ms;
        best->bytes = (uint64_t)json_integer_value(json_object_get(rec->data, "bytes"));
        (void)snprintf(best->run, sizeof best->run, "%s", run);
        break;
    }
    journal_free(j);
}

static enum dr_rc find_rate(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct rate *best = item;
    int fd = openat(best->store_fd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    unsigned seen = 0;
    (void)err;
    for (struct dirent *e = d ? readdir(d) : NULL; e && seen < FILES_MAX; e = readdir(d)) {
        char run[JOURNAL_RUN_BYTES + 1];
        if (cancel_pending(cancel))
            break;
        if (strlen(e->d_name) != JOURNAL_RUN_BYTES + 4)
            continue;
        (void)snprintf(run, sizeof run, "%s", e->d_name);
        read_rate(best, run);
        seen++;
    }
    if (d)
        (void)closedir(d);
    return DR_OK;
}

/* ---- what would be lost ---- */

struct loss {
    struct dr_buf tables; /* msgpack: name and map of each table that differs */
    unsigned told, differing, unreadable;
    uint64_t live_rows, backup_rows, lost_rows;
    char why[256];
};

static const struct db_table *find_table(const struct db *d, const char *schema, const char *name)
{
    for (size_t i = 0; i < d->expected.table_count; i++)
        if (strcmp(d->expected.tables[i].name, name) == 0 &&
            strcmp(d->expected.tables[i].schema, schema) == 0)
            return &d->expected.tables[i];
    return NULL;
}

static void tell_table(struct loss *l, const char *schema, const char *name, bool readable,
                       uint64_t live, uint64_t backup)
{
    char *full = dr_xasprintf("%s.%s", schema, name);
    l->differing++;
    if (l->told < TABLES_TOLD_MAX) {
        l->told++;
        dr_pack_text(&l->tables, full);
        dr_pack_map(&l->tables, 3);
        dr_pack_text(&l->tables, "live");
        if (readable)
            dr_pack_uint(&l->tables, live);
        else
            dr_pack_nil(&l->tables);
        dr_pack_text(&l->tables, "backup");
        dr_pack_uint(&l->tables, backup);
        dr_pack_text(&l->tables, "lost");
        dr_pack_uint(&l->tables, live > backup ? live - backup : 0);
    }
    free(full);
}

static enum dr_rc compare_table(struct recovery *r, struct pg_conn *c, struct loss *l,
                                const char *schema, const char *name, struct dr_err *err)
{
    const struct db_table *t = find_table(db_of(r), schema, name);
    struct dr_err why = {0};
    uint64_t live = 0, backup = t && t->has_rows ? t->rows : 0;
    char *sql = db_conn_format("SELECT count(*) FROM ONLY %I.%I", schema, name);
    bool readable = db_conn_u64(r, c, &live, &why, sql, NULL) == DR_OK;
    free(sql);
    if (!readable && why.rc != DR_E_SQL) {
        *err = why;
        return why.rc;
    }
    if (!readable) {
        l->unreadable++;
        (void)snprintf(l->why, sizeof l->why, "%s.%s: %s", schema, name, why.msg);
    }
    l->live_rows += live;
    l->lost_rows += live > backup ? live - backup : 0;
    if (!readable || live != backup)
        tell_table(l, schema, name, readable, live, backup);
    return DR_OK;
}

static enum dr_rc compare_live(struct recovery *r, struct loss *l, struct dr_err *err)
{
    struct db *d = db_of(r);
    struct pg_conn *c = NULL;
    struct pg_rows *tables = NULL;
    for (size_t i = 0; i < d->expected.table_count; i++)
        l->backup_rows += d->expected.tables[i].has_rows ? d->expected.tables[i].rows : 0;
    if (d->live_lost)
        return DR_OK;
    struct dr_err why = {0};
    if (db_conn_open(r, d->live, "-c row_security=off", &c, &why) ||
        pg_query(c, recovery_cancel(r), &tables, &why, DB_LIST_TABLES, NULL)) {
        pg_close(c);
        if (cancel_fired(recovery_cancel(r))) {
            *err = why;
            return why.rc;
        }
        l->unreadable++; /* so damaged that it cannot be asked: no reason not to recover it */
        (void)snprintf(l->why, sizeof l->why, "%s", why.msg);
        return DR_OK;
    }
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; i < pg_rows_count(tables) && !rc; i++)
        rc = compare_table(r, c, l, pg_rows_value(tables, i, 0), pg_rows_value(tables, i, 1), err);
    pg_rows_free(tables);
    pg_close(c);
    return rc;
}

static void pack_loss(struct dr_buf *b, const struct loss *l, bool detail)
{
    dr_pack_text(b, "would_lose");
    dr_pack_map(b, 5);
    dr_pack_text(b, "rows");
    dr_pack_uint(b, l->lost_rows);
    dr_pack_text(b, "live_rows");
    dr_pack_uint(b, l->live_rows);
    dr_pack_text(b, "backup_rows");
    dr_pack_uint(b, l->backup_rows);
    dr_pack_text(b, "tables_differing");
    dr_pack_uint(b, l->differing);
    dr_pack_text(b, "tables");
    dr_pack_map(b, detail ? l->told : 0);
    if (detail && l->tables.len)
        dr_buf_add(b, l->tables.data, l->tables.len);
}

static void pack_step(struct dr_buf *b, const char *step, const char *does)
{
    dr_pack_map(b, 2);
    dr_pack_pair(b, "step", step);
    dr_pack_pair(b, "does", does);
}

static void pack_plan(struct recovery *r, struct dr_buf *b, const struct loss *l)
{
    const struct db *d = db_of(r);
    char text[512], services[256] = "";
    for (unsigned i = 0; i < r->services.count; i++) {
        size_t used = strlen(services);
        if (r->services.up[i])
            (void)snprintf(services + used, sizeof services - used, "%s%s", used ? ", " : "",
                           r->services.names[i]);
    }
    dr_pack_text(b, "plan");
    dr_pack_array(b, 8);
    (void)snprintf(text, sizeof text, "restores %s into %s, beside %s", r->chosen_id, d->scratch,
                   d->live);
    pack_step(b, "restore", text);
    (void)snprintf(text, sizeof text, "compares %zu tables and %zu sequences with the backup",
                   d->expected.table_count, d->expected.sequence_count);
    pack_step(b, "verify", text);
    pack_step(b, "properties", "owner, privileges, settings, connection limit, comment");
    pack_step(b, "emergency",
              d->live_lost    ? "nothing: there is no live database"
              : l->unreadable ? "will fail: live is damaged; it is kept by rename, without expiry"
                              : "takes a backup of the live database");
    (void)snprintf(text, sizeof text, "stops: %s; refuses and ends connections to %s",
                   services[0] ? services : "no service", d->live);
    pack_step(b, "quiesce", text);
    (void)snprintf(text, sizeof text, "renames %s to %s and the restored one to %s, in one commit",
                   d->live, d->before, d->live);
    pack_step(b, "swap", d->live_lost ? "renames the restored database" : text);
    (void)snprintf(text, sizeof text, "starts: %s", services[0] ? services : "no service");
    pack_step(b, "start", text);
    (void)snprintf(text, sizeof text, "keeps %s for %lld hours", d->before,
                   (long long)dr_config_int(r->env->config, "RECOVERY_KEEP_OLD_HOURS"));
    pack_step(b, "close", d->live_lost ? "nothing is left to keep" : text);
}

enum dr_rc db_report(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct manifest_object *dump = manifest_object(handle_manifest(r->backup), "database");
    uint64_t plain = dump ? dump->plain_bytes : 0, restore_ms;
    struct rate rate = {.store_fd = recovery_store_fd(r)};
    struct loss l = {0};
    struct dr_buf b;
    dr_buf_init(&b, REPORT_MAX);
    dr_buf_init(&l.tables, REPORT_MAX / 2);
    if (services_observe(&r->services, recovery_cancel(r), err) || compare_live(r, &l, err) ||
        pool_run(r->env->pool, find_rate, &rate, recovery_cancel(r), err))
        goto out;
    restore_ms = rate.bytes && rate.ms
                     ? (uint64_t)((double)plain / (double)rate.bytes * (double)rate.ms)
                     : plain * 1000 / GUESS_BYTES_PER_S;
    pack_plan(r, &b, &l);
    pack_loss(&b, &l, dr_config_bool(r->env->config, "DR_REDIS_DETAIL"));
    dr_pack_text(&b, "eta_ms"); /* proof, restore, verification by COPY at about the proof's pace,
                                   and the emergency backup of about as much */
    dr_pack_uint(&b, d->prove_ms * 3 + restore_ms);
    dr_pack_pair(&b, "eta_from", rate.run[0] ? rate.run : "no earlier restore: a guess");
    dr_pack_text(&b, "emergency_possible");
    dr_pack_bool(&b, !d->live_lost && l.unreadable == 0);
    d->report_pairs = 5;
    if (l.why[0]) {
        dr_pack_pair(&b, "live_damage", l.why);
        d->report_pairs++;
    }
    if (b.failed || l.tables.failed) {
        (void)dr_fail(err, DR_E_TOO_BIG, "report of over %d bytes", (int)REPORT_MAX);
        goto out;
    }
    d->report_len = b.len;
    d->report = dr_buf_take(&b);
    recovery_say(r,
                 "dry run: %s is proven and could replace %s; %llu rows of live are newer or more",
                 r->chosen_id, d->live, (unsigned long long)l.lost_rows);
    db_lock_drop(r);
out:
    dr_buf_fini(&b);
    dr_buf_fini(&l.tables);
    return err->rc;
}
