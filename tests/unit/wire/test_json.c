/* JSON of a command line: what RFC 8259 allows becomes msgpack, the rest is refused with its place.
 */
#include "tests/unit/cm.h"

#include <string.h>

#include "common/wire/args.h"
#include "common/wire/json.h"
#include "common/wire/pack.h"

static void round_trips(void **state)
{
    (void)state;
    static const char *const good[][2] = {
        {"{}", "{}"},
        {" { \"a\" : 1 , \"b\":[ ] }\n", "{\"a\":1,\"b\":[]}"},
        {"{\"s\":\"\\\"\\\\\\/\\u0041\\u00e9\\u20ac\\ud83d\\ude00\"}",
         "{\"s\":\"\\\"\\\\/A\u00e9\u20ac\U0001F600\"}"},
        {"{\"n\":[0,-1,18446744073709551615,-9223372036854775808,1.5,1e3,true,false,null]}",
         "{\"n\":[0,-1,18446744073709551615,-9223372036854775808,1.5,1000,true,false,null]}"},
        {"{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":1}}}}}}",
         "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":1}}}}}}"},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct dr_buf pairs, map, back;
        struct dr_err err = {0};
        size_t n = 0;
        dr_buf_init(&pairs, 4096);
        dr_buf_init(&map, 4096);
        dr_buf_init(&back, 4096);
        if (dr_json_pairs(good[i][0], strlen(good[i][0]), &pairs, &n, &err))
            fail_msg("%s: %s", good[i][0], err.msg);
        dr_pack_map(&map, n);
        dr_buf_add(&map, pairs.data ? pairs.data : (const unsigned char *)"", pairs.len);
        assert_int_equal(dr_wire_to_json(map.data, map.len, &back, &err), DR_OK);
        assert_string_equal((const char *)back.data, good[i][1]);
        dr_buf_fini(&pairs);
        dr_buf_fini(&map);
        dr_buf_fini(&back);
    }
}

static void strings_are_always_utf8(void **state)
{
    struct dr_buf b;
    (void)state;
    dr_buf_init(&b, 4096);
    dr_pack_str(&b,
                "a\xff\xfe"
                "b\xc3",
                5);
    assert_int_equal(b.len, 12);
    assert_memory_equal(b.data,
                        "\xab"
                        "a\xef\xbf\xbd\xef\xbf\xbd"
                        "b\xef\xbf\xbd",
                        12);
    dr_buf_fini(&b);
}

static void refusals(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "1",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":--1}",
        "{\"a\":18446744073709551616}",
        "{\"a\":1e999}",
        "{\"a\":nul}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\"}",
        "{\"a\":\"\\ud800\\u0041\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"open",
        "{\"a\":[1,]}",
        "{\"a\":[1",
        "{} {}",
        "{\"a\":[[[[[[[1]]]]]]]}",
        "{\"a\":NaN}",
        "{\"a\":'x'}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct dr_buf pairs;
        struct dr_err err = {0};
        size_t n = 0;
        dr_buf_init(&pairs, 4096);
        if (dr_json_pairs(bad[i], strlen(bad[i]), &pairs, &n, &err) != DR_E_MALFORMED)
            fail_msg("accepted: %s", bad[i]);
        assert_non_null(strstr(err.msg, "JSON: "));
        dr_buf_fini(&pairs);
    }
}

static enum dr_rc check(const char *lane, const char *json, struct dr_err *err)
{
    struct dr_buf pairs;
    size_t n = 0;
    dr_buf_init(&pairs, 1 << 20);
    enum dr_rc rc = dr_json_pairs(json, strlen(json), &pairs, &n, err);
    if (!rc)
        rc = dr_args_check(lane, pairs.data, pairs.len, n, err);
    dr_buf_fini(&pairs);
    return rc;
}

static void arguments(void **state)
{
    (void)state;
    static const struct {
        const char *lane, *json, *field;
        enum dr_rc rc;
    } cases[] = {
        {"noop", "{}", "", DR_OK},
        {"noop", "{\"sleep_ms\":5,\"payload\":{\"x\":[1,null]}}", "", DR_OK},
        {"noop", "{\"sleep_ms\":\"5\"}", "a.sleep_ms", DR_E_INVALID},
        {"noop", "{\"sleep_ms\":5.5}", "a.sleep_ms", DR_E_INVALID},
        {"noop", "{\"nap\":1}", "a.nap", DR_E_INVALID},
        {"noop", "{\"sleep_ms\":1,\"sleep_ms\":2}", "", DR_E_MALFORMED},
        {"execute", "{}", "a.procedure_id", DR_E_INVALID},
        {"execute", "{\"procedure_id\":\"database_recovery\",\"dry_run\":true}", "", DR_OK},
        {"execute", "{\"procedure_id\":\"database_recovery\",\"dry_run\":1}", "a.dry_run",
         DR_E_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct dr_err err = {0};
        if (check(cases[i].lane, cases[i].json, &err) != cases[i].rc)
            fail_msg("%s: %s", cases[i].json, err.msg);
        assert_string_equal(err.field, cases[i].field);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trips),
                                       cmocka_unit_test(strings_are_always_utf8),
                                       cmocka_unit_test(refusals), cmocka_unit_test(arguments)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
