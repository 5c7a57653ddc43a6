/* Lanes: slots, permits, claim, doorbell, drain. What happens to a message: worker/job/delivery.c.
 */
#include "worker/job/dispatch_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/queue/bell.h"
#include "worker/queue/told.h"

enum {
    PAUSED_MS = 1000,
    AFTER_ERROR_MS = 500,
    DUE_MAX_MS = 5000,
    REST_WAIT_MS = 10,
    REST_WAITS_MAX = 100,
};

/* Parses one "name[:slots]" of DR_LANES. */
static enum dr_rc add_lane(struct dispatch *d, const char *name, size_t len, const char *slots,
                           struct dr_err *err)
{
    const struct dr_lane *row = dr_lane_find(name, len);
    uint64_t n = 0;
    const struct job_task *task = NULL;
    for (const struct job_task *const *t = d->o.tasks; row && *t; t++)
        if (strcmp((*t)->type, row->name) == 0)
            task = *t;
    if (!row || !task || (slots && !dr_parse_u64(slots, 1, LANE_SLOTS_MAX, &n))) {
        (void)dr_fail(err, DR_E_CONFIG, "DR_LANES: no such lane, or not 1..%d slots",
                      LANE_SLOTS_MAX);
        return dr_err_field(err, "DR_LANES", name, strlen(name));
    }
    for (unsigned i = 0; i < d->lane_count; i++)
        if (d->lanes[i].row == row)
            return dr_fail(err, DR_E_CONFIG, "DR_LANES: %s stands twice", row->name);
    struct lane *l = &d->lanes[d->lane_count++];
    l->dispatch = d;
    l->row = row;
    l->task = task;
    l->slots = n ? (unsigned)n : task->default_slots ? task->default_slots : 1;
    return DR_OK;
}

static enum dr_rc parse_lanes(struct dispatch *d, struct dr_err *err)
{
    char *copy = dr_xstrdup(d->o.lanes), *save = NULL;
    enum dr_rc rc = DR_OK;
    for (char *p = strtok_r(copy, ", ", &save); p && !rc; p = strtok_r(NULL, ", ", &save)) {
        char *colon = strchr(p, ':');
        rc = add_lane(d, p, colon ? (size_t)(colon - p) : strlen(p), colon ? colon + 1 : NULL, err);
    }
    if (!rc && d->lane_count == 0) /* the default is every task this worker has */
        for (const struct job_task *const *t = d->o.tasks; *t && !rc; t++)
            rc = add_lane(d, (*t)->type, strlen((*t)->type), NULL, err);
    free(copy);
    return rc;
}

static void on_stop(void *arg, void *holder, enum dr_rc why)
{
    (void)arg;
    delivery_stop(holder, why,
                  why == DR_E_STALE ? "another delivery owns the job" : "cancelled by request");
}

static void on_other_head(void *arg, uint64_t seq, const char *sha256_hex)
{
    const struct dispatch *d = arg;
    if (d->o.on_other_head)
        d->o.on_other_head(d->o.arg, seq, sha256_hex);
}

static unsigned poison_limit(void *arg, const char *lane, const char *mid)
{
    const struct dispatch *d = arg;
    const struct dr_lane *row = dr_lane_find(lane, strlen(lane));
    if (d->o.open_run && d->o.open_run(d->o.journals, mid, NULL))
        return 0; /* whoever can must end what the journal began */
    return row ? row->lost_allowed : 5;
}

void dispatch_tell_order(struct dispatch *d, const char *lane, struct dispatch_order *o)
{
    o->lane = lane;
    for (const struct job_task *const *t = d->o.tasks; *t; t++)
        if (strcmp((*t)->type, lane) == 0)
            o->trivial = ((*t)->flags & TASK_TRIVIAL) != 0;
    o->worker = queue_wid(d->queue);
    if (d->o.on_order)
        d->o.on_order(d->o.arg, o);
}

/* A message that a script has buried: nobody could read who ordered what. */
static void tell_buried(struct dispatch *d, const char *lane, const char *job_id,
                        const char *reason, const struct dr_err *why)
{
    struct dispatch_order o = {.verdict = DISPATCH_REFUSED,
                               .job_id = job_id,
                               .actor = "",
                               .kid = "",
                               .claimed_actor = "",
                               .cancelled_by = "",
                               .err = why,
                               .reason = reason};
    dispatch_tell_order(d, lane, &o);
}

static void on_poison(void *arg, const char *lane, const void *raw, size_t len)
{
    struct dispatch *d = arg;
    const struct dr_lane *row = dr_lane_find(lane, strlen(lane));
    char id[DR_JOB_ID_MAX + 1], dig[DR_DIG_TEXT], lost[12];
    struct dr_err why = {0};
    if (d->o.on_poison)
        d->o.on_poison(d->o.arg, lane, raw, len);
    (void)dr_envelope_peek(raw, len, id, dig);
    (void)snprintf(lost, sizeof lost, "%u", row ? row->lost_allowed + 1 : 0);
    (void)dr_fail(&why, DR_E_INVALID, "its workers died too often");
    (void)dr_err_reason(&why, "poison");
    (void)dr_err_field(&why, "deliveries", lost, strlen(lost));
    tell_buried(d, lane, id, "poison", &why);
}

static void tell_too_big(struct lane *l, size_t len)
{
    struct dr_err why = {0};
    char text[24];
    (void)snprintf(text, sizeof text, "%zu", len);
    (void)dr_fail(&why, DR_E_TOO_BIG, "a message over %d bytes", QUEUE_RAW_MAX);
    (void)dr_err_reason(&why, "too-big");
    (void)dr_err_field(&why, "raw", text, strlen(text));
    tell_buried(l->dispatch, l->row->name, "", "too-big", &why);
}

static bool serves_schedules(const struct dispatch_options *o)
{
    return o->schedules && !o->schedules->none && o->sched_key;
}

enum dr_rc dispatch_new(const struct dispatch_options *o, struct dispatch **out, struct dr_err *err)
{
    struct dispatch *d = dr_xalloc(sizeof *d);
    unsigned n = 0;
    d->o = *o;
    if (parse_lanes(d, err)) {
        dispatch_free(d);
        return err->rc;
    }
    for (const struct dr_lane *l = dr_lanes; l->name; l++)
        d->all_lanes[n++] = l->name;
    (void)gethostname(d->host, sizeof d->host - 1);
    (void)snprintf(d->pid, sizeof d->pid, "%ld", (long)getpid());
    dr_format_time(dr_wall_ms(), d->since);
    const char *info[] = {
        "host",    d->host,      "pid",   d->pid,
        "version", DR_VERSION,   "since", d->since,
        "lanes",   d->lane_text, "sched", serves_schedules(o) ? o->schedules->hash : "off"};
    memcpy(d->info, info, sizeof info);
    for (unsigned i = 0; i < d->lane_count; i++) {
        size_t used = strlen(d->lane_text);
        (void)snprintf(d->lane_text + used, sizeof d->lane_text - used, "%s%s:%u", i ? "," : "",
                       d->lanes[i].row->name, d->lanes[i].slots);
    }
    const struct queue_options qo = {.loop = o->services->loop,
                                     .pool = o->services->pool,
                                     .url = o->url,
                                     .ns = o->services->ns,
                                     .lease_ms = o->lease_ms,
                                     .lanes = d->all_lanes,
                                     .info = d->info,
                                     .store_id = o->store_id,
                                     .on_other_head = on_other_head,
                                     .on_stop = on_stop,
                                     .poison_limit = poison_limit,
                                     .on_poison = on_poison,
                                     .arg = d};
    if (queue_new(&qo, &d->queue, err)) {
        dispatch_free(d);
        return err->rc;
    }
    *out = d;
    return DR_OK;
}

void dispatch_free(struct dispatch *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < d->lane_count; i++) {
        queue_bell_free(d->lanes[i].bell);
        loop_timer_free(d->lanes[i].due);
    }
    loop_timer_free(d->drain_timer);
    loop_timer_free(d->rest_timer);
    schedule_free(d->schedules);
    queue_free(d->queue);
    free(d);
}

/* How many messages the lane may take now. */
static unsigned room(const struct lane *l)
{
    unsigned free_slots = l->slots - l->running;
    const struct dispatch *d = l->dispatch;
    if (!(l->task->flags & TASK_HEAVY))
        return free_slots;
    unsigned permits = d->o.concurrency - d->permits_used;
    if ((l->task->flags & TASK_RESERVED_PERMIT) && !l->reserved_held)
        permits++;
    return free_slots < permits ? free_slots : permits;
}

/* A slot and, for heavy tasks, a permit: taken before the claim, since a claim waits. */
static void take_slot(struct lane *l)
{
    l->running++;
    if (!(l->task->flags & TASK_HEAVY))
        return;
    if ((l->task->flags & TASK_RESERVED_PERMIT) && !l->reserved_held) {
        l->reserved_held = true;
    } else {
        l->shared_held++;
        l->dispatch->permits_used++;
    }
}

static void wake_lane(struct lane *l)
{
    if (!l->waiting)
        return;
    struct fiber *f = l->waiting;
    l->waiting = NULL;
    fiber_wake(f);
}

static void give_slot(struct lane *l)
{
    struct dispatch *d = l->dispatch;
    l->running--;
    if (!(l->task->flags & TASK_HEAVY)) {
        wake_lane(l);
        return;
    }
    if (l->shared_held > 0) {
        l->shared_held--;
        d->permits_used--;
    } else {
        l->reserved_held = false;
    }
    for (unsigned i = 0; i < d->lane_count; i++)
        wake_lane(&d->lanes[i]);
}

void dispatch_give_back(struct lane *l)
{
    l->dispatch->running--;
    give_slot(l);
    dispatch_check_drained(l->dispatch);
}

static void wait_for_room(struct lane *l)
{
    while (room(l) == 0 && !l->dispatch->draining) {
        l->waiting = fiber_self();
        fiber_suspend();
    }
}

/* Nothing may be taken from here: the worker ends, once what runs is done. */
static void refuse(struct dispatch *d, const struct dr_err *why)
{
    if (d->draining)
        return;
    d->refusal = *why;
    dr_log_err(DR_LOG_ERROR, "worker.refused", why, NULL);
    dispatch_drain(d);
}

/* The number of messages taken. */
static unsigned claim_some(struct lane *l, int64_t *wait_ms)
{
    struct dispatch *d = l->dispatch;
    struct queue_message messages[QUEUE_BATCH];
    struct dr_err err = {0};
    unsigned count = 0, most = room(l) < QUEUE_BATCH ? room(l) : QUEUE_BATCH;
    bool paused = false;
    *wait_ms = -1;
    for (unsigned i = 0; i < most; i++)
        take_slot(l);
    enum dr_rc rc =
        queue_claim(d->queue, l->row->name, most, messages, &count, wait_ms, &paused, &err);
    for (unsigned i = count; i < most; i++)
        give_slot(l);
    if (rc == DR_E_CONFIG) {
        refuse(d, &err);
        return 0;
    }
    if (rc) {
        if (err.rc != DR_E_UNREACHABLE)
            dr_log_err(DR_LOG_ERROR, "queue.claim", &err, "lane", l->row->name, NULL);
        (void)fiber_sleep(AFTER_ERROR_MS, NULL);
        *wait_ms = 0;
        return 0;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!messages[i].ticket[0])
            continue;
        d->running++;
        delivery_start(l, &messages[i]);
    }
    for (unsigned i = 0; i < count; i++)
        if (!messages[i].ticket[0]) {
            give_slot(l);
            tell_too_big(l, messages[i].len);
        }
    if (count)
        *wait_ms = 0;
    else if (paused)
        *wait_ms = -2;
    return count;
}

/* Claims beside the lane's own fiber as long as there is plenty. */
static void beside_fiber(void *arg)
{
    struct lane *l = arg;
    struct dispatch *d = l->dispatch;
    int64_t wait_ms;
    while (l->again && !d->draining && room(l) > 0 && queue_is_up(d->queue)) {
        l->again = false;
        if (claim_some(l, &wait_ms) == QUEUE_BATCH)
            l->again = true;
    }
    l->beside = false;
    d->lane_fibers--;
    dispatch_check_drained(d);
}

static void claim_beside(struct lane *l)
{
    l->again = true;
    if (l->beside || l->dispatch->draining)
        return;
    l->beside = true;
    l->dispatch->lane_fibers++;
    fiber_start(l->dispatch->o.services->loop, beside_fiber, l);
}

static void on_due(void *arg)
{
    struct lane *l = arg;
    l->due_ms = 0;
    claim_beside(l);
}

void dispatch_due(struct lane *l, int64_t wait_ms)
{
    int64_t at = dr_clock_ms() + (wait_ms > 0 ? wait_ms : 0) + 1;
    if (wait_ms > DUE_MAX_MS || (l->due_ms && l->due_ms <= at))
        return; /* the doorbell comes round sooner */
    if (!l->due)
        l->due = loop_timer_new(l->dispatch->o.services->loop, on_due, l);
    l->due_ms = at;
    loop_timer_arm(l->due, (uint64_t)(at - dr_clock_ms()));
}

static void lane_fiber(void *arg)
{
    struct lane *l = arg;
    struct dispatch *d = l->dispatch;
    struct dr_err err = {0};
    while (!d->draining) {
        int64_t wait_ms;
        wait_for_room(l);
        if (d->draining || queue_wait_up(d->queue, &err))
            break;
        /* While Redis works on one claim the next shall be on its way: else each waits for the
         * other. */
        if (claim_some(l, &wait_ms) == QUEUE_BATCH && room(l) > 0)
            claim_beside(l);
        if (d->draining)
            break;
        if (wait_ms == -2)
            (void)fiber_sleep(PAUSED_MS, NULL);
        else if (wait_ms != 0)
            queue_bell_wait(l->bell, wait_ms);
    }
    d->lane_fibers--;
    dispatch_check_drained(d);
}

static void on_schedules_end(void *arg)
{
    struct dispatch *d = arg;
    d->lane_fibers--;
    dispatch_check_drained(d);
}

static void start_schedules(struct dispatch *d)
{
    enum { TICK_MAX_MS = 5000 };
    const int64_t tick_ms = d->o.lease_ms / 3;
    const struct schedule_options o = {.loop = d->o.services->loop,
                                       .queue = d->queue,
                                       .set = d->o.schedules,
                                       .key = d->o.sched_key,
                                       .ns = d->o.services->ns,
                                       .tick_ms = tick_ms < TICK_MAX_MS ? tick_ms : TICK_MAX_MS,
                                       .on_end = on_schedules_end,
                                       .arg = d};
    if ((d->schedules = schedule_start(&o)))
        d->lane_fibers++;
}

enum dr_rc dispatch_start(struct dispatch *d, struct dr_err *err)
{
    if (queue_start_service(d->queue, err))
        return err->rc;
    for (unsigned i = 0; i < d->lane_count; i++) {
        struct lane *l = &d->lanes[i];
        l->bell = queue_bell_new(d->queue, l->row->name, err);
        if (!l->bell)
            return err->rc;
        d->lane_fibers++;
        fiber_start(d->o.services->loop, lane_fiber, l);
    }
    start_schedules(d);
    return DR_OK;
}

const struct dr_err *dispatch_refusal(const struct dispatch *d)
{
    return d->refusal.rc ? &d->refusal : NULL;
}

bool dispatch_is_draining(const struct dispatch *d)
{
    return d->draining;
}

struct queue *dispatch_queue(struct dispatch *d)
{
    return d->queue;
}

void dispatch_tell(struct dispatch *d, const char *field, const void *msgpack, size_t len)
{
    queue_tell(d->queue, field, msgpack, len);
}

void dispatch_tell_head(struct dispatch *d, uint64_t seq, const char *sha256_hex)
{
    queue_tell_head(d->queue, seq, sha256_hex);
}

int64_t dispatch_redis_ms(const void *dispatch)
{
    const struct dispatch *d = dispatch;
    return queue_now_ms(d->queue);
}

/* The queue's own fibers come back; where Redis does not answer, by losing the connection. */
static void finish_drain(void *arg)
{
    struct dispatch *d = arg;
    if (++d->rest_waits == REST_WAITS_MAX)
        queue_give_up(d->queue);
    if (!queue_at_rest(d->queue) && d->rest_waits < 2 * REST_WAITS_MAX)
        loop_timer_arm(d->rest_timer, REST_WAIT_MS);
    else
        d->o.on_drained(d->o.arg);
}

void dispatch_check_drained(struct dispatch *d)
{
    if (!d->draining || d->drained || d->running > 0 || d->lane_fibers > 0)
        return;
    d->drained = true;
    queue_stop_service(d->queue);
    d->rest_timer = loop_timer_new(d->o.services->loop, finish_drain, d);
    loop_next_tick(d->o.services->loop, finish_drain, d);
}

static void hand_back(void *arg)
{
    struct dispatch *d = arg;
    for (struct delivery *x = d->deliveries; x; x = x->next)
        delivery_stop(x, DR_E_CANCELLED, "drain");
    /* Redis may be away: what cannot be reported now is found by the reaper. */
    if (!queue_is_up(d->queue))
        queue_stop_service(d->queue);
}

bool dispatch_serves(const struct dispatch *d, const char *lane)
{
    for (unsigned i = 0; i < d->lane_count; i++)
        if (strcmp(d->lanes[i].row->name, lane) == 0)
            return true;
    return false;
}

void dispatch_drain(struct dispatch *d)
{
    if (d->draining) {
        hand_back(d);
        return;
    }
    d->draining = true;
    dr_log(DR_LOG_INFO, "worker.drain", NULL);
    schedule_stop(d->schedules);
    for (unsigned i = 0; i < d->lane_count; i++) {
        queue_bell_stop(d->lanes[i].bell);
        wake_lane(&d->lanes[i]);
    }
    if (!queue_is_up(d->queue))
        queue_wake_waiters(d->queue);
    d->drain_timer = loop_timer_new(d->o.services->loop, hand_back, d);
    loop_timer_arm(d->drain_timer, (uint64_t)d->o.drain_ms);
    dispatch_check_drained(d);
}
