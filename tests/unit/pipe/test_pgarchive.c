/* worker/pipe/pgarchive: archives of real pg_dumps, and ones built here byte by byte. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"
#include "tests/unit/pipe/dump_maker.h"
#include "worker/pipe/digest.h"
#include "worker/pipe/pgarchive.h"

static const unsigned char row_key[32] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
                                          7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};

/* ---- what the tap tells, as lines ---- */

static struct dr_buf told;

static void tell(const void *bytes, size_t len)
{
    char hex[2 * 4096 + 1];

    assert_in_range(len, 0, 4096);
    dr_hex(bytes, len, hex);
    dr_buf_printf(&told, " %s", len ? hex : "-");
}

static enum dr_rc on_table(void *arg, const struct pipe_table *t, struct dr_err *err)
{
    (void)arg;
    (void)err;
    dr_buf_str(&told, "t");
    tell(t->schema.data, t->schema.len);
    tell(t->name.data, t->name.len);
    if (t->has_rows)
        dr_buf_printf(&told, " %llu", (unsigned long long)t->rows);
    else
        dr_buf_str(&told, " nil");
    tell(t->digest, t->has_digest ? 16 : 0);
    for (unsigned i = 0; i < t->column_count; i++)
        tell(t->columns[i].data, t->columns[i].len);
    dr_buf_str(&told, "\n");
    return DR_OK;
}

static enum dr_rc on_sequence(void *arg, const struct pipe_sequence *q, struct dr_err *err)
{
    (void)arg;
    (void)err;
    dr_buf_str(&told, "q");
    tell(q->schema.data, q->schema.len);
    tell(q->name.data, q->name.len);
    dr_buf_printf(&told, " %lld %d\n", (long long)q->last, q->called);
    return DR_OK;
}

static enum dr_rc on_blobs(void *arg, const struct pipe_blobs *o, struct dr_err *err)
{
    (void)arg;
    (void)err;
    assert_true(o->has_digest);
    dr_buf_printf(&told, "o %llu %llu", (unsigned long long)o->count, (unsigned long long)o->bytes);
    tell(o->digest, 16);
    dr_buf_str(&told, "\n");
    return DR_OK;
}

static const struct pgarchive_events events = {
    .table = on_table, .sequence = on_sequence, .blobs = on_blobs};
static char why[160];
static struct dr_err error;

/* Feeds the archive in pieces of cut bytes; `told`, `why`, `error` hold what came of it. */
static enum dr_rc run(const void *bytes, size_t len, size_t cut)
{
    const unsigned char *p = bytes;
    struct pgarchive *a = NULL;
    enum dr_rc rc;

    dr_buf_reset(&told);
    dr_buf_add(&told, "", 0);
    dr_err_clear(&error);
    rc = pgarchive_new(row_key, &events, &a, &error);
    for (size_t i = 0; !rc && i < len; i += cut)
        rc = pgarchive_feed(a, p + i, len - i < cut ? len - i : cut, &error);
    if (rc) { /* it stays so */
        assert_int_equal(pgarchive_feed(a, "x", 1, NULL), rc);
        assert_int_equal(pgarchive_finish(a, NULL, NULL), rc);
    } else {
        rc = pgarchive_finish(a, NULL, &error);
    }
    (void)snprintf(why, sizeof why, "%s", pgarchive_why(a));
    assert_int_equal(pgarchive_supported(a), !why[0]);
    pgarchive_free(a);
    return rc;
}

static int by_line(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* `told`, its lines sorted. */
static char *sorted(void)
{
    char *lines[64], *save = NULL, *out = dr_xalloc(told.len + 1);
    size_t n = 0, at = 0;

    dr_buf_add(&told, "", 1);
    for (char *p = strtok_r((char *)told.data, "\n", &save); p; p = strtok_r(NULL, "\n", &save)) {
        assert_in_range(n, 0, CM_COUNT(lines) - 1);
        lines[n++] = p;
    }
    qsort(lines, n, sizeof *lines, by_line);
    for (size_t i = 0; i < n; i++)
        at += (size_t)sprintf(out + at, "%s\n", lines[i]);
    return out;
}

static char *read_file(const char *name, size_t *len)
{
    char path[512], *p;
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/tests/vectors/dumps/%s", DR_SOURCE_DIR, name);
    f = fopen(path, "rb");
    assert_non_null(f);
    p = dr_xalloc(1 << 20);
    *len = fread(p, 1, 1 << 20, f);
    fclose(f);
    assert_true(*len > 0);
    return p;
}

struct places {
    const unsigned char *dump;
    size_t len, blocks;
    uint64_t last;
};

/* A dump through a pipe says "position not set" there; the block's head repeats the entry's id. */
static enum dr_rc on_block(void *arg, const struct pgarchive_place *p, struct dr_err *err)
{
    struct places *x = arg;
    (void)err;
    assert_int_equal(p->offset_size, 8);
    assert_true(p->block_at > x->last && p->block_at < x->len && p->entry_at < p->block_at);
    assert_int_equal(x->dump[p->entry_at], 1);
    assert_true(x->dump[p->block_at] == 1 || x->dump[p->block_at] == 3);
    x->last = p->block_at;
    x->blocks++;
    return DR_OK;
}

static void places_of_blocks(void **state)
{
    static const size_t cuts[] = {1, 7, 4096, 1 << 20};
    static const char *const names[] = {"pg15.dump", "pg16.dump", "pg18.dump"};
    (void)state;
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        size_t len, blocks = 0;
        char *dump = read_file(names[n], &len);
        for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
            struct places x = {.dump = (const unsigned char *)dump, .len = len};
            const struct pgarchive_events on = {.block = on_block, .arg = &x};
            struct pgarchive *a = NULL;
            assert_int_equal(pgarchive_new(NULL, &on, &a, NULL), DR_OK);
            for (size_t i = 0; i < len; i += cuts[c])
                assert_int_equal(
                    pgarchive_feed(a, dump + i, len - i < cuts[c] ? len - i : cuts[c], NULL),
                    DR_OK);
            assert_int_equal(pgarchive_finish(a, NULL, NULL), DR_OK);
            pgarchive_free(a);
            assert_true(x.blocks > 5);
            assert_true(c == 0 || x.blocks == blocks);
            blocks = x.blocks;
        }
        free(dump);
    }
}

static void real_dumps(void **state)
{
    static const char *const names[] = {"pg15", "pg16", "pg18"};
    static const size_t cuts[] = {1, 2, 3, 5, 7, 64, 1000, 4096, 1 << 20};
    char name[32];

    (void)state;
    for (size_t i = 0; i < CM_COUNT(names); i++) {
        size_t len, text_len;
        char *dump, *text;
        (void)snprintf(name, sizeof name, "%s.dump", names[i]);
        dump = read_file(name, &len);
        (void)snprintf(name, sizeof name, "%s.txt", names[i]);
        text = read_file(name, &text_len);
        for (size_t k = 0; k < CM_COUNT(cuts); k++) {
            char *got;
            assert_int_equal(run(dump, len, cuts[k]), DR_OK);
            assert_string_equal(why, "");
            got = sorted();
            assert_string_equal(got, text);
            free(got);
        }
        free(dump);
        free(text);
    }
}

static void every_prefix_is_refused(void **state)
{
    size_t len;
    char *dump = read_file("pg15.dump", &len);

    (void)state;
    for (size_t n = 0; n < len; n += n < 2500 || n > len - 500 ? 1 : 211)
        if (run(dump, n, n + 1) != DR_E_MALFORMED)
            fail_msg("taken: the first %zu bytes", n);
    assert_int_equal(told.len, 0);
    free(dump);
}

static enum dr_rc run_made(void)
{
    enum dr_rc first = run(made.data, made.len, 1);
    char *text = dr_xstrndup((const char *)told.data, told.len);

    assert_false(made.failed);
    for (size_t cut = 2; cut < 40; cut++) {
        assert_int_equal(run(made.data, made.len, cut), first);
        assert_int_equal(told.len, strlen(text));
        assert_memory_equal(told.data, text, told.len);
    }
    free(text);
    return first;
}

static const struct line table = {2, false, "TABLE", "s", "t", "CREATE TABLE", NULL, NULL};
static const struct line rows = {
    9, true, "TABLE DATA", "s", "t", "", "COPY s.t (a, b) FROM stdin;\n", "2"};

static void versions(void **state)
{
    char *first = NULL;

    (void)state;
    for (unsigned minor = 14; minor <= 16; minor++) {
        header(minor, 2);
        entry(minor, &table);
        entry(minor, &rows);
        data(9, "1\tx\n2\ty\n\\.\n\n\n");
        assert_int_equal(run_made(), DR_OK);
        assert_string_equal(why, "");
        if (!first)
            first = sorted();
        else {
            char *other = sorted();
            assert_string_equal(first, other);
            free(other);
        }
    }
    assert_non_null(strstr(first, "t 73 74 2 "));
    assert_non_null(strstr(first, " 61 62\n"));
    free(first);
    header(14, 0);
    assert_int_equal(run_made(), DR_OK);
    assert_int_equal(told.len, strlen("o 0 0 ") + 32 + 1);
}

static void in_any_order_or_missing(void **state)
{
    struct line other = rows, member = rows, moved = rows, inserts = rows, empty = rows, odd = rows;

    (void)state;
    other.id = 11;
    other.tag = "u";
    other.copy = "COPY s.u (a, b) FROM stdin;\n";
    member.id = 12;
    member.tag = "member";
    member.copy = "COPY s.member (a, b) FROM stdin;\n";
    member.dependency = "77"; /* its table is not in the dump: an extension's */
    moved.id = 13;
    moved.tag = "partition";
    moved.copy = "COPY s.root (k) FROM stdin;\n";
    inserts.id = 14;
    inserts.tag = "inserts";
    inserts.copy = NULL;
    empty.id = 15;
    empty.tag = "empty";
    empty.copy = "COPY s.empty (a, b) FROM stdin;\n";
    empty.data = false;
    odd.id = 16;
    odd.tag = "odd";
    odd.copy = "COPY s.odd (a b) FROM stdin;\n";
    header(15, 8);
    entry(15, &table);
    entry(15, &rows);
    entry(15, &other);
    entry(15, &member);
    entry(15, &moved);
    entry(15, &inserts);
    entry(15, &empty);
    entry(15, &odd);
    data(16, "r\n\\.\n");
    data(14, "INSERT INTO x VALUES (1);\n");
    data(13, "1\n2\n\\.\n");
    data(11, "\\.\n\n\n");
    data(12, "1\n\\.\n");
    data(9, "1\tx\n2\ty\n\\.\n\n\n");
    assert_int_equal(run_made(), DR_OK);
    dr_buf_add(&told, "", 1);
    {
        const char *t = (const char *)told.data;
        assert_non_null(strstr(t, "t 73 74 2 "));
        assert_non_null(strstr(t, "t 73 75 0 00000000000000000000000000000000 61 62\n"));
        assert_non_null(strstr(t, "t 73 6d656d626572 1 - 61 62\n"));
        assert_non_null(strstr(t, "t 73 706172746974696f6e nil -\n"));
        assert_non_null(strstr(t, "t 73 696e7365727473 nil -\n"));
        assert_non_null(strstr(t, "t 73 656d707479 0 00000000000000000000000000000000 61 62\n"));
        assert_non_null(strstr(t, "t 73 6f6464 1 -\n"));
    }
}

static void sequences(void **state)
{
    static const struct {
        const char *defn, *want;
    } cases[] = {
        {"SELECT pg_catalog.setval('s.q', -5, true);\n", "q 73 74 -5 1\n"},
        {"SELECT pg_catalog.setval('s.\"a'', 7, false''\"', 9223372036854775807, false);\n",
         "q 73 74 9223372036854775807 0\n"},
        {"SELECT pg_catalog.setval(E's.\"a\\\\\"', -9223372036854775808, true);",
         "q 73 74 -9223372036854775808 1\n"},
        {"SELECT pg_catalog.setval('s.q', 9223372036854775808, true);\n", NULL},
        {"SELECT pg_catalog.setval('s.q', 5, maybe);\n", NULL},
        {"SELECT pg_catalog.setval('s.q', 5);\n", NULL},
        {"SELECT pg_catalog.setval('s.q',5, true);\n", NULL},
        {"SELECT setval('s.q', 5, true);\n", NULL},
        {"'", NULL},
        {"", NULL},
        {NULL, NULL}};
    struct line l = {3, false, "SEQUENCE SET", "s", "t", NULL, NULL, NULL};

    (void)state;
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        l.defn = cases[i].defn;
        header(14, 1);
        entry(14, &l);
        assert_int_equal(run_made(), DR_OK);
        if (cases[i].want) {
            assert_string_equal(why, "");
            assert_memory_equal(told.data, cases[i].want, strlen(cases[i].want));
        } else {
            assert_non_null(strstr(why, "sequence"));
            assert_int_equal(told.len, 0);
        }
    }
}

static void large_objects(void **state)
{
    static const struct line l = {5, true, "BLOBS", NULL, "BLOBS", "", NULL, NULL};
    struct line second = l;
    struct digest_rows d;
    unsigned char digest[16];
    uint64_t n;
    char want[64], hex[33];

    (void)state;
    second.id = 6;
    header(16, 2);
    entry(16, &l);
    entry(16, &second); /* archive 1.16 has groups of them */
    byte(3);
    number(5);
    blob(1, "abc");
    blob(-294967296, ""); /* oid 4000000000 */
    number(0);
    byte(3);
    number(6);
    number(0);
    assert_int_equal(run_made(), DR_OK);
    digest_rows_init(&d, row_key);
    digest_rows_open(&d);
    digest_rows_part(&d, "\0\0\0\1abc", 7);
    digest_rows_close(&d);
    digest_rows_open(&d);
    digest_rows_part(&d, "\xee\x6b\x28\x00", 4);
    digest_rows_close(&d);
    digest_rows_sums(&d, &n, digest);
    dr_hex(digest, sizeof digest, hex);
    (void)snprintf(want, sizeof want, "o 2 3 %s\n", hex);
    dr_buf_add(&told, "", 1);
    assert_string_equal((char *)told.data, want);
}

static void patched(size_t at, unsigned value, const char *because)
{
    unsigned char kept = made.data[at];

    made.data[at] = (unsigned char)value;
    assert_int_equal(run_made(), DR_OK);
    assert_non_null(strstr(why, because));
    assert_int_equal(told.len, 0);
    made.data[at] = kept;
}

/* What another pg_dump may write: no digests, no error, whatever follows. */
static void not_understood(void **state)
{
    struct line l = rows;
    char *name = dr_xalloc(2000);

    (void)state;
    header(14, 2);
    entry(14, &table);
    entry(14, &rows);
    data(9, "\\.\n");
    patched(5, 2, "version 2.14");
    patched(6, 13, "version 1.13");
    patched(6, 17, "version 1.17");
    patched(8, 8, "integers of 8");
    patched(9, 0, "offsets of 0");
    patched(9, 9, "offsets of 9");
    patched(10, 3, "format 3");
    patched(12, 6, "compressed");
    made.data[made.len - 20] = 0xff; /* only heard of while it is understood */
    patched(6, 17, "version 1.17");
    header(15, 1);
    entry(15, &rows);
    data(9, "\\.\n");
    patched(11, 1, "compressed");
    memset(name, 'n', 1999);
    l.tag = name;
    header(15, 1);
    entry(15, &l);
    assert_int_equal(run_made(), DR_OK);
    assert_non_null(strstr(why, "1,024"));
    header(15, PGARCHIVE_ENTRIES_MAX + 1);
    assert_int_equal(run_made(), DR_OK);
    assert_non_null(strstr(why, "entries"));
    free(name);
}

static void malformed(const char *because)
{
    assert_int_equal(run_made(), DR_E_MALFORMED);
    if (!strstr(error.msg, because))
        fail_msg("%s: not %s", error.msg, because);
    assert_int_equal(told.len, 0);
}

static void begin_made(void)
{
    header(14, 2);
    entry(14, &table);
    entry(14, &rows);
}

static void no_pg_dump_writes_this(void **state)
{
    struct line twin = rows;

    (void)state;
    begin_made();
    malformed("ends before the data of s.t (entry 9)");
    data(9, "1\tx\n");
    malformed("s.t ends without its mark");
    begin_made();
    data(9, "1\n\\.\n");
    data(9, "1\n\\.\n");
    malformed("comes twice");
    begin_made();
    data(8, "1\n\\.\n");
    malformed("entry 8, which is not there");
    begin_made();
    data(2, "1\n\\.\n");
    malformed("entry 2, which is not there");
    begin_made();
    byte(2);
    malformed("type 2");
    begin_made();
    byte(3);
    number(9);
    malformed("in a block of type 3");
    begin_made();
    byte(1);
    number(9);
    number(-4);
    malformed("-4 bytes");
    header(14, -1);
    malformed("-1 entries");
    header(14, 1);
    number(0);
    malformed("entry number 0");
    header(14, 2);
    entry(14, &rows);
    entry(14, &twin);
    malformed("one number");
    dr_buf_reset(&made);
    dr_buf_str(&made, "PGDMQ");
    malformed("PGDMP");
    dr_buf_reset(&made);
    dr_buf_str(&made, "--\n-- PostgreSQL database dump\n");
    malformed("PGDMP");
    dr_buf_reset(&made);
    made.len = 0;
    assert_int_equal(run(made.data, 0, 1), DR_E_MALFORMED);
}

/* A hostile table of contents: memory stays bounded, the rest passes by. */
static void too_many_names(void **state)
{
    struct line l = rows;
    struct pgarchive *a = NULL;
    struct dr_err err = {0};
    char tag[901], id[16];
    size_t fed = 0;

    (void)state;
    memset(tag, 't', sizeof tag - 1);
    tag[sizeof tag - 1] = 0;
    l.tag = tag;
    l.dependency = id;
    assert_int_equal(pgarchive_new(row_key, &events, &a, &err), DR_OK);
    header(14, 1000000);
    assert_int_equal(pgarchive_feed(a, made.data, made.len, &err), DR_OK);
    for (l.id = 1; pgarchive_supported(a) && l.id < 1000000; l.id++) {
        (void)snprintf(id, sizeof id, "%d", l.id);
        dr_buf_reset(&made);
        entry(14, &l);
        fed += 900;
        assert_int_equal(pgarchive_feed(a, made.data, made.len, &err), DR_OK);
    }
    assert_false(pgarchive_supported(a));
    assert_in_range(fed, PGARCHIVE_MEMORY_MAX / 2, PGARCHIVE_MEMORY_MAX);
    assert_int_equal(pgarchive_feed(a, tag, sizeof tag, &err), DR_OK);
    assert_int_equal(pgarchive_finish(a, NULL, &err), DR_OK);
    pgarchive_free(a);
}

static int setup(void **state)
{
    (void)state;
    dr_buf_init(&told, 1 << 20);
    dr_buf_init(&made, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dr_buf_fini(&told);
    dr_buf_fini(&made);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_dumps),     cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(versions),       cmocka_unit_test(in_any_order_or_missing),
        cmocka_unit_test(sequences),      cmocka_unit_test(large_objects),
        cmocka_unit_test(not_understood), cmocka_unit_test(no_pg_dump_writes_this),
        cmocka_unit_test(too_many_names), cmocka_unit_test(places_of_blocks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
