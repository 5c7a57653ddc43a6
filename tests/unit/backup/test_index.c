/* Index records: byte for byte as the golden ones, hostile ones refused with their class, any cut
 * of the stream, what the order of records demands. */
#include "tests/unit/cm.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/buf.h"
#include "common/str.h"
#include "common/wire/pack.h"
#include "common/wire/pull.h"
#include "worker/backup/index.h"

static json_t *vectors;

static int setup(void **state)
{
    (void)state;
    vectors = json_load_file(DR_SOURCE_DIR "/tests/vectors/vectors.json", 0, NULL);
    return vectors ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(vectors);
    return 0;
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    assert_non_null(s);
    return s;
}

static void add_hex(struct dr_buf *b, const char *hex)
{
    size_t len = strlen(hex) / 2;
    unsigned char *out = malloc(len + 1);
    assert_non_null(out);
    assert_true(dr_unhex(hex, strlen(hex), out, len));
    dr_buf_add(b, out, len);
    free(out);
}

/* A source that gives pieces of at most `piece` bytes, each in memory of its own. */
struct pieces {
    const unsigned char *bytes;
    size_t len, at, piece;
    unsigned char *now;
};

static enum dr_rc read_piece(void *arg, const void **bytes, size_t *len, struct dr_err *err)
{
    struct pieces *p = arg;
    (void)err;
    *len = p->len - p->at < p->piece ? p->len - p->at : p->piece;
    free(p->now);
    p->now = malloc(*len + 1);
    assert_non_null(p->now);
    if (*len)
        memcpy(p->now, p->bytes + p->at, *len);
    p->at += *len;
    *bytes = p->now;
    return DR_OK;
}

static enum dr_rc read_all(const struct dr_buf *b, size_t piece, const char *const *streams,
                           struct index_writer *again, unsigned *records, struct dr_err *err);

static enum dr_rc to_buf(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    struct dr_buf *b = arg;
    dr_buf_add(b, bytes, len);
    return b->failed ? dr_fail(err, DR_E_TOO_BIG, "test buffer") : DR_OK;
}

static enum dr_rc write_again(struct index_writer *w, const struct index_record *r,
                              struct dr_err *err)
{
    char name[32];
    switch (r->type) {
    case INDEX_STREAM:
        (void)snprintf(name, sizeof name, "%.*s", (int)r->stream.len, (const char *)r->stream.data);
        return index_put_stream(w, name, err);
    case INDEX_CHUNK:
        return index_put_chunk(w, &r->chunk, err);
    case INDEX_FILE:
        return index_put_file(w, &r->file, err);
    case INDEX_ROOT:
        return index_put_root(w, &r->root, err);
    case INDEX_SKIP:
        return index_put_skip(w, &r->skip, err);
    case INDEX_TABLE:
        return index_put_table(w, &r->table, err);
    case INDEX_SEQUENCE:
        return index_put_sequence(w, &r->sequence, err);
    case INDEX_BLOBS:
        return index_put_blobs(w, &r->blobs, err);
    case INDEX_PROPERTIES:
        return index_put_properties(w, &r->properties, err);
    default:
        return index_end(w, err);
    }
}

static enum dr_rc read_all(const struct dr_buf *b, size_t piece, const char *const *streams,
                           struct index_writer *again, unsigned *records, struct dr_err *err)
{
    struct pieces p = {b->data, b->len, 0, piece, NULL};
    const struct pipe_source source = {read_piece, &p};
    struct index_reader *r = NULL;
    struct index_record rec;
    bool end = false;
    *records = 0;
    enum dr_rc rc = index_reader_new(&source, streams, 1, &r, err);
    while (!rc && !end && !(rc = index_next(r, &rec, &end, err))) {
        ++*records;
        if (again)
            assert_int_equal(write_again(again, &rec, err), DR_OK);
    }
    index_reader_free(r);
    free(p.now);
    return rc;
}

/* The golden records as one stream, with an end that counts them. */
static void golden_stream(struct dr_buf *b)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(vectors, "index_records"), i, v)
    {
        if (!strstr(text(v, "text"), "'end'"))
            add_hex(b, text(v, "hex"));
    }
    static const char *const counts[] = {"c", "f", "o", "p", "q", "r", "s", "t", "x"};
    static const unsigned numbers[] = {1, 2, 1, 1, 1, 1, 2, 2, 1};
    struct dr_buf end;
    dr_buf_init(&end, 4096);
    dr_pack_array(&end, 2);
    dr_pack_text(&end, "end");
    dr_pack_map(&end, 9);
    for (size_t k = 0; k < 9; k++) {
        dr_pack_text(&end, counts[k]);
        dr_pack_uint(&end, numbers[k]);
    }
    dr_buf_u32be(b, (uint32_t)end.len);
    dr_buf_add(b, end.data, end.len);
    dr_buf_fini(&end);
}

static void test_golden_in_any_cut(void **state)
{
    (void)state;
    static const char *const streams[] = {"database", "files", NULL};
    struct dr_buf b;
    dr_buf_init(&b, 1 << 20);
    golden_stream(&b);
    for (size_t piece = 1; piece <= b.len + 1; piece++) {
        struct dr_err err = {0};
        unsigned records;
        assert_int_equal(read_all(&b, piece, streams, NULL, &records, &err), DR_OK);
        assert_int_equal(records, 13);
    }
    dr_buf_fini(&b);
}

/* Every golden record but the database's properties (a writer gives all of them) is written again
 * with the same bytes; properties come back as they were. */
static void test_written_byte_for_byte(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct dr_buf b, out, want;
    size_t i;
    json_t *v;
    unsigned records;
    dr_buf_init(&b, 1 << 20);
    dr_buf_init(&out, 1 << 20);
    dr_buf_init(&want, 1 << 20);
    golden_stream(&b);
    const struct pipe_sink sink = {to_buf, &out};
    struct index_writer *w = NULL;
    assert_int_equal(index_writer_new(&sink, &w, &err), DR_OK);
    assert_int_equal(read_all(&b, 64, NULL, w, &records, &err), DR_OK);
    const unsigned char *at = out.data;
    json_array_foreach(json_object_get(vectors, "index_records"), i, v)
    {
        dr_buf_reset(&want);
        add_hex(&want, text(v, "hex"));
        if (strstr(text(v, "text"), "['p'")) {
            at += 4 + dr_get_u32be(at);
            continue;
        }
        if (strstr(text(v, "text"), "'end'"))
            break;
        assert_memory_equal(at, want.data, want.len);
        at += want.len;
    }
    assert_memory_equal(at, b.data + b.len - (out.data + out.len - at),
                        (size_t)(out.data + out.len - at)); /* the end counts the same */
    dr_buf_reset(&b);
    dr_buf_add(&b, out.data, out.len);
    assert_int_equal(read_all(&b, 7, NULL, NULL, &records, &err), DR_OK);
    index_writer_free(w);
    dr_buf_fini(&b);
    dr_buf_fini(&out);
    dr_buf_fini(&want);
}

static void test_refused(void **state)
{
    (void)state;
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(vectors, "index_refused"), i, v)
    {
        static const size_t pieces[] = {1, 3, 1000};
        for (size_t k = 0; k < CM_COUNT(pieces); k++) {
            struct dr_err err = {0};
            struct dr_buf b;
            unsigned records;
            dr_buf_init(&b, 1 << 20);
            add_hex(&b, text(v, "stream"));
            assert_int_equal(read_all(&b, pieces[k], NULL, NULL, &records, &err), DR_E_INTEGRITY);
            if (strcmp(err.reason, text(v, "class")) != 0)
                fail_msg("%s: %s (%s)", text(v, "case"), err.reason, err.msg);
            dr_buf_fini(&b);
        }
    }
    assert_true(i >= 17);
}

static struct index_writer *writer(struct dr_buf *out, struct pipe_sink *sink)
{
    struct dr_err err = {0};
    struct index_writer *w = NULL;
    dr_buf_init(out, 4 << 20);
    *sink = (struct pipe_sink){to_buf, out};
    assert_int_equal(index_writer_new(sink, &w, &err), DR_OK);
    return w;
}

static struct pipe_bytes bytes(const char *s)
{
    return (struct pipe_bytes){(const unsigned char *)s, strlen(s)};
}

static struct pipe_file directory(const char *path)
{
    return (struct pipe_file){.path = bytes(path), .type = 'd', .mode = 0755};
}

static void test_order_is_demanded(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct dr_buf out;
    struct pipe_sink sink;
    unsigned records;
    struct index_writer *w = writer(&out, &sink);
    const struct pipe_file d = directory("srv");
    const struct pipe_root r = {.path = bytes("srv")};
    assert_int_equal(index_put_stream(w, "files", &err), DR_OK);
    assert_int_equal(index_put_root(w, &r, &err), DR_OK);
    assert_int_equal(index_put_file(w, &d, &err), DR_OK);
    assert_int_equal(index_end(w, &err), DR_OK);
    assert_int_equal(read_all(&out, 100, NULL, NULL, &records, &err), DR_E_INTEGRITY);
    assert_string_equal(err.reason, "index-order");
    index_writer_free(w);
    dr_buf_fini(&out);

    dr_err_clear(&err);
    w = writer(&out, &sink);
    assert_int_equal(index_put_stream(w, "files", &err), DR_OK);
    assert_int_equal(index_end(w, &err), DR_OK);
    static const char *const other[] = {"config", NULL};
    static const char *const more[] = {"files", "config", NULL};
    assert_int_equal(read_all(&out, 100, other, NULL, &records, &err), DR_E_INTEGRITY);
    assert_string_equal(err.reason, "index-order");
    dr_err_clear(&err);
    assert_int_equal(read_all(&out, 100, more, NULL, &records, &err), DR_E_INTEGRITY);
    assert_string_equal(err.reason, "index-order");
    index_writer_free(w);
    dr_buf_fini(&out);

    dr_err_clear(&err);
    w = writer(&out, &sink);
    assert_int_equal(index_put_file(w, &d, &err), DR_E_BUG); /* before any stream */
    assert_int_equal(index_end(w, NULL), DR_E_BUG);          /* the first error stays */
    index_writer_free(w);
    dr_buf_fini(&out);
}

static void test_counts_are_held(void **state)
{
    (void)state;
    struct dr_buf b;
    static const char *const ends[] = {
        "0000000992a3656e6481a17302",       /* s: 2 */
        "0000000692a3656e6480",             /* none */
        "0000000c92a3656e6482a16301a17301", /* c: 1 */
        "0000000c92a3656e6482a17301a17301", /* s twice */
    };
    for (size_t i = 0; i < CM_COUNT(ends); i++) {
        struct dr_err err = {0};
        unsigned records;
        dr_buf_init(&b, 4096);
        add_hex(&b, "0000000c92a173a86461746162617365");
        add_hex(&b, ends[i]);
        assert_int_equal(read_all(&b, 100, NULL, NULL, &records, &err), DR_E_INTEGRITY);
        assert_string_equal(err.reason, "index-counts");
        dr_buf_fini(&b);
    }
}

static void refuse_file(struct pipe_file f)
{
    struct dr_err err = {0};
    struct dr_buf out;
    struct pipe_sink sink;
    struct index_writer *w = writer(&out, &sink);
    assert_int_equal(index_put_stream(w, "files", &err), DR_OK);
    size_t before = out.len;
    assert_int_equal(index_put_file(w, &f, &err), DR_E_INVALID);
    assert_int_equal(out.len, before); /* nothing of it was written */
    index_writer_free(w);
    dr_buf_fini(&out);
}

static void test_writer_refuses_what_readers_would(void **state)
{
    (void)state;
    static const char *const paths[] = {"", "/a", "a/", "a//b", ".", "..", "a/.", "../a", "a/../b"};
    struct pipe_file f;
    for (size_t i = 0; i < CM_COUNT(paths); i++)
        refuse_file(directory(paths[i]));
    f = directory("a");
    f.path = (struct pipe_bytes){(const unsigned char *)"a\0b", 3};
    refuse_file(f);
    f = directory("a");
    f.type = 's';
    refuse_file(f);
    f = directory("a");
    f.size = 1;
    refuse_file(f);
    f = directory("a");
    f.type = 'l';
    refuse_file(f); /* no target */
    f.has_target = true;
    f.type = 'h';
    f.target = bytes("../x");
    f.has_sha256 = true;
    refuse_file(f);
    f = directory("a");
    f.type = 'c';
    f.has_target = true;
    f.target = bytes("1:2:3");
    refuse_file(f);
    f = directory("a");
    static const struct pipe_xattr bad[] = {{{(const unsigned char *)"trusted.x", 9}, {NULL, 0}}};
    f.xattrs = bad;
    f.xattr_count = 1;
    refuse_file(f);
}

/* A record that announces a mebibyte and a million xattrs costs what is there, not what it says. */
static void test_lengths_are_not_believed(void **state)
{
    (void)state;
    static const char *const streams[] = {
        "00100000", /* a record that never comes */
        "0000000c92a173a86461746162617365"
        "0000001a9da166c40161a164000000c400c4000000c0c0ddffffffff",
        "0000000c92a173a86461746162617365"
        "0000000c96a174c400c400ddffffff",
    };
    for (size_t i = 0; i < CM_COUNT(streams); i++) {
        struct dr_err err = {0};
        struct dr_buf b;
        unsigned records;
        dr_buf_init(&b, 4096);
        add_hex(&b, streams[i]);
        assert_int_equal(read_all(&b, 5, NULL, NULL, &records, &err), DR_E_INTEGRITY);
        dr_buf_fini(&b);
    }
}

static void test_pull_widths(void **state)
{
    (void)state;
    static const struct {
        const char *hex;
        int64_t want;
        bool bad_as_uint;
    } cases[] = {{"05", 5, false},
                 {"cc05", 5, false},
                 {"cd0005", 5, false},
                 {"ce00000005", 5, false},
                 {"cf0000000000000005", 5, false},
                 {"d005", 5, false},
                 {"d10005", 5, false},
                 {"d200000005", 5, false},
                 {"d30000000000000005", 5, false},
                 {"ff", -1, true},
                 {"d0ff", -1, true},
                 {"d1ffff", -1, true},
                 {"d2ffffffff", -1, true},
                 {"d3ffffffffffffffff", -1, true},
                 {"d38000000000000000", INT64_MIN, true}};
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        unsigned char raw[16];
        size_t len = strlen(cases[i].hex) / 2;
        struct dr_pull p;
        assert_true(dr_unhex(cases[i].hex, len * 2, raw, len));
        dr_pull_init(&p, raw, len);
        assert_int_equal(dr_pull_int(&p), cases[i].want);
        assert_true(dr_pull_done(&p));
        dr_pull_init(&p, raw, len);
        (void)dr_pull_uint(&p);
        assert_int_equal(p.bad, cases[i].bad_as_uint);
        for (size_t cut = 0; cut < len; cut++) {
            dr_pull_init(&p, raw, cut);
            (void)dr_pull_int(&p);
            assert_true(p.bad);
        }
        dr_pull_init(&p, raw, len);
        dr_pull_skip(&p, 0);
        assert_true(dr_pull_done(&p));
    }
    struct dr_pull p;
    dr_pull_init(&p, "\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9);
    (void)dr_pull_int(&p); /* over int64 */
    assert_true(p.bad);
    dr_pull_init(&p, "\x91\x91\x91\xc0", 4);
    dr_pull_skip(&p, 2);
    assert_true(p.bad); /* three deep */
    dr_pull_init(&p, "\x91\x91\x91\xc0", 4);
    dr_pull_skip(&p, 3);
    assert_true(dr_pull_done(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_in_any_cut),
        cmocka_unit_test(test_written_byte_for_byte),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_order_is_demanded),
        cmocka_unit_test(test_counts_are_held),
        cmocka_unit_test(test_writer_refuses_what_readers_would),
        cmocka_unit_test(test_lengths_are_not_believed),
        cmocka_unit_test(test_pull_widths),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
