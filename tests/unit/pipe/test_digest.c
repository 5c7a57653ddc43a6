/* worker/pipe/digest*: the known answers of tests/vectors/vectors.json, in every cut. */
#include "tests/unit/cm.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/pull.h"
#include "worker/pipe/digest.h"

static json_t *vectors;
static unsigned char row_key[32];

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    assert_non_null(s);
    return s;
}

/* Hex to bytes; freed by the caller. */
static unsigned char *bytes_of(const char *hex, size_t *len)
{
    unsigned char *p = malloc(strlen(hex) / 2 + 1);
    *len = strlen(hex) / 2;
    assert_non_null(p);
    assert_true(dr_unhex(hex, strlen(hex), p, *len));
    return p;
}

static int setup(void **state)
{
    json_t *group, *out;
    size_t i, k;

    (void)state;
    vectors = json_load_file(DR_SOURCE_DIR "/tests/vectors/vectors.json", 0, NULL);
    assert_non_null(vectors);
    json_array_foreach(json_object_get(vectors, "derive"), i, group)
    {
        if (strcmp(text_of(group, "is"), "RK_1"))
            continue;
        json_array_foreach(json_object_get(group, "out"), k,
                           out) if (strcmp(text_of(out, "label"), "row-digest") == 0)
            assert_true(dr_unhex(text_of(out, "out"), 64, row_key, sizeof row_key));
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    json_decref(vectors);
    return 0;
}

/* The rows of a case as COPY text. */
static void stream_of(const json_t *c, struct dr_buf *out)
{
    json_t *rows = json_object_get(c, "row_bytes"), *row = json_object_get(c, "row");
    size_t i, len;

    json_array_foreach(rows ? rows : json_null(), i, row)
    {
        unsigned char *p = bytes_of(json_string_value(row), &len);
        dr_buf_add(out, p, len);
        dr_buf_add(out, "\n", 1);
        free(p);
    }
    if (!rows) {
        unsigned char *byte = bytes_of(text_of(row, "byte"), &len);
        for (json_int_t n = json_integer_value(json_object_get(row, "times")); n > 0; n--)
            dr_buf_add(out, byte, 1);
        dr_buf_add(out, "\n", 1);
        free(byte);
    }
}

static void check(const struct dr_buf *s, size_t cut, uint64_t rows, const char *digest)
{
    struct digest_rows d;
    unsigned char sum[16];
    char hex[33];
    uint64_t count;

    digest_rows_init(&d, row_key);
    for (size_t i = 0; i < s->len; i += cut)
        digest_rows_feed(&d, s->data + i, s->len - i < cut ? s->len - i : cut);
    digest_rows_sums(&d, &count, sum);
    digest_rows_fini(&d);
    dr_hex(sum, sizeof sum, hex);
    assert_int_equal(count, rows);
    assert_string_equal(hex, digest);
}

static void row_digests(void **state)
{
    static const size_t cuts[] = {1, 2, 3, 7, 63, 64, 65, 4096, 1 << 20};
    json_t *c;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(vectors, "row_digests"), i, c)
    {
        uint64_t rows = (uint64_t)json_integer_value(json_object_get(c, "rows"));
        struct dr_buf s;
        dr_buf_init(&s, 1 << 20);
        stream_of(c, &s);
        for (size_t k = 0; k < CM_COUNT(cuts); k++)
            check(&s, cuts[k], rows, text_of(c, "digest"));
        dr_buf_str(&s, "\\.\n\n\nbehind\n");
        for (size_t k = 0; k < CM_COUNT(cuts); k++)
            check(&s, cuts[k], rows, text_of(c, "digest"));
        dr_buf_fini(&s);
    }
    assert_true(i >= 15);
}

/* The stream gives exactly the rows of the list: the same sum as they give one by one. */
static void copy_streams(void **state)
{
    json_t *c, *row;
    size_t i, k, len;

    (void)state;
    json_array_foreach(json_object_get(vectors, "copy_streams"), i, c)
    {
        struct digest_rows d;
        unsigned char sum[16], *p;
        struct dr_buf s;
        uint64_t count;
        char hex[33];

        digest_rows_init(&d, row_key);
        json_array_foreach(json_object_get(c, "rows"), k, row)
        {
            p = bytes_of(json_string_value(row), &len);
            digest_rows_open(&d);
            digest_rows_part(&d, p, len);
            digest_rows_close(&d);
            free(p);
        }
        digest_rows_sums(&d, &count, sum);
        dr_hex(sum, sizeof sum, hex);
        p = bytes_of(text_of(c, "stream"), &len);
        dr_buf_init(&s, 4096);
        dr_buf_add(&s, p, len);
        for (size_t cut = 1; cut <= len; cut++)
            check(&s, cut, count, hex);
        assert_int_equal(count, json_array_size(json_object_get(c, "rows")));
        dr_buf_fini(&s);
        free(p);
    }
    assert_true(i >= 6);
}

/* Rows around every block border, short way and long way, against pieces. */
static void every_length(void **state)
{
    unsigned char row[2050], line[2051], whole[16], pieces[16];
    struct digest_rows a, b;
    uint64_t n;

    (void)state;
    for (size_t i = 0; i < sizeof row; i++)
        line[i] = row[i] = (unsigned char)('a' + i % 23);
    for (size_t len = 0; len < sizeof row; len++) {
        unsigned char kept = line[len];
        digest_rows_init(&a, row_key);
        digest_rows_init(&b, row_key);
        line[len] = '\n';
        digest_rows_feed(&a, line, len + 1);
        line[len] = kept;
        digest_rows_open(&b);
        digest_rows_part(&b, row, len / 3);
        digest_rows_part(&b, row + len / 3, len - len / 3);
        digest_rows_close(&b);
        digest_rows_sums(&a, &n, whole);
        assert_int_equal(n, 1);
        digest_rows_sums(&b, &n, pieces);
        assert_memory_equal(whole, pieces, sizeof whole);
    }
}

static void half_an_end_mark(void **state)
{
    struct digest_rows d;
    unsigned char sum[16], none[16] = {0};
    uint64_t n;

    (void)state;
    digest_rows_init(&d, row_key);
    digest_rows_feed(&d, "\\", 1);
    digest_rows_sums(&d, &n, sum);
    assert_int_equal(n, 1); /* a row so far */
    digest_rows_feed(&d, ".", 1);
    assert_false(digest_rows_ended(&d));
    digest_rows_sums(&d, &n, sum);
    assert_int_equal(n, 0);
    assert_memory_equal(sum, none, sizeof sum);
    digest_rows_feed(&d, "\nx\n", 3);
    assert_true(digest_rows_ended(&d));
    digest_rows_sums(&d, &n, sum);
    assert_int_equal(n, 0);
}

struct record {
    struct pipe_file f;
    struct pipe_xattr xattrs[4];
    uint32_t group;
};

static struct pipe_bytes pull_bin(struct dr_pull *p)
{
    struct pipe_bytes b;
    b.data = dr_pull_bin(p, &b.len);
    return b;
}

static void decode(const unsigned char *bytes, size_t len, struct record *r)
{
    struct pipe_file *f = &r->f;
    struct pipe_bytes sha;
    struct dr_pull p;
    size_t n;

    memset(r, 0, sizeof *r);
    dr_pull_init(&p, bytes + 4, len - 4);
    assert_int_equal(dr_pull_array(&p, 1), 13);
    (void)dr_pull_str(&p, &n);
    f->path = pull_bin(&p);
    f->type = (char)*dr_pull_str(&p, &n);
    f->mode = (uint32_t)dr_pull_uint(&p);
    f->uid = (uint32_t)dr_pull_uint(&p);
    f->gid = (uint32_t)dr_pull_uint(&p);
    f->uname = pull_bin(&p);
    f->gname = pull_bin(&p);
    f->mtime_ns = dr_pull_int(&p);
    f->size = dr_pull_uint(&p);
    f->has_sha256 = !dr_pull_nil(&p);
    if (f->has_sha256) {
        sha = pull_bin(&p);
        memcpy(f->sha256, sha.data, sizeof f->sha256);
    }
    f->has_target = !dr_pull_nil(&p);
    if (f->has_target)
        f->target = pull_bin(&p);
    f->xattr_count = (unsigned)dr_pull_array(&p, 2);
    f->xattrs = r->xattrs;
    for (unsigned i = 0; i < f->xattr_count; i++) {
        assert_int_equal(dr_pull_array(&p, 1), 2);
        r->xattrs[i].name = pull_bin(&p);
        r->xattrs[i].value = pull_bin(&p);
    }
    assert_true(dr_pull_done(&p));
}

static int compare(const struct pipe_bytes *a, const struct pipe_bytes *b)
{
    int order = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

static int by_path(const void *a, const void *b)
{
    return compare(&((const struct record *)a)->f.path, &((const struct record *)b)->f.path);
}

/* As the walk would have met them: sorted, the smallest path of a link group carries the data. */
static void in_walking_order(struct record *r, size_t count)
{
    uint32_t groups = 0;

    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count && r[i].f.type == 'h'; k++)
            if (compare(&r[i].f.target, &r[k].f.path) == 0 && r[k].f.type == 'f')
                r[i].group = r[k].group = r[k].group ? r[k].group : ++groups;
    qsort(r, count, sizeof *r, by_path);
    for (size_t i = 0; i < count; i++) {
        bool first = true;
        for (size_t k = 0; k < i && r[i].group; k++)
            if (r[k].group == r[i].group && first) {
                first = false;
                r[i].f.type = 'h';
                r[i].f.has_target = true;
                r[i].f.target = r[k].f.path;
            }
        if (r[i].group && first) {
            r[i].f.type = 'f';
            r[i].f.has_target = false;
        }
        r[i].f.xattrs = r[i].xattrs; /* they moved with the sort */
    }
}

static void tree_digests(void **state)
{
    struct digest_tree *d = NULL;
    struct dr_err err = {0};
    json_t *c, *record;
    size_t i, k;

    (void)state;
    assert_int_equal(digest_tree_new(NULL, &d, &err), DR_OK);
    json_array_foreach(json_object_get(vectors, "tree_digests"), i, c)
    {
        json_t *list = json_object_get(c, "records");
        unsigned char content[32], meta[32], *raw[16];
        struct record r[16];
        char hex[65];
        size_t count = json_array_size(list), len;

        assert_in_range(count, 0, CM_COUNT(r));
        json_array_foreach(list, k, record)
        {
            raw[k] = bytes_of(json_string_value(record), &len);
            decode(raw[k], len, &r[k]);
        }
        in_walking_order(r, count);
        for (k = 0; k < count; k++) {
            /* a nested root has its own: what it holds is left out here */
            const char *nested = json_object_get(c, "roots") ? text_of(c, "root") : "";
            unsigned char *prefix = bytes_of(nested, &len);
            bool in = !len || (r[k].f.path.len >= len && !memcmp(r[k].f.path.data, prefix, len) &&
                               (r[k].f.path.len == len || r[k].f.path.data[len] == '/'));
            free(prefix);
            if (in)
                assert_int_equal(digest_tree_add(d, &r[k].f, r[k].group, &err), DR_OK);
        }
        assert_int_equal(digest_tree_end(d, content, meta, &err), DR_OK);
        for (k = 0; k < count; k++)
            free(raw[k]);
        dr_hex(content, sizeof content, hex);
        assert_string_equal(hex, text_of(c, "root_content"));
        dr_hex(meta, sizeof meta, hex);
        assert_string_equal(hex, text_of(c, "root_meta"));
    }
    assert_true(i >= 3);
    digest_tree_free(d);
}

static void add_many(struct digest_tree *d, bool known, unsigned char content[32],
                     unsigned char meta[32])
{
    struct dr_err err = {0};
    char path[64];

    for (unsigned i = 0; i < 30000; i++) {
        bool group = i % 1000 == 0, second = i == 29999;
        struct pipe_file f = {.type = 'f', .mode = 0644, .size = i, .has_sha256 = true};
        f.path.data = (const unsigned char *)path;
        f.path.len = (size_t)snprintf(path, sizeof path, "srv/%08u", i);
        if (known && i == 0) { /* told at once what the other way learns at the end */
            f.has_target = true;
            f.target = f.path;
        }
        if (second) {
            f.type = 'h';
            f.size = 0;
            f.has_target = true;
            f.target.data = (const unsigned char *)"srv/00000000";
            f.target.len = 12;
        }
        assert_int_equal(digest_tree_add(d, &f,
                                         known    ? 0
                                         : second ? 1
                                         : group  ? i / 1000 + 1
                                                  : 0,
                                         &err),
                         DR_OK);
    }
    assert_int_equal(digest_tree_end(d, content, meta, &err), DR_OK);
}

/* More waits than memory holds: it passes through the file and gives the same. */
static void waiting_passes_through_a_file(void **state)
{
    unsigned char content[2][32], meta[2][32];
    struct digest_tree *d = NULL;
    struct dr_err err = {0};

    (void)state;
    assert_int_equal(digest_tree_new("/tmp", &d, &err), DR_OK);
    for (int i = 0; i < 2; i++) { /* twice: it begins anew after a root */
        add_many(d, true, content[0], meta[0]);
        add_many(d, false, content[1], meta[1]);
        assert_memory_equal(content[0], content[1], 32);
        assert_memory_equal(meta[0], meta[1], 32);
    }
    digest_tree_free(d);
    assert_int_equal(digest_tree_new("/nowhere/at/all", &d, &err), DR_OK); /* not needed yet */
    digest_tree_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_digests),  cmocka_unit_test(copy_streams),
        cmocka_unit_test(every_length), cmocka_unit_test(half_an_end_mark),
        cmocka_unit_test(tree_digests), cmocka_unit_test(waiting_passes_through_a_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
