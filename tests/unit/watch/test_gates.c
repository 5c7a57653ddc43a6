/* Each gate at its edges. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "tests/unit/watch/facts_kit.h"
#include "worker/watch/gates.h"

#define NOW  INT64_C(1800000000000)
#define S(n) ((int64_t)(n)*1000)

static struct facts f;
static struct gates g;

/* Everything is configured and well. */
static int well(void **state)
{
    static const char *const kinds[] = {"database", "files", "config"};
    (void)state;
    memset(&f, 0, sizeof f);
    f.has_files = f.has_config_files = true;
    kit_well(&f, NOW);
    for (unsigned i = 0; i < 3; i++)
        (void)kit_series(&f, kinds[i], NOW - S(10));
    return 0;
}

static enum gate_status judge(const char *name)
{
    gates_judge(&f, &kit_limits, NOW, &g);
    for (unsigned i = 0; i < g.count; i++)
        if (strcmp(g.at[i].name, name) == 0)
            return g.at[i].status;
    fail_msg("no gate %s", name);
    return GATE_CRITICAL;
}

#define IS(name, status) assert_int_equal(judge(name), status)

static void case_all_is_well(void **state)
{
    (void)state;
    IS("drill", GATE_OK);
    assert_int_equal(g.status, GATE_OK);
    assert_int_equal(g.score, 100);
    assert_true(g.count < GATES_MAX);
    for (unsigned i = 0; i < g.count; i++)
        assert_true(strcmp(g.at[i].name, "offsite") == 0 || g.at[i].status == GATE_OK);
    IS("offsite", GATE_NOT_CONFIGURED);
}

static void case_backup_age(void **state)
{
    (void)state;
    struct facts_series *s = &f.store.series[0];
    s->newest_proven_ms = NOW - S(3600);
    IS("backup-database", GATE_OK);
    s->newest_proven_ms = NOW - S(3601);
    IS("backup-database", GATE_WARNING);
    assert_int_equal(g.at[0].value, 3601);
    assert_int_equal(g.at[0].limit, 3600);
    s->newest_proven_ms = NOW - S(7201);
    IS("backup-database", GATE_CRITICAL);
    s->newest_proven_ms = NOW + S(100); /* from the future: no younger than new */
    IS("backup-database", GATE_OK);
    assert_int_equal(g.at[0].value, 0);
    s->newest_proven_ms = 0; /* there is one, but nobody has proven it */
    IS("backup-database", GATE_CRITICAL);
    IS("backup-full", GATE_CRITICAL);
    f.has_database = false;
    IS("backup-database", GATE_NOT_CONFIGURED);
    IS("backup-full", GATE_OK);
}

/* A full backup speaks for every kind, and a drill of one as well. */
static void case_full_backups_hold_all(void **state)
{
    struct facts_series *s = &f.store.series[3];
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        f.store.series[i].newest_proven_ms = NOW - S(999999);
    IS("backup-database", GATE_CRITICAL);
    *s = f.store.series[0];
    (void)snprintf(s->kind, sizeof s->kind, "full");
    s->newest_proven_ms = NOW - S(100);
    f.store.series_count = 4;
    IS("backup-database", GATE_OK);
    IS("backup-files", GATE_OK);
    IS("backup-config", GATE_OK);
    IS("backup-full", GATE_OK);
    assert_int_equal(g.at[3].value, 100);
}

static void case_full_is_as_old_as_its_oldest_part(void **state)
{
    (void)state;
    f.store.series[1].newest_proven_ms = NOW - S(86401);
    IS("backup-full", GATE_WARNING);
    IS("backup-files", GATE_WARNING);
    IS("backup-database", GATE_OK);
    f.has_files = f.has_config_files = f.has_database = false;
    IS("backup-full", GATE_NOT_CONFIGURED);
}

static void case_store_that_cannot_be_read(void **state)
{
    (void)state;
    f.store.ok = false;
    IS("backup-database", GATE_CRITICAL);
    f.has_store = false;
    IS("backup-database", GATE_NOT_CONFIGURED);
    IS("disk", GATE_NOT_CONFIGURED);
    IS("key-slots", GATE_NOT_CONFIGURED);
    IS("open-runs", GATE_NOT_CONFIGURED);
}

static void case_proof(void **state)
{
    struct facts_series *s = &f.store.series[1];
    (void)state;
    s->oldest_proof_ms = NOW - S(1000);
    IS("proof", GATE_OK);
    s->oldest_proof_ms = NOW - S(1001);
    IS("proof", GATE_WARNING);
    s->oldest_proof_ms = NOW - S(2001);
    IS("proof", GATE_CRITICAL);
    s->oldest_proof_ms = 0; /* never: counts from the oldest backup on */
    s->oldest_ms = NOW - S(1500);
    IS("proof", GATE_WARNING);
    s->oldest_ms = NOW;
    s->bad = 1;
    IS("proof", GATE_CRITICAL);
    f.store.series_count = 0;
    IS("proof", GATE_NOT_CONFIGURED);
}

static void case_drill(void **state)
{
    (void)state;
    f.store.series[2].drilled_ms = 0; /* no procedure restores that kind alone */
    f.store.series[0].drilled_ms = NOW - S(2000);
    IS("drill", GATE_OK);
    f.store.series[0].drilled_ms = NOW - S(2001);
    IS("drill", GATE_WARNING);
    f.store.series[0].drilled_ms = NOW - S(4001);
    IS("drill", GATE_CRITICAL);
    f.store.series[0].drilled_ms = 0;
    IS("drill", GATE_WARNING); /* a young store is forgiven */
    f.store.series[0].oldest_ms = NOW - S(2001);
    IS("drill", GATE_CRITICAL);
    assert_int_equal(well(NULL), 0);
    struct facts_drill *d = &f.store.drills[f.store.drill_count++];
    *d = (struct facts_drill){.procedure = "database_recovery",
                              .at_ms = NOW,
                              .rto_ms = 10,
                              .rto_target_ms = 10,
                              .rpo_s = 20,
                              .rpo_target_s = 20};
    IS("drill", GATE_CRITICAL);
    d->ok = true;
    IS("drill", GATE_OK);
    d->rto_ms++;
    IS("drill", GATE_WARNING);
    d->rto_ms--;
    d->rpo_s++;
    IS("drill", GATE_WARNING);
    f.store.series_count = 0;
    IS("drill", GATE_NOT_CONFIGURED);
    d->ok = false; /* of the backup that is none any more */
    IS("drill", GATE_CRITICAL);
}

static void case_catalog(void **state)
{
    (void)state;
    f.unrecorded = 1;
    IS("catalog", GATE_WARNING);
    f.catalog = FACTS_BAD;
    IS("catalog", GATE_CRITICAL);
    f.catalog = FACTS_UNKNOWN;
    IS("catalog", GATE_WARNING);
    f.catalog = FACTS_NOT_CONFIGURED;
    IS("catalog", GATE_NOT_CONFIGURED);
}

static const struct gate *found(const char *name)
{
    for (unsigned i = 0; i < g.count; i++)
        if (strcmp(g.at[i].name, name) == 0)
            return &g.at[i];
    fail_msg("no gate %s", name);
    return NULL;
}

/* Folders that nothing will ever purge. */
static void case_trash(void **state)
{
    (void)state;
    f.trash_unknown = 2;
    IS("catalog", GATE_WARNING);
    assert_int_equal(found("catalog")->value, 2);
    assert_non_null(strstr(found("catalog")->detail, "2 in trash/"));
    f.unrecorded = 1;
    IS("catalog", GATE_WARNING);
    assert_int_equal(found("catalog")->value, 3);
}

static void case_audit(void **state)
{
    (void)state;
    f.audit_records = 7;
    IS("audit", GATE_OK);
    assert_int_equal(found("audit")->value, 7);
    f.audit = FACTS_BAD;
    (void)snprintf(f.audit_why, sizeof f.audit_why, "audit: record 3 does not follow");
    IS("audit", GATE_CRITICAL);
    assert_string_equal(found("audit")->detail, f.audit_why);
    assert_int_equal(g.status, GATE_CRITICAL);
    f.audit = FACTS_UNKNOWN; /* busy, or a disk that fails: no finding */
    IS("audit", GATE_WARNING);
    assert_false(found("audit")->measured);
    f.audit = FACTS_NOT_CONFIGURED;
    IS("audit", GATE_NOT_CONFIGURED);
}

static void case_catalog_head(void **state)
{
    (void)state;
    f.store.head_seq = 5;
    f.store.seen_seq = 9;
    f.store.head = FACTS_BAD;
    IS("catalog-head", GATE_CRITICAL);
    assert_int_equal(found("catalog-head")->value, 5);
    assert_int_equal(found("catalog-head")->limit, 9);
    assert_int_equal(g.status, GATE_CRITICAL);
    f.store.head = FACTS_UNKNOWN;
    IS("catalog-head", GATE_WARNING);
    f.store.head = FACTS_NOT_CONFIGURED; /* Redis was emptied */
    IS("catalog-head", GATE_NOT_CONFIGURED);
    f.store.head = FACTS_BAD;
    f.has_store = false;
    IS("catalog-head", GATE_NOT_CONFIGURED);
}

static void case_retention(void **state)
{
    (void)state;
    IS("retention", GATE_OK);
    f.survey.retention_waits = 3;
    (void)snprintf(f.survey.retention_plan, sizeof f.survey.retention_plan, "abc");
    IS("retention", GATE_WARNING);
    assert_int_equal(found("retention")->value, 3);
    assert_non_null(strstr(found("retention")->detail, "drproducer retention --plan abc"));
    f.survey.retention_ms = 0;
    IS("retention", GATE_NOT_CONFIGURED);
}

static void case_room(void **state)
{
    (void)state;
    f.store.disk.free_bytes = 100;
    IS("disk", GATE_OK);
    f.store.disk.free_bytes = 99;
    IS("disk", GATE_WARNING);
    f.store.disk.free_bytes = 50;
    IS("disk", GATE_WARNING);
    f.store.disk.free_bytes = 49;
    IS("disk", GATE_CRITICAL);
    IS("inodes", GATE_OK);
    f.store.disk.free_inodes = 49;
    IS("inodes", GATE_CRITICAL);
    f.store.disk.inodes = 0; /* btrfs */
    IS("inodes", GATE_NOT_CONFIGURED);
    f.store.disk.known = false;
    IS("disk", GATE_NOT_CONFIGURED);
    f.store.disk = (struct facts_disk){.known = true, .total_bytes = 10, .free_bytes = 0};
    IS("disk", GATE_OK); /* no reserve is wanted */
}

static void case_database(void **state)
{
    (void)state;
    f.database = FACTS_BAD;
    IS("database", GATE_CRITICAL);
    f.database = FACTS_UNKNOWN;
    IS("database", GATE_WARNING);
    f.database = FACTS_NOT_CONFIGURED;
    IS("database", GATE_NOT_CONFIGURED);
}

static void case_clock(void **state)
{
    (void)state;
    f.survey.offset_ms = 5000;
    IS("clock", GATE_OK);
    f.survey.offset_ms = -5001;
    IS("clock", GATE_WARNING);
    f.survey.offset_ms = -60001;
    IS("clock", GATE_CRITICAL);
    f.survey_ms = 0;
    IS("clock", GATE_WARNING);
}

static void case_schedules(void **state)
{
    (void)state;
    f.survey.schedules[0].due_ms = NOW - S(300);
    IS("schedules", GATE_OK);
    f.survey.schedules[0].due_ms = NOW - S(301);
    IS("schedules", GATE_WARNING);
    f.survey.schedules[1].due_ms = NOW - S(3601);
    f.survey.schedule_count = 2;
    IS("schedules", GATE_CRITICAL);
    f.survey.schedule_count = 0;
    IS("schedules", GATE_NOT_CONFIGURED);
}

static void case_workers(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", "a"}, {"off", "a"}, {"a", "off"}, {"a", "a"}, {"a", "b"}};
    for (size_t i = 0; i < CM_COUNT(pairs); i++) {
        for (size_t n = 0; n < 2; n++)
            (void)snprintf(f.survey.workers[n].schedule, sizeof f.survey.workers[n].schedule, "%s",
                           pairs[i][n]);
        IS("workers", i == 4 ? GATE_WARNING : GATE_OK);
    }
    f.survey.worker_count = 1;
    IS("workers", GATE_OK);
    f.survey.worker_count = 0;
    IS("workers", GATE_CRITICAL);
}

static void case_orders(void **state)
{
    (void)state;
    f.allow_unsigned = true; /* with a key file it changes nothing */
    IS("signed-orders", GATE_OK);
    f.has_keys = false;
    IS("signed-orders", GATE_WARNING);
    f.allow_unsigned = false;
    IS("signed-orders", GATE_NOT_CONFIGURED);
}

static void case_keys(void **state)
{
    (void)state;
    f.store.key_slots_proven = 1;
    IS("key-slots", GATE_WARNING);
    f.store.key_slots = 1;
    IS("key-slots", GATE_WARNING);
}

static void case_runs(void **state)
{
    (void)state;
    f.store.open_runs = 1;
    f.store.open_run_ms = NOW - S(3600);
    IS("open-runs", GATE_OK);
    f.store.open_run_ms = NOW - S(3601);
    IS("open-runs", GATE_CRITICAL);
}

/* The worst gate decides, whatever the score is. */
static void case_status_and_score(void **state)
{
    (void)state;
    f.store.key_slots_proven = 1; /* weight 2 of 37: half of it is lost */
    (void)judge("key-slots");
    assert_int_equal(g.status, GATE_WARNING);
    unsigned weights = 0;
    for (unsigned i = 0; i < g.count; i++)
        weights += g.at[i].status == GATE_NOT_CONFIGURED ? 0 : g.at[i].weight;
    assert_int_equal(g.score, (100 * (2 * weights - 2) + weights) / (2 * weights));
    f.database = FACTS_BAD;
    (void)judge("database");
    assert_int_equal(g.status, GATE_CRITICAL);
    assert_true(g.score > 85);
    memset(&f, 0, sizeof f);
    (void)judge("database");
    assert_int_equal(g.status, GATE_CRITICAL); /* no worker beats */
}

static void case_packed(void **state)
{
    struct dr_buf b;
    (void)state;
    (void)judge("disk");
    dr_buf_init(&b, 65536);
    assert_int_equal(gates_pack(&g, &b), 3);
    assert_false(b.failed);
    dr_buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(case_all_is_well, well),
        cmocka_unit_test_setup(case_backup_age, well),
        cmocka_unit_test_setup(case_full_backups_hold_all, well),
        cmocka_unit_test_setup(case_full_is_as_old_as_its_oldest_part, well),
        cmocka_unit_test_setup(case_store_that_cannot_be_read, well),
        cmocka_unit_test_setup(case_proof, well),
        cmocka_unit_test_setup(case_drill, well),
        cmocka_unit_test_setup(case_catalog, well),
        cmocka_unit_test_setup(case_trash, well),
        cmocka_unit_test_setup(case_audit, well),
        cmocka_unit_test_setup(case_catalog_head, well),
        cmocka_unit_test_setup(case_retention, well),
        cmocka_unit_test_setup(case_room, well),
        cmocka_unit_test_setup(case_database, well),
        cmocka_unit_test_setup(case_clock, well),
        cmocka_unit_test_setup(case_schedules, well),
        cmocka_unit_test_setup(case_workers, well),
        cmocka_unit_test_setup(case_orders, well),
        cmocka_unit_test_setup(case_keys, well),
        cmocka_unit_test_setup(case_runs, well),
        cmocka_unit_test_setup(case_status_and_score, well),
        cmocka_unit_test_setup(case_packed, well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
