/* Gates that are watched between health jobs: what they find is raised and cleared as alerts. */
#include <string.h>

#include "common/clock.h"
#include "worker/watch/alert.h"
#include "worker/watch/gates.h"
#include "worker/watch/watch_internal.h"

enum { GRACE_MS = 3600000 }; /* of a worker's start: a new store has no backup yet */

static const struct {
    const char *gate, *rule;
    bool backup; /* of what is protected: it may also be missing */
} watched[] = {
    {"backup-database", "backup_stale", true},
    {"backup-files", "backup_stale", true},
    {"backup-config", "backup_stale", true},
    {"disk", "disk_low", false},
    {"inodes", "disk_low", false},
    {"schedules", "schedule_late", false},
};

/* A worker that protects less than another one, or could not look, has nothing to say: it must not
 * clear what the others raise. */
static void tell(struct watch *w, const struct gate *g, const char *rule, bool backup)
{
    struct alerts *a = w->o.services->alerts;
    bool missing = backup && g->status == GATE_CRITICAL && !g->measured;
    if (g->status == GATE_NOT_CONFIGURED)
        return;
    if (missing && dr_wall_ms() - w->started_ms > GRACE_MS)
        alert_raise(a, "backup_missing", g->name, NULL, g->detail, "");
    else if (backup && !missing)
        alert_clear(a, "backup_missing", g->name, g->detail);
    if (missing)
        return;
    if (g->status > GATE_OK)
        alert_raise(a, rule, g->name, gate_status_name(g->status), g->detail, "");
    else
        alert_clear(a, rule, g->name, g->detail);
}

void watch_alarm(struct watch *w)
{
    const struct facts *f = &w->facts;
    struct gate_limits limits;
    struct gates g;
    if (!w->o.services->alerts || !f->survey_ms || (f->has_store && !f->store.ok))
        return;
    gates_limits(&limits, w->o.services->config);
    gates_judge(f, &limits, dr_wall_ms(), &g);
    for (unsigned i = 0; i < g.count; i++)
        for (size_t n = 0; n < sizeof watched / sizeof watched[0]; n++)
            if (strcmp(g.at[i].name, watched[n].gate) == 0)
                tell(w, &g.at[i], watched[n].rule, watched[n].backup);
}

void watch_alarm_health(struct watch *w, const struct gates *g, const char *summary)
{
    struct alerts *a = w->o.services->alerts;
    if (g->status == GATE_CRITICAL)
        alert_raise(a, "health_drop", "health", "critical", summary, "");
    else
        alert_clear(a, "health_drop", "health", summary);
}
