/* Years of backups and nightly plans, in memory. */
#include "worker/backup/retain_simulate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/civil.h"
#include "common/mem.h"
#include "worker/backup/retain_internal.h"

/* The times of worker/job/schedules.def. */
enum { MINUTE_MS = 60000, HOUR_MS = 3600000, RETENTION_AT_MS = 255 * MINUTE_MS };

static const struct {
    const char *series;
    int every_ms, at_ms; /* of the day, UTC */
} schedules[RETAIN_SIM_SERIES] = {{"database:default", HOUR_MS, 0},
                                  {"files:default", RETAIN_DAY_MS, 90 * MINUTE_MS},
                                  {"config:default", RETAIN_DAY_MS, 75 * MINUTE_MS},
                                  {"full:default", RETAIN_DAY_MS, 135 * MINUTE_MS}};

struct live {
    struct retain_item item;
    int series;
    retain_mask reasons;
    char id[32];
};

struct world {
    const struct retain_sim_options *o;
    struct retain_sim *sim;
    struct live *live;
    size_t count, cap;
    uint64_t seq[RETAIN_SIM_SERIES];
};

const char *retain_sim_name(int series)
{
    return schedules[series].series;
}

static void make(struct world *w, int series, int64_t t_ms)
{
    if (w->count == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 256;
        w->live = dr_xrealloc(w->live, w->cap * sizeof *w->live);
    }
    struct live *l = &w->live[w->count++];
    *l = (struct live){.series = series};
    l->item = (struct retain_item){.series = schedules[series].series,
                                   .t_ms = t_ms,
                                   .seq = ++w->seq[series],
                                   .bytes = 1,
                                   .class = RETAIN_SCHEDULED,
                                   .proof = RETAIN_PROVEN};
    (void)snprintf(l->id, sizeof l->id, "%d-%llu", series, (unsigned long long)l->item.seq);
    w->sim->made[series]++;
}

/* One night's plan, applied; what the night before left has been proven again by then. */
static enum dr_rc night(struct world *w, int64_t now_ms, struct retain_sim_day *day,
                        struct dr_err *err)
{
    struct retain_item *items = dr_xarray(w->count + 1, sizeof *items);
    struct retain_plan *p = NULL;
    for (size_t i = 0; i < w->count; i++) {
        items[i] = w->live[i].item;
        items[i].id = w->live[i].id;
        if (now_ms - items[i].t_ms > RETAIN_DAY_MS)
            items[i].proof = RETAIN_DEEP;
    }
    const struct retain_input in = {.policy = w->o->policy,
                                    .items = items,
                                    .count = w->count,
                                    .now_ms = now_ms,
                                    .offset = w->o->offset,
                                    .zone = w->o->zone};
    enum dr_rc rc = retain_plan(&in, &p, err);
    *day = (struct retain_sim_day){.t_ms = now_ms, .waited = !rc && p->needs_confirmation};
    size_t left = 0;
    for (size_t i = 0; i < w->count && !rc; i++) {
        if (!p->verdicts[i].keep && !p->verdicts[i].confirm)
            continue;
        w->live[left] = w->live[i];
        w->live[left++].reasons = p->verdicts[i].reasons;
        day->kept[w->live[i].series]++;
    }
    if (!rc)
        w->count = left;
    w->sim->waited += day->waited;
    retain_plan_free(p);
    free(items);
    return rc;
}

static enum dr_rc live_a_day(struct world *w, int64_t midnight_ms, struct dr_err *err)
{
    int64_t now = midnight_ms + RETENTION_AT_MS;
    for (int series = 0; series < RETAIN_SIM_SERIES; series++)
        for (int64_t t = midnight_ms - RETAIN_DAY_MS + schedules[series].at_ms; t < now;
             t += schedules[series].every_ms)
            if (t >= w->o->start_ms && t >= now - RETAIN_DAY_MS)
                make(w, series, t);
    return night(w, now, &w->sim->days[w->sim->day_count++], err);
}

static int by_series_newest_first(const void *a, const void *b)
{
    const struct retain_sim_backup *x = a, *y = b;
    if (x->series != y->series)
        return x->series - y->series;
    return (x->t_ms < y->t_ms) - (x->t_ms > y->t_ms);
}

static void hand_over(struct world *w)
{
    struct retain_sim *s = w->sim;
    s->left_count = w->count;
    s->left = dr_xarray(w->count + 1, sizeof *s->left);
    for (size_t i = 0; i < w->count; i++)
        s->left[i] =
            (struct retain_sim_backup){w->live[i].series, w->live[i].item.t_ms, w->live[i].reasons};
    qsort(s->left, s->left_count, sizeof *s->left, by_series_newest_first);
}

enum dr_rc retain_simulate(const struct retain_sim_options *o, struct retain_sim **out,
                           struct dr_err *err)
{
    struct retain_sim_options here = *o;
    struct world w = {.o = &here, .sim = dr_xalloc(sizeof *w.sim)};
    int64_t first = dr_floor_div(o->start_ms, RETAIN_DAY_MS);
    struct dr_civil c = dr_civil_from_days(first);
    int64_t last = dr_days_from_civil(c.year + o->years, c.month, c.day);
    enum dr_rc rc = DR_OK;
    if (o->years < 1 || o->years > RETAIN_SIM_YEARS || c.year < 1970 || c.year + o->years > 9999)
        rc = dr_fail(err, DR_E_INVALID, "simulation: 1..%d years, between 1970 and 9999",
                     RETAIN_SIM_YEARS);
    if (!rc) {
        here.start_ms = first * RETAIN_DAY_MS;
        w.sim->days = dr_xarray((size_t)(last - first) + 1, sizeof *w.sim->days);
    }
    for (int64_t day = first; !rc && day <= last; day++)
        rc = live_a_day(&w, day * RETAIN_DAY_MS, err);
    if (!rc)
        hand_over(&w);
    free(w.live);
    if (rc)
        retain_sim_free(w.sim);
    else
        *out = w.sim;
    return rc;
}

void retain_sim_free(struct retain_sim *s)
{
    if (!s)
        return;
    free(s->days);
    free(s->left);
    free(s);
}
