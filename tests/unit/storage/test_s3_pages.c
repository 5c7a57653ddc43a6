/* Pages of S3: parts, objects, uploads, and how the next page is found. */
#include "tests/unit/cm.h"

#include "tests/unit/storage/s3_kit.h"

static struct storage_target target;

static enum storage_class parse(const struct storage_call *c, const char *body,
                                struct storage_answer *out)
{
    struct storage_reply r = kit_reply(200, "", body);
    return storage_dialect_find("aws_s3")->parse(c, &r, out, NULL);
}

static void nonsense(const struct storage_call *c, const char *body)
{
    struct storage_answer a;
    enum storage_class class = parse(c, body, &a);
    if (class != STORAGE_NONSENSE)
        fail_msg("%s: %s", body, storage_class_text(class));
    storage_answer_fini(&a);
}

#define PARTS(s)   "<ListPartsResult xmlns=\"http://x/\">" s "</ListPartsResult>"
#define PART(n, e) "<Part><PartNumber>" n "</PartNumber><ETag>" e "</ETag><Size>5</Size></Part>"

static void test_parts(void **state)
{
    (void)state;
    struct storage_call c = kit_call(&target, STORAGE_LIST_PARTS);
    struct storage_answer a;
    assert_int_equal(
        parse(&c,
              PARTS(PART("1", "e1") "<Part><PartNumber>3</PartNumber><ETag>e3</ETag><Size>9"
                                    "</Size><ChecksumSHA256>BwcHBwcHBwcHBwcHBwcHBwcHBwcHBw"
                                    "cHBwcHBwcHBwc=</ChecksumSHA256></Part><IsTruncated>true"
                                    "</IsTruncated><NextPartNumberMarker>3"
                                    "</NextPartNumberMarker>"),
              &a),
        STORAGE_OK);
    assert_int_equal(a.part_count, 2);
    assert_int_equal(a.parts[0].number, 1);
    assert_false(a.parts[0].has_sha256);
    assert_int_equal(a.parts[1].number, 3);
    assert_int_equal(a.parts[1].length, 9);
    assert_true(a.parts[1].has_sha256 && a.parts[1].sha256[0] == 7);
    assert_string_equal(a.next, "3");
    storage_answer_fini(&a);
    assert_int_equal(parse(&c, PARTS(""), &a), STORAGE_OK);
    assert_true(a.part_count == 0 && !a.next);
    storage_answer_fini(&a);
    nonsense(&c, PARTS(PART("2", "e") PART("1", "e")));
    nonsense(&c, PARTS(PART("2", "e") PART("2", "e")));
    nonsense(&c, PARTS(PART("0", "e")));
    nonsense(&c, PARTS(PART("10001", "e")));
    nonsense(&c, PARTS(PART("1", "")));
    nonsense(&c, PARTS("<IsTruncated>true</IsTruncated>"));
    nonsense(&c, PARTS("<IsTruncated>perhaps</IsTruncated>"));
    c.after = "3";
    nonsense(&c, PARTS("<IsTruncated>true</IsTruncated><NextPartNumberMarker>3"
                       "</NextPartNumberMarker>"));
}

#define LIST(s) "<ListBucketResult>" s "</ListBucketResult>"
#define OBJECT(k)                                                                                  \
    "<Contents><Key>" k "</Key><LastModified>2013-05-24T00:00:00.000Z</LastModified>"              \
    "<ETag>e</ETag><Size>7</Size></Contents>"
#define ENCODED "<EncodingType>url</EncodingType>"
#define MORE(t)                                                                                    \
    "<IsTruncated>true</IsTruncated><NextContinuationToken>" t "</NextContinuationToken>"

static void test_objects(void **state)
{
    (void)state;
    struct storage_call c = kit_call(&target, STORAGE_LIST);
    struct storage_answer a;
    c.key = "a";
    assert_int_equal(
        parse(&c, LIST(MORE("t/=") OBJECT("pre/a%2Bb+c%2F") OBJECT("pre/a") ENCODED), &a),
        STORAGE_OK);
    assert_int_equal(a.entry_count, 2);
    assert_string_equal(a.entries[0].key, "a+b c/");
    assert_int_equal(a.entries[0].size, 7);
    assert_int_equal(a.entries[0].at_unix_s, KIT_NOW);
    assert_string_equal(a.entries[1].key, "a");
    assert_string_equal(a.next, "t/=");
    storage_answer_fini(&a);
    /* not encoded unless it says so */
    assert_int_equal(parse(&c, LIST(OBJECT("pre/a%2Bb+c") "<EncodingType></EncodingType>"), &a),
                     STORAGE_OK);
    assert_string_equal(a.entries[0].key, "a%2Bb+c");
    assert_null(a.next);
    storage_answer_fini(&a);
    assert_int_equal(parse(&c, LIST("<KeyCount>0</KeyCount>"), &a), STORAGE_OK);
    assert_int_equal(a.entry_count, 0);
    storage_answer_fini(&a);
    nonsense(&c, LIST(OBJECT("other/a")));
    nonsense(&c, LIST(OBJECT("pre/b")));
    nonsense(&c, LIST(OBJECT("")));
    nonsense(&c, LIST(OBJECT("pre/a%zz") ENCODED));
    nonsense(&c, LIST(OBJECT("pre/a%00") ENCODED));
    nonsense(&c, LIST("<Contents><Key>pre/a</Key><Size>-1</Size></Contents>"));
    nonsense(&c, LIST("<IsTruncated>true</IsTruncated>"));
    nonsense(&c, "<ListBucketResult>" OBJECT("pre/a"));
    c.after = "t";
    nonsense(&c, LIST(MORE("t")));
}

#define UPLOADS(s) "<ListMultipartUploadsResult>" s "</ListMultipartUploadsResult>"
#define UPLOAD(k, u)                                                                               \
    "<Upload><Key>" k "</Key><UploadId>" u                                                         \
    "</UploadId><Initiated>2013-05-24T00:00:00Z</Initiated>"                                       \
    "<Initiator><ID>x</ID></Initiator></Upload>"

static void test_uploads(void **state)
{
    (void)state;
    struct storage_call c = kit_call(&target, STORAGE_LIST_UPLOADS);
    struct storage_answer a;
    struct storage_request r;
    c.key = NULL;
    assert_int_equal(
        parse(&c,
              UPLOADS(UPLOAD("pre/a%20b", "u 1") "<IsTruncated>true</IsTruncated>"
                                                 "<NextKeyMarker>pre/a%20b</NextKeyMarker>"
                                                 "<NextUploadIdMarker>u 1"
                                                 "</NextUploadIdMarker>" ENCODED),
              &a),
        STORAGE_OK);
    assert_int_equal(a.entry_count, 1);
    assert_string_equal(a.entries[0].key, "a b");
    assert_string_equal(a.entries[0].upload_id, "u 1");
    assert_int_equal(a.entries[0].at_unix_s, KIT_NOW);
    c.after = a.next; /* both markers come back */
    assert_int_equal(storage_dialect_find("aws_s3")->build(&c, &r, NULL), DR_OK);
    assert_non_null(strstr(r.url, "&key-marker=pre%2Fa%20b&"));
    assert_non_null(strstr(r.url, "&upload-id-marker=u%201&"));
    storage_request_fini(&r);
    storage_answer_fini(&a);
    c.after = NULL;
    nonsense(&c, UPLOADS("<Upload><Key>pre/a</Key></Upload>"));
    nonsense(&c, UPLOADS("<IsTruncated>true</IsTruncated>"));
}

int main(void)
{
    target = kit_target("https://h", true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_uploads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
