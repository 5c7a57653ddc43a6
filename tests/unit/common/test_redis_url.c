/* common/redis_url: accepted and refused forms; secrets are not shown. */
#include "tests/unit/cm.h"

#include <string.h>

#include "common/redis_url.h"

static void good_forms(void **state)
{
    (void)state;
    static const struct {
        const char *url, *shown, *user, *password;
    } cases[] = {
        {"redis://localhost", "redis://localhost:6379/0", "", ""},
        {"redis://:p%40ss@h:1234/7", "redis://h:1234/7", "", "p@ss"},
        {"rediss://user:secret@[::1]:6380/", "rediss://::1:6380/0", "user", "secret"},
        {"redis://h?db=3", "redis://h:6379/3", "", ""},
        {"unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2", "", ""},
        {"unix://:pw@/run/redis.sock", "unix:///run/redis.sock?db=0", "", "pw"},
    };
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct dr_redis_url u;
        struct dr_err err = {0};
        char shown[512];
        assert_int_equal(dr_redis_url_parse(cases[i].url, &u, &err), DR_OK);
        dr_redis_url_show(&u, shown);
        assert_string_equal(shown, cases[i].shown);
        assert_string_equal(u.user, cases[i].user);
        assert_int_equal(u.password.len, strlen(cases[i].password));
        if (u.password.len)
            assert_string_equal((const char *)u.password.bytes, cases[i].password);
        dr_redis_url_free(&u);
    }
}

static void bad_forms(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "localhost",
                                      "http://h",
                                      "redis://h:0",
                                      "redis://h:65536",
                                      "redis://h:1x",
                                      "redis://h/x",
                                      "redis://:canary%4@h",
                                      "redis://:canary%00@h",
                                      "redis://[::1",
                                      "unix://relative",
                                      "redis://h/99999999999999999999"};
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        struct dr_redis_url u;
        struct dr_err err = {0};
        assert_int_equal(dr_redis_url_parse(bad[i], &u, &err), DR_E_CONFIG);
        assert_null(strstr(err.msg, "canary"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good_forms), cmocka_unit_test(bad_forms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
