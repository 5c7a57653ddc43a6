/* worker/pipe/{exclude,mounts,copy_stmt}: names of paths and tables. */
#include "tests/unit/cm.h"

#include <string.h>

#include "common/buf.h"
#include "worker/pipe/copy_stmt.h"
#include "worker/pipe/exclude.h"
#include "worker/pipe/mounts.h"
#include "worker/pipe/tree.h"

static void excluded(void **state)
{
    static const char *const globs[] = {
        "*.tmp", "cache", "/srv/up/old/", "/srv/*.iso", "x[0-9]", "", "/", NULL};
    static const char *const yes[] = {"/srv/a.tmp", "/srv/.tmp",      "/srv/cache",
                                      "/a/b/cache", "/srv/up/old",    "/srv/deep/er/d.iso",
                                      "/a/x7",      "/srv/cache.tmp", "/srv/up/cache/a.tmp"};
    static const char *const no[] = {"/srv/a.tmp2", "/srv/cached", "/srv/up/older", "/srv/up",
                                     "/srw/a.iso",  "/a/xx",       "/srv/cache/a",  "/srv"};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(yes); i++)
        if (!exclude_match(globs, yes[i]))
            fail_msg("%s is not excluded", yes[i]);
    for (size_t i = 0; i < CM_COUNT(no); i++)
        if (exclude_match(globs, no[i]))
            fail_msg("%s is excluded", no[i]);
    assert_false(exclude_match(NULL, "/srv/a.tmp"));
    assert_true(exclude_covers(globs, "/srv", "/srv/cache/deep/er"));
    assert_true(exclude_covers(globs, "/srv", "/srv/up/x1"));
    assert_false(exclude_covers(globs, "/srv/cache", "/srv/cache/deep")); /* the root stays */
    assert_false(exclude_covers(globs, "/srv", "/srv/deep/er"));
}

static void own_names(void **state)
{
    (void)state;
    assert_true(tree_own_name(".dr-lock"));
    assert_true(tree_own_name(".dr-abcdefghijkl2345"));
    assert_false(tree_own_name(".dr-abcdefghijkl234"));
    assert_false(tree_own_name(".dr-abcdefghijkl23456"));
    assert_false(tree_own_name(".dr-abcdefghijkl2341"));
    assert_false(tree_own_name(".dr-ABCDEFGHIJKL2345"));
    assert_false(tree_own_name(".dr-locks"));
    assert_false(tree_own_name("dr-lock"));
    assert_false(tree_own_name(""));
}

static void mountinfo(void **state)
{
    static const char text[] = "22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
                               "29 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
                               "88 29 8:1 /x /srv/a\\040b rw master:1 - ext4 /dev/sda1 rw\n"
                               "90 29 8:1 /x /srv/a\\040b/c\\134d\\012 rw - ext4 /dev/sda1 rw\n"
                               "91 90 8:1 / /srv/a\\040b rw - ext4 /dev/sdb1 rw\n"
                               "92 29 8:1 / /srv rw - ext4 /dev/sdc rw\n";
    struct mounts *m = NULL;
    struct dr_err err = {0};

    (void)state;
    assert_int_equal(mounts_parse(text, sizeof text - 1, &m, &err), DR_OK);
    assert_true(mounts_has(m, "/"));
    assert_true(mounts_has(m, "/srv"));
    assert_true(mounts_has(m, "/srv/a b"));
    assert_false(mounts_has(m, "/srv/a"));
    assert_string_equal(mounts_below(m, "/srv", 0), "/srv/a b");
    assert_string_equal(mounts_below(m, "/srv", 1), "/srv/a b/c\\d\n");
    assert_null(mounts_below(m, "/srv", 2)); /* named once, though mounted twice */
    assert_null(mounts_below(m, "/sr", 0));
    assert_null(mounts_below(m, "/srv/a b/c\\d\n", 0));
    assert_string_equal(mounts_below(m, "/", 0), "/srv");
    mounts_free(m);
    m = NULL;
    assert_int_equal(mounts_parse("22 28 0:20 /\n", 13, &m, &err), DR_E_MALFORMED);
    assert_null(m);
    dr_err_clear(&err);
    assert_int_equal(mounts_read(&m, &err), DR_OK);
    assert_true(mounts_has(m, "/proc") && !mounts_has(m, "/proc/self"));
    mounts_free(m);
}

static struct dr_buf text;
static struct pipe_bytes schema, table, columns[8];
static unsigned count;

static bool parse(const char *statement)
{
    dr_buf_reset(&text);
    text.failed = false;
    return copy_stmt_parse(statement, strlen(statement), &text, &schema, &table, columns,
                           CM_COUNT(columns), &count);
}

static void is(const struct pipe_bytes *b, const char *want)
{
    assert_int_equal(b->len, strlen(want));
    assert_memory_equal(b->data, want, b->len);
}

static void statements(void **state)
{
    static const char *const bad[] = {"",
                                      "COPY",
                                      "COPY t (a) FROM stdin;",
                                      "COPY a.b(a) FROM stdin;",
                                      "COPY a.b (a) FROM stdin",
                                      "COPY a.b (a) FROM stdin;\n\n",
                                      "COPY a.b (a FROM stdin;",
                                      "COPY a.b () FROM stdin;",
                                      "COPY a.b (a,b) FROM stdin;",
                                      "COPY a.b (A) FROM stdin;",
                                      "COPY a.\"b (a) FROM stdin;",
                                      "COPY a.\"\" (a) FROM stdin;",
                                      "COPY a.b FROM stdin;",
                                      "COPY a.b (a, b, c, d, e, f, g, h, i) FROM stdin;",
                                      "COPY a.b (a) FROM stdin; DROP TABLE a.b;"};

    (void)state;
    dr_buf_init(&text, 1024);
    assert_true(parse("COPY public.orders (id, v2, \"select\") FROM stdin;\n"));
    is(&schema, "public");
    is(&table, "orders");
    assert_int_equal(count, 3);
    is(&columns[2], "select");
    assert_true(
        parse("COPY \"a.\"\"b\".\"t\nx\" (\"c, d\", \"e) FROM stdin;\", gr\xc3\xbc) FROM stdin;"));
    is(&schema, "a.\"b");
    is(&table, "t\nx");
    is(&columns[0], "c, d");
    is(&columns[1], "e) FROM stdin;");
    is(&columns[2], "gr\xc3\xbc");
    assert_true(parse("COPY public.zero  FROM stdin;\n"));
    assert_int_equal(count, 0);
    for (size_t i = 0; i < CM_COUNT(bad); i++)
        if (parse(bad[i]))
            fail_msg("taken: %s", bad[i]);
    dr_buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(excluded),
        cmocka_unit_test(own_names),
        cmocka_unit_test(mountinfo),
        cmocka_unit_test(statements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
