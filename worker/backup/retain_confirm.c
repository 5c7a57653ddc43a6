/* Blast radius: a plan that gives up much of what is old, or the first one under other rules, waits
 * until a person confirms its hash. What is younger than 7 days is thinned without asking. */
#include <string.h>

#include "worker/backup/retain_internal.h"

struct tally {
    size_t pool, gone;
    uint64_t pool_bytes, gone_bytes;
};

static void count(struct tally *t, const struct retain_item *i, bool keep)
{
    t->pool++;
    t->pool_bytes += i->bytes;
    t->gone += !keep;
    t->gone_bytes += keep ? 0 : i->bytes;
}

static retain_mask judge(const struct tally *t)
{
    retain_mask m = 0;
    if (t->gone <= 1)
        return 0;
    if (t->gone > t->pool - t->gone)
        m |= RETAIN_BIT(CONFIRM_SERIES);
    if (t->gone_bytes > t->pool_bytes - t->gone_bytes)
        m |= RETAIN_BIT(CONFIRM_BYTES);
    return m;
}

static bool other_policy(const struct retain_work *w)
{
    struct dr_buf now;
    bool other = false;
    if (!w->in->applied_policy)
        return false;
    dr_buf_init(&now, RETAIN_POLICY_TEXT_MAX);
    retain_policy_text(w->in->policy, &now);
    other = now.failed || strcmp((const char *)now.data, w->in->applied_policy) != 0;
    dr_buf_fini(&now);
    return other;
}

void retain_confirm(struct retain_work *w, struct retain_plan *p)
{
    struct tally series = {0};
    size_t gone = 0;
    for (size_t k = 0; k < p->count; k++) {
        const struct retain_item *i = &w->in->items[w->order[k]];
        if (k > 0 && strcmp(i->series, w->in->items[w->order[k - 1]].series) != 0) {
            p->confirm |= judge(&series);
            series = (struct tally){0};
        }
        if (retain_settled(w->in, i)) {
            count(&series, i, w->verdicts[w->order[k]].keep);
            gone += !w->verdicts[w->order[k]].keep;
        }
    }
    p->confirm |= judge(&series);
    if (gone > (size_t)w->in->policy->max_delete)
        p->confirm |= RETAIN_BIT(CONFIRM_COUNT);
    if (p->given_up > 0 && other_policy(w))
        p->confirm |= RETAIN_BIT(CONFIRM_POLICY);
    bool all = p->confirm != 0;
    for (size_t k = 0; k < p->count; k++) {
        struct retain_verdict *v = &w->verdicts[k];
        bool damaged = w->in->items[k].proof == RETAIN_DAMAGED && !v->keep;
        v->confirm = !v->keep && (all || damaged);
        p->confirm |= damaged ? RETAIN_BIT(CONFIRM_DAMAGED) : 0;
        p->needs_confirmation = p->needs_confirmation || v->confirm;
    }
}
