/* Takes up open journals, one pass a minute, and calls a human for those that stay open. And what
 * the dispatcher asks of journals. One fiber on the loop thread; owner: main. */
#include "worker/recovery/takeover.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/wire/digest.h"
#include "common/wire/pack.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/recovery/procedure.h"
#include "worker/recovery/resolve.h"

enum {
    GIVE_UP_MS = 600000, /* of attempts, until a human is called */
    OPEN_DELIVERIES_MAX = 3,
    TROUBLES_MAX = 16,
};

struct trouble { /* a journal that could not be settled, since when */
    char run[JOURNAL_RUN_BYTES + 1];
    int64_t since_ms, told_ms;
};

struct takeover {
    const struct job_services *services;
    uint64_t every_ms;
    struct cancel sleep; /* ends the pause, not a run that is being settled */
    bool stopping, running;
    void (*on_stopped)(void *arg);
    void *arg;
    struct trouble troubles[TROUBLES_MAX];
};

/* ---- one journal ---- */

static struct trouble *trouble_of(struct takeover *t, const char *run, bool make)
{
    struct trouble *oldest = &t->troubles[0];
    for (unsigned i = 0; i < TROUBLES_MAX; i++) {
        if (strcmp(t->troubles[i].run, run) == 0)
            return &t->troubles[i];
        if (t->troubles[i].since_ms < oldest->since_ms)
            oldest = &t->troubles[i];
    }
    if (!make)
        return NULL;
    *oldest = (struct trouble){.since_ms = dr_clock_ms()};
    (void)snprintf(oldest->run, sizeof oldest->run, "%s", run);
    return oldest;
}

static void tell_trouble(struct takeover *t, const char *run, const struct dr_err *why)
{
    struct trouble *x = trouble_of(t, run, true);
    int64_t now = dr_clock_ms();
    bool human = why->rc == DR_E_NEEDS_HUMAN || now - x->since_ms > GIVE_UP_MS;
    if (human && x->told_ms && now - x->told_ms < GIVE_UP_MS)
        return;
    if (human)
        x->told_ms = now;
    dr_log_err(human ? DR_LOG_ERROR : DR_LOG_WARN, "recovery.takeover", why, "run", run, "outcome",
               human ? "needs_human" : "open", NULL);
    if (human && t->services->resolved)
        t->services->resolved->stuck(t->services, run, why);
}

/* False: it stays open for trouble. */
static bool take_up(struct takeover *t, const char *run)
{
    struct dr_err err = {0};
    enum dr_rc rc = resolve_run(t->services, run, &err);
    if (rc == DR_E_LOCKED || rc == DR_E_NOT_FOUND)
        return true; /* somebody is at it */
    struct trouble *x = trouble_of(t, run, false);
    if (rc)
        tell_trouble(t, run, &err);
    else if (x)
        *x = (struct trouble){0};
    return !rc;
}

static void pass(struct takeover *t)
{
    char **runs = NULL;
    unsigned open = 0;
    struct dr_err err = {0};
    if (resolve_list(t->services, &runs, &err)) {
        dr_log_err(DR_LOG_ERROR, "recovery.takeover", &err, NULL);
        return;
    }
    for (char **run = runs; *run && !t->stopping; run++)
        open += !take_up(t, *run);
    journal_list_free(runs);
    if (!open && !t->stopping && t->services->resolved)
        t->services->resolved->stuck(t->services, NULL, NULL);
}

static void tell_stopped(void *arg)
{
    struct takeover *t = arg;
    t->on_stopped(t->arg);
}

static void takeover_fiber(void *arg)
{
    struct takeover *t = arg;
    while (!t->stopping) {
        pass(t);
        if (!t->stopping)
            (void)fiber_sleep(t->every_ms, &t->sleep);
    }
    t->running = false;
    if (t->on_stopped)
        loop_next_tick(t->services->loop, tell_stopped, t);
}

struct takeover *takeover_start(const struct job_services *services, uint64_t every_ms)
{
    struct takeover *t = dr_xalloc(sizeof *t);
    t->services = services;
    t->every_ms = every_ms;
    t->running = true;
    cancel_init(&t->sleep, services->loop);
    fiber_start(services->loop, takeover_fiber, t);
    return t;
}

void takeover_stop(struct takeover *t, void (*on_stopped)(void *arg), void *arg)
{
    t->stopping = true;
    t->on_stopped = on_stopped;
    t->arg = arg;
    if (!t->running)
        loop_next_tick(t->services->loop, tell_stopped, t);
    else
        cancel_fire(&t->sleep, DR_E_CANCELLED, "the worker stops");
}

void takeover_free(struct takeover *t)
{
    if (!t)
        return;
    cancel_fini(&t->sleep);
    free(t);
}

/* ---- what the dispatcher asks ---- */

static const char *mid_of(const struct journal *j)
{
    const char *mid = json_string_value(json_object_get(journal_last(j, "run-open", NULL), "mid"));
    return mid ? mid : "";
}

static bool counts_as_open(const struct journal *j)
{
    unsigned deliveries = 0;
    if (journal_count(j) == 0 || journal_is_closed(j))
        return false;
    if (journal_last(j, "step-intent", "quiesce"))
        return true;
    for (size_t i = 0; i < journal_count(j); i++)
        deliveries += strcmp(journal_at(j, i)->type, "run-open") == 0;
    return deliveries <= OPEN_DELIVERIES_MAX;
}

static bool run_is_open(const struct job_services *s, const char *run, const char *mid)
{
    struct journal *j = resolve_peek(s, run);
    bool open = j && counts_as_open(j) && strcmp(mid_of(j), mid) == 0;
    journal_free(j);
    return open;
}

bool takeover_is_open(void *services, const char *mid, const char *job_id)
{
    const struct job_services *s = services;
    char run[DR_RUN_TEXT];
    bool open = false;
    if (!s->store)
        return false;
    if (job_id) {
        dr_run_name(s->ns, job_id, run);
        return run_is_open(s, run, mid);
    }
    char **runs = NULL;
    struct dr_err ignored = {0};
    if (resolve_list(s, &runs, &ignored))
        return false;
    for (char **r = runs; *r && !open; r++)
        open = run_is_open(s, *r, mid);
    journal_list_free(runs);
    return open;
}

static void pack_recorded(struct recovery *r, struct dispatch_recorded *out)
{
    struct dr_buf own;
    bool ok = r->outcome == JOB_DONE || r->outcome == JOB_PARTIAL;
    dr_buf_init(&own, 1 << 20);
    dr_buf_init(&out->result, 1 << 20);
    unsigned pairs = recovery_result(r, &own);
    dr_pack_map(&out->result, pairs + (ok ? 3 : 4));
    dr_pack_pair(&out->result, "outcome", job_outcome_name(r->outcome));
    dr_pack_pair(&out->result, "summary", r->summary);
    dr_pack_text(&out->result, "steps");
    dr_pack_array(&out->result, 0);
    out->outcome = r->outcome;
    if (!ok) {
        (void)dr_fail(&out->err, r->outcome == JOB_NEEDS_HUMAN ? DR_E_NEEDS_HUMAN : DR_E_CANCELLED,
                      "an earlier delivery was interrupted: %s", r->summary);
        dr_pack_text(&out->result, "error");
        dr_pack_map(&out->result, 4);
        dr_pack_pair(&out->result, "kind", dr_rc_name(out->err.rc));
        dr_pack_pair(&out->result, "class", dr_rc_class_name(out->err.rc));
        dr_pack_pair(&out->result, "message", out->err.msg);
        dr_pack_pair(&out->result, "step", "");
    }
    dr_buf_add(&out->result, own.data, own.len);
    dr_buf_fini(&own);
}

enum dispatch_known takeover_is_closed(void *services, const char *mid, const char *job_id,
                                       struct dispatch_recorded *out)
{
    const struct job_services *s = services;
    char run[DR_RUN_TEXT];
    enum dispatch_known known = DISPATCH_UNKNOWN;
    if (!s->store)
        return known;
    dr_run_name(s->ns, job_id, run);
    struct journal *j = resolve_peek(s, run);
    if (!j || journal_count(j) == 0) {
        journal_free(j);
        return known;
    }
    struct recovery r = {.env = s, .journal = j, .kept_old = json_array()};
    const char *id =
        json_string_value(json_object_get(journal_last(j, "run-open", NULL), "procedure"));
    r.procedure = id ? recovery_find(id) : NULL;
    if (strcmp(mid_of(j), mid) != 0) {
        known = DISPATCH_OTHER;
    } else if (r.procedure && journal_is_closed(j) && recovery_read_closed(&r)) {
        pack_recorded(&r, out);
        known = DISPATCH_CLOSED;
    }
    recovery_fini(&r);
    return known;
}
