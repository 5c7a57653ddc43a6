/* The bounded XML reader: what it tells, and what it refuses. */
#include "tests/unit/cm.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "worker/storage/xml.h"

static struct dr_buf seen;

static bool note(void *arg, const char *path, const char *text)
{
    (void)arg;
    dr_buf_printf(&seen, "%s=%s;", path, text);
    return strcmp(text, "stop") != 0;
}

static enum dr_rc reading(const char *xml)
{
    dr_buf_fini(&seen);
    dr_buf_init(&seen, 1 << 20);
    return xml_read(xml, strlen(xml), note, NULL, NULL);
}

static void test_paths_and_text(void **state)
{
    (void)state;
    assert_int_equal(reading("\n  <?xml version=\"1.0\"?><a xmlns=\"u\" xmlns:s=\"v\">"
                             "<b>x &amp; y</b><s:c><d/>tail</s:c></a>"),
                     DR_OK);
    assert_string_equal((char *)seen.data, "a/b=x & y;a/c/d=;a/c=tail;a=;");
    assert_int_equal(reading("<a><![CDATA[<b>]]></a>"), DR_OK);
    assert_string_equal((char *)seen.data, "a=<b>;");
}

static void test_what_is_no_document(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "",           "   ", "hello",    "<a>",         "<a></b>",           "<a/><b/>",
        "<a>&x;</a>", "{}",  "<a/>tail", "<a>\xff</a>", "<a><b>stop</b></a>"};
    for (size_t i = 0; i < CM_COUNT(broken); i++)
        assert_int_equal(reading(broken[i]), DR_E_MALFORMED);
    assert_int_equal(xml_read("<a>\0</a>", 8, note, NULL, NULL), DR_E_MALFORMED);
}

static void test_declarations_are_refused(void **state)
{
    (void)state;
    assert_int_equal(reading("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>"), DR_E_REFUSED);
    assert_int_equal(reading("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>"), DR_E_REFUSED);
    assert_int_equal(seen.len, 0);
}

static void nested(unsigned depth, char *out)
{
    for (unsigned i = 0; i < depth; i++, out += 3)
        memcpy(out, "<a>", 3);
    for (unsigned i = 0; i < depth; i++, out += 4)
        memcpy(out, "</a>", 4);
    *out = 0;
}

static void test_bounds(void **state)
{
    (void)state;
    size_t size = XML_BYTES_MAX + 2;
    char *big = malloc(size);
    assert_non_null(big);
    nested(XML_DEPTH_MAX, big);
    assert_int_equal(reading(big), DR_OK);
    nested(XML_DEPTH_MAX + 1, big);
    assert_int_equal(reading(big), DR_E_TOO_BIG);
    nested(400000, big);
    assert_int_equal(reading(big), DR_E_TOO_BIG);
    memset(big, 'x', size); /* text, then a name */
    memcpy(big, "<a>", 3);
    memcpy(big + 3 + XML_TEXT_MAX, "</a>", 5);
    assert_int_equal(reading(big), DR_OK);
    big[3 + XML_TEXT_MAX] = 'x';
    memcpy(big + 4 + XML_TEXT_MAX, "</a>", 5);
    assert_int_equal(reading(big), DR_E_TOO_BIG);
    memset(big, 'x', size);
    big[0] = '<';
    memcpy(big + XML_PATH_MAX + 1, "/>", 3);
    assert_int_equal(reading(big), DR_E_TOO_BIG);
    memset(big, ' ', size);
    memcpy(big, "<a/>", 4);
    assert_int_equal(xml_read(big, XML_BYTES_MAX, note, NULL, NULL), DR_OK);
    assert_int_equal(xml_read(big, XML_BYTES_MAX + 1, note, NULL, NULL), DR_E_TOO_BIG);
    free(big);
    dr_buf_fini(&seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths_and_text),
        cmocka_unit_test(test_what_is_no_document),
        cmocka_unit_test(test_declarations_are_refused),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
