/* Gates that are watched between health jobs. */
#include <string.h>

#include "common/clock.h"
#include "worker/watch/alert.h"
#include "worker/watch/gates.h"
#include "worker/watch/watch_internal.h"

enum {
    GRACE_MS = 3600000,      /* of a worker's start: a new store has no backup yet */
    ROOM_MS = 600000,        /* that little room stands until it is worth a call */
    UNREADABLE_MS = 60000,   /* a store that is mounted again, a catalog that is busy */
    WATCH_QUIET_MS = 300000, /* nobody sees it any more, wherever it is not seen */
};

/* A worker that protects less than another one has nothing to say of it: it must not clear what the
 * others raise. Without a measure, a backup is missing. */
static bool may_speak(const struct watch *w, const struct gate *g, int64_t now_ms)
{
    if (g->status == GATE_NOT_CONFIGURED)
        return false;
    return g->measured || g->status != GATE_CRITICAL || now_ms - w->started_ms > GRACE_MS;
}

/* Room comes and goes with each backup that is staged. */
static int64_t hold_ms(const struct gate *g)
{
    bool room = strcmp(g->name, "disk") == 0 || strcmp(g->name, "inodes") == 0;
    return room && g->status == GATE_WARNING ? ROOM_MS : 0;
}

/* Since when it stands so; 0: it does not. */
static int64_t since(int64_t before_ms, bool bad, int64_t now_ms)
{
    return !bad ? 0 : before_ms ? before_ms : now_ms;
}

static void say_store(struct watch *w, int64_t now_ms)
{
    static const char rule[] = "store_unreadable", subject[] = "store";
    struct alerts *a = w->o.services->alerts;
    const struct facts_store *s = &w->facts.store;
    if (!w->facts.has_store || !s->at_ms)
        return;
    w->unreadable_since_ms = since(w->unreadable_since_ms, !s->ok, now_ms);
    if (s->ok)
        alert_clear_quiet(a, rule, subject, "the store can be read", WATCH_QUIET_MS);
    else if (now_ms - w->unreadable_since_ms >= UNREADABLE_MS)
        alert_raise(a, rule, subject, NULL, "the store cannot be read", s->why);
}

void watch_say(struct watch *w, const struct gates *g, int64_t now_ms)
{
    say_store(w, now_ms);
    for (unsigned i = 0; i < g->count; i++) {
        const struct gate *at = &g->at[i];
        int64_t *bad_ms = &w->bad_since_ms[i];
        *bad_ms = since(*bad_ms, at->status > GATE_OK, now_ms);
        if (may_speak(w, at, now_ms) && (!*bad_ms || now_ms - *bad_ms >= hold_ms(at)))
            alert_on_gate(w->o.services->alerts, at, WATCH_QUIET_MS);
    }
}

void watch_alarm(struct watch *w)
{
    struct gate_limits limits;
    struct gates g;
    int64_t now_ms = dr_wall_ms();
    /* What drains stops its alerts before its watch, and has others that go on. */
    if (!w->o.services->alerts || w->o.is_draining(w->o.arg) || !w->facts.survey_ms)
        return;
    gates_limits(&limits, w->o.services->config);
    gates_judge(&w->facts, &limits, now_ms, &g);
    watch_say(w, &g, now_ms);
}
