/* The pure function: restic's --keep-within-hourly, -daily, -weekly, -monthly, -yearly, with the
 * cut of Go's calendar and, since restic 0.16, the oldest one kept in addition. */
#include "common/civil.h"
#include "worker/backup/retain_internal.h"

enum { RULES = 5, DAY_S = 86400, HOUR_S = 3600 };

struct rule {
    enum retain_reason word;
    int64_t cut_ms;   /* exclusive: exactly at the cut is out of range */
    int64_t last;     /* period of the one that it kept last */
    bool any, second; /* kept one already; the next one of the same period is kept too */
};

int32_t retain_offset_at(const struct retain_zone *z, int64_t t_ms)
{
    return z->offset ? z->offset(z->zone, dr_floor_div(t_ms, 1000)) : 0;
}

/* As Go's time.Date: the offset is looked up at the local time first, then where that leads. */
static int64_t to_utc(const struct retain_zone *z, int64_t local_s)
{
    int32_t guess = retain_offset_at(z, local_s * 1000);
    if (guess == 0)
        return local_s;
    return local_s - retain_offset_at(z, (local_s - guess) * 1000);
}

static int64_t cut(const struct retain_zone *z, int64_t anchor_ms, int years, int months, int days)
{
    int64_t s = dr_floor_div(anchor_ms, 1000);
    int64_t local = s + retain_offset_at(z, anchor_ms), day = dr_floor_div(local, DAY_S);
    int64_t of_day = local - day * DAY_S;
    int64_t back = to_utc(z, dr_days_back(day, years, months, days) * DAY_S + of_day);
    return back * 1000 + (anchor_ms - s * 1000);
}

static unsigned rules_of(const struct retain_policy *p, const struct retain_zone *z,
                         int64_t anchor_ms, struct rule out[RULES])
{
    const struct {
        enum retain_reason word;
        int range, years, months, days, hours;
    } rows[RULES] = {{RETAIN_HOURLY, p->hourly_hours, 0, 0, 0, p->hourly_hours},
                     {RETAIN_DAILY, p->daily_days, 0, 0, p->daily_days, 0},
                     {RETAIN_WEEKLY, p->weekly_weeks, 0, 0, p->weekly_weeks * 7, 0},
                     {RETAIN_MONTHLY, p->monthly_months, 0, p->monthly_months, 0, 0},
                     {RETAIN_YEARLY, p->yearly_years, p->yearly_years, 0, 0, 0}};
    unsigned n = 0;
    for (unsigned i = 0; i < RULES; i++) {
        if (rows[i].range <= 0)
            continue;
        out[n] = (struct rule){.word = rows[i].word, .cut_ms = RETAIN_NO_ANCHOR};
        if (anchor_ms != RETAIN_NO_ANCHOR)
            out[n].cut_ms = cut(z, anchor_ms, rows[i].years, rows[i].months, rows[i].days) -
                            (int64_t)rows[i].hours * HOUR_S * 1000;
        n++;
    }
    return n;
}

/* Only compared for equality within one rule, so that hours, days and weeks are mere numbers. */
static int64_t period(enum retain_reason word, const struct retain_point *p)
{
    int64_t local = dr_floor_div(p->t_ms, 1000) + p->offset_s, day = dr_floor_div(local, DAY_S);
    struct dr_civil c;
    if (word == RETAIN_HOURLY)
        return dr_floor_div(local, HOUR_S);
    if (word == RETAIN_DAILY)
        return day;
    if (word == RETAIN_WEEKLY)
        return day - dr_weekday(day); /* ISO weeks are Monday to Sunday, across years too */
    c = dr_civil_from_days(day);
    return word == RETAIN_MONTHLY ? c.year * 12 + c.month : c.year;
}

static retain_mask apply(struct rule *r, const struct retain_point *p, bool oldest)
{
    if (p->t_ms <= r->cut_ms)
        return 0;
    int64_t now = period(r->word, p);
    bool same = r->any && now == r->last, second = same && r->second;
    r->last = now;
    r->any = true;
    r->second = !same && !p->deep;
    if (!same)
        return (retain_mask)1 << r->word;
    return (second ? RETAIN_BIT(RUNNER_UP) : 0) | (oldest ? RETAIN_BIT(OLDEST) : 0);
}

void retain_ladder(const struct retain_policy *p, const struct retain_zone *z, int64_t anchor_ms,
                   const struct retain_point *list, size_t n, retain_mask *kept,
                   int64_t *widest_cut_ms)
{
    struct rule rules[RULES];
    unsigned count = rules_of(p, z, anchor_ms, rules);
    *widest_cut_ms = INT64_MAX;
    for (unsigned r = 0; r < count; r++)
        if (rules[r].cut_ms < *widest_cut_ms)
            *widest_cut_ms = rules[r].cut_ms;
    for (size_t i = 0; i < n; i++)
        for (unsigned r = 0; r < count; r++)
            kept[i] |= apply(&rules[r], &list[i], p->keep_oldest && i + 1 == n);
}

int64_t retain_anchor(const struct retain_point *list, size_t n, int64_t now_ms)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].t_ms < now_ms)
            return list[i].t_ms;
    return RETAIN_NO_ANCHOR;
}
