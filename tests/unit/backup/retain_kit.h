/* Items for the retention plan, made one a line. */
#ifndef DR_TESTS_RETAIN_KIT_H
#define DR_TESTS_RETAIN_KIT_H

#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/backup/retain.h"

enum { KIT_MAX = 12000, KIT_DAY = 86400000, KIT_HOUR = 3600000 };

struct kit {
    struct retain_policy policy;
    struct retain_item items[KIT_MAX];
    char ids[KIT_MAX][16];
    struct retain_input in;
    struct retain_plan *plan;
};

static inline int64_t at(const char *time)
{
    int64_t ms = 0;
    if (!dr_parse_time(time, &ms))
        fail_msg("%s", time);
    return ms;
}

/* The default policy; the plan is made at this time. */
static inline struct kit *kit_new(const char *now)
{
    struct kit *k = calloc(1, sizeof *k);
    assert_non_null(k);
    k->policy = (struct retain_policy){.hourly_hours = 48,
                                       .daily_days = 7,
                                       .weekly_weeks = 4,
                                       .monthly_months = 12,
                                       .yearly_years = 3,
                                       .critical_days = 90,
                                       .min_keep = 3,
                                       .grace_hours = 72,
                                       .max_delete = 50,
                                       .clock_skew_s = 300,
                                       .keep_oldest = true,
                                       .tz = "UTC"};
    k->in = (struct retain_input){.policy = &k->policy, .items = k->items, .now_ms = at(now)};
    return k;
}

static inline void kit_free(struct kit *k)
{
    retain_plan_free(k->plan);
    free(k);
}

/* A scheduled one, proven from the disk, in series "a"; seq is its place. */
static inline struct retain_item *add_ms(struct kit *k, int64_t t_ms)
{
    size_t n = k->in.count++;
    assert_true(n < KIT_MAX);
    (void)snprintf(k->ids[n], sizeof k->ids[n], "b%05zu", n);
    k->items[n] = (struct retain_item){.id = k->ids[n],
                                       .series = "a",
                                       .t_ms = t_ms,
                                       .bytes = 100,
                                       .class = RETAIN_SCHEDULED,
                                       .proof = RETAIN_DEEP};
    return &k->items[n];
}

static inline struct retain_item *add(struct kit *k, const char *time)
{
    return add_ms(k, at(time));
}

static inline const struct retain_plan *plan(struct kit *k)
{
    struct dr_err err = {0};
    retain_plan_free(k->plan);
    k->plan = NULL;
    if (retain_plan(&k->in, &k->plan, &err))
        fail_msg("%s", err.msg);
    return k->plan;
}

static inline const struct retain_verdict *verdict(const struct kit *k, const struct retain_item *i)
{
    return &k->plan->verdicts[i - k->items];
}

static inline bool because(const struct kit *k, const struct retain_item *i, retain_mask why)
{
    return (verdict(k, i)->reasons & why) == why;
}

/* The plan's decisions in the items' order, as 0 and 1. */
static inline const char *decisions(struct kit *k)
{
    static char text[KIT_MAX + 1];
    plan(k);
    for (size_t i = 0; i < k->in.count; i++)
        text[i] = k->plan->verdicts[i].keep ? '1' : '0';
    text[k->in.count] = 0;
    return text;
}

#endif
