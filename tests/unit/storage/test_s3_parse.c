/* S3 replies as literal text: what counts as done, and the class of everything else. */
#include "tests/unit/cm.h"

#include "tests/unit/storage/s3_kit.h"

static struct storage_target target;

static enum storage_class parse(const struct storage_call *c, const struct storage_reply *r,
                                struct storage_answer *out)
{
    struct dr_err err = {0};
    const struct storage_dialect *d = storage_dialect_find("aws_s3");
    assert_non_null(d);
    enum storage_class class = d->parse(c, r, out, &err);
    assert_int_equal(err.rc, storage_class_rc(class));
    if (class != STORAGE_OK)
        assert_string_equal(err.reason, storage_class_text(class));
    return class;
}

static void expect_call(const struct storage_call *c, unsigned status, const char *head,
                        const char *body, enum storage_class want)
{
    struct storage_answer a;
    struct storage_reply r = kit_reply(status, head, body);
    enum storage_class got = parse(c, &r, &a);
    if (got != want)
        fail_msg("op %d, %u %s: %s, not %s", (int)c->op, status, body, storage_class_text(got),
                 storage_class_text(want));
    storage_answer_fini(&a);
}

static void expect(enum storage_op op, unsigned status, const char *head, const char *body,
                   enum storage_class want)
{
    struct storage_call c = kit_call(&target, op);
    expect_call(&c, status, head, body, want);
}

static const char *error(const char *code)
{
    static char body[256];
    (void)snprintf(body, sizeof body,
                   "<?xml version=\"1.0\"?>\n<Error><Code>%s</Code><Message>m</Message></Error>",
                   code);
    return body;
}

static void test_codes(void **state)
{
    (void)state;
    static const struct {
        unsigned status;
        const char *code;
        enum storage_op op;
        enum storage_class want;
    } rows[] = {
        {403, "InvalidAccessKeyId", STORAGE_PUT, STORAGE_AUTH},
        {403, "SignatureDoesNotMatch", STORAGE_GET, STORAGE_AUTH},
        {404, "XAdminUserNotFound", STORAGE_LIST, STORAGE_AUTH},
        {403, "AccessDenied", STORAGE_GET, STORAGE_AUTH},
        {403, "AccessDenied", STORAGE_LIST, STORAGE_AUTH},
        {403, "AccessDenied", STORAGE_PUT, STORAGE_READ_ONLY},
        {403, "AccessDenied", STORAGE_COMPLETE, STORAGE_READ_ONLY},
        {403, "AccessDenied", STORAGE_DELETE, STORAGE_READ_ONLY},
        {405, "MethodNotAllowed", STORAGE_PUT, STORAGE_READ_ONLY},
        {400, "ExpiredToken", STORAGE_PART, STORAGE_EXPIRED},
        {403, "RequestTimeTooSkewed", STORAGE_PART, STORAGE_SKEW},
        {404, "NoSuchBucket", STORAGE_PUT, STORAGE_NO_BUCKET},
        {404, "NoSuchKey", STORAGE_GET, STORAGE_NO_KEY},
        {404, "NoSuchUpload", STORAGE_PART, STORAGE_NO_UPLOAD},
        {400, "InvalidPart", STORAGE_COMPLETE, STORAGE_NO_UPLOAD},
        {409, "ConditionalRequestConflict", STORAGE_COMPLETE, STORAGE_TRANSIENT},
        {500, "InternalError", STORAGE_PUT, STORAGE_TRANSIENT},
        {400, "RequestTimeout", STORAGE_PART, STORAGE_TRANSIENT},
        {503, "SlowDown", STORAGE_PUT, STORAGE_THROTTLED},
        {400, "BadDigest", STORAGE_PUT, STORAGE_DAMAGED},
        {400, "XAmzContentSHA256Mismatch", STORAGE_PART, STORAGE_DAMAGED},
        {416, "InvalidRange", STORAGE_GET, STORAGE_INTEGRITY},
        {403, "InvalidObjectState", STORAGE_GET, STORAGE_PERMANENT},
        {507, "XMinioStorageFull", STORAGE_PUT, STORAGE_FULL},
        {400, "EntityTooSmall", STORAGE_COMPLETE, STORAGE_PERMANENT},
        {400, "SomethingNew", STORAGE_PUT, STORAGE_PERMANENT},
        {404, "SomethingNew", STORAGE_GET, STORAGE_PERMANENT},
        {599, "SomethingNew", STORAGE_PUT, STORAGE_TRANSIENT},
    };
    for (size_t i = 0; i < CM_COUNT(rows); i++)
        expect(rows[i].op, rows[i].status, "", error(rows[i].code), rows[i].want);
}

/* A page of a proxy, a cut document, nothing at all: never an absence, never a success. */
static void test_no_document(void **state)
{
    (void)state;
    static const struct {
        unsigned status;
        enum storage_op op;
        enum storage_class want;
    } rows[] = {
        {404, STORAGE_GET, STORAGE_NONSENSE},
        {404, STORAGE_LIST, STORAGE_NONSENSE},
        {404, STORAGE_DELETE, STORAGE_NONSENSE},
        {404, STORAGE_ABORT, STORAGE_NONSENSE},
        {404, STORAGE_HEAD, STORAGE_NO_KEY},
        {403, STORAGE_HEAD, STORAGE_AUTH},
        {403, STORAGE_PUT, STORAGE_AUTH},
        {400, STORAGE_HEAD, STORAGE_PERMANENT},
        {400, STORAGE_PUT, STORAGE_NONSENSE},
        {500, STORAGE_PUT, STORAGE_TRANSIENT},
        {502, STORAGE_LIST, STORAGE_TRANSIENT},
        {503, STORAGE_PUT, STORAGE_THROTTLED},
        {429, STORAGE_PUT, STORAGE_THROTTLED},
        {408, STORAGE_PUT, STORAGE_TRANSIENT},
        {301, STORAGE_PUT, STORAGE_REGION},
        {304, STORAGE_GET, STORAGE_NONSENSE},
        {200, STORAGE_LIST, STORAGE_NONSENSE},
        {200, STORAGE_BEGIN, STORAGE_NONSENSE},
        {200, STORAGE_COMPLETE, STORAGE_NONSENSE},
        {200, STORAGE_LIST_PARTS, STORAGE_NONSENSE},
        {200, STORAGE_LIST_UPLOADS, STORAGE_NONSENSE},
        {204, STORAGE_COMPLETE, STORAGE_NONSENSE},
        {200, STORAGE_PUT, STORAGE_NONSENSE},
        {201, STORAGE_PUT, STORAGE_NONSENSE},
        {200, STORAGE_HEAD, STORAGE_NONSENSE},
        {200, STORAGE_GET, STORAGE_NONSENSE},
        {202, STORAGE_DELETE, STORAGE_NONSENSE},
    };
    static const char declared[] = "<!DOCTYPE Error [<!ENTITY a \"b\">]>"
                                   "<Error><Code>NoSuchKey</Code></Error>";
    static const char *const bodies[] = {"", "<html><body>Not Found</body></html>", "no",
                                         "<Error><Co", declared};
    for (size_t i = 0; i < CM_COUNT(rows); i++)
        for (size_t j = 0; j < CM_COUNT(bodies); j++)
            expect(rows[i].op, rows[i].status, "", bodies[j], rows[i].want);
}

static void test_preconditions(void **state)
{
    (void)state;
    struct storage_call c = kit_call(&target, STORAGE_PUT);
    c.create_only = true;
    expect_call(&c, 412, "", error("PreconditionFailed"), STORAGE_EXISTS);
    expect_call(&c, 412, "", "", STORAGE_EXISTS);
    c.op = STORAGE_COMPLETE;
    expect_call(&c, 412, "", error("PreconditionFailed"), STORAGE_EXISTS);
    c = kit_call(&target, STORAGE_GET);
    c.etag = "\"e\"";
    expect_call(&c, 412, "", error("PreconditionFailed"), STORAGE_CHANGED);
}

/* Refused while the clocks are apart: that is why, whatever the code says. */
static void test_clocks(void **state)
{
    (void)state;
    struct storage_call c = kit_call(&target, STORAGE_HEAD);
    c.now_unix_s = KIT_NOW + 1200;
    expect_call(&c, 403, "", "", STORAGE_SKEW);
    c.now_unix_s = KIT_NOW - 1200;
    expect_call(&c, 403, "", "", STORAGE_SKEW);
    c.now_unix_s = KIT_NOW - 600;
    expect_call(&c, 403, "", "", STORAGE_AUTH);
    c.now_unix_s = KIT_NOW - 1200;
    expect_call(&c, 404, "", "", STORAGE_NO_KEY);
}

static void test_expired_token_of_a_head(void **state)
{
    (void)state;
    struct storage_target t = target;
    struct storage_call c = kit_call(&t, STORAGE_HEAD);
    t.session_token = kit_secret("tokentoken");
    expect_call(&c, 400, "", "", STORAGE_EXPIRED);
}

static void redirect(const struct storage_target *t, const char *head, const char *body,
                     const char *region, const char *host)
{
    struct storage_call c = kit_call(t, STORAGE_PUT);
    struct storage_reply r = kit_reply(301, head, body);
    struct storage_answer a;
    assert_int_equal(parse(&c, &r, &a), STORAGE_REGION);
    assert_string_equal(a.region, region);
    assert_string_equal(a.host, host);
    storage_answer_fini(&a);
}

static void test_redirects(void **state)
{
    (void)state;
    struct storage_target aws = kit_target(NULL, false), own = kit_target("https://s3.lan", true),
                          here = kit_target("http://127.0.0.1:7070", true);
    redirect(&aws, "x-amz-bucket-region: eu-west-1\n", "", "eu-west-1", "");
    redirect(&aws, "x-amz-bucket-region: eu-central-1\n", "", "", ""); /* where we are */
    redirect(&aws, "Location: https://bkt.s3-eu-west-1.amazonaws.com/pre/a\n", "", "",
             "bkt.s3-eu-west-1.amazonaws.com");
    redirect(&aws, "",
             "<Error><Code>PermanentRedirect</Code><Endpoint>bkt.s3.eu-west-1.amazonaws.com"
             "</Endpoint><Region>eu-west-1</Region></Error>",
             "eu-west-1", "bkt.s3.eu-west-1.amazonaws.com");
    redirect(&own, "Location: https://node7.s3.lan:9000/bkt/pre/a?b\n", "", "",
             "node7.s3.lan:9000");
    redirect(&own, "Location: https://s3.lan:9000/\n", "", "", "s3.lan:9000");
    redirect(&here, "Location: http://127.0.0.1:7071/bkt\n", "", "", "127.0.0.1:7071");
    /* not to be followed */
    redirect(&aws, "Location: https://amazonaws.com.evil.example/\n", "", "", "");
    redirect(&aws, "Location: http://bkt.s3-eu-west-1.amazonaws.com/\n", "", "", "");
    redirect(&own, "Location: https://evil-s3.lan/\n", "", "", "");
    redirect(&own, "Location: https://s3.lan@evil.example/\n", "", "", "");
    redirect(&own, "Location: https://bkt.s3.eu-west-1.amazonaws.com/\n", "", "", "");
    redirect(&own, "Location: file:///etc/passwd\n", "", "", "");
    redirect(&here, "Location: http://169.254.169.254/\n", "", "", "");
    redirect(&own, "x-amz-bucket-region: a b\n", "", "", "");
}

static void test_wrong_region(void **state)
{
    (void)state;
    expect(STORAGE_PUT, 400, "",
           "<Error><Code>AuthorizationHeaderMalformed</Code><Region>us-west-2</Region></Error>",
           STORAGE_REGION);
    expect(STORAGE_PUT, 400, "", error("AuthorizationHeaderMalformed"), STORAGE_AUTH);
    expect(STORAGE_HEAD, 400, "x-amz-bucket-region: us-west-2\n", "", STORAGE_REGION);
}

static void test_put(void **state)
{
    (void)state;
    struct storage_call c = kit_call(&target, STORAGE_PUT);
    struct storage_answer a;
    memset(c.payload.sha256, 7, 32);
    struct storage_reply r = kit_reply(200,
                                       "ETag: \"e\"\nx-amz-version-id: v1\nx-amz-checksum-sha256: "
                                       "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n",
                                       "");
    assert_int_equal(parse(&c, &r, &a), STORAGE_OK);
    assert_string_equal(a.etag, "\"e\"");
    assert_string_equal(a.version_id, "v1");
    storage_answer_fini(&a);
    expect_call(&c, 200, "ETag: \"e\"\n", "", STORAGE_OK);
    expect_call(
        &c, 200,
        "ETag: \"e\"\nx-amz-checksum-sha256: CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n", "",
        STORAGE_INTEGRITY);
    c.op = STORAGE_PART;
    expect_call(&c, 200, "ETag: \"e\"\n", "", STORAGE_OK);
}

static void test_begin(void **state)
{
    (void)state;
    struct storage_call c = kit_call(&target, STORAGE_BEGIN);
    struct storage_answer a;
    struct storage_reply r =
        kit_reply(200, "",
                  "<InitiateMultipartUploadResult xmlns=\"http://x/\"><Bucket>b"
                  "</Bucket><UploadId>u/1</UploadId>"
                  "</InitiateMultipartUploadResult>");
    assert_int_equal(parse(&c, &r, &a), STORAGE_OK);
    assert_string_equal(a.upload_id, "u/1");
    storage_answer_fini(&a);
    expect_call(&c, 200, "", "<InitiateMultipartUploadResult/>", STORAGE_NONSENSE);
    expect_call(&c, 200, "", "<ListBucketResult><UploadId>u</UploadId></ListBucketResult>",
                STORAGE_NONSENSE);
    expect_call(&c, 200, "", "<InitiateMultipartUploadResult><UploadId>u</UploadId>",
                STORAGE_NONSENSE);
}

#define DONE(more)                                                                                 \
    "<CompleteMultipartUploadResult><ETag>\"e-1\"</ETag>" more "</CompleteMultipartUploadResult>"

/* 200 was sent before the store knew: only the document says whether it is done. */
static void test_complete(void **state)
{
    (void)state;
    struct storage_part part = {.number = 1, .length = 5, .etag = "\"e\""};
    struct storage_call c = kit_call(&target, STORAGE_COMPLETE);
    memset(part.sha256, 7, 32);
    c.parts = &part;
    c.part_count = 1;
    expect_call(&c, 200, "", " \n " DONE(""), STORAGE_OK);
    /* base64(SHA-256(32 × 07))-1, by sha256sum */
    expect_call(
        &c, 200, "",
        DONE("<ChecksumSHA256>S7Bvjk46dxXSAdVz0KpCN2LlXavWGiwCJ4+lbMbSlOA=-1</ChecksumSHA256>"),
        STORAGE_OK);
    expect_call(
        &c, 200, "",
        DONE("<ChecksumSHA256>S7Bvjk46dxXSAdVz0KpCN2LlXavWGiwCJ4+lbMbSlOA=-2</ChecksumSHA256>"),
        STORAGE_INTEGRITY);
    expect_call(&c, 200, "", error("InternalError"), STORAGE_TRANSIENT);
    expect_call(&c, 200, "", "\r\n   <Error><Code>SlowDown</Code></Error>", STORAGE_THROTTLED);
    expect_call(&c, 200, "", error("NoSuchUpload"), STORAGE_NO_UPLOAD);
    expect_call(&c, 200, "", "<CompleteMultipartUploadResult/>", STORAGE_NONSENSE);
    expect_call(&c, 200, "", "<CompleteMultipartUploadResult><ETag>e</ETag>", STORAGE_NONSENSE);
    expect_call(&c, 200, "", "   ", STORAGE_NONSENSE);
}

static void test_abort_and_delete(void **state)
{
    (void)state;
    expect(STORAGE_ABORT, 204, "", "", STORAGE_OK);
    expect(STORAGE_ABORT, 404, "", error("NoSuchUpload"), STORAGE_OK);
    expect(STORAGE_ABORT, 404, "", error("NoSuchBucket"), STORAGE_NO_BUCKET);
    expect(STORAGE_DELETE, 204, "", "", STORAGE_OK);
    expect(STORAGE_DELETE, 404, "", error("NoSuchKey"), STORAGE_OK);
    expect(STORAGE_DELETE, 404, "", error("NoSuchBucket"), STORAGE_NO_BUCKET);
}

static void test_get(void **state)
{
    (void)state;
    struct storage_call c = kit_call(&target, STORAGE_GET);
    struct storage_answer a;
    expect_call(&c, 200, "Content-Length: 9\n", "", STORAGE_OK);
    c.offset = 10;
    c.length = 5;
    struct storage_reply r = kit_reply(206, "Content-Range: bytes 10-14/100\n", "");
    assert_int_equal(parse(&c, &r, &a), STORAGE_OK);
    assert_int_equal(a.size, 100);
    storage_answer_fini(&a);
    static const char *const others[] = {"bytes 10-13/100", "bytes 0-4/100", "bytes 10-14/14",
                                         "bytes 10-14/*",   "bytes 10-14",   "10-14/100",
                                         "bytes -14/100",   "bytes 10-/100", ""};
    for (size_t i = 0; i < CM_COUNT(others); i++) {
        char head[64];
        (void)snprintf(head, sizeof head, "Content-Range: %s\n", others[i]);
        expect_call(&c, 206, head, "", STORAGE_NONSENSE);
    }
    expect_call(&c, 200, "Content-Length: 100\n", "", STORAGE_NONSENSE);
    c.offset = 0; /* all of it was asked for, as a range */
    c.length = 100;
    expect_call(&c, 200, "Content-Length: 100\n", "", STORAGE_OK);
}

static void test_head(void **state)
{
    (void)state;
    struct storage_call c = kit_call(&target, STORAGE_HEAD);
    struct storage_answer a;
    struct storage_reply r =
        kit_reply(200,
                  "content-length: 12345678901\nETag: \"e\"\nx-amz-meta-dr-label: store 1\n"
                  "x-amz-meta-dr-sha256: "
                  "0707070707070707070707070707070707070707070707070707070707070707\n",
                  "");
    assert_int_equal(parse(&c, &r, &a), STORAGE_OK);
    assert_true(a.has_size && a.size == 12345678901 && a.has_sha256 && a.sha256[31] == 7);
    assert_string_equal(a.label, "store 1");
    assert_int_equal(a.date_unix_s, KIT_NOW);
    storage_answer_fini(&a);
    r = kit_reply(200, "content-length: 1\nx-amz-meta-dr-sha256: 07\n", "");
    assert_int_equal(parse(&c, &r, &a), STORAGE_OK);
    assert_false(a.has_sha256);
    storage_answer_fini(&a);
    expect_call(&c, 200, "content-length: -1\n", "", STORAGE_NONSENSE);
}

int main(void)
{
    target = kit_target("https://h", true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_no_document),
        cmocka_unit_test(test_preconditions),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_expired_token_of_a_head),
        cmocka_unit_test(test_redirects),
        cmocka_unit_test(test_wrong_region),
        cmocka_unit_test(test_put),
        cmocka_unit_test(test_begin),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_abort_and_delete),
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
