/* The rules of safety around the policy, each with a history that would lose a backup without it.
 */
#include "tests/unit/backup/retain_kit.h"

#include "tests/unit/backup/vectors.h"
#include "worker/backup/store.h"

#define KEPT(i)     assert_true(verdict(k, i)->keep)
#define GIVEN_UP(i) assert_false(verdict(k, i)->keep)
#define WHY(i, ...) assert_true(because(k, i, __VA_ARGS__))

/* One backup a day at this hour, newest first, from a date backwards. */
static struct retain_item *days(struct kit *k, const char *newest, int count)
{
    struct retain_item *first = &k->items[k->in.count];
    for (int i = 0; i < count; i++)
        add_ms(k, at(newest) - (int64_t)i * KIT_DAY);
    return first;
}

/* S1: the anchor is the newest verified one. The unverified since then erode nothing. */
static void the_anchor_is_the_newest_verified(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-01T12:00:00Z");
    struct retain_item *good = days(k, "2026-05-10T02:00:00Z", 7);
    for (struct retain_item *i = days(k, "2026-06-01T02:00:00Z", 22); i < &k->items[k->in.count];
         i++)
        i->proof = RETAIN_UNPROVEN;
    plan(k);
    for (int i = 0; i < 7; i++)
        WHY(&good[i], RETAIN_BIT(DAILY));
    kit_free(k);

    /* and when nothing is made any more, nothing more is given up, however late it is */
    k = kit_new("2026-05-10T12:00:00Z");
    days(k, "2026-05-10T02:00:00Z", 60);
    char before[64];
    (void)snprintf(before, sizeof before, "%s", decisions(k));
    k->in.now_ms = at("2036-01-01T00:00:00Z");
    assert_string_equal(decisions(k), before);
    kit_free(k);
}

/* S2: only valid scheduled ones stand for a period. */
static void only_valid_scheduled_ones_compete(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    days(k, "2026-06-20T02:00:00Z", 8);
    struct retain_item *good = add(k, "2026-05-31T02:00:00Z"),
                       *dump = add(k, "2026-05-31T23:50:00Z"),
                       *manual = add(k, "2026-05-31T12:00:00Z"),
                       *partial = add(k, "2026-05-31T23:55:00Z");
    dump->class = RETAIN_EMERGENCY;
    manual->class = RETAIN_MANUAL;
    partial->proof = RETAIN_UNPROVEN;
    plan(k);
    WHY(good, RETAIN_BIT(MONTHLY));
    WHY(dump, RETAIN_BIT(FLOOR));
    assert_true(verdict(k, dump)->reasons == RETAIN_BIT(FLOOR));
    WHY(manual, RETAIN_BIT(MONTHLY)); /* of its own ladder */
    GIVEN_UP(partial);
    WHY(partial, RETAIN_BIT(INVALID));
    kit_free(k);
}

static void invalid_ones_stay_seven_days_and_never_go_last(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    days(k, "2026-06-20T02:00:00Z", 3);
    struct retain_item *young = add(k, "2026-06-13T12:00:01Z"),
                       *old = add(k, "2026-06-13T12:00:00Z"),
                       *trace = add(k, "2026-01-01T00:00:00Z");
    young->proof = old->proof = trace->proof = RETAIN_UNPROVEN;
    trace->series = "b";
    plan(k);
    WHY(young, RETAIN_BIT(DIAGNOSIS));
    GIVEN_UP(old);
    WHY(trace, RETAIN_BIT(LAST_OF_SERIES));
    kit_free(k);
}

/* S3 */
static void dated_ahead_stops_the_series(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    struct retain_item *a = days(k, "2026-06-20T02:00:00Z", 30),
                       *other = days(k, "2026-06-20T02:00:00Z", 30);
    for (int i = 0; i < 30; i++)
        other[i].series = "b";
    struct retain_item *ahead = add(k, "2026-06-20T12:05:00Z");
    plan(k);
    GIVEN_UP(&a[26]); /* within the skew it is an ordinary one */
    ahead->t_ms++;
    plan(k);
    KEPT(&a[26]);
    WHY(ahead, RETAIN_BIT(CLOCK_ANOMALY));
    WHY(&a[0], RETAIN_BIT(DAILY)); /* it did not take the day from the real one */
    assert_false(because(k, ahead, RETAIN_BIT(DAILY)));
    GIVEN_UP(&other[26]); /* another series is another matter */
    ahead->acknowledged = true;
    plan(k);
    GIVEN_UP(&a[26]);
    KEPT(ahead);
    kit_free(k);

    k = kit_new("2026-06-20T12:00:00Z"); /* all of them ahead, a host clock set back */
    days(k, "2026-07-20T02:00:00Z", 20);
    assert_int_equal(plan(k)->given_up, 0);
    k->in.now_ms = at("2026-07-20T12:00:00Z");
    assert_int_not_equal(plan(k)->given_up, 0);
    k->in.clock_wrong = true;
    assert_int_equal(plan(k)->given_up, 0);
    kit_free(k);
}

static void recorded_in_another_order_stops_the_series(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    struct retain_item *a = days(k, "2026-06-20T02:00:00Z", 30);
    for (int i = 0; i < 30; i++)
        a[i].seq = (uint64_t)(1000 - 10 * i);
    assert_int_not_equal(plan(k)->given_up, 0);
    a[0].seq = 500; /* the newest by time was recorded before all others */
    assert_int_equal(plan(k)->given_up, 0);
    WHY(&a[20], RETAIN_BIT(CLOCK_ANOMALY));
    a[0].acknowledged = true;
    assert_int_not_equal(plan(k)->given_up, 0);
    a[0].acknowledged = false;
    a[0].t_ms = a[1].t_ms + 300000; /* within the skew */
    a[0].seq = 985;                 /* between the third and the second */
    assert_int_not_equal(plan(k)->given_up, 0);
    a[0].t_ms++;
    assert_int_equal(plan(k)->given_up, 0);
    /* a long one that overlaps others is recorded after them, and is no anomaly */
    a[0].t_ms = at("2026-06-20T02:00:00Z");
    a[0].seq = 1000;
    a[5].seq = 975; /* of the 15th, recorded after the one of the 17th */
    a[5].end_ms = a[3].t_ms + KIT_HOUR;
    assert_int_not_equal(plan(k)->given_up, 0);
    a[5].end_ms = 0;
    assert_int_equal(plan(k)->given_up, 0);
    kit_free(k);
}

/* S4 */
static void the_minimum(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    k->policy.hourly_hours = k->policy.weekly_weeks = k->policy.monthly_months =
        k->policy.yearly_years = 0;
    k->policy.daily_days = 1;
    struct retain_item *a = days(k, "2026-06-20T02:00:00Z", 20);
    a[10].drilled_ms = a[15].drilled_ms = at("2026-06-19T00:00:00Z");
    a[11].offsite = a[16].offsite = true;
    a[12].source = a[13].source = "7300/15";
    a[14].source = "7300/14";
    a[17].source = "9/15";
    plan(k);
    WHY(&a[0], RETAIN_BIT(DAILY) | RETAIN_BIT(MINIMUM));
    WHY(&a[2], RETAIN_BIT(MINIMUM));
    GIVEN_UP(&a[3]);
    WHY(&a[10], RETAIN_BIT(LAST_DRILLED));
    WHY(&a[11], RETAIN_BIT(LAST_OFFSITE));
    WHY(&a[12], RETAIN_BIT(LAST_OF_SOURCE));
    WHY(&a[14], RETAIN_BIT(LAST_OF_SOURCE));
    WHY(&a[17], RETAIN_BIT(LAST_OF_SOURCE));
    GIVEN_UP(&a[13]);
    GIVEN_UP(&a[15]);
    GIVEN_UP(&a[16]);
    /* emergency backups in a row do not push the good ones out of the minimum */
    a[0].class = a[1].class = a[2].class = RETAIN_EMERGENCY;
    k->policy.critical_days = 0;
    plan(k);
    GIVEN_UP(&a[1]);
    WHY(&a[3], RETAIN_BIT(MINIMUM));
    WHY(&a[5], RETAIN_BIT(MINIMUM));
    for (int i = 3; i < 20; i++)
        a[i].proof = RETAIN_UNPROVEN; /* but fill it up when there is nothing else */
    plan(k);
    WHY(&a[2], RETAIN_BIT(MINIMUM));
    kit_free(k);
}

/* S5 */
static void a_runner_up_until_proven_again(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    days(k, "2026-06-20T02:00:00Z", 8);
    struct retain_item *last = add(k, "2026-04-30T02:00:00Z"),
                       *second = add(k, "2026-04-29T02:00:00Z"),
                       *third = add(k, "2026-04-28T02:00:00Z");
    (void)add(k, "2026-01-01T00:00:00Z");
    plan(k);
    GIVEN_UP(second);
    last->proof = RETAIN_PROVEN;
    plan(k);
    WHY(last, RETAIN_BIT(MONTHLY));
    assert_true(verdict(k, second)->reasons == RETAIN_BIT(RUNNER_UP));
    GIVEN_UP(third);
    last->proof = RETAIN_DAMAGED; /* found bad in time: the month is not lost */
    plan(k);
    WHY(second, RETAIN_BIT(MONTHLY));
    kit_free(k);
}

/* S6 */
static void protected_ones(void **state)
{
    (void)state;
    static const char *const base[] = {"b00040", "b00041", "unknown"}, *const chain[] = {"b00042"};
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    struct retain_item *a = days(k, "2026-06-20T02:00:00Z", 60);
    a[22].pinned = true;
    a[23].leased = true;
    a[24].journal = true;
    a[25].held_until_ms = k->in.now_ms + 1;
    a[26].held_until_ms = k->in.now_ms;
    a[2].bases = base; /* kept, and needs two that would go; one of them needs another */
    a[2].base_count = 3;
    a[41].bases = chain;
    a[41].base_count = 1;
    a[43].bases = (const char *const[]){"b00044"}; /* goes itself: its base goes too */
    a[43].base_count = 1;
    plan(k);
    assert_true(verdict(k, &a[22])->reasons == RETAIN_BIT(PINNED));
    assert_true(verdict(k, &a[23])->reasons == RETAIN_BIT(LEASED));
    assert_true(verdict(k, &a[24])->reasons == RETAIN_BIT(JOURNAL));
    assert_true(verdict(k, &a[25])->reasons == RETAIN_BIT(HELD));
    GIVEN_UP(&a[26]);
    assert_true(verdict(k, &a[40])->reasons == RETAIN_BIT(BASE));
    assert_true(verdict(k, &a[41])->reasons == RETAIN_BIT(BASE));
    assert_true(verdict(k, &a[42])->reasons == RETAIN_BIT(BASE));
    GIVEN_UP(&a[43]);
    GIVEN_UP(&a[44]);
    k->in.offsite_configured = true;
    a[45].offsite = true;
    a[46].proof = RETAIN_DAMAGED;
    plan(k);
    assert_true(because(k, &a[47], RETAIN_BIT(NOT_OFFSITE)));
    assert_false(because(k, &a[45], RETAIN_BIT(NOT_OFFSITE)) ||
                 because(k, &a[46], RETAIN_BIT(NOT_OFFSITE)));
    kit_free(k);
}

/* S7 */
static void a_wide_blast_wants_confirmation(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    struct retain_item *a = days(k, "2026-06-20T02:00:00Z", 7);
    /* six of a day older than a week: one stays, five go */
    for (int i = 0; i < 6; i++)
        (void)add_ms(k, at("2026-06-10T02:00:00Z") - (int64_t)i * KIT_HOUR / 2);
    plan(k);
    assert_true(k->plan->needs_confirmation && verdict(k, &a[8])->confirm);
    assert_true(k->plan->confirm == (RETAIN_BIT(CONFIRM_SERIES) | RETAIN_BIT(CONFIRM_BYTES)));
    assert_false(verdict(k, &a[0])->confirm);
    /* the same within the week is thinned without asking */
    k->in.count = 7;
    for (int i = 0; i < 60; i++)
        (void)add_ms(k, at("2026-06-16T02:00:00Z") - (int64_t)(i + 1) * 60000);
    plan(k);
    assert_true(k->plan->given_up == 60 && !k->plan->needs_confirmation && !k->plan->confirm);
    /* one alone goes, though it is all there is of its age */
    k->in.count = 7;
    k->policy.keep_oldest = false;
    struct retain_item *lone = add(k, "2010-01-01T00:00:00Z");
    plan(k);
    GIVEN_UP(lone);
    assert_false(k->plan->needs_confirmation);
    /* half by number is no more than half; but these are the large ones */
    struct retain_item *large = add(k, "2010-01-01T01:00:00Z");
    (void)add(k, "2026-05-31T02:00:00Z");
    (void)add(k, "2026-04-30T02:00:00Z");
    plan(k);
    assert_false(k->plan->needs_confirmation);
    large->bytes = 1000;
    plan(k);
    assert_true(k->plan->confirm == RETAIN_BIT(CONFIRM_BYTES));
    kit_free(k);

    k = kit_new("2026-06-20T12:00:00Z"); /* many series, one or two of each: the number counts */
    for (int s = 0; s < 30; s++) {
        static char names[30][8];
        (void)snprintf(names[s], sizeof names[s], "s%d", s);
        struct retain_item *b = days(k, "2026-06-20T02:00:00Z", 8);
        for (int i = 0; i < 8; i++)
            b[i].series = names[s];
        for (int i = 0; i < 6; i++)
            add_ms(k, at("2026-05-31T02:00:00Z") - (int64_t)i * 31 * KIT_DAY)->series = names[s];
        add(k, "2026-03-01T02:00:00Z")->series = names[s];
        add(k, "2026-02-03T02:00:00Z")->series = names[s];
    }
    plan(k);
    assert_true(k->plan->given_up > 50 && k->plan->confirm == RETAIN_BIT(CONFIRM_COUNT));
    k->policy.max_delete = (int)k->plan->given_up;
    plan(k);
    assert_false(k->plan->needs_confirmation);
    kit_free(k);
}

/* S8: recorded time, then the catalog's order, never the name. */
static void names_do_not_order(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    struct retain_item *x = add(k, "2026-06-16T03:00:00Z"), *y = add(k, "2026-06-16T03:00:00Z");
    days(k, "2026-06-20T02:00:00Z", 8);
    (void)add(k, "2026-06-01T00:00:00Z");
    x->id = "z-old";
    y->id = "a-new";
    x->seq = 1;
    y->seq = 2;
    plan(k);
    KEPT(y);
    GIVEN_UP(x);
    x->id = "a-old";
    y->id = "z-new";
    plan(k);
    KEPT(y);
    GIVEN_UP(x);
    kit_free(k);
}

/* S9: what one series keeps says nothing of another. */
static void series_are_never_mixed(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    struct retain_item *a = days(k, "2026-06-20T02:00:00Z", 1),
                       *b = days(k, "2024-01-20T02:00:00Z", 7);
    for (int i = 0; i < 7; i++)
        b[i].series = "files:default";
    plan(k);
    KEPT(&a[0]);
    for (int i = 0; i < 7; i++)
        WHY(&b[i], RETAIN_BIT(DAILY));
    struct retain_item *nobody = add(k, "2001-01-01T00:00:00Z");
    nobody->series = "";
    plan(k);
    WHY(nobody, RETAIN_BIT(UNKNOWN));
    kit_free(k);
}

/* S11 */
static void older_than_a_suspect_one_stays(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    struct retain_item *a = days(k, "2026-06-20T02:00:00Z", 7),
                       *old = days(k, "2020-06-20T02:00:00Z", 3);
    plan(k);
    GIVEN_UP(&old[0]);
    a[6].suspect = true;
    plan(k);
    WHY(&old[0], RETAIN_BIT(SUSPECT_AFTER));
    WHY(&old[2], RETAIN_BIT(SUSPECT_AFTER));
    old[1].suspect = true; /* no better than what is kept */
    plan(k);
    GIVEN_UP(&old[1]);
    WHY(&old[0], RETAIN_BIT(SUSPECT_AFTER));
    WHY(&old[2], RETAIN_BIT(SUSPECT_AFTER));
    old[1].suspect = false;
    a[6].suspect = false;
    a[5].suspect = true; /* an older good one is there */
    plan(k);
    GIVEN_UP(&old[0]);
    kit_free(k);
}

/* A proof that failed stops the series; the damaged one goes only when a person says so. */
/* Eight days and an old one: the eighth is displaced by the seventh, which has its week. */
static struct retain_item *routine(struct kit *k, const char *series)
{
    struct retain_item *a = days(k, "2026-06-20T02:00:00Z", 8);
    (void)add(k, "2026-01-01T00:00:00Z");
    for (int i = 0; i < 9; i++)
        a[i].series = series;
    return a;
}

static void a_failed_proof_freezes_its_series(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    struct retain_item *a = routine(k, "a"), *b = routine(k, "b"),
                       *old = add(k, "2026-05-21T00:00:00Z");
    old->proof = RETAIN_DAMAGED;
    old->series = "c";
    plan(k);
    GIVEN_UP(&a[7]);
    a[2].frozen = true;
    plan(k);
    WHY(&a[7], RETAIN_BIT(FROZEN));
    GIVEN_UP(&b[7]);
    a[2].frozen = false;
    old->series = "a";
    plan(k);
    WHY(&a[7], RETAIN_BIT(FROZEN));
    GIVEN_UP(old);
    assert_true(verdict(k, old)->confirm && k->plan->needs_confirmation);
    assert_true(k->plan->confirm == RETAIN_BIT(CONFIRM_DAMAGED));
    GIVEN_UP(&b[7]);
    assert_false(verdict(k, &b[7])->confirm); /* the others' routine goes on */
    old->t_ms = at("2026-06-14T00:00:00Z");
    plan(k);
    WHY(old, RETAIN_BIT(DIAGNOSIS));
    kit_free(k);
}

/* S12: a tombstoned one is purged only if a plan of live and tombstoned ones gives it up again. */
static void planned_again_before_the_purge(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    days(k, "2026-06-20T02:00:00Z", 8);
    struct retain_item *last = add(k, "2026-04-30T02:00:00Z"),
                       *tombstoned = add(k, "2026-04-29T02:00:00Z");
    (void)add(k, "2026-01-01T00:00:00Z");
    plan(k);
    GIVEN_UP(tombstoned);
    last->proof = RETAIN_DAMAGED; /* meanwhile */
    plan(k);
    KEPT(tombstoned);
    kit_free(k);
}

/* S13 */
static void another_policy_wants_confirmation(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    struct dr_buf before;
    (void)routine(k, "a");
    assert_false(plan(k)->needs_confirmation); /* none was applied yet */
    dr_buf_init(&before, RETAIN_POLICY_TEXT_MAX);
    retain_policy_text(&k->policy, &before);
    k->in.applied_policy = (const char *)before.data;
    assert_false(plan(k)->needs_confirmation);
    (void)snprintf(k->policy.tz, sizeof k->policy.tz, "Europe/Berlin");
    assert_true(plan(k)->confirm == RETAIN_BIT(CONFIRM_POLICY));
    assert_true(verdict(k, &k->items[7])->confirm);
    k->in.count = 3; /* gives up nothing: nobody is asked */
    assert_true(!plan(k)->needs_confirmation && !k->plan->confirm);
    dr_buf_fini(&before);
    kit_free(k);
}

static void the_critical_floor_counts_from_now(void **state)
{
    (void)state;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    days(k, "2026-01-20T02:00:00Z", 30); /* the last one is five months old */
    struct retain_item *x = add(k, "2026-01-02T10:00:00Z"), *y = add(k, "2026-01-02T10:00:00Z");
    x->class = RETAIN_EMERGENCY;
    y->class = RETAIN_CRITICAL;
    y->proof = RETAIN_UNPROVEN; /* a promise of time, whatever became of it */
    k->in.now_ms = x->t_ms + 90ll * KIT_DAY - 1;
    plan(k);
    WHY(x, RETAIN_BIT(FLOOR));
    WHY(y, RETAIN_BIT(FLOOR));
    k->in.now_ms++;
    plan(k);
    GIVEN_UP(x);
    GIVEN_UP(y);
    WHY(x, RETAIN_BIT(OUT_OF_RANGE));
    y->proof = RETAIN_DEEP; /* a sound one then goes on up its own ladder */
    plan(k);
    WHY(y, RETAIN_BIT(MONTHLY));
    kit_free(k);
}

static void hashes_are_the_golden_ones(void **state)
{
    (void)state;
    json_t *all = vec_json("vectors.json"), *rows = json_object_get(all, "plan_hashes"), *row, *id;
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    size_t n, i;
    assert_int_equal(json_array_size(rows), 4);
    json_array_foreach(rows, n, row)
    {
        const char *ids[8];
        char got[RETAIN_HASH_TEXT];
        struct dr_err err = {0};
        json_array_foreach(json_object_get(row, "delete"), i, id) ids[i] = json_string_value(id);
        assert_int_equal(retain_plan_hash(&k->policy, ids, i, got, &err), DR_OK);
        assert_string_equal(got, json_string_value(json_object_get(row, "hash")));
    }
    kit_free(k);
    json_decref(all);
}

static void bad_ids_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"b00000", "", "a\nb"};
    struct kit *k = kit_new("2026-06-20T12:00:00Z");
    days(k, "2026-06-20T02:00:00Z", 3);
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        struct dr_err err = {0};
        k->items[2].id = bad[i];
        assert_int_equal(retain_plan(&k->in, &k->plan, &err), DR_E_INVALID);
    }
    k->in.count = 0;
    assert_int_equal(plan(k)->kept, 0);
    kit_free(k);
}

static void entries_become_items(void **state)
{
    (void)state;
    struct store_entry e = {.backup_id = "x",
                            .class = "scheduled",
                            .series = "files:default",
                            .seq = 3,
                            .stored_bytes = 9,
                            .t_point_ms = 5,
                            .t_end_ms = 7,
                            .verified_at_ms = 8,
                            .verified_ok = true,
                            .recorded = true};
    struct retain_item i;
    retain_item_of(&e, &i);
    assert_true(i.class == RETAIN_SCHEDULED && i.proof == RETAIN_PROVEN && !i.source);
    assert_true(i.t_ms == 5 && i.end_ms == 7 && i.seq == 3 && i.bytes == 9 && !i.offsite);
    e.deep = true;
    retain_item_of(&e, &i);
    assert_true(i.proof == RETAIN_DEEP);
    e.verified_ok = false;
    retain_item_of(&e, &i);
    assert_true(i.proof == RETAIN_DAMAGED && strcmp(i.series, "files:default") == 0);
    e.verified_at_ms = 0;
    retain_item_of(&e, &i);
    assert_true(i.proof == RETAIN_UNPROVEN);
    (void)snprintf(e.bad, sizeof e.bad, "manifest-sig");
    (void)snprintf(e.class, sizeof e.class, "emergency");
    retain_item_of(&e, &i);
    assert_true(i.proof == RETAIN_DAMAGED && i.series[0] == 0 && i.class == RETAIN_EMERGENCY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_anchor_is_the_newest_verified),
        cmocka_unit_test(only_valid_scheduled_ones_compete),
        cmocka_unit_test(invalid_ones_stay_seven_days_and_never_go_last),
        cmocka_unit_test(dated_ahead_stops_the_series),
        cmocka_unit_test(recorded_in_another_order_stops_the_series),
        cmocka_unit_test(the_minimum),
        cmocka_unit_test(a_runner_up_until_proven_again),
        cmocka_unit_test(protected_ones),
        cmocka_unit_test(a_wide_blast_wants_confirmation),
        cmocka_unit_test(names_do_not_order),
        cmocka_unit_test(series_are_never_mixed),
        cmocka_unit_test(older_than_a_suspect_one_stays),
        cmocka_unit_test(a_failed_proof_freezes_its_series),
        cmocka_unit_test(planned_again_before_the_purge),
        cmocka_unit_test(another_policy_wants_confirmation),
        cmocka_unit_test(the_critical_floor_counts_from_now),
        cmocka_unit_test(hashes_are_the_golden_ones),
        cmocka_unit_test(bad_ids_are_refused),
        cmocka_unit_test(entries_become_items)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
