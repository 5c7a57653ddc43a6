/* Shared by the parts of the retention plan. */
#ifndef DR_WORKER_BACKUP_RETAIN_INTERNAL_H
#define DR_WORKER_BACKUP_RETAIN_INTERNAL_H

#include "worker/backup/retain.h"

enum { RETAIN_DAY_MS = 86400000 };
#define RETAIN_NO_ANCHOR INT64_MIN

struct retain_zone {
    int32_t (*offset)(const void *zone, int64_t utc_s); /* NULL: UTC */
    const void *zone;
};
struct retain_point {
    int64_t t_ms;
    int32_t offset_s; /* seconds east of UTC: in which day, week, .. it lies */
    bool deep;        /* false: the next one of its period is kept too */
};

int32_t retain_offset_at(const struct retain_zone *z, int64_t t_ms);
/* The pure function R: list newest first; anchor: newest time before now, or RETAIN_NO_ANCHOR. Adds
 * to kept[i] the rules that keep list[i], and tells the earliest cut: what lies behind it was in
 * range. */
void retain_ladder(const struct retain_policy *p, const struct retain_zone *z, int64_t anchor_ms,
                   const struct retain_point *list, size_t n, retain_mask *kept,
                   int64_t *widest_cut_ms);
/* Newest t before now, from a list newest first. */
int64_t retain_anchor(const struct retain_point *list, size_t n, int64_t now_ms);

/* One plan while it is made. */
struct retain_work {
    const struct retain_input *in;
    struct retain_verdict *verdicts;
    size_t *order;  /* by series, then newest first */
    size_t *by_id;  /* sorted by id */
    int64_t *range; /* earliest cut of the item's ladder; INT64_MAX: has none */
};
/* All items of one series, newest first: order[first .. first + n). */
void retain_series(struct retain_work *w, size_t first, size_t n);
/* What is older than an item whose content is suspect, and a series that stands still. */
void retain_stand_still(struct retain_work *w, const size_t *at, size_t n);
/* Bases of what is kept are kept. */
void retain_close(struct retain_work *w);
/* Which of the deletions wait for a person. */
void retain_confirm(struct retain_work *w, struct retain_plan *p);
static inline bool retain_valid(const struct retain_item *i)
{
    return i->proof == RETAIN_PROVEN || i->proof == RETAIN_DEEP;
}
static inline bool retain_future(const struct retain_input *in, const struct retain_item *i)
{
    return i->t_ms - in->now_ms > (int64_t)in->policy->clock_skew_s * 1000;
}
static inline bool retain_settled(const struct retain_input *in, const struct retain_item *i)
{
    return in->now_ms - i->t_ms > (int64_t)RETAIN_SETTLED_DAYS * RETAIN_DAY_MS;
}

#endif
