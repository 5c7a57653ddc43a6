/* Proof of the scratch database: rows and digests table by table over two connections, with ANALYZE
 * beside them; then sequences, large objects, indexes, constraints. In fibers; digests are taken in
 * pool threads. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/handle.h"
#include "worker/backup/keyring.h"
#include "worker/backup/store.h"
#include "worker/core/fault.h"
#include "worker/core/fiber.h"
#include "worker/pipe/digest.h"
#include "worker/recovery/db_drill.h"

enum { SESSIONS = 2, SILENCE_MS = 600000 };

/* What pg_dump sets for its own session: the same rows must give the same text. */
static const char as_pg_dump[] =
    "-c TimeZone=UTC -c row_security=off -c bytea_output=hex -c DateStyle=ISO "
    "-c IntervalStyle=postgres -c extra_float_digits=3 -c synchronize_seqscans=off "
    "-c search_path= " PG_NO_TIMEOUTS;

struct verifying {
    struct recovery *r;
    struct fiber_group *group;
    const unsigned char *key;
    const struct db_table **order; /* the largest first: no session is left alone with it */
    size_t next;
};

struct feeding {
    struct digest_rows rows;
    _Atomic uint64_t *progress;
};

static enum dr_rc feed(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    struct feeding *f = arg;
    (void)err;
    digest_rows_feed(&f->rows, bytes, len);
    atomic_fetch_add(f->progress, len);
    return DR_OK;
}

static enum dr_rc differs(struct dr_err *err, const struct db_table *t, const char *what)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "restored table %s.%s: %s", t->schema, t->name, what);
    return dr_err_reason(err, "table");
}

static enum dr_rc compare(struct db *d, const struct db_table *t, uint64_t rows,
                          const unsigned char *digest, struct dr_err *err)
{
    char what[96];
    if (t->has_rows && rows != t->rows) {
        (void)snprintf(what, sizeof what, "%llu rows, the backup has %llu",
                       (unsigned long long)rows, (unsigned long long)t->rows);
        return differs(err, t, what);
    }
    /* The fault makes the comparison blind: the self-test of a drill has to find that out. */
    if (digest && memcmp(digest, t->digest, sizeof t->digest) != 0 &&
        fault_point("recovery.compare.blind", &(struct dr_err){0}) == DR_OK)
        return differs(err, t, "its content is not that of the backup");
    d->verified_tables++;
    d->verified_rows += rows;
    if (digest)
        d->verified_digests++;
    else
        d->verified_unknown++;
    return DR_OK;
}

static enum dr_rc count_table(struct recovery *r, struct cancel *cancel, struct pg_conn *c,
                              const struct db_table *t, struct dr_err *err)
{
    struct pg_rows *rows = NULL;
    uint64_t count = 0;
    char *sql = db_conn_format("SELECT count(*) FROM ONLY %I.%I", t->schema, t->name);
    enum dr_rc rc = pg_query(c, cancel, &rows, err, sql, NULL);
    const char *text = pg_rows_value(rows, 0, 0);
    if (!rc && (!text || !dr_parse_u64(text, 0, UINT64_MAX, &count)))
        rc = dr_fail(err, DR_E_PROTOCOL, "count of %s.%s", t->schema, t->name);
    pg_rows_free(rows);
    free(sql);
    return rc ? rc : compare(db_of(r), t, count, NULL, err);
}

enum dr_rc db_verify_table(struct recovery *r, struct cancel *cancel, struct pg_conn *c,
                           const unsigned char *key, const struct db_table *t, struct dr_err *err)
{
    struct feeding *f = dr_xalloc(sizeof *f); /* pool threads write it: not on the fiber's stack */
    unsigned char digest[16];
    uint64_t rows = 0;
    char *sql = db_conn_format("COPY %I.%I%s%s TO STDOUT", t->schema, t->name,
                               t->columns[0] ? " " : "", t->columns);
    digest_rows_init(&f->rows, key);
    f->progress = job_progress_counter(r->job);
    enum dr_rc rc = pg_copy_out(c, cancel, sql, feed, f, err);
    digest_rows_sums(&f->rows, &rows, digest);
    digest_rows_fini(&f->rows);
    free(sql);
    free(f);
    if (rc == DR_E_SQL &&
        (strcmp(err->reason, "42P01") == 0 || strcmp(err->reason, "3F000") == 0)) {
        struct dr_err missing = {0};
        (void)differs(&missing, t, "it is missing");
        *err = missing;
        return missing.rc;
    }
    return rc ? rc : compare(db_of(r), t, rows, digest, err);
}

enum dr_rc db_verify_session(struct recovery *r, struct cancel *cancel, struct pg_conn **out,
                             struct dr_err *err)
{
    struct db *d = db_of(r);
    const struct pg_options o = {.dbname = d->scratch,
                                 .application_name = "drworker verify",
                                 .options = as_pg_dump,
                                 .statement_ms = SILENCE_MS};
    enum dr_rc rc = pg_connect(r->env->loop, r->env->pool, &d->admin, &o, cancel, out, err);
    /* pg_dump writes rows in the database's own encoding, and money as the source's server has it.
     */
    const char *const money[] = {d->expected.lc_monetary, NULL};
    if (!rc)
        rc = pg_query(*out, cancel, NULL, err,
                      "SELECT pg_catalog.set_config('client_encoding', "
                      "pg_catalog.getdatabaseencoding(), false)",
                      NULL);
    if (!rc && money[0])
        rc = pg_query(*out, cancel, NULL, err,
                      "SELECT pg_catalog.set_config('lc_monetary', $1, false)", money);
    return rc;
}

static enum dr_rc verify_tables(void *arg, struct dr_err *err)
{
    struct verifying *v = arg;
    struct db *d = db_of(v->r);
    struct cancel *cancel = &v->group->cancel;
    struct pg_conn *c = NULL;
    enum dr_rc rc = db_verify_session(v->r, cancel, &c, err);
    while (!rc && v->next < d->expected.table_count) {
        const struct db_table *t = v->order[v->next++];
        if (t->has_digest)
            rc = db_verify_table(v->r, cancel, c, v->key, t, err);
        else if (t->has_rows)
            rc = count_table(v->r, cancel, c, t, err);
    }
    pg_close(c);
    return rc;
}

static enum dr_rc analyze(void *arg, struct dr_err *err)
{
    struct verifying *v = arg;
    struct pg_conn *c = NULL;
    if (db_conn_open(v->r, db_of(v->r)->scratch, as_pg_dump, &c, err))
        return err->rc;
    pg_statement_ms(c, 0);
    enum dr_rc rc = pg_query(c, &v->group->cancel, NULL, err, "ANALYZE", NULL);
    pg_close(c);
    return rc;
}

static int larger_first(const void *a, const void *b)
{
    const struct db_table *x = *(const struct db_table *const *)a,
                          *y = *(const struct db_table *const *)b;
    return (x->rows < y->rows) - (x->rows > y->rows);
}

static enum dr_rc compare_tables(struct recovery *r, const unsigned char *key, struct dr_err *err)
{
    const struct db_expected *e = &db_of(r)->expected;
    struct fiber_group group;
    fiber_group_init(&group, r->env->loop, SESSIONS + 1, recovery_cancel(r));
    struct verifying v = {.r = r, .group = &group, .key = key};
    v.order = dr_xalloc((e->table_count + 1) * sizeof *v.order);
    for (size_t i = 0; i < e->table_count; i++)
        v.order[i] = &e->tables[i];
    qsort(v.order, e->table_count, sizeof *v.order, larger_first);
    for (unsigned i = 0; i < SESSIONS; i++)
        fiber_group_go(&group, verify_tables, &v);
    fiber_group_go(&group, analyze, &v);
    enum dr_rc rc = fiber_group_wait(&group, err);
    free(v.order);
    return rc;
}

static enum dr_rc verify_sequences(struct recovery *r, struct pg_conn *c, struct dr_err *err)
{
    struct db *d = db_of(r);
    for (size_t i = 0; i < d->expected.sequence_count; i++) {
        const struct db_sequence *q = &d->expected.sequences[i];
        struct pg_rows *rows = NULL;
        int64_t last = 0;
        char *sql = db_conn_format("SELECT last_value, is_called FROM %I.%I", q->schema, q->name);
        enum dr_rc rc = pg_query(c, recovery_cancel(r), &rows, err, sql, NULL);
        const char *value = pg_rows_value(rows, 0, 0), *called = pg_rows_value(rows, 0, 1);
        bool same = value && called && dr_parse_i64(value, INT64_MIN, INT64_MAX, &last) &&
                    last == q->last && (called[0] == 't') == q->called;
        pg_rows_free(rows);
        free(sql);
        if (rc)
            return rc;
        if (!same)
            return dr_fail(err, DR_E_INTEGRITY,
                           "restored sequence %s.%s stands elsewhere than in the backup", q->schema,
                           q->name);
    }
    return DR_OK;
}

/* ---- large objects: COPY of oid, part number, hex; a row of the digest is u32 oid ‖ content ----
 */

struct blobs {
    struct digest_rows rows;
    uint64_t count, bytes;
    uint32_t oid;
    bool open, bad;
};

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void blob_part(struct blobs *b, const char *hex, size_t len)
{
    unsigned char bytes[512];
    size_t n = 0;
    for (size_t i = 0; i + 1 < len; i += 2) {
        int high = nibble(hex[i]), low = nibble(hex[i + 1]);
        if (high < 0 || low < 0) {
            b->bad = true;
            return;
        }
        bytes[n++] = (unsigned char)(high << 4 | low);
        if (n == sizeof bytes) {
            digest_rows_part(&b->rows, bytes, n);
            n = 0;
        }
    }
    digest_rows_part(&b->rows, bytes, n);
    b->bytes += len / 2;
}

/* "oid \t part \t \\x…" */
static void blob_line(struct blobs *b, const char *line, size_t len)
{
    char number[16];
    uint64_t oid;
    const char *tab = memchr(line, '\t', len), *end = line + len;
    const char *second = tab ? memchr(tab + 1, '\t', (size_t)(end - tab - 1)) : NULL;
    size_t n = tab ? (size_t)(tab - line) : sizeof number;
    if (!second || n >= sizeof number || end - second < 4 || memcmp(second + 1, "\\\\x", 3) != 0) {
        b->bad = true;
        return;
    }
    memcpy(number, line, n);
    number[n] = 0;
    if (!dr_parse_u64(number, 1, UINT32_MAX, &oid)) {
        b->bad = true;
        return;
    }
    if (!b->open || oid != b->oid) {
        unsigned char head[4];
        if (b->open)
            digest_rows_close(&b->rows);
        digest_rows_open(&b->rows);
        dr_put_u32be(head, (uint32_t)oid);
        digest_rows_part(&b->rows, head, sizeof head);
        b->open = true;
        b->oid = (uint32_t)oid;
        b->count++;
    }
    blob_part(b, second + 4, (size_t)(end - second - 4));
}

static enum dr_rc blob_rows(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    struct blobs *b = arg;
    const char *p = bytes, *end = p + len;
    while (p < end && !b->bad) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        if (!newline)
            break; /* whole rows come */
        blob_line(b, p, (size_t)(newline - p));
        p = newline + 1;
    }
    return b->bad ? dr_fail(err, DR_E_PROTOCOL, "large objects: not what was asked for") : DR_OK;
}

static enum dr_rc verify_blobs(struct recovery *r, struct pg_conn *c, const unsigned char *key,
                               struct dr_err *err)
{
    const struct db_expected *e = &db_of(r)->expected;
    struct blobs *b = dr_xalloc(sizeof *b);
    unsigned char digest[16];
    uint64_t rows = 0;
    digest_rows_init(&b->rows, key);
    enum dr_rc rc = pg_copy_out(
        c, recovery_cancel(r),
        "COPY (WITH o AS MATERIALIZED (SELECT oid, pg_catalog.lo_lseek64(pg_catalog.lo_open(oid, "
        "262144), 0, 2) AS n FROM pg_catalog.pg_largeobject_metadata) SELECT o.oid, part, "
        "pg_catalog.lo_get(o.oid, part * 262144, 262144) FROM o, "
        "pg_catalog.generate_series(0, greatest(o.n - 1, 0) / 262144) part ORDER BY o.oid, part) "
        "TO STDOUT",
        blob_rows, b, err);
    if (b->open)
        digest_rows_close(&b->rows);
    digest_rows_sums(&b->rows, &rows, digest);
    digest_rows_fini(&b->rows);
    if (!rc && (b->count != e->blob_count || b->bytes != e->blob_bytes ||
                (e->blobs_digest && memcmp(digest, e->blob_digest, sizeof digest) != 0)))
        rc = dr_fail(err, DR_E_INTEGRITY,
                     "restored large objects: %llu of %llu bytes, the backup has %llu of %llu, or "
                     "their content differs",
                     (unsigned long long)b->count, (unsigned long long)b->bytes,
                     (unsigned long long)e->blob_count, (unsigned long long)e->blob_bytes);
    free(b);
    return rc;
}

static enum dr_rc verify_catalogue(struct recovery *r, struct pg_conn *c, struct dr_err *err)
{
    char name[256];
    uint64_t open = 0;
    if (db_conn_text(r, c, name, sizeof name, err,
                     "SELECT i.indexrelid::regclass::text FROM pg_catalog.pg_index i JOIN "
                     "pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE NOT i.indisvalid AND "
                     "c.relkind = 'i' LIMIT 1",
                     NULL))
        return err->rc;
    if (name[0])
        return dr_fail(err, DR_E_INTEGRITY, "restored index %s is not valid", name);
    if (db_conn_u64(r, c, &open, err,
                    "SELECT count(*) FROM pg_catalog.pg_constraint WHERE NOT convalidated", NULL))
        return err->rc;
    if (open > db_of(r)->names.not_valid) /* some were NOT VALID already when they were saved */
        return dr_fail(err, DR_E_INTEGRITY,
                       "%llu restored constraints are not validated, in the backup %llu are not",
                       (unsigned long long)open, (unsigned long long)db_of(r)->names.not_valid);
    return DR_OK;
}

static enum dr_rc verify_rest(struct recovery *r, const unsigned char *key, struct dr_err *err)
{
    struct pg_conn *c = NULL;
    if (db_conn_open(r, db_of(r)->scratch, NULL, &c, err))
        return err->rc;
    enum dr_rc rc = verify_sequences(r, c, err);
    if (!rc && db_of(r)->expected.has_blobs)
        rc = verify_blobs(r, c, key, err);
    if (!rc)
        rc = verify_catalogue(r, c, err);
    pg_close(c);
    return rc;
}

enum dr_rc db_verify(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    unsigned char key[32];
    const struct manifest_object *dump = manifest_object(handle_manifest(r->backup), "database");
    if (keyring_derive(store_keys(r->env->store), 1, "row-digest", key, sizeof key, err))
        return err->rc;
    job_progress_total(r->job, dump ? dump->plain_bytes : 0);
    enum dr_rc rc = compare_tables(r, key, err);
    if (!rc)
        rc = verify_rest(r, key, err);
    dr_wipe(key, sizeof key);
    if (!rc)
        job_message(r->job, "%u tables, %llu rows", d->verified_tables,
                    (unsigned long long)d->verified_rows);
    return rc;
}
