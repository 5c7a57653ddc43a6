/* What is no manifest and no catalog record, field by field; what a later version may add. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/backup/catalog.h"
#include "worker/backup/manifest.h"
#include "worker/backup/strict.h"

static const char id[] = "20260103T040000Z-database-fnnkcvuu"; /* of a chain */
static char *golden;

static int setup(void **state)
{
    (void)state;
    FILE *f = fopen(DR_SOURCE_DIR "/tests/vectors/store/backups/20260103T040000Z-database-fnnkcvuu/"
                                  "manifest.json",
                    "r");
    golden = calloc(1, 8192);
    return f && golden && fread(golden, 1, 8191, f) > 0 && fclose(f) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    free(golden);
    return 0;
}

/* The text with the first `from` behind `after` made `to`. */
static char *changed(const char *text, const char *after, const char *from, const char *to)
{
    const char *at = strstr(text, after);
    at = at ? strstr(at, from) : NULL;
    if (!at)
        fail_msg("'%s' behind '%s' is not there", from, after);
    return dr_xasprintf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

static enum dr_rc parse(const char *text, struct dr_err *err)
{
    struct manifest *m = NULL;
    enum dr_rc rc = manifest_parse(text, strlen(text), id, &m, err);
    manifest_free(m);
    return rc;
}

static void test_no_manifest(void **state)
{
    (void)state;
    static const struct {
        const char *after, *from, *to;
    } cases[] = {
        {"{", "\"v\": 1", "\"v\": 2"},
        {"{", "\"v\": 1", "\"v\": 1.0"},
        {"{", "\"v\": 1", "\"v\": \"1\""},
        {"{", "\"v\": 1,", ""},
        {"{", "\"v\": 1", "\"v\": 1, \"v\": 1"}, /* twice */
        {"backup_id", "fnnkcvuu", "fnnkcvua"},
        {"backup_id", "040000Z", "040001Z"},
        {"job_id", "hourly", "daily"}, /* the id does not follow from it */
        {"job_id", "hourly", "hou\\u0001rly"},
        {"series", "database:shop", "files:shop"},
        {"series", "database:shop", "database:"},
        {"series", "database:shop", ""},
        {"seq", "2", "0"},
        {"seq", "2", "-2"},
        {"seq", "2", "9007199254740992"},
        {"seq", "2", "\"2\""},
        {"\"class\"", "scheduled", "Scheduled"},
        {"\"class\"", "scheduled", ""},
        {"\"kind\"", "database", "files"},
        {"t_start", "04:00:00.120Z", "04:00:00.12Z"},
        {"t_start", "04:00:00.120Z", "04:00:00.120+00:00"},
        {"t_start", "04:00:00.120Z", "04:00:61.120Z"},
        {"t_point", "\"2026-01-03T04:00:00.160Z\"", "1767412800160"},
        {"tools", "\"0.1.0\"", "1"},
        {"server", "\"shop\"", "null"},
        {"objects", "\"index\": 0", "\"index\": 1"},
        {"objects", "\"role\": \"database\"", "\"role\": \"shop\""},
        {"objects", "\"name\": \"database.drb\"", "\"name\": \"globals.drb\""},
        {"objects", "\"plain_bytes\": 162161", "\"plain_bytes\": -1"},
        {"objects", "\"root\": \"1", "\"root\": \""},
        {"objects", "1259a5a3", "1259A5A3"}, /* hex is lower case */
        {"globals.drb", "\"key_generation\": 2", "\"key_generation\": 1"},
        {"objects", "\"key_generation\": 2", "\"key_generation\": 0"},
        {"containers", "\"20260103T040000Z-database-fnnkcvuu\"",
         "\"20260102T030405Z-database-jpfikvy7\""},
        {"containers", "4b1d5cde", "4b1d5cdf"}, /* not what the object says */
        {"jpfikvy7", "database.drb", "index.drb"},
        {"jpfikvy7", "database.drb", "../a.drb"},
        {"containers", "20260102T030405Z-database-jpfikvy7", "20260102T030405Z-database-jpfikvy"},
        {"prev_sha256", "5158", "515"},
        {"prev_sha256", "\n}", "\n} x"},
        {"{", "{", "\xef\xbb\xbf{"}, /* a byte order mark */
        {"{", "{", "[{"},
    };
    struct dr_err fine = {0};
    if (parse(golden, &fine))
        fail_msg("%s", fine.msg);
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct dr_err err = {0};
        char *text = changed(golden, cases[i].after, cases[i].from, cases[i].to);
        if (parse(text, &err) != DR_E_INTEGRITY || strcmp(err.reason, "manifest-form") != 0)
            fail_msg("%s -> %s: %d %s", cases[i].from, cases[i].to, (int)err.rc, err.reason);
        free(text);
    }
}

static void test_later_versions_may_add(void **state)
{
    (void)state;
    struct dr_err err = {0};
    char *a = changed(golden, "prev_sha256", "\n}", ",\n \"later\": {\"x\": [1, null, true]}\n}");
    char *b = changed(a, "objects", "\"key_generation\": 2", "\"key_generation\": 2, \"new\": 1");
    if (parse(b, &err))
        fail_msg("%s", err.msg);
    free(a);
    free(b);
}

static bool is_taken(const char *text)
{
    json_t *v = strict_parse(text, strlen(text), NULL);
    json_decref(v);
    return v != NULL;
}

static void test_depth(void **state)
{
    (void)state;
    assert_true(is_taken("{\"a\":[[[[[[[1]]]]]]]}")); /* 8 */
    assert_false(is_taken("{\"a\":[[[[[[[[1]]]]]]]]}"));
    assert_true(is_taken("{\"a\":\"[[[[[[[[[[\\\"[[[[\"}")); /* in a string they are text */
}

static const char line[] =
    "{\"seq\":3,\"prev\":\"760b94dda7ae9dc33efd72b2c5dc3fac79eaaca44e22abbac3155bd7c4edc5d8\","
    "\"type\":\"added\",\"backup_id\":\"20260103T040000Z-database-fnnkcvuu\",\"at\":"
    "\"2026-01-03T04:00:03.000Z\",\"data\":{\"manifest_sha256\":"
    "\"60a0d3fcd02d11b50966552a171ccbed5b4dbc374acd178c0dd968f23c9925a4\",\"verified_at\":"
    "\"2026-01-03T04:00:02.900Z\"}}";

static enum dr_rc parse_line(const char *text, struct dr_err *err)
{
    struct catalog_record r;
    char *data = NULL;
    enum dr_rc rc = catalog_parse(text, strlen(text), &r, &data, err);
    free(data);
    return rc;
}

static void test_no_record(void **state)
{
    (void)state;
    static const struct {
        const char *after, *from, *to;
    } cases[] = {
        {"{", "\"seq\":3", "\"seq\":0"},
        {"{", "\"seq\":3", "\"seq\":3.0"},
        {"{", "\"seq\":3,", ""},
        {"prev", "760b", "760B"},
        {"prev", "760b", "760"},
        {"type", "added", ""},
        {"type", "\"added\"", "1"},
        {"type", "added", "a type that is longer than any of ours"},
        {"backup_id", "fnnkcvuu", "fnnkcvu"},
        {"backup_id", "2026", "../.."},
        {"at", "2026-01-03T04:00:03.000Z", "2026-01-03T04:00:03Z"},
        {"data",
         "{\"manifest_sha256\":"
         "\"60a0d3fcd02d11b50966552a171ccbed5b4dbc374acd178c0dd968f23c9925a4\"",
         "{\"x\":1"}, /* added without its hash */
        {"verified_at", "2026-01-03T04:00:02.900Z", "yesterday"},
        {"{", "\"data\":{", "\"data\":[],\"x\":{"},
    };
    struct dr_err fine = {0};
    assert_int_equal(parse_line(line, &fine), DR_OK);
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct dr_err err = {0};
        char *text = changed(line, cases[i].after, cases[i].from, cases[i].to);
        if (parse_line(text, &err) != DR_E_INTEGRITY || strcmp(err.reason, "catalog-form") != 0)
            fail_msg("%s -> %s: %d %s", cases[i].from, cases[i].to, (int)err.rc, err.reason);
        free(text);
    }
    char *kept = changed(line, "type", "added", "of-a-later-version");
    assert_int_equal(parse_line(kept, &fine), DR_OK);
    free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_manifest),
        cmocka_unit_test(test_later_versions_may_add),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_no_record),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
