/* The text that Prometheus reads. */
#include "tests/unit/cm.h"

#include <math.h>
#include <string.h>

#include "worker/watch/exposition.h"

static const double bounds[] = {0.1, 1, 0};

static void case_labels_are_escaped(void **state)
{
    struct dr_buf b;
    (void)state;
    dr_buf_init(&b, 4096);
    exposition_family(&b, "drworker_x_bytes", "gauge", "What it is.");
    exposition_uint(&b, "drworker_x_bytes", UINT64_MAX, NULL);
    exposition_uint(&b, "drworker_x_bytes", 7, "a", "q\"b\\s\nl", "b", "\xff\xc3\xa4", NULL);
    exposition_real(&b, "drworker_x_bytes", 0.25, "a", "", NULL);
    assert_string_equal((char *)b.data,
                        "# HELP drworker_x_bytes What it is.\n# TYPE drworker_x_bytes gauge\n"
                        "drworker_x_bytes 18446744073709551615\n"
                        "drworker_x_bytes{a=\"q\\\"b\\\\s\\nl\",b=\"\xef\xbf\xbd\xc3\xa4\"} 7\n"
                        "drworker_x_bytes{a=\"\"} 0.25\n");
    dr_buf_fini(&b);
}

static void case_numbers_that_are_none(void **state)
{
    struct dr_buf b;
    (void)state;
    dr_buf_init(&b, 4096);
    exposition_real(&b, "n", (double)NAN, NULL);
    exposition_real(&b, "n", (double)INFINITY, NULL);
    exposition_real(&b, "n", -(double)INFINITY, NULL);
    exposition_real(&b, "n", 1e300, NULL);
    assert_string_equal((char *)b.data, "n NaN\nn +Inf\nn -Inf\nn 1e+300\n");
    dr_buf_fini(&b);
}

static void case_buckets_are_cumulative(void **state)
{
    struct dr_buf b;
    struct exposition_histogram h = {.bounds = bounds};
    (void)state;
    exposition_observe(&h, 0.1); /* an upper bound belongs to its bucket */
    exposition_observe(&h, 0.5);
    exposition_observe(&h, 3);
    exposition_observe(&h, -1);
    exposition_observe(&h, (double)NAN);
    dr_buf_init(&b, 4096);
    exposition_buckets(&b, "d", &h, "lane", "noop");
    assert_string_equal((char *)b.data, "d_bucket{le=\"0.1\",lane=\"noop\"} 3\n"
                                        "d_bucket{le=\"1\",lane=\"noop\"} 4\n"
                                        "d_bucket{le=\"+Inf\",lane=\"noop\"} 5\n"
                                        "d_sum{lane=\"noop\"} 3.6\n"
                                        "d_count{lane=\"noop\"} 5\n");
    dr_buf_reset(&b);
    exposition_buckets(&b, "d", &h, NULL, NULL);
    assert_non_null(strstr((char *)b.data, "d_bucket{le=\"+Inf\"} 5\nd_sum 3.6\nd_count 5\n"));
    dr_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_labels_are_escaped),
        cmocka_unit_test(case_numbers_that_are_none),
        cmocka_unit_test(case_buckets_are_cumulative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
