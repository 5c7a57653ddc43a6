/* What facts make of a survey and of a list of backups. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <string.h>

#include "worker/backup/store.h"
#include "worker/watch/facts.h"

static struct survey one_lane(const char *mid, int64_t iat_ms, uint64_t waiting)
{
    struct survey s = {.lane_count = 1};
    s.lanes[0].lane = "noop";
    s.lanes[0].waiting = waiting;
    s.lanes[0].next_iat_ms = iat_ms;
    (void)snprintf(s.lanes[0].next_mid, sizeof s.lanes[0].next_mid, "%s", mid);
    return s;
}

static struct facts f;

static int64_t take(const char *mid, int64_t iat_ms, uint64_t waiting, int64_t now_ms)
{
    struct survey s = one_lane(mid, iat_ms, waiting);
    facts_take_survey(&f, &s, now_ms);
    return f.oldest_ms[0];
}

static void case_how_long_the_next_waits(void **state)
{
    (void)state;
    memset(&f, 0, sizeof f);
    assert_int_equal(take("", 0, 0, 1000), 0);
    assert_int_equal(take("a", 0, 1, 2000), 2000); /* it does not say: since it was seen */
    assert_int_equal(take("a", 0, 1, 9000), 2000);
    assert_int_equal(take("b", 0, 1, 9500), 9500);     /* another one is next */
    assert_int_equal(take("c", 500, 1, 9600), 500);    /* it says */
    assert_int_equal(take("d", 99999, 1, 9700), 9700); /* from the future: not believed */
    assert_int_equal(take("d", 99999, 1, 9900), 9700);
    assert_int_equal(take("", 0, 0, 9950), 0);
}

static void case_redis_has_another_clock(void **state)
{
    struct survey s = one_lane("a", 61000, 1);
    (void)state;
    memset(&f, 0, sizeof f);
    s.offset_ms = 60000; /* orders are dated by clocks near Redis' */
    facts_take_survey(&f, &s, 2000);
    assert_int_equal(f.oldest_ms[0], 1000);
}

static struct store_entry backup(const char *series, int64_t point_ms, int64_t verified_ms, bool ok)
{
    struct store_entry e = {.t_point_ms = point_ms,
                            .t_end_ms = point_ms + point_ms / 100,
                            .verified_at_ms = verified_ms,
                            .verified_ok = ok,
                            .plain_bytes = 100,
                            .stored_bytes = 10,
                            .recorded = true};
    (void)snprintf(e.series, sizeof e.series, "%s", series);
    (void)snprintf(e.kind, sizeof e.kind, "files");
    (void)snprintf(e.class, sizeof e.class, "manual");
    return e;
}

static void case_series(void **state)
{
    static struct facts_store s;
    struct store_entry list[] = {backup("a", 9000, 0, false),    backup("a", 8000, 8500, true),
                                 backup("a", 7000, 9500, false), backup("a", 6000, 6500, true),
                                 backup("a", 9900, 9950, true),  backup("b", 100, 200, true)};
    (void)state;
    (void)snprintf(list[4].class, sizeof list[4].class, "emergency");
    list[3].pinned = true;
    list[5].tombstoned_at_ms = 300;
    facts_fold(&s, list, CM_COUNT(list));
    assert_int_equal(s.series_count, 2);
    const struct facts_series *a = &s.series[0], *b = &s.series[1];
    assert_int_equal(a->backups, 3); /* the damaged one and the emergency backup apart */
    assert_int_equal(a->bad, 1);
    assert_int_equal(a->newest_ms, 9000);
    assert_int_equal(a->newest_proven_ms, 8000);
    assert_int_equal(a->newest_took_ms, 80);
    assert_int_equal(facts_took_ms(&s, "files"), 80);
    assert_int_equal(facts_took_ms(&s, "database"), 0);
    assert_int_equal(a->oldest_proof_ms, 0); /* one was never proven */
    assert_int_equal(a->oldest_ms, 6000);
    assert_int_equal(a->stored_bytes, 50);
    assert_int_equal(a->pinned, 1);
    assert_int_equal(b->backups, 0);
    assert_int_equal(b->tombstoned, 1);
    assert_int_equal(b->newest_ms, 0);
}

static void case_more_series_than_places(void **state)
{
    static struct facts_store s;
    static struct store_entry list[FACTS_SERIES + 3];
    char name[16];
    (void)state;
    for (size_t i = 0; i < CM_COUNT(list); i++) {
        (void)snprintf(name, sizeof name, "s%zu", i);
        list[i] = backup(name, 1, 1, true);
    }
    facts_fold(&s, list, CM_COUNT(list));
    assert_int_equal(s.series_count, FACTS_SERIES);
    assert_int_equal(s.more_series, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_how_long_the_next_waits),
        cmocka_unit_test(case_redis_has_another_clock),
        cmocka_unit_test(case_series),
        cmocka_unit_test(case_more_series_than_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
