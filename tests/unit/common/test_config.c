/* common/config: sources in order, unknown names, secrets that leave the environment. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"

static char path[] = "/tmp/dr-test-config-XXXXXX";

static int fresh(void **state)
{
    (void)state;
    (void)clearenv();
    (void)snprintf(path, sizeof path, "/tmp/dr-test-config-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int gone(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void env_before_file_before_default(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct dr_config *c = NULL;
    write_file("# comment\n\nDR_LEASE_MS=1000\n DR_NAMESPACE=\"file\"\nREDIS_URL=redis://f\n");
    assert_int_equal(setenv("DR_NAMESPACE", "env", 1), 0);
    assert_int_equal(dr_config_load(path, &c, &err), DR_OK);
    assert_string_equal(dr_config_str(c, "DR_NAMESPACE"), "env");
    assert_true(dr_config_int(c, "DR_LEASE_MS") == 1000);
    assert_true(dr_config_int(c, "DR_CONCURRENCY") == 2);
    assert_true(dr_config_is_set(c, "DR_LEASE_MS"));
    assert_false(dr_config_is_set(c, "DR_CONCURRENCY"));
    assert_string_equal((const char *)dr_config_redis_url(c)->bytes, "redis://f");
    dr_config_free(c);
}

static void expect_config_error(const char *file, const char *field)
{
    struct dr_err err = {0};
    struct dr_config *c = NULL;
    assert_int_equal(dr_config_load(file, &c, &err), DR_E_CONFIG);
    assert_string_equal(err.field, field);
    assert_null(c);
}

static void refusals_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *text, *field;
    } cases[] = {{"DR_LEASE_MS=499\n", "DR_LEASE_MS"},
                 {"DR_LEASE_MS=1e4\n", "DR_LEASE_MS"},
                 {"DR_ALLOW_UNSIGNED=maybe\n", "DR_ALLOW_UNSIGNED"},
                 {"BACKUP_DIRECTORY=relative\n", "BACKUP_DIRECTORY"},
                 {"OFFSITE_STORAGE_ENCRYPTION=false\n", "OFFSITE_STORAGE_ENCRYPTION"},
                 {"SOMETHING=1\n", "name"},
                 {"no equals sign\n", ""}};
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        write_file(cases[i].text);
        expect_config_error(path, cases[i].field);
    }
    expect_config_error("/nonexistent/file", "");
}

static void typos_in_the_environment(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct dr_config *c = NULL;
    assert_int_equal(setenv("DR_LEASE_MSS", "1000", 1), 0);
    expect_config_error(NULL, "name");
    (void)clearenv();
    assert_int_equal(setenv("DR_SERVICE_PORT_8080_TCP", "1", 1), 0);
    assert_int_equal(dr_config_load(NULL, &c, &err), DR_OK);
    dr_config_free(c);
}

static void secrets_leave_the_environment(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct dr_config *c = NULL;
    struct dr_buf out;
    write_file("from a file, with  blanks \n");
    assert_int_equal(setenv("BACKUP_ENCRYPTION_PASSWORD_FILE", path, 1), 0);
    assert_int_equal(setenv("DATABASE_URL", "postgres://u:canary@h/d", 1), 0);
    assert_int_equal(dr_config_load(NULL, &c, &err), DR_OK);
    assert_null(getenv("DATABASE_URL"));
    assert_string_equal((const char *)dr_config_secret(c, "BACKUP_ENCRYPTION_PASSWORD")->bytes,
                        "from a file, with  blanks ");
    for (int json = 0; json < 2; json++) {
        dr_buf_init(&out, 1 << 16);
        dr_config_print(c, json == 1, &out);
        assert_non_null(strstr((char *)out.data, "***"));
        assert_null(strstr((char *)out.data, "canary"));
        assert_null(strstr((char *)out.data, "blanks"));
        dr_buf_fini(&out);
    }
    dr_config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(env_before_file_before_default, fresh, gone),
        cmocka_unit_test_setup_teardown(refusals_name_the_field, fresh, gone),
        cmocka_unit_test_setup_teardown(typos_in_the_environment, fresh, gone),
        cmocka_unit_test_setup_teardown(secrets_leave_the_environment, fresh, gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
