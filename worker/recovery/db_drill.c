/* A drill of database_recovery: the self-test, removal, what was found. In a fiber. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/keyring.h"
#include "worker/backup/store.h"
#include "worker/core/fiber.h"
#include "worker/recovery/db_drill.h"

enum { PROBE_ROWS_MAX = 1000000, LISTED_MAX = 2000, COPY_MS = 600000 };

/* ---- self-test: the comparison has to notice a changed value ---- */

struct testing {
    struct recovery *r;
    struct fiber_group *group;
    const struct db_table *table; /* the smallest with rows */
    unsigned char key[32];
};

static const struct db_table *smallest(const struct db_expected *e)
{
    const struct db_table *found = NULL;
    for (size_t i = 0; i < e->table_count; i++) {
        const struct db_table *t = &e->tables[i];
        if (t->has_digest && t->rows && t->columns[0] && (!found || t->rows < found->rows))
            found = t;
    }
    return found && found->rows <= PROBE_ROWS_MAX ? found : NULL;
}

/* One value that is not NULL becomes NULL: as many rows, another content. */
static enum dr_rc damage(struct testing *t, struct pg_conn *c, bool *done, struct dr_err *err)
{
    struct pg_rows *columns = NULL;
    *done = false;
    if (pg_query(c, &t->group->cancel, &columns, err,
                 "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = "
                 "'pg_temp.dr_self_test'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY "
                 "attnum",
                 NULL))
        return err->rc;
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; i < pg_rows_count(columns) && !rc && !*done; i++) {
        struct pg_rows *changed = NULL;
        const char *name = pg_rows_value(columns, i, 0);
        char *sql = db_conn_format("UPDATE pg_temp.dr_self_test SET %I = NULL WHERE ctid = (SELECT "
                                   "ctid FROM pg_temp.dr_self_test WHERE %I IS NOT NULL LIMIT 1) "
                                   "RETURNING 1",
                                   name, name);
        struct dr_err why = {0};
        rc = pg_query(c, &t->group->cancel, &changed, &why, sql, NULL);
        *done = !rc && pg_rows_count(changed) > 0;
        if (rc == DR_E_SQL) /* a domain that is never NULL: another column */
            rc = DR_OK;
        else if (rc)
            *err = why;
        pg_rows_free(changed);
        free(sql);
    }
    pg_rows_free(columns);
    return rc;
}

/* Into a table of the session: no trigger, rule or constraint of the shop minds the damage. */
static enum dr_rc copy_table(struct testing *t, struct pg_conn *c, struct dr_err *err)
{
    const char *s = t->table->schema, *n = t->table->name;
    size_t len = strlen(t->table->columns);
    char *columns = dr_xstrndup(t->table->columns + 1, len - 2); /* without the brackets */
    char *sql = db_conn_format("CREATE TEMP TABLE dr_self_test AS SELECT %s FROM ONLY %I.%I",
                               columns, s, n);
    enum dr_rc rc = pg_query(c, &t->group->cancel, NULL, err, sql, NULL);
    free(sql);
    free(columns);
    return rc;
}

static enum dr_rc test(struct testing *t, struct pg_conn *c, struct dr_err *err)
{
    struct db_table copy = *t->table; /* the same, elsewhere */
    char schema[] = "pg_temp", name[] = "dr_self_test";
    struct dr_err found = {0};
    bool damaged = false;
    copy.schema = schema;
    copy.name = name;
    pg_statement_ms(c, COPY_MS);
    if (copy_table(t, c, err))
        return dr_wrap(err, "self-test");
    if (db_verify_table(t->r, &t->group->cancel, c, t->key, &copy, err))
        return dr_wrap(err, "self-test, before any damage");
    if (damage(t, c, &damaged, err))
        return dr_wrap(err, "self-test");
    if (!damaged) {
        (void)snprintf(t->r->self_test, sizeof t->r->self_test,
                       "not possible: the smallest table holds no value");
        return DR_OK;
    }
    enum dr_rc rc = db_verify_table(t->r, &t->group->cancel, c, t->key, &copy, &found);
    if (rc == DR_E_INTEGRITY) {
        (void)snprintf(t->r->self_test, sizeof t->r->self_test, "noticed");
        return DR_OK;
    }
    if (rc) {
        *err = found;
        return rc;
    }
    (void)dr_fail(err, DR_E_INTEGRITY,
                  "self-test: a changed value in a copy of table %s.%s was not noticed",
                  t->table->schema, t->table->name);
    return dr_err_reason(err, "self-test");
}

static enum dr_rc test_fiber(void *arg, struct dr_err *err)
{
    struct testing *t = arg;
    struct pg_conn *c = NULL;
    enum dr_rc rc = db_verify_session(t->r, &t->group->cancel, &c, err);
    if (!rc)
        rc = test(t, c, err);
    pg_close(c);
    return rc;
}

enum dr_rc db_drill_self_test(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    struct fiber_group group;
    struct testing t = {.r = r, .group = &group, .table = smallest(&d->expected)};
    const unsigned tables = d->verified_tables, digests = d->verified_digests;
    const uint64_t rows = d->verified_rows;
    if (!t.table) {
        (void)snprintf(r->self_test, sizeof r->self_test,
                       "not possible: no table of 1 to %d rows with a digest", PROBE_ROWS_MAX);
        return DR_OK;
    }
    (void)snprintf(r->self_test, sizeof r->self_test, "failed");
    if (keyring_derive(store_keys(r->env->store), 1, "row-digest", t.key, sizeof t.key, err))
        return err->rc;
    fiber_group_init(&group, r->env->loop, 1, recovery_cancel(r));
    fiber_group_go(&group, test_fiber, &t);
    enum dr_rc rc = fiber_group_wait(&group, err);
    dr_wipe(t.key, sizeof t.key);
    d->verified_tables = tables; /* the copies do not count */
    d->verified_digests = digests;
    d->verified_rows = rows;
    return rc;
}

/* ---- removal ---- */

enum dr_rc db_drill_remove(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    uint32_t left = 0;
    db_restore_drop_dump(r);
    if (!recovery_pending(r, "restore"))
        return DR_OK; /* nothing was made */
    if (db_restore_drop(r, err) || db_lock_oid(r, d->scratch, &left, err))
        return err->rc;
    return left ? dr_fail(err, DR_E_IO, "the scratch database %s is still there", d->scratch)
                : DR_OK;
}

/* ---- evidence ---- */

static json_t *table_json(const struct db_table *t)
{
    char digest[33];
    dr_hex(t->digest, sizeof t->digest, digest);
    return json_pack("{s:o,s:o,s:o,s:o}", "schema", recovery_text(t->schema), "table",
                     recovery_text(t->name), "rows",
                     t->has_rows ? json_integer((json_int_t)t->rows) : json_null(), "digest",
                     t->has_digest ? json_string(digest) : json_null());
}

void db_drill_evidence(struct recovery *r, json_t *into, json_t *lists)
{
    const struct db *d = db_of(r);
    const struct db_expected *e = &d->expected;
    json_t *tables = json_array();
    size_t counted = 0; /* the others are listed: materialized views, rows that are no text */
    for (size_t i = 0; i < e->table_count; i++)
        counted += e->tables[i].has_rows;
    for (size_t i = 0; i < e->table_count && i < LISTED_MAX; i++)
        (void)json_array_append_new(tables, table_json(&e->tables[i]));
    (void)json_object_update_new(
        into,
        json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "tables", (json_int_t)d->verified_tables,
                  "rows", (json_int_t)d->verified_rows, "digests", (json_int_t)d->verified_digests,
                  "counted_only", (json_int_t)d->verified_unknown, "expected_tables",
                  (json_int_t)counted, "expected_rows", (json_int_t)d->proven.rows, "sequences",
                  (json_int_t)e->sequence_count, "proven_bytes", (json_int_t)d->proven.plain_bytes,
                  "scratch", recovery_text(d->scratch)));
    if (e->has_blobs)
        (void)json_object_set_new(into, "large_objects", json_integer((json_int_t)e->blob_count));
    if (d->lock)
        (void)json_object_set_new(into, "server_version",
                                  json_integer((json_int_t)pg_server_version(d->lock)));
    if (d->tool[0])
        (void)json_object_set_new(into, "tool", recovery_text(d->tool));
    (void)json_object_set_new(lists, "tables", tables);
}
