/* The rules of one series: who competes, what is kept besides, and when nothing is given up. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/backup/retain_internal.h"

static const struct retain_item *item(const struct retain_work *w, size_t at)
{
    return &w->in->items[at];
}

static void keep(struct retain_work *w, size_t at, retain_mask why)
{
    w->verdicts[at].reasons |= why;
}

static bool competes(const struct retain_work *w, size_t at, enum retain_class class)
{
    const struct retain_item *i = item(w, at);
    return i->class == class && retain_valid(i) && !retain_future(w->in, i);
}

/* The valid, non-future backups of one class go up the ladder among themselves. */
static void climb(struct retain_work *w, const size_t *at, size_t n, enum retain_class class)
{
    const struct retain_zone z = {w->in->offset, w->in->zone};
    struct retain_point *list = dr_xarray(n, sizeof *list);
    retain_mask *kept = dr_xarray(n, sizeof *kept);
    size_t *who = dr_xarray(n, sizeof *who), count = 0;
    int64_t widest;
    for (size_t i = 0; i < n; i++) {
        if (!competes(w, at[i], class))
            continue;
        const struct retain_item *it = item(w, at[i]);
        list[count] = (struct retain_point){it->t_ms, retain_offset_at(&z, it->t_ms),
                                            it->proof == RETAIN_DEEP};
        who[count++] = at[i];
    }
    retain_ladder(w->in->policy, &z, retain_anchor(list, count, w->in->now_ms), list, count, kept,
                  &widest);
    for (size_t i = 0; i < count; i++) {
        keep(w, who[i], kept[i]);
        w->range[who[i]] = widest;
    }
    free(who);
    free(kept);
    free(list);
}

static void keep_newest(struct retain_work *w, const size_t *at, size_t n, unsigned most,
                        bool (*fits)(const struct retain_item *i), retain_mask why)
{
    for (size_t i = 0; i < n && most > 0; i++) {
        const struct retain_item *it = item(w, at[i]);
        if (!retain_valid(it) || retain_future(w->in, it) || !fits(it))
            continue;
        keep(w, at[i], why);
        most--;
    }
}

static bool no_emergency(const struct retain_item *i)
{
    return i->class != RETAIN_EMERGENCY;
}
static bool emergency(const struct retain_item *i)
{
    return i->class == RETAIN_EMERGENCY;
}
static bool drilled(const struct retain_item *i)
{
    return i->drilled_ms > 0;
}
static bool offsite(const struct retain_item *i)
{
    return i->offsite;
}

/* Emergency backups, which may be of a broken target, fill up the minimum only where there is
 * nothing else: so many of them in a row never push the good ones out of it. */
static void minimum(struct retain_work *w, const size_t *at, size_t n)
{
    unsigned want = (unsigned)w->in->policy->min_keep, have = 0;
    for (size_t i = 0; i < n && have < want; i++) {
        const struct retain_item *it = item(w, at[i]);
        have += retain_valid(it) && !retain_future(w->in, it) && no_emergency(it);
    }
    keep_newest(w, at, n, have, no_emergency, RETAIN_BIT(MINIMUM));
    keep_newest(w, at, n, want - have, emergency, RETAIN_BIT(MINIMUM));
    keep_newest(w, at, n, 1, drilled, RETAIN_BIT(LAST_DRILLED));
    keep_newest(w, at, n, 1, offsite, RETAIN_BIT(LAST_OFFSITE));
}

struct sourced {
    const char *source;
    size_t place;
};

static int by_source(const void *a, const void *b)
{
    const struct sourced *x = a, *y = b;
    int c = strcmp(x->source, y->source);
    return c ? c : (x->place > y->place) - (x->place < y->place);
}

static void last_of_sources(struct retain_work *w, const size_t *at, size_t n)
{
    struct sourced *list = dr_xarray(n, sizeof *list);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        const struct retain_item *it = item(w, at[i]);
        if (it->source && it->source[0] && retain_valid(it) && !retain_future(w->in, it))
            list[count++] = (struct sourced){it->source, i};
    }
    qsort(list, count, sizeof *list, by_source);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || strcmp(list[i].source, list[i - 1].source) != 0)
            keep(w, at[list[i].place], RETAIN_BIT(LAST_OF_SOURCE));
    free(list);
}

/* What speaks for one backup by itself. */
static retain_mask own_reasons(const struct retain_input *in, const struct retain_item *i)
{
    int64_t day = RETAIN_DAY_MS, end = i->end_ms ? i->end_ms : i->t_ms;
    bool promised = i->class == RETAIN_CRITICAL || i->class == RETAIN_EMERGENCY;
    retain_mask m = 0;
    if (promised && in->now_ms < i->t_ms + in->policy->critical_days * day)
        m |= RETAIN_BIT(FLOOR);
    if (!retain_valid(i) && in->now_ms < end + RETAIN_DIAGNOSIS_DAYS * day)
        m |= RETAIN_BIT(DIAGNOSIS);
    if (i->pinned)
        m |= RETAIN_BIT(PINNED);
    if (i->held_until_ms > in->now_ms)
        m |= RETAIN_BIT(HELD);
    if (i->leased)
        m |= RETAIN_BIT(LEASED);
    if (i->journal)
        m |= RETAIN_BIT(JOURNAL);
    if (in->offsite_configured && !i->offsite && i->proof != RETAIN_DAMAGED)
        m |= RETAIN_BIT(NOT_OFFSITE);
    if (retain_future(in, i))
        m |= RETAIN_BIT(CLOCK_ANOMALY);
    if (!i->series[0])
        m |= RETAIN_BIT(UNKNOWN);
    return m;
}

void retain_series(struct retain_work *w, size_t first, size_t n)
{
    const size_t *at = w->order + first;
    bool any = false;
    climb(w, at, n, RETAIN_SCHEDULED);
    climb(w, at, n, RETAIN_MANUAL);
    climb(w, at, n, RETAIN_CRITICAL);
    minimum(w, at, n);
    last_of_sources(w, at, n);
    for (size_t i = 0; i < n; i++)
        keep(w, at[i], own_reasons(w->in, item(w, at[i])));
    retain_stand_still(w, at, n);
    for (size_t i = 0; i < n; i++)
        any = any || w->verdicts[at[i]].reasons;
    if (!any)
        keep(w, at[0], RETAIN_BIT(LAST_OF_SERIES));
}
