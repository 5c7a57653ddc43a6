/* Names that go to disk, against the golden vectors. */
#include "tests/unit/cm.h"

#include <string.h>

#include <jansson.h>

#include "common/str.h"
#include "worker/backup/catalog.h"
#include "worker/backup/names.h"
#include "worker/backup/nfs.h"

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

static json_t *list(const char *name)
{
    json_t *v = json_object_get(vectors, name);
    assert_true(json_array_size(v) > 0);
    return v;
}

static void test_runs(void **state)
{
    (void)state;
    size_t i;
    json_t *v;
    json_array_foreach(list("runs"), i, v)
    {
        char run[NAMES_RUN_SIZE];
        names_run(text(v, "namespace"), text(v, "job"), run);
        assert_string_equal(run, text(v, "run"));
    }
}

static void test_backup_ids(void **state)
{
    (void)state;
    size_t i;
    json_t *v;
    json_array_foreach(list("backup_ids"), i, v)
    {
        char id[NAMES_ID_SIZE], job[NAMES_JOB_SIZE];
        int64_t unix_s = json_integer_value(json_object_get(v, "unix"));
        names_backup_id(unix_s * 1000 + 999, text(v, "kind"), text(v, "job"), id);
        assert_string_equal(id, text(v, "backup_id"));
        assert_true(names_is_backup_id(id));
        names_job(text(v, "job"), job);
        assert_true(names_is_of_job(id, text(v, "kind"), job));
        assert_false(names_is_of_job(id, "nothing", job));
    }
}

static void test_foreign_names(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "lost+found",
        "20260102T030405Z-database-jpfikvy",
        "20260102T030405Z-database-jpfikvy77",
        "20260102T030405Z-database-jpfikvy1",
        "20260102T030405Z-database-JPFIKVY7",
        "20260102T030405Z-databases-jpfikvy7",
        "20260102T030405Z-other-jpfikvy7",
        "2026-102T030405Z-files-jpfikvy7",
        "20260102T030405z-files-jpfikvy7",
        "../60102T030405Z-files-jpfikvy7",
        "20260102T030405Z-files-jpfikvy7/",
    };
    for (size_t i = 0; i < CM_COUNT(names); i++)
        assert_false(names_is_backup_id(names[i]));
}

static void test_series(void **state)
{
    (void)state;
    char out[NAMES_SERIES_SIZE], name[63];
    size_t i;
    json_t *v;
    json_array_foreach(list("series_names"), i, v)
    {
        unsigned char raw[64];
        size_t len = strlen(text(v, "database")) / 2;
        assert_true(dr_unhex(text(v, "database"), len * 2, raw, len));
        names_series(text(v, "kind"), raw, len, out);
        assert_string_equal(out, text(v, "series"));
    }
    names_series("files", NULL, 0, out);
    assert_string_equal(out, "files:default");
    memset(name, 0xff, sizeof name); /* the longest there is */
    names_series("database", name, sizeof name, out);
    assert_int_equal(strlen(out), 9 + 3 * 63);
}

static void test_log_names(void **state)
{
    (void)state;
    size_t i;
    json_t *v;
    json_array_foreach(list("log_names"), i, v)
    {
        char name[24];
        catalog_log_name((uint64_t)json_integer_value(json_object_get(v, "seq")), name);
        assert_string_equal(name, text(v, "file"));
    }
}

static void test_nfs_options(void **state)
{
    (void)state;
    static const char mounts[] =
        "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 29 0:40 / /a rw shared:2 - nfs4 server:/x rw,vers=4.2,local_lock=none,addr=1.2.3.4\n"
        "31 29 0:41 / /b rw - nfs server:/x rw,vers=3,nolock,addr=1.2.3.4\n"
        "32 29 0:42 / /c rw - nfs server:/x rw,local_lock=all\n"
        "33 29 0:43 / /d rw,nolock - ext4 /dev/nolock rw\n"
        "131 29 0:44 / /e rw - nfs server:/x rw,lock\n"
        "34 29 0:45 / /f rw - nfs server:/x rw,local_lock=posix";
    char out[64];
    assert_null(nfs_local_locks(mounts, "29", out));
    assert_null(nfs_local_locks(mounts, "30", out));
    assert_string_equal(nfs_local_locks(mounts, "31", out), "nolock");
    assert_string_equal(nfs_local_locks(mounts, "32", out), "local_lock=all");
    assert_null(nfs_local_locks(mounts, "33", out));
    assert_null(nfs_local_locks(mounts, "131", out));
    assert_string_equal(nfs_local_locks(mounts, "34", out), "local_lock=posix");
    assert_null(nfs_local_locks(mounts, "3", out));
    assert_null(nfs_local_locks("", "3", out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),          cmocka_unit_test(test_backup_ids),
        cmocka_unit_test(test_foreign_names), cmocka_unit_test(test_series),
        cmocka_unit_test(test_log_names),     cmocka_unit_test(test_nfs_options),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
