/* What the gates of `health` say, as alerts: said at each look, told when it changes. */
#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "worker/watch/alert.h"
#include "worker/watch/gates.h"

enum { TEXT_MAX = 256 };

static const char *severity_of(enum gate_status s)
{
    return s == GATE_CRITICAL ? "critical" : "warning";
}

static void say(struct alerts *a, bool fires, const char *rule, const char *subject,
                const struct gate *g, int64_t quiet_ms)
{
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s: %s", g->name, g->detail);
    if (fires)
        alert_raise(a, rule, subject, severity_of(g->status), text, NULL);
    else
        alert_clear_quiet(a, rule, subject, text, quiet_ms);
}

/* A rhythm as long as the RPO is over it in each run: neither news nor the end of any. */
static bool is_tolerated(const struct gate *g)
{
    return g->status == GATE_WARNING && g->value <= g->limit + g->slack && g->slack;
}

/* Without an age there is no backup: that is not one which grew old. Where nobody can look, that is
 * store_unreadable. */
static void on_backup(struct alerts *a, const char *kind, const struct gate *g, int64_t quiet_ms)
{
    bool bad = g->status > GATE_OK;
    if (g->unseen)
        return;
    say(a, bad && !g->measured, "backup_missing", kind, g, quiet_ms);
    if (!is_tolerated(g))
        say(a, bad && g->measured, "backup_stale", kind, g, quiet_ms);
}

/* What was not looked at is neither broken nor whole. */
static void on_chain(struct alerts *a, const struct gate *at, int64_t quiet_ms)
{
    if (at->measured || at->status == GATE_CRITICAL)
        say(a, at->status == GATE_CRITICAL, "chain_broken", at->name, at, quiet_ms);
}

void alert_on_gate(struct alerts *a, const struct gate *at, int64_t quiet_ms)
{
    if (dr_starts(at->name, "backup-"))
        on_backup(a, at->name + strlen("backup-"), at, quiet_ms);
    else if (strcmp(at->name, "disk") == 0 || strcmp(at->name, "inodes") == 0)
        say(a, at->status > GATE_OK, "disk_low", at->name, at, quiet_ms);
    else if (strcmp(at->name, "schedules") == 0)
        say(a, at->status > GATE_OK, "schedule_late", at->name, at, quiet_ms);
    else if (strcmp(at->name, "catalog-head") == 0)
        on_chain(a, at, quiet_ms);
    else if (strcmp(at->name, "retention") == 0 && at->measured)
        say(a, at->status > GATE_OK, "retention_waits", at->name, at, quiet_ms);
}

void alert_on_gates(struct alerts *a, const struct gates *g)
{
    const struct gate *worst = NULL;
    for (unsigned i = 0; i < g->count; i++) {
        const struct gate *at = &g->at[i];
        if (!is_tolerated(at) && (!worst || at->status > worst->status))
            worst = at;
        alert_on_gate(a, at, 0);
        if (strcmp(at->name, "catalog") == 0 || strcmp(at->name, "audit") == 0)
            on_chain(a, at, 0);
    }
    if (worst && worst->status > GATE_OK)
        say(a, true, "health_drop", "health", worst, 0);
    else if (g->status <= GATE_OK)
        alert_clear(a, "health_drop", "health", "health is ok");
}
