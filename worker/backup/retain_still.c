/* When a series stands still: its times contradict each other or the clock, a proof failed, or what
 * is left of it is suspect. Then the old ones may be the only good ones. */
#include <stdlib.h>

#include "common/mem.h"
#include "worker/backup/retain_internal.h"

struct stamped {
    uint64_t seq;
    int64_t begin_ms, end_ms;
};

static int by_seq(const void *a, const void *b)
{
    const struct stamped *x = a, *y = b;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* Some backup was complete before one that was recorded earlier had begun. Backups that overlapped
 * may be recorded in either order, and are no anomaly. */
static bool out_of_order(const struct retain_work *w, const size_t *at, size_t n)
{
    struct stamped *list = dr_xarray(n, sizeof *list);
    int64_t skew = (int64_t)w->in->policy->clock_skew_s * 1000, latest = INT64_MIN;
    size_t count = 0;
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        const struct retain_item *it = &w->in->items[at[i]];
        if (it->seq && !it->acknowledged)
            list[count++] = (struct stamped){it->seq, it->t_ms, it->end_ms ? it->end_ms : it->t_ms};
    }
    qsort(list, count, sizeof *list, by_seq);
    for (size_t i = 0; i < count && !found; i++) {
        found = latest != INT64_MIN && list[i].end_ms < latest - skew;
        if (list[i].begin_ms > latest)
            latest = list[i].begin_ms;
    }
    free(list);
    return found;
}

/* The oldest one that the rules keep has warnings: whatever is older and has none may be the last
 * good one. One with warnings of its own is no better: what can never be read holds up nothing. */
static void older_than_suspect(struct retain_work *w, const size_t *at, size_t n)
{
    size_t oldest = n;
    for (size_t i = 0; i < n; i++)
        if (w->verdicts[at[i]].reasons && retain_valid(&w->in->items[at[i]]))
            oldest = i;
    if (oldest == n || !w->in->items[at[oldest]].suspect)
        return;
    for (size_t i = oldest + 1; i < n; i++)
        if (!w->in->items[at[i]].suspect)
            w->verdicts[at[i]].reasons |= RETAIN_BIT(SUSPECT_AFTER);
}

/* The damaged one itself may go once it has been looked at: that deletion wants confirmation, and
 * whoever confirms it knows of the damage; with it the series goes on. */
static bool may_go(const struct retain_item *i)
{
    return i->proof == RETAIN_DAMAGED && !i->frozen;
}

void retain_stand_still(struct retain_work *w, const size_t *at, size_t n)
{
    bool clock = w->in->clock_wrong || out_of_order(w, at, n), frozen = false;
    for (size_t i = 0; i < n; i++) {
        const struct retain_item *it = &w->in->items[at[i]];
        clock = clock || (retain_future(w->in, it) && !it->acknowledged);
        frozen = frozen || it->frozen || it->proof == RETAIN_DAMAGED;
    }
    older_than_suspect(w, at, n);
    for (size_t i = 0; i < n; i++) {
        if (clock)
            w->verdicts[at[i]].reasons |= RETAIN_BIT(CLOCK_ANOMALY);
        if (frozen && !may_go(&w->in->items[at[i]]))
            w->verdicts[at[i]].reasons |= RETAIN_BIT(FROZEN);
    }
}
