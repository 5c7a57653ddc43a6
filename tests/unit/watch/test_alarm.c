/* What is said between health jobs, by a clock that is stepped: a rhythm as long as the RPO calls
 * nobody, what comes and goes is not told each time, and one gate does not silence another. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/watch/facts_kit.h"
#include "worker/watch/alert_internal.h"
#include "worker/watch/watch_internal.h"

#define BEGIN INT64_C(1800000000000)
enum { STEP_MS = WATCH_EVERY_MS, MINUTE_MS = 60000, HOUR_MS = 3600000, QUIET_MS = 300000 };

static struct alerts alerts;
static const struct job_services services = {.alerts = &alerts};
static struct watch w;

/* The words since the last call on that alert. */
struct words {
    unsigned raised, cleared;
    char severity[12];
    int64_t quiet_ms;
};

static struct words take(const char *rule, const char *subject)
{
    struct words n = {0};
    while (alerts.inbox) {
        struct alert_word *x = alerts.inbox;
        if (strcmp(x->rule, rule) == 0 && (!subject || strcmp(x->subject, subject) == 0)) {
            *(x->clear ? &n.cleared : &n.raised) += 1;
            (void)snprintf(n.severity, sizeof n.severity, "%s", x->severity);
            n.quiet_ms = x->quiet_ms;
        }
        alerts.inbox = x->next;
        free((char *)x->rule);
        free((char *)x->subject);
        free((char *)x->severity);
        free((char *)x->summary);
        free((char *)x->details);
        free(x);
    }
    alerts.inbox_count = 0;
    return n;
}

/* Everything is well at that time; the newest backup of the database is of newest_ms. */
static void stand(int64_t now_ms, int64_t newest_ms, int64_t took_ms)
{
    kit_well(&w.facts, now_ms);
    kit_series(&w.facts, "database", newest_ms)->newest_took_ms = took_ms;
}

static void judge(int64_t now_ms, struct gates *g)
{
    gates_judge(&w.facts, &kit_limits, now_ms, g);
}

static int fresh(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    w.o.services = &services;
    w.started_ms = BEGIN - 24 * (int64_t)HOUR_MS;
    return 0;
}

/* Hourly at the full hour, each run as long as that and read back for a third of it. A health job
 * looks ten minutes past each hour, and in the middle of each run. */
static void a_day(int64_t run_ms)
{
    unsigned warned = 0;
    for (int64_t now = BEGIN; now < BEGIN + 24 * (int64_t)HOUR_MS; now += STEP_MS) {
        int64_t slot = now - (now - BEGIN) % HOUR_MS, into = now - slot;
        struct gates g;
        stand(now, into >= run_ms + run_ms / 3 ? slot : slot - HOUR_MS, run_ms);
        judge(now, &g);
        warned += g.at[0].status == GATE_WARNING;
        watch_say(&w, &g, now);
        assert_int_equal(take("backup_stale", NULL).raised, 0);
        if (into != (int64_t)10 * MINUTE_MS && into != run_ms / 2 / STEP_MS * STEP_MS)
            continue;
        alert_on_gates(&alerts, &g);
        assert_int_equal(take("backup_stale", NULL).raised, 0);
        alert_on_gates(&alerts, &g);
        assert_int_equal(take("health_drop", NULL).raised, 0);
    }
    assert_true(warned > 24); /* the gate itself says what is so */
}

static void case_a_rhythm_as_long_as_the_rpo(void **state)
{
    (void)state;
    a_day(20000);
    a_day(9 * (int64_t)MINUTE_MS);
    a_day(30 * (int64_t)MINUTE_MS);
}

/* The next run does not come. */
static void case_backups_that_stop(void **state)
{
    (void)state;
    int64_t took = 2 * (int64_t)MINUTE_MS, worth_a_call = HOUR_MS + 14 * (int64_t)MINUTE_MS;
    for (int64_t age = took; age < 3 * (int64_t)HOUR_MS; age += STEP_MS) {
        struct gates g;
        stand(BEGIN + age, BEGIN, took);
        judge(BEGIN + age, &g);
        watch_say(&w, &g, BEGIN + age);
        struct words n = take("backup_stale", "database");
        assert_int_equal(n.raised, age > worth_a_call);
        assert_int_equal(n.cleared, age <= HOUR_MS);
        if (n.raised)
            assert_string_equal(n.severity, age > 2 * HOUR_MS ? "critical" : "warning");
        alert_on_gates(&alerts, &g);
        assert_int_equal(take("health_drop", "health").raised, age > worth_a_call);
    }
}

static struct words room(int64_t now_ms, uint64_t free_bytes)
{
    struct gates g;
    stand(now_ms, now_ms, 0);
    w.facts.store.disk.free_bytes = free_bytes;
    judge(now_ms, &g);
    watch_say(&w, &g, now_ms);
    return take("disk_low", "disk");
}

static void case_room_that_comes_and_goes(void **state)
{
    int64_t now = BEGIN;
    (void)state;
    for (unsigned turn = 0; turn < 5; turn++) {
        for (unsigned i = 0; i < 59; i++, now += STEP_MS)
            assert_int_equal(room(now, 80).raised, 0);
        struct words n = room(now, 200);
        assert_int_equal(n.cleared, 1); /* if nobody else sees it */
        assert_int_equal(n.quiet_ms, QUIET_MS);
        now += STEP_MS;
    }
    for (unsigned i = 0; i < 60; i++, now += STEP_MS)
        assert_int_equal(room(now, 80).raised, 0);
    assert_string_equal(room(now, 80).severity, "warning");
    assert_int_equal(room(now + STEP_MS, 200).cleared, 1);
    assert_string_equal(room(now + 2 * STEP_MS, 10).severity, "critical"); /* backups are refused */
}

static struct gates unreadable(int64_t now_ms)
{
    struct gates g;
    stand(now_ms, now_ms, 0);
    w.facts.store.ok = false;
    w.facts.survey.schedules[0].due_ms = now_ms - HOUR_MS;
    judge(now_ms, &g);
    return g;
}

static void case_a_store_that_cannot_be_read(void **state)
{
    int64_t now = BEGIN;
    struct gates g;
    (void)state;
    for (unsigned i = 0; i < 6; i++, now += STEP_MS) {
        g = unreadable(now);
        watch_say(&w, &g, now);
        assert_int_equal(take("store_unreadable", "store").raised, 0);
    }
    g = unreadable(now);
    watch_say(&w, &g, now);
    assert_string_equal(take("store_unreadable", "store").severity, "critical");
    watch_say(&w, &g, now);
    assert_int_equal(take("schedule_late", "schedules").raised, 1);
    watch_say(&w, &g, now);
    assert_int_equal(take("backup_missing", NULL).raised, 0);
    static const char *const rules[] = {"backup_missing", "backup_stale"};
    for (size_t i = 0; i < 2; i++) { /* a health job: they stand as they stood */
        alert_on_gates(&alerts, &g);
        struct words said = take(rules[i], "database");
        assert_int_equal(said.raised + said.cleared, 0);
    }
    alert_on_gates(&alerts, &g);
    assert_int_equal(take("health_drop", "health").raised, 1);
    stand(now, now, 0);
    judge(now, &g);
    watch_say(&w, &g, now);
    struct words n = take("store_unreadable", "store");
    assert_int_equal(n.cleared, 1);
    assert_int_equal(n.quiet_ms, QUIET_MS);
}

/* The words of a health job are not weakened by those of the next look. */
static void case_a_clear_that_waits(void **state)
{
    (void)state;
    alert_clear(&alerts, "disk_low", "disk", "now");
    alert_clear_quiet(&alerts, "disk_low", "disk", "later", QUIET_MS);
    assert_int_equal(take("disk_low", "disk").quiet_ms, 0);
    alert_raise(&alerts, "disk_low", "disk", NULL, "low", NULL);
    alert_clear_quiet(&alerts, "disk_low", "disk", "later", QUIET_MS);
    struct words n = take("disk_low", "disk");
    assert_int_equal(n.quiet_ms, QUIET_MS);
    assert_int_equal(n.cleared, 1);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test_setup(case_a_rhythm_as_long_as_the_rpo, fresh),
        cmocka_unit_test_setup(case_backups_that_stop, fresh),
        cmocka_unit_test_setup(case_room_that_comes_and_goes, fresh),
        cmocka_unit_test_setup(case_a_store_that_cannot_be_read, fresh),
        cmocka_unit_test_setup(case_a_clear_that_waits, fresh),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
