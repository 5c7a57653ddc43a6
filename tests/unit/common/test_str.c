/* common/str, buf, err, keys: the ground floor. */
#include "tests/unit/cm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/keys.h"
#include "common/str.h"

static void numbers_are_strict(void **state)
{
    (void)state;
    uint64_t u;
    int64_t i;
    assert_true(dr_parse_u64("18446744073709551615", 0, UINT64_MAX, &u));
    assert_true(u == UINT64_MAX);
    static const char *const bad[] = {"",
                                      " 1",
                                      "1 ",
                                      "+1",
                                      "-1",
                                      "0x1",
                                      "1.0",
                                      "18446744073709551616",
                                      "99999999999999999999999"};
    for (size_t k = 0; k < CM_COUNT(bad); k++)
        assert_false(dr_parse_u64(bad[k], 0, UINT64_MAX, &u));
    assert_false(dr_parse_u64("11", 0, 10, &u));
    assert_true(dr_parse_i64("-7", -7, 7, &i) && i == -7);
    assert_true(dr_parse_i64("-9223372036854775808", INT64_MIN, INT64_MAX, &i) && i == INT64_MIN);
    assert_true(dr_parse_i64("9223372036854775807", INT64_MIN, INT64_MAX, &i) && i == INT64_MAX);
    assert_false(dr_parse_i64("9223372036854775808", INT64_MIN, INT64_MAX, &i));
    assert_false(dr_parse_i64("-9223372036854775809", INT64_MIN, INT64_MAX, &i));
    assert_false(dr_parse_i64("--7", -7, 7, &i));
    assert_false(dr_parse_i64(NULL, -7, 7, &i));
}

static void durations(void **state)
{
    (void)state;
    uint64_t ms;
    assert_true(dr_parse_duration_ms("90", &ms) && ms == 90000);
    assert_true(dr_parse_duration_ms("250ms", &ms) && ms == 250);
    assert_true(dr_parse_duration_ms("2d", &ms) && ms == 172800000);
    assert_false(dr_parse_duration_ms("1w", &ms));
    assert_false(dr_parse_duration_ms("s", &ms));
    assert_false(dr_parse_duration_ms("18446744073709551615d", &ms));
}

static void times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"2026-01-02T03:04:05.678Z", 1767323045678},
                {"2026-01-02T03:04:05Z", 1767323045000},
                {"2026-01-02T04:04:05+01:00", 1767323045000},
                {"1969-12-31T23:59:59.999Z", -1},
                {"2024-02-29T00:00:00Z", 1709164800000}};
    static const char *const bad[] = {"2026-02-29T00:00:00Z",  "2026-13-01T00:00:00Z",
                                      "2026-01-02T03:04:05",   "2026-01-02T24:00:00Z",
                                      "2026-01-02T03:04:05.Z", "2026-1-2T03:04:05Z",
                                      "2026-01-02T03:04:05Zx", ""};
    char text[DR_TIME_TEXT];
    int64_t ms;
    for (size_t k = 0; k < CM_COUNT(good); k++) {
        assert_true(dr_parse_time(good[k].text, &ms));
        assert_true(ms == good[k].ms);
    }
    for (size_t k = 0; k < CM_COUNT(bad); k++)
        assert_false(dr_parse_time(bad[k], &ms));
    dr_format_time(1767323045678, text);
    assert_string_equal(text, "2026-01-02T03:04:05.678Z");
    dr_format_time(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999Z");
}

static void encodings(void **state)
{
    (void)state;
    char out[64];
    unsigned char raw[3];
    dr_hex("\x00\xff\x1a", 3, out);
    assert_string_equal(out, "00ff1a");
    assert_true(dr_unhex("00ff1a", 6, raw, 3));
    assert_memory_equal(raw, "\x00\xff\x1a", 3);
    assert_false(dr_unhex("00FF1A", 6, raw, 3));
    assert_false(dr_unhex("00ff1", 5, raw, 3));
    static const struct {
        const char *plain, *text;
    } rfc[] = {{"", ""},
               {"f", "my"},
               {"fo", "mzxq"},
               {"foo", "mzxw6"},
               {"foob", "mzxw6yq"},
               {"fooba", "mzxw6ytb"},
               {"foobar", "mzxw6ytboi"}};
    for (size_t k = 0; k < CM_COUNT(rfc); k++) {
        dr_base32(rfc[k].plain, strlen(rfc[k].plain), out);
        assert_string_equal(out, rfc[k].text);
    }
}

static void utf8(void **state)
{
    (void)state;
    assert_true(dr_utf8_valid("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 10));
    static const char *const bad[] = {
        "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xff",     "\x80",         "\xc3",         "\xe2\x82"};
    for (size_t k = 0; k < CM_COUNT(bad); k++)
        assert_false(dr_utf8_valid(bad[k], strlen(bad[k])));
}

static void edit_distance(void **state)
{
    (void)state;
    assert_int_equal(dr_edit_distance("DR_LANES", "DR_LANES", 2), 0);
    assert_int_equal(dr_edit_distance("DR_LANE", "DR_LANES", 2), 1);
    assert_int_equal(dr_edit_distance("DR_LNAES", "DR_LANES", 2), 2);
    assert_int_equal(dr_edit_distance("abcdef", "uvwxyz", 2), 3);
}

static void buffers_are_bounded(void **state)
{
    (void)state;
    struct dr_buf b;
    dr_buf_init(&b, 10);
    dr_buf_str(&b, "12345");
    dr_buf_printf(&b, "%s", "67890");
    assert_false(b.failed);
    assert_string_equal((char *)b.data, "1234567890");
    dr_buf_str(&b, "x");
    assert_true(b.failed);
    assert_int_equal(b.len, 10);
    dr_buf_reset(&b);
    dr_buf_str(&b, "ok");
    assert_false(b.failed);
    char *taken = dr_buf_take(&b);
    assert_string_equal(taken, "ok");
    free(taken);
    dr_buf_init(&b, 100);
    dr_buf_json(&b, "a\"\\\n\xff\xc3\xa4", 7);
    assert_string_equal((char *)b.data, "\"a\\\"\\\\ \xef\xbf\xbd\xc3\xa4\"");
    dr_buf_fini(&b);
}

static void first_error_wins(void **state)
{
    (void)state;
    struct dr_err err = {0};
    errno = ENOSPC;
    assert_int_equal(dr_fail_errno(&err, DR_E_IO, "write %s", "x"), DR_E_NO_SPACE);
    assert_int_equal(dr_fail(&err, DR_E_BUG, "later"), DR_E_NO_SPACE);
    (void)dr_wrap(&err, "backup %d", 7);
    assert_string_equal(err.msg, "backup 7: write x: No space left on device");
    (void)dr_err_field(&err, "path", "a\nb", 3);
    (void)dr_err_field(&err, "other", "c", 1);
    assert_string_equal(err.field, "path");
    assert_string_equal(err.value, "a?b");
    assert_int_equal(dr_rc_class(DR_E_NO_SPACE), DR_CLASS_RETRY);
    assert_int_equal(dr_rc_exit(DR_E_INTEGRITY), 7);
    assert_string_equal(dr_rc_name(DR_E_KEY), "key");
}

/* They stand in results and journals of other versions: this list only grows. */
static void error_numbers_never_change(void **state)
{
    (void)state;
    static const int numbers[] = {DR_E_INVALID,     DR_E_USAGE,   DR_E_REFUSED,
                                  DR_E_LOCKED,      DR_E_KEY,     DR_E_INTEGRITY,
                                  DR_E_UNREACHABLE, DR_E_TIMEOUT, DR_E_CANCELLED};
    for (int k = 0; k < (int)CM_COUNT(numbers); k++)
        assert_int_equal(numbers[k], k + 1);
}

static void key_names(void **state)
{
    (void)state;
    struct dr_keys k;
    struct dr_err err = {0};
    char out[DR_KEY_MAX];
    assert_int_equal(dr_keys_init(&k, "dr", &err), DR_OK);
    assert_string_equal(dr_key(&k, out, "q:", "noop"), "{dr}:q:noop");
    assert_int_equal(dr_keys_init(&k, "a}b", &err), DR_E_CONFIG);
    assert_true(dr_job_id_valid("sched:x:1", 9));
    static const char *const bad[] = {"", ".", "..", "-a", ":a", "a/b", "a b", "a\n"};
    for (size_t i = 0; i < CM_COUNT(bad); i++)
        assert_false(dr_job_id_valid(bad[i], strlen(bad[i])));
    char longest[66];
    memset(longest, 'a', sizeof longest);
    assert_true(dr_job_id_valid(longest, 64));
    assert_false(dr_job_id_valid(longest, 65));
}

static void percent(void **state)
{
    char out[8];
    (void)state;
    assert_true(dr_percent_decode("a%2Fb%2f%C3%a9", 14, out, sizeof out));
    assert_string_equal(out, "a/b/\xc3\xa9");
    assert_true(dr_percent_decode("1234567", 7, out, sizeof out));
    assert_false(dr_percent_decode("12345678", 8, out, sizeof out));
    static const char *const bad[] = {"%", "%4", "x%4", "%zz", "%4g", "%00", "%\x10\x10"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(dr_percent_decode(bad[i], strlen(bad[i]), out, sizeof out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_strict),
        cmocka_unit_test(durations),
        cmocka_unit_test(times),
        cmocka_unit_test(encodings),
        cmocka_unit_test(utf8),
        cmocka_unit_test(edit_distance),
        cmocka_unit_test(buffers_are_bounded),
        cmocka_unit_test(first_error_wins),
        cmocka_unit_test(error_numbers_never_change),
        cmocka_unit_test(key_names),
        cmocka_unit_test(percent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
