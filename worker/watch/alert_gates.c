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
                const struct gate *g)
{
    char text[TEXT_MAX];
    (void)snprintf(text, sizeof text, "%s: %s", g->name, g->detail);
    if (fires)
        alert_raise(a, rule, subject, severity_of(g->status), text, NULL);
    else
        alert_clear(a, rule, subject, text);
}

/* Without an age there is no backup: that is not one which grew old. */
static void on_backup(struct alerts *a, const char *kind, const struct gate *g)
{
    bool bad = g->status > GATE_OK;
    say(a, bad && !g->measured, "backup_missing", kind, g);
    say(a, bad && g->measured, "backup_stale", kind, g);
}

/* What was not looked at is neither broken nor whole. */
static void on_chain(struct alerts *a, const struct gate *at)
{
    if (at->measured || at->status == GATE_CRITICAL)
        say(a, at->status == GATE_CRITICAL, "chain_broken", at->name, at);
}

void alert_on_gate(struct alerts *a, const struct gate *at)
{
    if (dr_starts(at->name, "backup-"))
        on_backup(a, at->name + strlen("backup-"), at);
    else if (strcmp(at->name, "disk") == 0 || strcmp(at->name, "inodes") == 0)
        say(a, at->status > GATE_OK, "disk_low", at->name, at);
    else if (strcmp(at->name, "schedules") == 0)
        say(a, at->status > GATE_OK, "schedule_late", at->name, at);
    else if (strcmp(at->name, "catalog-head") == 0)
        on_chain(a, at);
    else if (strcmp(at->name, "retention") == 0 && at->measured)
        say(a, at->status > GATE_OK, "retention_waits", at->name, at);
}

void alert_on_gates(struct alerts *a, const struct gates *g)
{
    const struct gate *worst = NULL;
    for (unsigned i = 0; i < g->count; i++) {
        const struct gate *at = &g->at[i];
        if (!worst || at->status > worst->status)
            worst = at;
        alert_on_gate(a, at);
        if (strcmp(at->name, "catalog") == 0 || strcmp(at->name, "audit") == 0)
            on_chain(a, at);
    }
    if (worst && g->status > GATE_OK)
        say(a, true, "health_drop", "health", worst);
    else
        alert_clear(a, "health_drop", "health", "health is ok");
}
