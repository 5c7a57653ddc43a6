/* The loop thread: libevent base, next-tick queue, timers, signals, lag meter. Everything here is
 * called on the loop thread; memory is the loop's. */
#ifndef DR_WORKER_CORE_LOOP_H
#define DR_WORKER_CORE_LOOP_H

#include <stdint.h>

#include "common/err.h"

struct event_base;
struct loop;
struct loop_timer;
typedef void loop_fn(void *arg);

enum dr_rc loop_new(struct loop **out, struct dr_err *err) DR_MUST_CHECK;
void loop_free(struct loop *l); /* what stands in the next-tick queue is dropped */
int loop_run(struct loop *l);   /* until loop_stop; 0, or -1 when libevent failed */
void loop_stop(struct loop *l);
struct event_base *loop_base(struct loop *l);

/* fn runs once, in order, before the loop waits again; never from inside this call. */
void loop_next_tick(struct loop *l, loop_fn *fn, void *arg);

struct loop_timer *loop_timer_new(struct loop *l, loop_fn *fn, void *arg);
void loop_timer_arm(struct loop_timer *t, uint64_t ms); /* one shot; re-arms */
void loop_timer_stop(struct loop_timer *t);             /* NULL is allowed */
void loop_timer_free(struct loop_timer *t);             /* NULL is allowed */

enum dr_rc loop_on_signal(struct loop *l, int sig, loop_fn *fn, void *arg,
                          struct dr_err *err) DR_MUST_CHECK;

/* How late a 100 ms timer was: somebody held the thread. */
enum { LOOP_LAG_BOUNDS = 8 };
extern const unsigned loop_lag_bounds_ms[LOOP_LAG_BOUNDS];
struct loop_lag {
    uint64_t max_ms;                      /* since the start */
    uint64_t over_50ms;                   /* times */
    uint64_t sum_ms;                      /* of all turns of the timer */
    uint64_t counts[LOOP_LAG_BOUNDS + 1]; /* by upper bound; the last one is above them all */
    int64_t turned_ms;                    /* dr_clock_ms of the last turn; 0: not started */
};
void loop_lag_start(struct loop *l);
void loop_lag_read(const struct loop *l, struct loop_lag *out);
/* What runs now, for the log line of a late turn; static text or until the next call. */
void loop_label(struct loop *l, const char *label);

#endif
