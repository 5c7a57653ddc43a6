/* Delivery: a fiber a target takes what is held in its order, tries, waits, tries again; another
 * fiber keeps the leases, takes over what dead workers left, and runs delivery tests. */
#include "worker/watch/alert_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/queue/queue.h"

enum { REMINDERS = 16, REST_MS = 7 * 86400000 }; /* a beat; without anybody's word */
enum { RETRY_BASE_MS = 1000, RETRY_CAP_MS = 300000, RETRY_AFTER_MAX_S = 900, DOUBLINGS_MAX = 9 };

void alert_fiber_ends(struct alerts *a)
{
    if (--a->fibers == 0 && a->done)
        loop_next_tick(a->services->loop, a->done, a->done_arg);
}

static void wake_senders(struct alerts *a)
{
    for (unsigned i = 0; i < ALERT_TARGETS; i++) {
        struct fiber *f = a->sender[i].waiting;
        a->sender[i].waiting = NULL;
        if (f)
            fiber_wake(f);
    }
}

void alert_hold(struct alerts *a, struct queue_notice *n)
{
    unsigned left = n->targets & a->targets;
    if (left == 0 || a->held_count >= QUEUE_ALERT_HELD) {
        free(n); /* its lease runs out, and whoever has room takes it */
        return;
    }
    struct alert_held *h = dr_xalloc(sizeof *h), **last = &a->held;
    *h = (struct alert_held){.notice = n, .left = left};
    while (*last)
        last = &(*last)->next;
    *last = h;
    a->held_count++;
    wake_senders(a);
}

static void release(struct alerts *a, struct alert_held *h)
{
    struct alert_held **p = &a->held;
    while (*p != h)
        p = &(*p)->next;
    *p = h->next;
    a->held_count--;
    free(h->notice);
    free(h);
}

/* Full jitter: many workers, and many notices, do not come back at the same time. */
static uint64_t wait_before(unsigned tries, uint64_t retry_after_s)
{
    uint64_t most = (uint64_t)RETRY_BASE_MS << (tries < DOUBLINGS_MAX ? tries - 1 : DOUBLINGS_MAX);
    uint64_t ms =
        (uint64_t)((double)(most < RETRY_CAP_MS ? most : RETRY_CAP_MS) * dr_random_unit());
    uint64_t asked = (retry_after_s < RETRY_AFTER_MAX_S ? retry_after_s : RETRY_AFTER_MAX_S) * 1000;
    return asked > ms ? asked : ms;
}

static void log_try(const struct alert_sender *s, const struct queue_notice *n, unsigned tries,
                    bool given_up, const struct dr_err *err)
{
    char text[12];
    (void)snprintf(text, sizeof text, "%u", tries);
    dr_log_err(given_up ? DR_LOG_ERROR : DR_LOG_WARN,
               given_up ? "alert.undelivered" : "alert.retry", err, "target",
               queue_alert_target_name(s->bit), "rule", n->rule, "subject", n->subject, "id", n->id,
               "tries", text, NULL);
}

/* Tries until the target has it or is given up; false: stopped. */
static bool deliver(struct alert_sender *s, const struct queue_notice *n)
{
    struct alerts *a = s->alerts;
    for (unsigned tries = 1;; tries++) {
        struct dr_err err = {0};
        uint64_t retry_after_s = 0;
        enum dr_rc rc = s->send(a, n, &retry_after_s, &err);
        if (!rc) {
            s->sent++;
            dr_log(DR_LOG_INFO, "alert.sent", "target", queue_alert_target_name(s->bit), "rule",
                   n->rule, "subject", n->subject, "state", n->state, "id", n->id, NULL);
            return true;
        }
        if (cancel_fired(&a->stop))
            return false;
        s->failed_tries++;
        bool given_up = tries >= a->config.tries || rc == DR_E_REFUSED;
        s->given_up += given_up;
        log_try(s, n, tries, given_up, &err);
        if (given_up)
            return true;
        if (fiber_sleep(wait_before(tries, retry_after_s), &a->stop))
            return false;
    }
}

static struct alert_held *next_of(const struct alert_sender *s)
{
    struct alert_held *h = s->alerts->held;
    while (h && !(h->left & s->bit))
        h = h->next;
    return h;
}

void alert_sender_fiber(void *arg)
{
    struct alert_sender *s = arg;
    struct alerts *a = s->alerts;
    while (!cancel_fired(&a->stop)) {
        struct alert_held *h = next_of(s);
        struct dr_err err = {0};
        if (!h) {
            s->waiting = fiber_self();
            fiber_suspend();
            continue;
        }
        if (!deliver(s, h->notice))
            break;
        if (queue_alert_done(a->queue, h->notice->id, s->bit, &err))
            dr_log_err(DR_LOG_WARN, "alert.done", &err, "id", h->notice->id, NULL);
        h->left &= ~s->bit; /* while it was set nobody else could free it */
        if (h->left == 0)
            release(a, h);
    }
    alert_fiber_ends(a);
}

/* "0" or the exit code that the failure would be, and words without secrets. */
static void test_target(struct alerts *a, const struct alert_sender *s, struct queue_notice *n,
                        char text[ALERT_ANSWER_TEXT])
{
    struct dr_err err = {0};
    uint64_t unused = 0;
    if (!s->configured) {
        (void)snprintf(text, ALERT_ANSWER_TEXT, "- not configured");
        return;
    }
    enum dr_rc rc = s->send(a, n, &unused, &err);
    if (!rc)
        (void)snprintf(text, ALERT_ANSWER_TEXT, "0 accepted");
    else
        (void)snprintf(text, ALERT_ANSWER_TEXT, "%d %s: %s", dr_rc_exit(rc), dr_rc_name(rc),
                       err.msg);
}

struct test {
    struct alerts *alerts;
    char id[QUEUE_ALERT_ID];
};

/* Straight to the targets, one try each: the answer is about them, not about the queue before them.
 */
static void test_fiber(void *arg)
{
    struct test *t = arg;
    struct alerts *a = t->alerts;
    struct dr_err err = {0};
    int64_t now = queue_now_ms(a->queue);
    struct queue_notice *n = dr_xalloc(sizeof *n);
    *n = (struct queue_notice){.kind = "test",
                               .state = "test",
                               .severity = "info",
                               .rule = "test",
                               .subject = "alert-test",
                               .summary = "A test of the delivery of alerts",
                               .details = "Nothing is wrong: drproducer alert-test asked for it.",
                               .at_ms = now,
                               .since_ms = now,
                               .count = 1};
    (void)snprintf(n->id, sizeof n->id, "%s", t->id);
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; i < ALERT_TARGETS && !rc; i++) {
        char text[ALERT_ANSWER_TEXT];
        test_target(a, &a->sender[i], n, text);
        rc = queue_alert_answer(a->queue, t->id, queue_alert_target_name(a->sender[i].bit), text,
                                &err);
    }
    if (!rc)
        rc = queue_alert_feed(a->queue, n, &err);
    if (!rc)
        rc = queue_alert_answer(a->queue, t->id, "events", "0 written", &err);
    if (!rc)
        rc = queue_alert_answer(a->queue, t->id, "end", "1", &err);
    if (rc)
        dr_log_err(DR_LOG_WARN, "alert.test", &err, "id", t->id, NULL);
    a->testing = false;
    free(n);
    free(t);
    alert_fiber_ends(a);
}

static void start_test(struct alerts *a, const char *id)
{
    struct test *t = dr_xalloc(sizeof *t);
    t->alerts = a;
    (void)snprintf(t->id, sizeof t->id, "%s", id);
    a->testing = true;
    a->fibers++;
    fiber_start(a->services->loop, test_fiber, t);
}

static void beat(struct alerts *a)
{
    const struct queue_notice *held[QUEUE_ALERT_HELD];
    struct queue_notice *taken[QUEUE_ALERT_TAKE];
    unsigned n = 0, count = 0;
    char test[QUEUE_ALERT_ID] = "";
    struct dr_err err = {0};
    for (const struct alert_held *h = a->held; h && n < QUEUE_ALERT_HELD; h = h->next)
        held[n++] = h->notice;
    if (queue_alert_beat(a->queue, held, n, a->targets, QUEUE_ALERT_HELD - n, taken, &count,
                         a->testing ? NULL : test, &err)) {
        dr_log_err(DR_LOG_WARN, "alert.beat", &err, NULL);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        dr_log(DR_LOG_INFO, "alert.taken_over", "rule", taken[i]->rule, "subject",
               taken[i]->subject, "id", taken[i]->id, NULL);
        a->counts.taken_over++;
        alert_hold(a, taken[i]);
    }
    if (test[0] && !a->testing)
        start_test(a, test);
}

/* What went wrong once has nobody who says it again: reminders hang on what stands in Redis. */
static void remind(struct alerts *a)
{
    struct dr_err err = {0};
    bool due = true;
    for (unsigned i = 0; i < REMINDERS && due; i++) {
        struct queue_notice *notice = NULL;
        unsigned dropped = 0;
        if (queue_alert_remind(a->queue, a->targets, a->config.repeat_ms, REST_MS, &due, &notice,
                               &dropped, &err)) {
            dr_log_err(DR_LOG_WARN, "alert.remind", &err, NULL);
            return;
        }
        a->counts.dropped += dropped;
        a->counts.reminded += due;
        if (notice)
            alert_hold(a, notice);
    }
}

void alert_beat_fiber(void *arg)
{
    struct alerts *a = arg;
    struct dr_err err = {0};
    while (!cancel_fired(&a->stop) && queue_wait_up(a->queue, &err) == DR_OK) {
        beat(a);
        remind(a);
        (void)fiber_sleep((uint64_t)a->lease_ms / 3, &a->stop);
    }
    alert_fiber_ends(a);
}
