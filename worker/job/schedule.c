/* The scheduler's fiber. */
#include "worker/job/schedule.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/str.h"
#include "common/wire/scan.h"
#include "common/wire/sched.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/queue/schedule.h"

enum {
    SEED_TICKS = 2,         /* heals what FLUSHALL took; a changed configuration is noticed */
    HERD_MS = 500,          /* workers that wake for one slot come one after the other */
    AFTER_ERROR_MS = 1000,  /* also how often it looks whether Redis is back */
    BACKOFF_MAX_MS = 30000, /* of one schedule that Redis refuses */
    RECORD_DAYS = 14,
};

struct entry {
    const struct schedule *schedule;
    struct queue_schedule seen;
    int64_t herd_ms; /* drawn anew for each slot, of herd_slot_ms */
    int64_t herd_slot_ms;
    int64_t backoff_ms, again_ms; /* 0: it went well; dr_clock_ms until which it is left alone */
    bool warned;
};

struct schedule_runner {
    struct schedule_options o;
    struct entry at[SCHEDULES_MAX];
    unsigned count;
    int64_t since_ms, seeded_ms; /* seeded: dr_clock_ms; 0: not */
    uint64_t generation;
    struct cancel stop, *nap;
    bool stopped;
};

static void wake(void *arg)
{
    struct schedule_runner *r = arg;
    r->seeded_ms = 0; /* what was written by the other clock is looked at again */
    if (r->nap)
        cancel_fire(r->nap, DR_E_CANCELLED, "clock");
}

static void nap(struct schedule_runner *r, int64_t ms)
{
    struct cancel c;
    cancel_init(&c, r->o.loop);
    cancel_link(&c, &r->stop);
    r->nap = &c;
    (void)fiber_sleep((uint64_t)(ms > 0 ? ms : 1), &c);
    r->nap = NULL;
    cancel_fini(&c);
}

static enum dr_rc seed(struct schedule_runner *r, struct dr_err *err)
{
    struct queue_schedule all[SCHEDULES_MAX];
    uint64_t generation = queue_generation(r->o.queue);
    int64_t now;
    if (!r->since_ms && queue_seed(r->o.queue, all, 0, &r->since_ms, err)) /* what time is it? */
        return err->rc;
    now = queue_now_ms(r->o.queue);
    for (unsigned i = 0; i < r->count; i++) {
        all[i] = r->at[i].seen;
        all[i].first_ms = schedule_next(r->at[i].schedule, now);
    }
    if (queue_seed(r->o.queue, all, r->count, &r->since_ms, err))
        return err->rc;
    for (unsigned i = 0; i < r->count; i++) {
        struct entry *e = &r->at[i];
        if (r->generation != generation)
            e->backoff_ms = 0; /* another Redis, or one that was mended */
        e->seen = all[i];
        if (!e->seen.ours && !e->warned)
            dr_log(DR_LOG_WARN, "schedule.other", "name", e->schedule->name, "msg",
                   "a worker that was started later has another definition, which counts", NULL);
        e->warned = !e->seen.ours;
    }
    dr_log(DR_LOG_DEBUG, "schedule.seed", NULL);
    r->seeded_ms = dr_clock_ms();
    r->generation = generation;
    return DR_OK;
}

static void say(const struct entry *e, const struct schedule_step *step, enum queue_fired how,
                const char *jid)
{
    char slot[DR_TIME_TEXT];
    dr_format_time(step->slot_ms, slot);
    if (how == QUEUE_FIRED)
        dr_log(DR_LOG_INFO, "schedule.fired", "name", e->schedule->name, "slot", slot, "job", jid,
               NULL);
    else if (how == QUEUE_PASSED || how == QUEUE_OVERLAP)
        dr_log(DR_LOG_WARN, "schedule.passed", "name", e->schedule->name, "slot", slot, "why",
               how == QUEUE_OVERLAP ? "overlap" : step->why, NULL);
}

/* The slot that has come: its job, or the slots that nobody fired in time, are moved on. */
static enum dr_rc fire(struct schedule_runner *r, struct entry *e, int64_t now, struct dr_err *err)
{
    const struct schedule *s = e->schedule;
    char id[DR_JOB_ID_MAX + 1], dig[DR_DIG_TEXT];
    struct dr_buf raw;
    struct schedule_step step;
    enum queue_fired how = QUEUE_ALREADY;
    schedule_decide(s, e->seen.next_ms, now, &step);
    const struct dr_sched_spec spec = {.ns = r->o.ns,
                                       .lane = s->lane,
                                       .name = s->name,
                                       .slot_ms = step.slot_ms,
                                       .late_ms = s->late_ms,
                                       .args = s->args,
                                       .key = r->o.key};
    dr_buf_init(&raw, DR_WIRE_RAW_MAX);
    enum dr_rc rc = dr_sched_build(&spec, &raw, id, dig, err);
    const struct queue_slot slot = {.slot_ms = step.slot_ms,
                                    .next_ms = step.next_ms,
                                    .raw = step.fire ? raw.data : NULL,
                                    .len = raw.len,
                                    .jid = id,
                                    .dig = dig,
                                    .why = step.why,
                                    .ttl_ms = (int64_t)RECORD_DAYS * 86400000 + s->late_ms,
                                    .unless_live = s->skip_overlap,
                                    .waits_ms = s->late_ms};
    if (!rc)
        rc = queue_fire(r->o.queue, &e->seen, &slot, &how, err);
    dr_buf_fini(&raw);
    if (rc)
        return dr_wrap(err, "schedule %s", s->name);
    say(e, &step, how, id);
    if (how == QUEUE_NO_SLOT || how == QUEUE_OTHER)
        r->seeded_ms = 0;
    return DR_OK;
}

/* When this worker turns to the slot. */
static int64_t turn_ms(struct entry *e)
{
    if (e->herd_slot_ms != e->seen.next_ms) {
        e->herd_slot_ms = e->seen.next_ms;
        e->herd_ms = (int64_t)(dr_random_unit() * (double)HERD_MS);
    }
    return schedule_due(e->schedule, e->seen.next_ms) + e->herd_ms;
}

static bool is_served(const struct entry *e)
{
    return e->seen.ours && e->seen.definition_len && e->seen.next_ms;
}

/* What is wrong with one schedule, as a lane's list that is none, must not silence the others. */
static void back_off(struct entry *e, const struct dr_err *why)
{
    e->backoff_ms = e->backoff_ms ? 2 * e->backoff_ms : AFTER_ERROR_MS;
    if (e->backoff_ms > BACKOFF_MAX_MS)
        e->backoff_ms = BACKOFF_MAX_MS;
    e->again_ms = dr_clock_ms() + e->backoff_ms;
    dr_log_err(DR_LOG_WARN, "schedule", why, "name", e->schedule->name, NULL);
}

/* Until its slot is to be looked at; <= 0: now. */
static int64_t left_ms(struct entry *e, int64_t now)
{
    int64_t slot = turn_ms(e) - now, held = e->backoff_ms ? e->again_ms - dr_clock_ms() : 0;
    return slot > held ? slot : held;
}

/* Fires what is due; *wait_ms: until the next one. A lost connection ends the turn. */
static enum dr_rc turn(struct schedule_runner *r, int64_t *wait_ms, struct dr_err *err)
{
    *wait_ms = r->o.tick_ms;
    for (unsigned i = 0; i < r->count && !r->stopped; i++) {
        struct entry *e = &r->at[i];
        int64_t now = queue_now_ms(r->o.queue);
        if (!is_served(e))
            continue;
        if (left_ms(e, now) <= 0) {
            if (!fire(r, e, now, err))
                e->backoff_ms = 0;
            else if (err->rc == DR_E_UNREACHABLE)
                return err->rc;
            else
                back_off(e, err);
            dr_err_clear(err);
        }
        if (is_served(e) && left_ms(e, now) < *wait_ms)
            *wait_ms = left_ms(e, now);
    }
    return DR_OK;
}

static void serve(void *arg)
{
    struct schedule_runner *r = arg;
    struct dr_err err = {0};
    while (!r->stopped) {
        int64_t wait_ms = AFTER_ERROR_MS;
        dr_err_clear(&err);
        if (!queue_is_up(r->o.queue)) {
            nap(r, wait_ms);
            continue;
        }
        if (!r->seeded_ms || r->generation != queue_generation(r->o.queue) ||
            dr_clock_ms() - r->seeded_ms >= SEED_TICKS * r->o.tick_ms)
            (void)seed(r, &err);
        if (!err.rc)
            (void)turn(r, &wait_ms, &err);
        if (err.rc) {
            dr_log_err(DR_LOG_WARN, "schedule", &err, NULL);
            wait_ms = AFTER_ERROR_MS;
        }
        if (!r->stopped)
            nap(r, wait_ms);
    }
    queue_on_clock(r->o.queue, NULL, NULL);
    r->o.on_end(r->o.arg);
}

struct schedule_runner *schedule_start(const struct schedule_options *o)
{
    if (!o->set || o->set->none || !o->key)
        return NULL;
    struct schedule_runner *r = dr_xalloc(sizeof *r);
    r->o = *o;
    for (unsigned i = 0; i < o->set->count; i++) {
        const struct schedule *s = &o->set->at[i];
        if (s->off && strcmp(s->off, "off") != 0)
            continue; /* nothing is said of what this worker could not run */
        struct entry *e = &r->at[r->count++];
        e->schedule = s;
        e->seen = (struct queue_schedule){.name = s->name,
                                          .lane = s->lane,
                                          .when = s->when,
                                          .definition = s->bytes.data,
                                          .definition_len = s->bytes.len};
    }
    cancel_init(&r->stop, o->loop);
    queue_on_clock(o->queue, wake, r);
    fiber_start(o->loop, serve, r);
    return r;
}

void schedule_stop(struct schedule_runner *r)
{
    if (!r || r->stopped)
        return;
    r->stopped = true;
    cancel_fire(&r->stop, DR_E_CANCELLED, "stopped");
}

void schedule_free(struct schedule_runner *r)
{
    if (r)
        cancel_fini(&r->stop);
    free(r);
}
