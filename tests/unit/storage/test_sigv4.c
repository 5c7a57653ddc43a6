/* The signer against published vectors: AWS's test suite (the cases that hold for S3, which does
 * not normalise paths) and the worked examples of the S3 documentation; and what it refuses. */
#include "tests/unit/cm.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/str.h"
#include "worker/storage/sigv4.h"

static json_t *load(const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof path, DR_SOURCE_DIR "/tests/vectors/sigv4/%s", name);
    json_t *v = json_load_file(path, 0, NULL);
    assert_true(json_array_size(v) > 0);
    return v;
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    assert_non_null(s);
    return s;
}

static size_t pairs(const json_t *list, struct sigv4_pair *out)
{
    size_t n = json_array_size(list);
    assert_true(n <= SIGV4_PAIRS_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *p = json_array_get(list, i);
        out[i].name = json_string_value(json_array_get(p, 0));
        out[i].value = json_string_value(json_array_get(p, 1));
        assert_non_null(out[i].name);
        assert_non_null(out[i].value);
    }
    return n;
}

static const char *authorization(const struct sigv4_signed *s)
{
    const char *last = s->fields[s->field_count - 1];
    assert_null(s->fields[s->field_count]);
    assert_true(dr_starts(last, "Authorization: "));
    return last + strlen("Authorization: ");
}

static void sign(const json_t *v, struct sigv4_signed *out)
{
    struct sigv4_pair query[SIGV4_PAIRS_MAX], headers[SIGV4_PAIRS_MAX];
    struct dr_secret access = {0}, secret = {0}, session = {0};
    unsigned char sha256[32];
    struct dr_err err = {0};
    assert_true(dr_unhex(text(v, "sha256"), 64, sha256, sizeof sha256));
    dr_secret_set(&access, text(v, "access"), strlen(text(v, "access")));
    dr_secret_set(&secret, text(v, "secret"), strlen(text(v, "secret")));
    dr_secret_set(&session, text(v, "session"), strlen(text(v, "session")));
    struct sigv4_request r = {.method = text(v, "method"),
                              .host = text(v, "host"),
                              .path = text(v, "path"),
                              .query = query,
                              .headers = headers,
                              .query_count = pairs(json_object_get(v, "query"), query),
                              .header_count = pairs(json_object_get(v, "headers"), headers),
                              .sha256 = sha256,
                              .not_s3 = !json_is_true(json_object_get(v, "s3"))};
    struct sigv4_key key = {&access, &secret, &session, text(v, "region"), text(v, "service")};
    enum dr_rc rc = sigv4_sign(&r, &key, json_integer_value(json_object_get(v, "now")), out, &err);
    dr_secret_free(&access);
    dr_secret_free(&secret);
    dr_secret_free(&session);
    if (rc)
        fail_msg("%s: %s", text(v, "name"), err.msg);
}

static void test_suite(void **state)
{
    (void)state;
    json_t *all = load("suite.json"), *v;
    size_t i;
    assert_int_equal(json_array_size(all), 32);
    json_array_foreach(all, i, v)
    {
        struct sigv4_signed s;
        sign(v, &s);
        assert_string_equal((const char *)s.canonical.data, text(v, "canonical"));
        assert_string_equal((const char *)s.to_sign.data, text(v, "to_sign"));
        assert_string_equal(authorization(&s), text(v, "authorization"));
        sigv4_signed_fini(&s);
    }
    json_decref(all);
}

static void compare_signatures(const char *file, size_t count)
{
    json_t *all = load(file), *v;
    size_t i;
    assert_int_equal(json_array_size(all), count);
    json_array_foreach(all, i, v)
    {
        char want[1024];
        struct sigv4_signed s;
        sign(v, &s);
        (void)snprintf(want, sizeof want, "SignedHeaders=%s, Signature=%s",
                       text(v, "signed_headers"), text(v, "signature"));
        assert_string_equal(strstr(authorization(&s), "SignedHeaders"), want);
        sigv4_signed_fini(&s);
    }
    json_decref(all);
}

static void test_s3_examples(void **state)
{
    (void)state;
    compare_signatures("s3_examples.json", 4);
}

/* Random requests and what botocore 1.44 made of them: paths, queries and headers of all kinds. */
static void test_botocore(void **state)
{
    (void)state;
    compare_signatures("botocore.json", 200);
}

/* What the target looks like on the wire: the path encoded once, the query sorted after encoding.
 */
static void test_target(void **state)
{
    (void)state;
    json_t *v = json_pack("{s:s, s:s, s:s, s:[[ss],[ss],[ss]], s:[], s:s, s:b, s:s, s:s, s:s, s:s, "
                          "s:s, s:i, s:s}",
                          "method", "PUT", "host", "h", "path", "/a b/../%41+\xc3\xa4/", "query",
                          "uploadId", "x/y+z=", "partNumber", "2", "a~", "", "headers", "sha256",
                          "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "s3",
                          1, "access", "A", "secret", "S", "session", "", "region", "r", "service",
                          "s3", "now", 0, "name", "target");
    struct sigv4_signed s;
    assert_non_null(v);
    sign(v, &s);
    assert_string_equal(s.target,
                        "/a%20b/../%2541%2B%C3%A4/?a~=&partNumber=2&uploadId=x%2Fy%2Bz%3D");
    sigv4_signed_fini(&s);
    json_decref(v);
}

static struct dr_secret access_key, secret_key;
static const struct sigv4_key keys = {&access_key, &secret_key, NULL, "r", "s3"};

static void expect(struct sigv4_request r, const struct sigv4_key *key, enum dr_rc want)
{
    struct sigv4_signed s;
    struct dr_err err = {0};
    assert_int_equal(sigv4_sign(&r, key, 0, &s, &err), want);
    assert_true(want == DR_OK ? s.fields && s.target : !s.fields && !s.target);
    sigv4_signed_fini(&s);
}

static void expect_header(const char *name, const char *value, enum dr_rc want)
{
    static const unsigned char sum[32];
    const struct sigv4_pair h = {name, value};
    struct sigv4_request r = {.method = "PUT", .host = "h", .path = "/k", .sha256 = sum};
    r.headers = &h;
    r.header_count = 1;
    expect(r, &keys, want);
}

static void test_headers_that_are_refused(void **state)
{
    (void)state;
    expect_header("x-amz-meta-a", "b", DR_OK);
    expect_header("x-amz-meta-a", "b\r\nx-amz-acl: public-read", DR_E_BUG);
    expect_header("x-amz-meta-a", "b\nx", DR_E_BUG);
    expect_header("x-amz-meta-a", "b\x7f", DR_E_BUG);
    expect_header("x-amz-meta-a", " \t ", DR_E_BUG);
    expect_header("x-amz meta", "b", DR_E_BUG);
    expect_header("x-amz-meta:", "b", DR_E_BUG);
    expect_header("", "b", DR_E_BUG);
    expect_header("X-Amz-Date", "20200101T000000Z", DR_E_BUG);
    expect_header("Authorization", "b", DR_E_BUG);
}

static void test_requests_that_are_refused(void **state)
{
    (void)state;
    static char long_path[SIGV4_PATH_MAX + 2];
    struct sigv4_request good = {.method = "PUT", .host = "h", .path = "/k"}, r = good;
    memset(long_path, '/', sizeof long_path - 1);
    expect(good, &keys, DR_OK); /* UNSIGNED-PAYLOAD, over https */
    r.plain = true;
    expect(r, &keys, DR_E_REFUSED);
    r = good;
    r.path = "k";
    expect(r, &keys, DR_E_BUG);
    r.path = long_path;
    expect(r, &keys, DR_E_BUG);
    r.path = long_path + 1;
    expect(r, &keys, DR_OK);
    r = good;
    r.host = "h\r\nx: y";
    expect(r, &keys, DR_E_BUG);
    r = good;
    r.header_count = SIGV4_PAIRS_MAX + 1;
    expect(r, &keys, DR_E_BUG);
    r = good;
    r.query_count = SIGV4_PAIRS_MAX + 1;
    expect(r, &keys, DR_E_BUG);
}

static void test_keys_that_are_refused(void **state)
{
    (void)state;
    struct sigv4_request good = {.method = "GET", .host = "h", .path = "/k"};
    struct dr_secret nothing = {0}, broken = {0};
    struct sigv4_key key = keys;
    dr_secret_set(&broken, "A\r\nx: y", 7);
    key.session = &nothing;
    expect(good, &key, DR_OK);
    key.session = &broken;
    expect(good, &key, DR_E_BUG);
    key = keys;
    key.access = &nothing;
    expect(good, &key, DR_E_BUG);
    key.access = &broken;
    expect(good, &key, DR_E_BUG);
    key = keys;
    key.secret = &nothing;
    expect(good, &key, DR_E_BUG);
    dr_secret_free(&broken);
}

static int setup(void **state)
{
    (void)state;
    dr_secret_set(&access_key, "A", 1);
    dr_secret_set(&secret_key, "S", 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dr_secret_free(&access_key);
    dr_secret_free(&secret_key);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suite),
        cmocka_unit_test(test_s3_examples),
        cmocka_unit_test(test_botocore),
        cmocka_unit_test(test_target),
        cmocka_unit_test(test_headers_that_are_refused),
        cmocka_unit_test(test_requests_that_are_refused),
        cmocka_unit_test(test_keys_that_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
