/* Event loop. */
#include "worker/core/loop.h"

#include <stdio.h>
#include <stdlib.h>

#include <event2/event.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

enum { LAG_EVERY_MS = 100, LAG_LIMIT_MS = 50, SIGNALS_MAX = 8 };

struct tick {
    struct tick *next;
    loop_fn *fn;
    void *arg;
};

struct loop_timer {
    struct loop *loop;
    struct event *event;
    loop_fn *fn;
    void *arg;
};

struct loop {
    struct event_base *base;
    struct event *tick_event;
    struct tick *first, **last;
    struct tick *spare; /* a few cells are kept: a tick costs no allocation */
    struct loop_timer *signals[SIGNALS_MAX];
    unsigned signal_count;
    struct loop_timer *lag_timer;
    int64_t lag_due_ms;
    struct loop_lag lag;
    char label[96];
};

/* Runs what was queued before it began; what those queue runs in the next turn, after I/O. */
static void run_ticks(evutil_socket_t fd, short what, void *arg)
{
    struct loop *l = arg;
    (void)fd;
    (void)what;
    struct tick *t = l->first;
    l->first = NULL;
    l->last = &l->first;
    while (t) {
        struct tick *next = t->next;
        loop_fn *fn = t->fn;
        void *fn_arg = t->arg;
        t->next = l->spare;
        l->spare = t;
        fn(fn_arg);
        t = next;
    }
}

enum dr_rc loop_new(struct loop **out, struct dr_err *err)
{
    struct loop *l = dr_xalloc(sizeof *l);
    struct event_config *config = event_config_new();
    l->last = &l->first;
    if (config && event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0)
        l->base = event_base_new_with_config(config);
    if (config)
        event_config_free(config);
    if (!l->base || event_base_priority_init(l->base, 3) != 0 ||
        !(l->tick_event = event_new(l->base, -1, 0, run_ticks, l))) {
        loop_free(l);
        return dr_fail(err, DR_E_NOMEM, "event loop");
    }
    *out = l;
    return DR_OK;
}

static void free_ticks(struct tick *t)
{
    while (t) {
        struct tick *next = t->next;
        free(t);
        t = next;
    }
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < l->signal_count; i++)
        loop_timer_free(l->signals[i]);
    loop_timer_free(l->lag_timer);
    if (l->tick_event)
        event_free(l->tick_event);
    free_ticks(l->first);
    free_ticks(l->spare);
    if (l->base)
        event_base_free(l->base);
    free(l);
}

int loop_run(struct loop *l)
{
    return event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0 ? -1 : 0;
}

void loop_stop(struct loop *l)
{
    (void)event_base_loopbreak(l->base);
}

struct event_base *loop_base(struct loop *l)
{
    return l->base;
}

void loop_next_tick(struct loop *l, loop_fn *fn, void *arg)
{
    struct tick *t = l->spare;
    if (t)
        l->spare = t->next;
    else
        t = dr_xalloc(sizeof *t);
    *t = (struct tick){.fn = fn, .arg = arg};
    if (!l->first)
        event_active(l->tick_event, EV_TIMEOUT, 0);
    *l->last = t;
    l->last = &t->next;
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct loop_timer *t = arg;
    (void)fd;
    (void)what;
    t->fn(t->arg);
}

struct loop_timer *loop_timer_new(struct loop *l, loop_fn *fn, void *arg)
{
    struct loop_timer *t = dr_xalloc(sizeof *t);
    *t = (struct loop_timer){.loop = l, .fn = fn, .arg = arg};
    t->event = event_new(l->base, -1, 0, on_event, t);
    if (!t->event)
        abort();
    return t;
}

void loop_timer_arm(struct loop_timer *t, uint64_t ms)
{
    const struct timeval tv = {.tv_sec = (time_t)(ms / 1000),
                               .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
    if (event_add(t->event, &tv) != 0)
        abort();
}

void loop_timer_stop(struct loop_timer *t)
{
    if (t)
        (void)event_del(t->event);
}

void loop_timer_free(struct loop_timer *t)
{
    if (!t)
        return;
    event_free(t->event);
    free(t);
}

enum dr_rc loop_on_signal(struct loop *l, int sig, loop_fn *fn, void *arg, struct dr_err *err)
{
    if (l->signal_count == SIGNALS_MAX)
        return dr_fail(err, DR_E_BUG, "too many signals");
    struct loop_timer *t = dr_xalloc(sizeof *t);
    *t = (struct loop_timer){.loop = l, .fn = fn, .arg = arg};
    t->event = evsignal_new(l->base, sig, on_event, t);
    if (!t->event || event_priority_set(t->event, 0) != 0 || event_add(t->event, NULL) != 0) {
        if (t->event)
            event_free(t->event);
        free(t);
        return dr_fail(err, DR_E_NOMEM, "signal %d", sig);
    }
    l->signals[l->signal_count++] = t;
    return DR_OK;
}

const unsigned loop_lag_bounds_ms[LOOP_LAG_BOUNDS] = {1, 5, 10, 50, 100, 500, 1000, 5000};

static void count_lag(struct loop_lag *lag, uint64_t late_ms)
{
    unsigned i = 0;
    while (i < LOOP_LAG_BOUNDS && late_ms > loop_lag_bounds_ms[i])
        i++;
    lag->counts[i]++;
    lag->sum_ms += late_ms;
    if (late_ms > lag->max_ms)
        lag->max_ms = late_ms;
}

static void on_lag(void *arg)
{
    struct loop *l = arg;
    int64_t now = dr_clock_ms(), late = now - l->lag_due_ms;
    count_lag(&l->lag, late > 0 ? (uint64_t)late : 0);
    l->lag.turned_ms = now;
    if (late > LAG_LIMIT_MS) {
        char text[24];
        l->lag.over_50ms++;
        (void)snprintf(text, sizeof text, "%lld", (long long)late);
        dr_log(DR_LOG_WARN, "loop.late", "ms", text, "ran", l->label, NULL);
    }
    l->lag_due_ms = now + LAG_EVERY_MS;
    loop_timer_arm(l->lag_timer, LAG_EVERY_MS);
}

void loop_lag_start(struct loop *l)
{
    if (!l->lag_timer)
        l->lag_timer = loop_timer_new(l, on_lag, l);
    l->lag.turned_ms = dr_clock_ms();
    l->lag_due_ms = l->lag.turned_ms + LAG_EVERY_MS;
    loop_timer_arm(l->lag_timer, LAG_EVERY_MS);
}

void loop_lag_read(const struct loop *l, struct loop_lag *out)
{
    *out = l->lag;
}

void loop_label(struct loop *l, const char *label)
{
    (void)snprintf(l->label, sizeof l->label, "%s", label);
}
