/* Classes of answers against what the engine and the caller do with them. */
#include "tests/unit/cm.h"

#include <string.h>

#include "common/mem.h"
#include "worker/storage/answer.h"
#include "worker/storage/dialect.h"

enum { CLASSES = STORAGE_PERMANENT + 1 };

static void test_classes_are_told_apart(void **state)
{
    (void)state;
    for (int a = 0; a < CLASSES; a++) {
        struct dr_err err = {0};
        enum storage_class c = (enum storage_class)a;
        assert_true(strlen(storage_class_text(c)) < sizeof err.reason);
        for (int b = 0; b < a; b++)
            assert_string_not_equal(storage_class_text(c),
                                    storage_class_text((enum storage_class)b));
        if (c == STORAGE_OK)
            continue;
        assert_int_equal(storage_fail(&err, c, "part %u", 7U), c);
        assert_int_equal(err.rc, storage_class_rc(c));
        assert_int_not_equal(err.rc, DR_OK);
        assert_string_equal(err.reason, storage_class_text(c));
        assert_string_equal(err.msg, "part 7");
    }
}

/* The first error wins, and no error is asked for. */
static void test_the_first_error_stays(void **state)
{
    (void)state;
    struct dr_err err = {0};
    (void)storage_fail(&err, STORAGE_SKEW, "first");
    assert_int_equal(storage_fail(&err, STORAGE_AUTH, "second"), STORAGE_AUTH);
    assert_string_equal(err.reason, "clock-skew");
    assert_int_equal(storage_fail(NULL, STORAGE_AUTH, "nobody asks"), STORAGE_AUTH);
}

/* What repeats by itself has a kind that the queue repeats too, and what does not, has not. */
static void test_acts_agree_with_kinds(void **state)
{
    (void)state;
    for (int a = STORAGE_AUTH; a < CLASSES; a++) {
        enum storage_class c = (enum storage_class)a;
        enum storage_act act = storage_class_act(c);
        enum dr_err_class kind = dr_rc_class(storage_class_rc(c));
        if (act == STORAGE_ACT_RETRY || act == STORAGE_ACT_SLOW)
            assert_int_equal(kind, DR_CLASS_RETRY);
        if (act == STORAGE_ACT_NONE)
            assert_int_equal(kind, DR_CLASS_PERMANENT);
    }
}

static void test_fini_of_what_is_empty_and_full(void **state)
{
    (void)state;
    struct storage_answer a = {0};
    struct storage_request r = {0};
    storage_answer_fini(&a);
    storage_request_fini(&r);
    a.entries = dr_xarray(2, sizeof *a.entries);
    a.entry_count = 2;
    a.entries[0].key = dr_xstrdup("k");
    a.entries[1].upload_id = dr_xstrdup("u");
    a.parts = dr_xarray(1, sizeof *a.parts);
    a.part_count = 1;
    a.next = dr_xstrdup("n");
    a.upload_id = dr_xstrdup("u");
    a.token = dr_xstrdup("t");
    storage_answer_fini(&a);
    assert_null(a.token);
    assert_int_equal(a.entry_count, 0);
    r.url = dr_xstrdup("https://a/");
    r.fields = dr_xarray(2, sizeof *r.fields);
    r.fields[0] = dr_xstrdup("Authorization: secret");
    r.field_count = 1;
    dr_buf_init(&r.before, 16);
    dr_buf_str(&r.before, "xml");
    storage_request_fini(&r);
    assert_null(r.fields);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes_are_told_apart),
        cmocka_unit_test(test_the_first_error_stays),
        cmocka_unit_test(test_acts_agree_with_kinds),
        cmocka_unit_test(test_fini_of_what_is_empty_and_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
