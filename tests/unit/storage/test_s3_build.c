/* S3 requests against literal text: where they go, what they carry, what settings are refused. */
#include "tests/unit/cm.h"

#include "tests/unit/storage/s3_kit.h"

#define HEX64 "0707070707070707070707070707070707070707070707070707070707070707"
#define B64   "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct storage_dialect *s3(void)
{
    const struct storage_dialect *d = storage_dialect_find("aws_s3");
    assert_non_null(d);
    return d;
}

static void build(const struct storage_call *c, struct storage_request *out)
{
    struct dr_err err = {0};
    if (s3()->build(c, out, &err))
        fail_msg("%s", err.msg);
    assert_non_null(kit_line(out, "Authorization"));
    assert_null(out->fields[out->field_count]);
}

static void expect(const struct storage_call *c, const char *method, const char *url)
{
    struct storage_request r;
    build(c, &r);
    assert_string_equal(r.method, method);
    assert_string_equal(r.url, url);
    storage_request_fini(&r);
}

static void test_where_it_goes(void **state)
{
    (void)state;
    struct storage_target t = kit_target(NULL, false);
    struct storage_call c = kit_call(&t, STORAGE_HEAD);
    struct storage_route route = {.region = "eu-west-1"};
    expect(&c, "HEAD", "https://bkt.s3.eu-central-1.amazonaws.com/pre/a/b.drb");
    c.route = &route;
    expect(&c, "HEAD", "https://bkt.s3.eu-west-1.amazonaws.com/pre/a/b.drb");
    (void)snprintf(route.host, sizeof route.host, "bkt.s3-eu-west-1.amazonaws.com");
    expect(&c, "HEAD", "https://bkt.s3-eu-west-1.amazonaws.com/pre/a/b.drb");
    c.route = &kit_route;
    t.path_style = true;
    t.region = "cn-north-1";
    expect(&c, "HEAD", "https://s3.cn-north-1.amazonaws.com.cn/bkt/pre/a/b.drb");
    t.region = "";
    expect(&c, "HEAD", "https://s3.us-east-1.amazonaws.com/bkt/pre/a/b.drb");
    t.endpoint = "HTTPS://Minio.Example:443/";
    expect(&c, "HEAD", "https://minio.example/bkt/pre/a/b.drb");
    t.endpoint = "https://minio.example:9000";
    t.path_style = false;
    t.prefix = NULL;
    expect(&c, "HEAD", "https://bkt.minio.example:9000/a/b.drb");
    t.bucket = "b.k.t"; /* no certificate for *.host has it */
    expect(&c, "HEAD", "https://minio.example:9000/b.k.t/a/b.drb");
    t.bucket = "bkt";
    t.endpoint = "http://s3.localhost:7070";
    expect(&c, "HEAD", "http://bkt.s3.localhost:7070/a/b.drb");
    t.endpoint = "http://127.0.0.1:80"; /* an address has no names below it */
    expect(&c, "HEAD", "http://127.0.0.1/bkt/a/b.drb");
    t.endpoint = "https://[2001:db8::1]:9000";
    expect(&c, "HEAD", "https://[2001:db8::1]:9000/bkt/a/b.drb");
}

static void test_operations(void **state)
{
    (void)state;
    struct storage_target t = kit_target("https://h", true);
    struct storage_call c = kit_call(&t, STORAGE_ABORT);
#define AT "https://h/bkt/pre/a/b.drb"
    c.upload_id = "u/1+=";
    expect(&c, "DELETE", AT "?uploadId=u%2F1%2B%3D");
    c.op = STORAGE_LIST_PARTS;
    expect(&c, "GET", AT "?max-parts=1000&uploadId=u%2F1%2B%3D");
    c.after = "7";
    c.page_max = 2;
    expect(&c, "GET", AT "?max-parts=2&part-number-marker=7&uploadId=u%2F1%2B%3D");
    c = kit_call(&t, STORAGE_DELETE);
    expect(&c, "DELETE", AT);
    c.op = STORAGE_BEGIN;
    expect(&c, "POST", AT "?uploads=");
    c.op = STORAGE_GET;
    expect(&c, "GET", AT);
    c.op = STORAGE_LIST;
    c.key = "a/";
    expect(&c, "GET",
           "https://h/bkt/?encoding-type=url&list-type=2&max-keys=1000&prefix=pre%2Fa%2F");
    c.key = NULL;
    c.after = "t/=";
    expect(&c, "GET",
           "https://h/bkt/?continuation-token=t%2F%3D&encoding-type=url&list-type=2&max-keys=1000"
           "&prefix=pre%2F");
    c.op = STORAGE_LIST_UPLOADS;
    c.after = "pre/a%20b%26 id%2F";
    expect(&c, "GET",
           "https://h/bkt/?encoding-type=url&key-marker=pre%2Fa%20b%26&max-uploads=1000"
           "&prefix=pre%2F&upload-id-marker=id%2F&uploads=");
#undef AT
}

static void test_put(void **state)
{
    (void)state;
    struct storage_target t = kit_target("https://h", true);
    struct storage_call c = kit_call(&t, STORAGE_PUT);
    struct storage_request r;
    memset(c.payload.sha256, 7, 32);
    memset(c.sha256, 7, 32);
    c.label = "store 1";
    c.create_only = true;
    c.size = c.length = 5;
    build(&c, &r);
    assert_true(r.payload && !r.body_to_caller && r.before.len == 0);
    assert_string_equal(r.method, "PUT");
    assert_string_equal(kit_line(&r, "x-amz-content-sha256"), HEX64);
    assert_string_equal(kit_line(&r, "x-amz-checksum-sha256"), B64);
    assert_string_equal(kit_line(&r, "x-amz-meta-dr-sha256"), HEX64);
    assert_string_equal(kit_line(&r, "x-amz-meta-dr-label"), "store 1");
    assert_string_equal(kit_line(&r, "if-none-match"), "*");
    assert_string_equal(kit_line(&r, "host"), "h");
    assert_string_equal(kit_line(&r, "x-amz-date"), "20130524T000000Z");
    assert_null(kit_line(&r, "x-amz-security-token"));
    storage_request_fini(&r);
    c.create_only = false;
    c.label = NULL;
    t.session_token = kit_secret("tokentoken");
    build(&c, &r);
    assert_null(kit_line(&r, "if-none-match"));
    assert_null(kit_line(&r, "x-amz-meta-dr-label"));
    assert_string_equal(kit_line(&r, "x-amz-security-token"), "tokentoken");
    storage_request_fini(&r);
}

static void test_multipart(void **state)
{
    (void)state;
    struct storage_target t = kit_target("https://h", true);
    struct storage_call c = kit_call(&t, STORAGE_BEGIN);
    struct storage_request r;
    struct storage_part parts[2] = {{.number = 1, .etag = "\"e<1>\""}, {.number = 2, .etag = "e2"}};
    memset(parts[0].sha256, 7, 32);
    memset(parts[1].sha256, 7, 32);
    memset(c.sha256, 7, 32);
    memset(c.payload.sha256, 7, 32);
    c.create_only = true; /* counts when it is completed */
    build(&c, &r);
    assert_string_equal(kit_line(&r, "x-amz-checksum-algorithm"), "SHA256");
    assert_string_equal(kit_line(&r, "x-amz-meta-dr-sha256"), HEX64);
    assert_string_equal(kit_line(&r, "x-amz-content-sha256"), EMPTY);
    assert_null(kit_line(&r, "if-none-match"));
    storage_request_fini(&r);
    c.op = STORAGE_PART;
    c.upload_id = "u";
    c.part_number = 2;
    build(&c, &r);
    assert_string_equal(r.url, "https://h/bkt/pre/a/b.drb?partNumber=2&uploadId=u");
    assert_string_equal(kit_line(&r, "x-amz-checksum-sha256"), B64);
    assert_true(r.payload);
    storage_request_fini(&r);
    c.op = STORAGE_COMPLETE;
    c.parts = parts;
    c.part_count = 2;
    build(&c, &r);
    assert_string_equal(r.method, "POST");
    assert_string_equal(kit_line(&r, "if-none-match"), "*");
    assert_false(r.payload);
    assert_string_equal(
        (char *)r.before.data,
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
        "<Part><PartNumber>1</PartNumber><ETag>&#34;e&#60;1&#62;&#34;</ETag><ChecksumSHA256>" B64
        "</ChecksumSHA256></Part><Part><PartNumber>2</PartNumber><ETag>e2</"
        "ETag><ChecksumSHA256>" B64 "</ChecksumSHA256></Part></CompleteMultipartUpload>");
    storage_request_fini(&r);
}

static void test_get(void **state)
{
    (void)state;
    struct storage_target t = kit_target("https://h", true);
    struct storage_call c = kit_call(&t, STORAGE_GET);
    struct storage_request r;
    c.offset = 10;
    c.length = 5;
    c.etag = "\"e\"";
    build(&c, &r);
    assert_string_equal(kit_line(&r, "range"), "bytes=10-14");
    assert_string_equal(kit_line(&r, "if-match"), "\"e\"");
    assert_true(r.body_to_caller && !r.payload);
    storage_request_fini(&r);
}

static void refuse(const struct storage_call *c, enum dr_rc want)
{
    struct storage_request r;
    assert_int_equal(s3()->build(c, &r, NULL), want);
    assert_null(r.url);
    storage_request_fini(&r);
}

static void test_calls_that_are_refused(void **state)
{
    (void)state;
    struct storage_target t = kit_target("https://h", true);
    struct storage_call c = kit_call(&t, STORAGE_PART);
    static char long_key[1100];
    refuse(&c, DR_E_BUG); /* no upload */
    c.upload_id = "u";
    refuse(&c, DR_E_BUG); /* part 0 */
    c.part_number = 10001;
    refuse(&c, DR_E_BUG);
    c.op = STORAGE_COMPLETE;
    refuse(&c, DR_E_BUG); /* no parts */
    c = kit_call(&t, STORAGE_AUTHORISE);
    refuse(&c, DR_E_BUG);
    c = kit_call(&t, STORAGE_GET);
    c.offset = UINT64_MAX;
    c.length = 2;
    refuse(&c, DR_E_BUG);
    c = kit_call(&t, STORAGE_PUT);
    c.label = "a\r\nx-amz-acl: public-read";
    refuse(&c, DR_E_BUG);
    c.label = NULL;
    c.key = "";
    refuse(&c, DR_E_INVALID);
    memset(long_key, 'k', sizeof long_key - 1);
    c.key = long_key;
    refuse(&c, DR_E_INVALID);
    c = kit_call(&t, STORAGE_LIST_UPLOADS);
    c.after = "without-a-blank";
    refuse(&c, DR_E_BUG);
}

static void setting(struct storage_target t, const char *field)
{
    struct dr_err err = {0};
    enum dr_rc rc = s3()->check(&t, &err);
    assert_int_equal(rc, field ? DR_E_CONFIG : DR_OK);
    if (field)
        assert_string_equal(err.field, field);
    assert_null(strstr(err.msg, "secretsecret"));
    assert_null(strstr(err.value, "secretsecret"));
}

static void test_settings(void **state)
{
    (void)state;
    static const char *const endpoints[] = {
        "h",           "ftp://h",         "https://",    "https://h/p",
        "https://u@h", "https://h:0",     "https://h:x", "https://h?a",
        "http://h",    "http://10.0.0.1", "https://h h", "http://127.0.0.1.h",
        "https://[::1"};
    static const char *const buckets[] = {"", "ab", "a..b", "-ab", "ab.", "a/b", "a b"};
    static const char *const prefixes[] = {"a", "/a/", "a//b/", "a/../b/", "./", "a b/", "a?/"};
    struct storage_target good = kit_target(NULL, false), t;
    setting(good, NULL);
    for (size_t i = 0; i < CM_COUNT(endpoints); i++) {
        t = good;
        t.endpoint = endpoints[i];
        setting(t, "endpoint");
    }
    for (size_t i = 0; i < CM_COUNT(buckets); i++) {
        t = good;
        t.path_style = i % 2;
        t.bucket = buckets[i];
        setting(t, "bucket");
    }
    t = good;
    t.bucket = "Old_Bucket";
    setting(t, "bucket");
    t.path_style = true;
    setting(t, NULL);
    for (size_t i = 0; i < CM_COUNT(prefixes); i++) {
        t = good;
        t.prefix = prefixes[i];
        setting(t, "prefix");
    }
    t = good;
    t.prefix = "shop/site-1/";
    setting(t, NULL);
    t.region = "eu central";
    setting(t, "region");
    t = good;
    t.access_key = (struct dr_secret){0};
    setting(t, "access_key");
    t = good;
    t.secret_key = kit_secret("secretsecret\n");
    setting(t, "secret_key");
    t = good;
    t.session_token = kit_secret("secretsecret\n");
    setting(t, "session_token");
    assert_null(storage_dialect_find("none"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_it_goes), cmocka_unit_test(test_operations),
        cmocka_unit_test(test_put),           cmocka_unit_test(test_multipart),
        cmocka_unit_test(test_get),           cmocka_unit_test(test_calls_that_are_refused),
        cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
