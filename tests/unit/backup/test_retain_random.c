/* What holds of every plan, on random histories from fixed seeds. */
#include "tests/unit/backup/retain_kit.h"

#include "worker/backup/retain_internal.h"

enum { HISTORIES = 400, SERIES = 3, MOST = 240 };
#define NOW "2026-11-28T12:00:00Z"

struct dice {
    uint64_t state;
};

static uint64_t roll(struct dice *d, uint64_t sides)
{
    uint64_t z = d->state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % sides;
}

static bool one_in(struct dice *d, uint64_t n)
{
    return roll(d, n) == 0;
}

/* In the order of their making, so that the catalog's order and the times agree. */
static void one_series(struct kit *k, struct dice *d, const char *series)
{
    static const int64_t steps[] = {KIT_HOUR, KIT_HOUR * 7ll, KIT_DAY, KIT_DAY * 5ll,
                                    KIT_DAY * 40ll};
    int64_t step = steps[roll(d, CM_COUNT(steps))];
    uint64_t n = roll(d, MOST / SERIES);
    int64_t t = k->in.now_ms - 1 - (int64_t)n * step - (int64_t)roll(d, 20) * KIT_DAY;
    for (uint64_t i = 0; i < n; i++, t += 1 + (int64_t)roll(d, (uint64_t)step)) {
        static const char *const sources[] = {NULL, "1/15", "1/17", "2/17"};
        struct retain_item *it = add_ms(k, t);
        it->series = series;
        it->seq = i + 1;
        it->bytes = roll(d, 1000);
        it->source = sources[roll(d, 4)];
        it->class = one_in(d, 4) ? (enum retain_class)roll(d, 4) : RETAIN_SCHEDULED;
        it->proof = one_in(d, 3) ? RETAIN_PROVEN : one_in(d, 6) ? RETAIN_UNPROVEN : RETAIN_DEEP;
        it->offsite = one_in(d, 2);
        it->drilled_ms = one_in(d, 10) ? t : 0;
        it->pinned = one_in(d, 40);
        it->leased = one_in(d, 40);
        it->held_until_ms = one_in(d, 30) ? k->in.now_ms + (int64_t)roll(d, 400) * KIT_DAY : 0;
        if (one_in(d, 8) && k->in.count > 1) { /* some of the same series, some of another */
            static const char *base[KIT_MAX];
            base[k->in.count] = k->ids[roll(d, k->in.count - 1)];
            it->bases = &base[k->in.count];
            it->base_count = 1;
        }
    }
}

static struct kit *history(uint64_t seed, struct dice *d)
{
    static const char *const series[SERIES] = {"a", "b", "c"};
    struct kit *k = kit_new(NOW);
    *d = (struct dice){seed};
    k->policy.hourly_hours = (int)roll(d, 3) * 24;
    k->policy.daily_days = 1 + (int)roll(d, 20);
    k->policy.weekly_weeks = (int)roll(d, 3) * 3;
    k->policy.yearly_years = (int)roll(d, 4);
    k->policy.min_keep = 1 + (int)roll(d, 5);
    k->policy.keep_oldest = one_in(d, 2);
    k->in.offsite_configured = one_in(d, 4);
    for (int s = 0; s < SERIES; s++)
        one_series(k, d, series[s]);
    return k;
}

/* Damage, doubt, clocks that lie: everything that stops a series. */
static void trouble(struct kit *k, struct dice *d)
{
    for (size_t i = 0; i < k->in.count; i++) {
        struct retain_item *it = &k->items[i];
        if (one_in(d, 60))
            it->proof = RETAIN_DAMAGED;
        it->suspect = one_in(d, 20);
        it->frozen = one_in(d, 500);
        if (one_in(d, 200))
            it->t_ms += (int64_t)roll(d, 900) * KIT_DAY;
        it->acknowledged = one_in(d, 2);
    }
}

static void twice_gives_up_nothing_more(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct dice d;
        struct kit *k = history(seed, &d);
        size_t left = 0;
        for (size_t i = 0; i < k->in.count; i++)
            k->items[i].suspect = one_in(&d, 20);
        plan(k);
        for (size_t i = 0; i < k->in.count; i++)
            if (k->plan->verdicts[i].keep)
                k->items[left++] = k->items[i];
        k->in.count = left;
        if (plan(k)->given_up)
            fail_msg("seed %d", (int)seed);
        kit_free(k);
    }
}

static bool kept(const struct kit *k, const char *id)
{
    for (size_t i = 0; i < k->in.count; i++)
        if (strcmp(k->items[i].id, id) == 0)
            return k->plan->verdicts[i].keep;
    return true;
}

static void never_empty_closed_and_explained(void **state)
{
    (void)state;
    const retain_mask gone = RETAIN_BIT(DISPLACED) | RETAIN_BIT(OUT_OF_RANGE) | RETAIN_BIT(INVALID);
    size_t all = 0;
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct dice d;
        struct kit *k = history(seed, &d);
        unsigned items[SERIES] = {0}, left[SERIES] = {0};
        trouble(k, &d);
        plan(k);
        for (size_t i = 0; i < k->in.count; i++) {
            const struct retain_item *it = &k->items[i];
            const struct retain_verdict *v = &k->plan->verdicts[i];
            items[it->series[0] - 'a']++;
            left[it->series[0] - 'a'] += v->keep;
            assert_true(v->reasons != 0);
            assert_true(((v->reasons & gone) != 0) != v->keep);
            assert_true(v->keep || (v->reasons & (v->reasons - 1)) == 0);
            if (v->keep && it->base_count)
                assert_true(kept(k, it->bases[0]));
            if (!v->keep)
                assert_false(it->pinned || it->leased || it->held_until_ms > k->in.now_ms);
        }
        for (int s = 0; s < SERIES; s++)
            assert_true(items[s] == 0 || left[s] > 0);
        all += k->plan->given_up;
        kit_free(k);
    }
    assert_true(all > HISTORIES * 10); /* plans that give up nothing would prove nothing */
}

static void the_order_of_the_items_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct dice d;
        struct kit *k = history(seed, &d);
        char hash[RETAIN_HASH_TEXT];
        retain_mask reasons[MOST], confirm;
        trouble(k, &d);
        plan(k);
        memcpy(hash, k->plan->hash, sizeof hash);
        confirm = k->plan->confirm;
        for (size_t i = 0; i < k->in.count; i++)
            reasons[i] = k->plan->verdicts[i].reasons;
        for (size_t i = k->in.count; i > 1; i--) {
            size_t j = roll(&d, i);
            struct retain_item swap = k->items[i - 1];
            k->items[i - 1] = k->items[j];
            k->items[j] = swap;
        }
        plan(k);
        assert_string_equal(k->plan->hash, hash);
        assert_true(k->plan->confirm == confirm);
        for (size_t i = 0; i < k->in.count; i++) {
            uint64_t place = 0;
            assert_true(dr_parse_u64(k->items[i].id + 1, 0, MOST, &place));
            assert_true(k->plan->verdicts[i].reasons == reasons[place]);
        }
        kit_free(k);
    }
}

static void time_alone_ends_only_promises_of_time(void **state)
{
    (void)state;
    const retain_mask promises = RETAIN_BIT(FLOOR) | RETAIN_BIT(DIAGNOSIS) | RETAIN_BIT(HELD),
                      theirs = promises | RETAIN_BIT(BASE) | RETAIN_BIT(LAST_OF_SERIES);
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct dice d;
        struct kit *k = history(seed, &d);
        retain_mask before[MOST];
        plan(k);
        for (size_t i = 0; i < k->in.count; i++)
            before[i] = k->plan->verdicts[i].keep ? k->plan->verdicts[i].reasons : 0;
        k->in.now_ms += (int64_t)roll(&d, 2000) * KIT_DAY;
        plan(k);
        for (size_t i = 0; i < k->in.count; i++)
            if (before[i] && !k->plan->verdicts[i].keep && (before[i] & ~theirs))
                fail_msg("seed %d: %s", (int)seed, k->ids[i]);
        kit_free(k);
    }
}

/* What the policy alone would keep of the valid scheduled ones of a series. */
static void policy_alone(const struct kit *k, const char *series, bool *keep)
{
    struct retain_point list[MOST] = {{0}};
    retain_mask reasons[MOST] = {0};
    size_t who[MOST], n = 0;
    int64_t widest;
    const struct retain_zone utc = {NULL, NULL};
    for (size_t i = 0; i < k->in.count; i++) {
        const struct retain_item *it = &k->items[i];
        if (strcmp(it->series, series) != 0 || it->class != RETAIN_SCHEDULED || !retain_valid(it) ||
            retain_future(&k->in, it))
            continue;
        size_t at = n++;
        for (; at > 0 && list[at - 1].t_ms < it->t_ms; at--) {
            list[at] = list[at - 1];
            who[at] = who[at - 1];
        }
        list[at] = (struct retain_point){it->t_ms, 0, true};
        who[at] = i;
    }
    retain_ladder(&k->policy, &utc, retain_anchor(list, n, k->in.now_ms), list, n, reasons,
                  &widest);
    for (size_t i = 0; i < n; i++)
        keep[who[i]] = reasons[i] != 0;
}

static void deletions_are_a_subset_of_the_policys(void **state)
{
    (void)state;
    size_t more = 0, same = 0;
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct dice d;
        struct kit *k = history(seed, &d);
        bool keep[MOST] = {false};
        trouble(k, &d);
        plan(k);
        policy_alone(k, "a", keep);
        policy_alone(k, "b", keep);
        policy_alone(k, "c", keep);
        for (size_t i = 0; i < k->in.count; i++) {
            if (keep[i] && !k->plan->verdicts[i].keep)
                fail_msg("seed %d: %s", (int)seed, k->ids[i]);
            more += k->plan->verdicts[i].keep && !keep[i];
            same += k->plan->verdicts[i].keep && keep[i];
        }
        kit_free(k);
    }
    assert_true(more > 0 && same > 0);
}

/* One newer backup displaces the newest of its periods and the last of the minimum, moves each cut
 * by a second, and makes one runner-up needless. */
static void one_more_gives_up_no_more_than_it_displaces(void **state)
{
    (void)state;
    const retain_mask by_rule = RETAIN_BIT(DISPLACED) | RETAIN_BIT(OUT_OF_RANGE),
                      its_base = RETAIN_BIT(BASE) | RETAIN_BIT(LAST_OF_SERIES);
    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        struct dice d;
        struct kit *k = history(seed, &d);
        size_t before = k->in.count, gone = 0;
        retain_mask keep[MOST + 1];
        int64_t newest = INT64_MIN;
        uint64_t seq = 0;
        plan(k);
        for (size_t i = 0; i < before; i++) {
            keep[i] = k->plan->verdicts[i].keep ? k->plan->verdicts[i].reasons : 0;
            if (strcmp(k->items[i].series, "a") != 0)
                continue;
            newest = k->items[i].t_ms > newest ? k->items[i].t_ms : newest;
            seq = k->items[i].seq > seq ? k->items[i].seq : seq;
        }
        if (newest != INT64_MIN)
            add_ms(k, newest + 1000)->seq = seq + 1;
        plan(k);
        for (size_t i = 0; i < before; i++) {
            if (!keep[i] || k->plan->verdicts[i].keep)
                continue;
            gone++;
            assert_true((k->plan->verdicts[i].reasons & by_rule) || !(keep[i] & ~its_base));
        }
        assert_true(gone <= 8);
        assert_true(k->in.count == before || k->plan->verdicts[before].keep);
        kit_free(k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twice_gives_up_nothing_more),
        cmocka_unit_test(never_empty_closed_and_explained),
        cmocka_unit_test(the_order_of_the_items_changes_nothing),
        cmocka_unit_test(time_alone_ends_only_promises_of_time),
        cmocka_unit_test(deletions_are_a_subset_of_the_policys),
        cmocka_unit_test(one_more_gives_up_no_more_than_it_displaces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
