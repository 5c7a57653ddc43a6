/* worker/job/schedule_set: the table, what DR_SCHEDULES makes of it, which slot is fired. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/job/schedule_set.h"

static const struct job_task noop = {.type = "noop"}, backup = {.type = "backup"},
                             verify = {.type = "verify"};
static const struct job_task *const tasks[] = {&noop, &backup, &verify, NULL};

static struct schedule_set *loaded(const char *schedules, const char *zone, struct dr_err *err)
{
    struct dr_config *config = NULL;
    struct schedule_set *set = NULL;
    (void)setenv("DR_SCHEDULES", schedules, 1);
    (void)setenv("DR_TZ", zone, 1);
    assert_int_equal(dr_config_load(NULL, &config, err), DR_OK);
    enum dr_rc rc = schedule_set_load(config, tasks, &set, err);
    assert_int_equal(rc == DR_OK, set != NULL);
    dr_config_free(config);
    return set;
}

static const struct schedule *find(const struct schedule_set *set, const char *name)
{
    for (unsigned i = 0; i < set->count; i++)
        if (strcmp(set->at[i].name, name) == 0)
            return &set->at[i];
    fail_msg("no schedule %s", name);
    return NULL;
}

static struct schedule_set *good(const char *schedules)
{
    struct dr_err err = {0};
    struct schedule_set *set = loaded(schedules, "UTC", &err);
    if (!set)
        fail_msg("%s: %s [%s=%s]", schedules, err.msg, err.field, err.value);
    return set;
}

static void the_table(void **state)
{
    (void)state;
    struct schedule_set *set = good("");
    assert_string_equal(find(set, "backup-database")->off, "not configured");
    assert_string_equal(find(set, "backup-full")->off, "not configured");
    assert_string_equal(find(set, "sync")->off, "not in this version"); /* of this test's tasks */
    assert_string_equal(find(set, "retention")->off, "not in this version");
    assert_null(find(set, "verify")->off);
    assert_string_equal(find(set, "verify")->args[0][0], "budget_bytes");
    assert_false(set->none);
    struct schedule_set *same = good("");
    assert_string_equal(set->hash, same->hash);
    schedule_set_free(same);
    struct schedule_set *other = good("verify=;late=2h");
    assert_string_not_equal(set->hash, other->hash);
    schedule_set_free(other);
    schedule_set_free(set);
    (void)setenv("DATABASE_URL", "postgresql://gold@/shop", 1);
    (void)setenv("BACKUP_FILES_PATHS", "/srv", 1);
    set = good("");
    assert_null(find(set, "backup-database")->off);
    assert_null(find(set, "backup-files")->off);
    assert_null(find(set, "backup-full")->off);
    assert_string_equal(find(set, "backup-config")->off, "not configured");
    schedule_set_free(set);
    (void)unsetenv("DATABASE_URL");
    (void)unsetenv("BACKUP_FILES_PATHS");
    set = good(" off ");
    assert_true(set->none);
    schedule_set_free(set);
}

static void changed(void **state)
{
    (void)state;
    struct schedule_set *set =
        good("verify=off|\n one = */5 1-3 * * * ; lane=noop ;args=sleep_ms=7;zone=Europe/Berlin;"
             "misfire=all:3;overlap=queue;late=90m;jitter=30s|two=@daily;lane=backup;"
             "args=kind=files,class=critical\n||");
    assert_string_equal(find(set, "verify")->off, "off");
    const struct schedule *s = find(set, "one");
    assert_string_equal(s->lane, "noop");
    assert_string_equal(s->info.cron, "*/5 1-3 * * *");
    assert_string_equal(s->when, "*/5 1-3 * * * Europe/Berlin");
    assert_string_equal(s->info.misfire, "all:3");
    assert_string_equal(s->info.overlap, "queue");
    assert_int_equal(s->late_ms, 5400000);
    assert_int_equal(s->jitter_ms, 30000);
    assert_false(s->skip_overlap);
    struct dr_sched_info info;
    assert_true(dr_sched_info_read(s->bytes.data, s->bytes.len, &info));
    assert_string_equal(info.zone, "Europe/Berlin");
    assert_int_equal(info.late_ms, 5400000);
    s = find(set, "two");
    assert_string_equal(s->args[0][0], "class"); /* sorted */
    assert_string_equal(s->args[1][0], "kind");
    assert_string_equal(s->info.zone, "UTC");
    schedule_set_free(set);
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *field, *value;
    } bad[] = {
        {"nonsense", "DR_SCHEDULES.nonsense.name", "nonsense"},
        {"=* * * * *;lane=noop", "DR_SCHEDULES..name", ""},
        {"a:b=* * * * *;lane=noop", "DR_SCHEDULES.a:b.name", "a:b"},
        {"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeee=@daily;lane=noop",
         "DR_SCHEDULES.aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeee.name",
         "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeee"},
        {"x=@daily", "DR_SCHEDULES.x.lane", ""},
        {"x=off", "DR_SCHEDULES.x.name", "x"},
        {"x=;lane=noop", "DR_SCHEDULES.x.cron", ""},
        {"x=@daily;lane=sync", "DR_SCHEDULES.x.lane", "sync"},
        {"x=@daily;lane=execute", "DR_SCHEDULES.x.lane", "execute"},
        {"x=@daily;lane=configure", "DR_SCHEDULES.x.lane", "configure"},
        {"verify=@daily;lane=noop", "DR_SCHEDULES.verify.lane", "noop"},
        {"verify=61 * * * *", "DR_SCHEDULES.verify.minute", "61"},
        {"verify=0 0 30 2 *", "DR_SCHEDULES.verify.day", "30"},
        {"verify=@often", "DR_SCHEDULES.verify.cron", "@often"},
        {"verify=;zone=Mars/Base", "DR_SCHEDULES.verify.zone", "Mars/Base"},
        {"verify=;zone=../../etc/passwd", "DR_SCHEDULES.verify.zone", "../../etc/passwd"},
        {"verify=;misfire=all", "DR_SCHEDULES.verify.misfire", "all"},
        {"verify=;misfire=all:0", "DR_SCHEDULES.verify.misfire", "all:0"},
        {"verify=;misfire=all:101;overlap=queue", "DR_SCHEDULES.verify.misfire", "all:101"},
        {"verify=;misfire=all:3", "DR_SCHEDULES.verify.misfire", "all:3"},
        {"verify=;late=59s", "DR_SCHEDULES.verify.late", "59s"},
        {"verify=;late=8d", "DR_SCHEDULES.verify.late", "8d"},
        {"verify=;late=soon", "DR_SCHEDULES.verify.late", "soon"},
        {"verify=;jitter=61m", "DR_SCHEDULES.verify.jitter", "61m"},
        {"verify=;late=1m;jitter=1m", "DR_SCHEDULES.verify.jitter", "1m"},
        {"verify=;overlap=maybe", "DR_SCHEDULES.verify.overlap", "maybe"},
        {"verify=;colour=red", "DR_SCHEDULES.verify.colour", "red"},
        {"verify=;late", "DR_SCHEDULES.verify.late", ""},
        {"verify=;late=2h;late=3h", "DR_SCHEDULES.verify.late", "3h"},
        {"verify=;args=budget_bytes=x", "DR_SCHEDULES.verify.args", "budget_bytes=x"},
        {"verify=;args=colour=red", "DR_SCHEDULES.verify.args", "colour=red"},
        {"verify=;args=all=true,all=true", "DR_SCHEDULES.verify.args", "all=true,all=true"},
        {"verify=;args=all", "DR_SCHEDULES.verify.args", "all"},
        {"verify=@daily|verify=off", "DR_SCHEDULES.verify.name", "verify"},
        {"off|verify=off", "DR_SCHEDULES.off.name", "off"},
    };
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        struct dr_err err = {0};
        struct schedule_set *set = loaded(bad[i].text, "UTC", &err);
        if (set || err.rc != DR_E_CONFIG)
            fail_msg("accepted: %s", bad[i].text);
        assert_string_equal(err.field, bad[i].field);
        assert_string_equal(err.value, bad[i].value);
    }
    struct dr_err err = {0};
    assert_null(loaded("", "Europe/Atlantis", &err));
    assert_string_equal(err.field, "DR_TZ");
    char many[8192] = "";
    for (size_t n = 0, i = 0; i < SCHEDULES_MAX; i++)
        n += (size_t)snprintf(many + n, sizeof many - n, "x%zu=@daily;lane=noop|", i);
    dr_err_clear(&err);
    assert_null(loaded(many, "UTC", &err));
    assert_string_equal(err.msg, "DR_SCHEDULES: x22: name: more than 32 schedules");
}

static int64_t ms(const char *text)
{
    int64_t at;
    assert_true(dr_parse_time(text, &at));
    return at;
}

/* 2025-01-01 is left out of the times below. */
static void which_slot(void **state)
{
    (void)state;
    static const struct {
        const char *entry, *from, *now, *slot, *next, *why;
    } cases[] = {
        {"@hourly;misfire=once", "02:00:00", "02:00:00", "02:00:00", "03:00:00", NULL},
        {"@hourly;misfire=once", "02:00:00", "02:00:59", "02:00:00", "03:00:00", NULL},
        {"* * * * *;misfire=once", "02:00:00", "02:01:00", "02:00:00", "02:01:00", NULL},
        {"@hourly;misfire=once", "02:00:00", "05:30:00", "05:00:00", "06:00:00", NULL},
        {"@hourly;misfire=once;late=20m", "02:00:00", "05:30:00", "02:00:00", "06:00:00", "late"},
        {"@hourly;misfire=once;late=30m", "02:00:00", "05:30:00", "05:00:00", "06:00:00", NULL},
        {"@hourly;misfire=skip", "02:00:00", "05:30:00", "02:00:00", "06:00:00", "misfire"},
        {"@hourly;misfire=skip", "02:00:00", "05:00:30", "05:00:00", "06:00:00", NULL},
        {"@hourly;misfire=skip;jitter=20m", "02:00:00", "02:20:30", "02:00:00", "03:00:00", NULL},
        {"@hourly;misfire=all:2;overlap=queue;late=12h", "02:00:00", "05:30:00", "04:00:00",
         "05:00:00", NULL},
        {"@hourly;misfire=all:9;overlap=queue;late=12h", "02:00:00", "05:30:00", "02:00:00",
         "03:00:00", NULL},
        {"@hourly;misfire=all:9;overlap=queue;late=2h", "02:00:00", "05:30:00", "04:00:00",
         "05:00:00", NULL},
        {"* * * * *;misfire=all:100;overlap=queue;late=12h", "02:00:00", "11:30:30", "09:51:00",
         "09:52:00", NULL},
        {"0 2 * * *;late=7d", "02:00:00", "23:59:59", "02:00:00", "2025-01-02T02:00:00", NULL},
    };
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        char text[128], at[4][40];
        const char *times[4] = {cases[i].from, cases[i].now, cases[i].slot, cases[i].next};
        for (int k = 0; k < 4; k++)
            (void)snprintf(at[k], sizeof at[k], "%s%sZ", strchr(times[k], 'T') ? "" : "2025-01-01T",
                           times[k]);
        (void)snprintf(text, sizeof text, "x=%s;lane=noop", cases[i].entry);
        struct schedule_set *set = good(text);
        struct schedule_step step;
        schedule_decide(find(set, "x"), ms(at[0]), ms(at[1]), &step);
        if (step.slot_ms != ms(at[2]) || step.next_ms != ms(at[3]) || step.fire != !cases[i].why)
            fail_msg("%s from %s at %s: slot %lld, next %lld", cases[i].entry, at[0], at[1],
                     (long long)step.slot_ms, (long long)step.next_ms);
        if (cases[i].why)
            assert_string_equal(step.why, cases[i].why);
        schedule_set_free(set);
    }
}

/* A year of minutes missed is decided at once, and jitter is the same in every worker. */
static void bounded_and_alike(void **state)
{
    (void)state;
    struct schedule_set *a = good("x=* * * * *;lane=noop;jitter=50s;late=7d");
    struct schedule_set *b = good("x=* * * * *;lane=noop;jitter=50s;late=7d");
    const struct schedule *s = find(a, "x");
    struct schedule_step step;
    int64_t now = ms("2026-01-01T00:00:30Z"), most = 0;
    schedule_decide(s, ms("2025-01-01T00:00:00Z"), now, &step);
    assert_true(step.fire);
    assert_int_equal(step.slot_ms, now - 30000);
    for (int64_t slot = now - 30000; slot < now + 6000000; slot += 60000) {
        int64_t late = schedule_due(s, slot) - slot;
        assert_in_range(late, 0, 50000);
        assert_int_equal(schedule_due(find(b, "x"), slot), slot + late);
        most = late > most ? late : most;
    }
    assert_true(most > 25000);
    schedule_set_free(a);
    schedule_set_free(b);
    a = good("x=* * * * *;lane=noop;misfire=skip");
    schedule_decide(find(a, "x"), INT64_MIN / 2, now, &step); /* what Redis may hold */
    schedule_decide(find(a, "x"), 253402300799000, 253402300799000, &step);
    assert_int_equal(step.next_ms, 253402300799000);
    schedule_set_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_table), cmocka_unit_test(changed),
                                       cmocka_unit_test(refused), cmocka_unit_test(which_slot),
                                       cmocka_unit_test(bounded_and_alike)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
