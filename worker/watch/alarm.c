/* Gates that are watched between health jobs. */
#include <string.h>

#include "common/clock.h"
#include "worker/watch/alert.h"
#include "worker/watch/gates.h"
#include "worker/watch/watch_internal.h"

enum { GRACE_MS = 3600000 }; /* of a worker's start: a new store has no backup yet */

/* A worker that protects less than another one has nothing to say of it: it must not clear what the
 * others raise. Without a measure, a backup is missing. */
static bool may_speak(const struct watch *w, const struct gate *g, int64_t now_ms)
{
    if (g->status == GATE_NOT_CONFIGURED)
        return false;
    return g->measured || g->status != GATE_CRITICAL || now_ms - w->started_ms > GRACE_MS;
}

/* Of a store that cannot be read it can still be told that it was put back. */
static bool is_seen(const struct facts *f, const struct gate *g)
{
    return !f->has_store || f->store.ok || strcmp(g->name, "catalog-head") == 0;
}

void watch_alarm(struct watch *w)
{
    const struct facts *f = &w->facts;
    struct gate_limits limits;
    struct gates g;
    int64_t now_ms = dr_wall_ms();
    /* What drains stops its alerts before its watch, and has others that go on. */
    if (!w->o.services->alerts || w->o.is_draining(w->o.arg) || !f->survey_ms)
        return;
    gates_limits(&limits, w->o.services->config);
    gates_judge(f, &limits, now_ms, &g);
    for (unsigned i = 0; i < g.count; i++)
        if (may_speak(w, &g.at[i], now_ms) && is_seen(f, &g.at[i]))
            alert_on_gate(w->o.services->alerts, &g.at[i]);
}
