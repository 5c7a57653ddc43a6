/* common/pg_url: accepted and refused forms; no error shows a part of the URL. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <string.h>

#include "common/pg_url.h"

static void good_forms(void **state)
{
    (void)state;
    static const struct {
        const char *url, *shown, *user, *password, *sslmode;
    } cases[] = {
        {"postgres://localhost/shop", "postgresql://localhost:5432/shop", "", "", "prefer"},
        {"postgresql://u:p@h:6000/d", "postgresql://h:6000/d", "u", "p", "prefer"},
        {"postgresql+psycopg2://u:p%40%2F%3Ass@h/d?sslmode=require", "postgresql://h:5432/d", "u",
         "p@/:ss", "require"},
        {"postgresql+asyncpg://u@h/d?ssl=true", "postgresql://h:5432/d", "u", "", "require"},
        {"postgresql://u:p:q@h/d", "postgresql://h:5432/d", "u", "p:q", "prefer"},
        {"postgresql://u:p@q@h/d", "postgresql://h:5432/d", "u", "p@q", "prefer"},
        {"postgresql://h/d?user=u&password=p%26q&port=7", "postgresql://h:7/d", "u", "p&q",
         "prefer"},
        {"postgresql:///d?host=/run/postgresql", "postgresql:///d?host=/run/postgresql&port=5432",
         "", "", "prefer"},
        {"postgresql://%2Frun%2Fpg:5433/d", "postgresql:///d?host=/run/pg&port=5433", "", "",
         "prefer"},
        {"postgresql:///d", "postgresql:///d?host=&port=5432", "", "", "prefer"},
        {"postgresql://[::1]:5433/d", "postgresql://[::1]:5433/d", "", "", "prefer"},
        {"postgresql://[::1]/d?port=5434", "postgresql://[::1]:5434/d", "", "", "prefer"},
        {"postgresql://u@h", "postgresql://h:5432/u", "u", "", "prefer"},
        {"postgresql://u@h:/", "postgresql://h:5432/u", "u", "", "prefer"},
        {"postgresql://h/caf%C3%A9%20x", "postgresql://h:5432/caf\xc3\xa9 x", "", "", "prefer"},
        {"postgresql://h/?dbname=d&schema=public&keepalives_idle=9", "postgresql://h:5432/d", "",
         "", "prefer"},
        {"postgresql://h:5432/d?host=h&port=5432&pgbouncer=false", "postgresql://h:5432/d", "", "",
         "prefer"},
    };
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct dr_pg_url u;
        struct dr_err err = {0};
        char shown[512];
        if (dr_pg_url_parse(cases[i].url, &u, &err))
            fail_msg("%s: %s", cases[i].url, err.msg);
        dr_pg_url_show(&u, shown);
        assert_string_equal(shown, cases[i].shown);
        assert_string_equal(u.user, cases[i].user);
        assert_string_equal(u.sslmode, cases[i].sslmode);
        assert_int_equal(u.password.len, strlen(cases[i].password));
        if (u.password.len)
            assert_string_equal((const char *)u.password.bytes, cases[i].password);
        dr_pg_url_free(&u);
    }
}

static void all_settings(void **state)
{
    struct dr_pg_url u;
    struct dr_err err = {0};
    (void)state;
    assert_int_equal(dr_pg_url_parse("postgresql://h/d?sslmode=verify-full&sslrootcert=/a/ca%20x&"
                                     "sslcert=/c&sslkey=/k&application_name=shop&connect_timeout=3&"
                                     "options=-c%20search_path%3Dx",
                                     &u, &err),
                     DR_OK);
    assert_string_equal(u.sslmode, "verify-full");
    assert_string_equal(u.sslrootcert, "/a/ca x");
    assert_string_equal(u.sslcert, "/c");
    assert_string_equal(u.sslkey, "/k");
    assert_string_equal(u.application_name, "shop");
    assert_int_equal(u.connect_timeout_ms, 3000);
    assert_string_equal(u.options, "-c search_path=x");
    dr_pg_url_free(&u);
}

static void bad_forms(void **state)
{
    (void)state;
    static const struct {
        const char *url, *why;
    } cases[] = {
        {"", "not postgresql://"},
        {"canary", "not postgresql://"},
        {"mysql://canary@h/d", "not postgresql://"},
        {"postgresql:/canary", "not postgresql://"},
        {"postgresql+://u:canary@h/d", "not postgresql://"},
        {"postgresql+PSY://u:canary@h/d", "not postgresql://"},
        {"postgresqlcanary://h/d", "not postgresql://"},
        {"postgresql://u:canary%4@h/d", "password"},
        {"postgresql://u:canary%00@h/d", "password"},
        {"postgresql://u:canary%0a@h/d", "password"},
        {"postgresql://u:canary%ff@h/d", "password"},
        {"postgresql://u:ca/canary@h/d", "host or port"},
        {"postgresql://u:12/canary@h/d", "database name"},
        {"postgresql://u:12?canary@h/d", "query"},
        {"postgresql://u:12?canary=x@h/d", "query key"},
        {"postgresql://h:0/d", "host or port"},
        {"postgresql://h:65536/d", "host or port"},
        {"postgresql://h:5x/d", "host or port"},
        {"postgresql://[::1/d", "host or port"},
        {"postgresql://[::1]x/d", "host or port"},
        {"postgresql://a,b/d", "several hosts"},
        {"postgresql:///d?host=a,b", "several hosts"},
        {"postgresql://h", "no database name"},
        {"postgresql://h/", "no database name"},
        {"postgresql://h/d?canary=1", "query key"},
        {"postgresql://h/d?channel_binding=require", "query key"},
        {"postgresql://h/d?sslmode=canary", "sslmode: a value"},
        {"postgresql://h/d?sslmode=require&sslmode=disable", "sslmode: a value"},
        {"postgresql://h/d?host=canary", "host: a value"},
        {"postgresql://u:p@h/d?password=canary", "password: a value"},
        {"postgresql://h/d?pgbouncer=true", "pgbouncer: a value"},
        {"postgresql://h/d?connect_timeout=x", "connect_timeout: a value"},
        {"postgresql://h/d?sslmode", "key=value"},
        {"postgresql://h/d2345678901234567890123456789012345678901234567890123456789012345",
         "database name"},
    };
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct dr_pg_url u;
        struct dr_err err = {0};
        assert_int_equal(dr_pg_url_parse(cases[i].url, &u, &err), DR_E_CONFIG);
        if (!strstr(err.msg, cases[i].why))
            fail_msg("%s: %s", cases[i].url, err.msg);
        assert_null(strstr(err.msg, "canary"));
        assert_null(u.password.bytes);
    }
    char text[5000];
    struct dr_pg_url u;
    struct dr_err err = {0};
    memset(text, 'a', sizeof text);
    memcpy(text, "postgresql://", 13);
    text[sizeof text - 1] = 0;
    assert_int_equal(dr_pg_url_parse(text, &u, &err), DR_E_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good_forms), cmocka_unit_test(all_settings),
                                       cmocka_unit_test(bad_forms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
