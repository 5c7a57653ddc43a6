/* What is raised and cleared: the inbox of all who have something to say, and the decision. */
#include "worker/watch/alert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/queue/queue.h"
#include "worker/watch/alert_internal.h"

static const struct {
    const char *name, *severity;
} rules[] = {
#define ALERT(name, severity) {name, severity},
#include "worker/watch/alerts.def"
#undef ALERT
};

const char *alert_severity(const char *rule)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (strcmp(rules[i].name, rule) == 0)
            return rules[i].severity;
    abort(); /* rules are literals of ours */
}

enum dr_rc alert_new(const struct job_services *services, struct queue *queue, int64_t lease_ms,
                     struct alerts **out, struct dr_err *err)
{
    struct alerts *a = dr_xalloc(sizeof *a);
    *a = (struct alerts){.services = services, .queue = queue, .lease_ms = lease_ms};
    cancel_init(&a->stop, services->loop);
    if (alert_config_read(services->config, &a->config, err) ||
        ((a->config.webhook || a->config.smtp_url[0]) && http_new(services->loop, &a->http, err))) {
        alert_free(a);
        return err->rc;
    }
    a->sender[0] = (struct alert_sender){.alerts = a,
                                         .bit = QUEUE_ALERT_WEBHOOK,
                                         .send = alert_webhook_send,
                                         .configured = a->config.webhook != NULL};
    a->sender[1] = (struct alert_sender){.alerts = a,
                                         .bit = QUEUE_ALERT_MAIL,
                                         .send = alert_mail_send,
                                         .configured = a->config.smtp_url[0] != 0};
    for (unsigned i = 0; i < ALERT_TARGETS; i++)
        a->targets |= a->sender[i].configured ? a->sender[i].bit : 0;
    *out = a;
    return DR_OK;
}

static void word_free(struct alert_word *w)
{
    free((char *)w->rule);
    free((char *)w->subject);
    free((char *)w->severity);
    free((char *)w->summary);
    free((char *)w->details);
    free(w);
}

void alert_free(struct alerts *a)
{
    if (!a)
        return;
    while (a->inbox) {
        struct alert_word *next = a->inbox->next;
        word_free(a->inbox);
        a->inbox = next;
    }
    while (a->held) {
        struct alert_held *next = a->held->next;
        free(a->held->notice);
        free(a->held);
        a->held = next;
    }
    http_free(a->http);
    alert_config_fini(&a->config);
    cancel_fini(&a->stop);
    free(a);
}

void alert_decide(struct alerts *a, struct queue_alert *what)
{
    struct queue_notice *notice = NULL;
    enum queue_alert_said said;
    unsigned dropped;
    struct dr_err err = {0};
    what->targets = a->targets;
    if (queue_alert_decide(a->queue, what, &said, &notice, &dropped, &err)) {
        dr_log_err(DR_LOG_ERROR, "alert.undecided", &err, "rule", what->rule, "subject",
                   what->subject, "summary", what->summary, NULL);
        return;
    }
    a->counts.dropped += dropped + (said == QUEUE_ALERT_FULL);
    a->counts.repeated += said == QUEUE_ALERT_REPEATED;
    if (said == QUEUE_ALERT_NEWS) {
        *(what->clear ? &a->counts.resolved : &a->counts.raised) += 1;
        dr_log(what->clear ? DR_LOG_INFO : DR_LOG_WARN,
               what->clear ? "alert.resolved" : "alert.firing", "rule", what->rule, "subject",
               what->subject, "severity", what->severity, "summary", what->summary, "details",
               what->details[0] ? what->details : NULL, NULL);
    }
    if (notice)
        alert_hold(a, notice);
}

static void inbox_fiber(void *arg)
{
    struct alerts *a = arg;
    struct dr_err err = {0};
    while (!cancel_fired(&a->stop)) {
        struct alert_word *w = a->inbox;
        if (!w) {
            a->inbox_waiting = fiber_self();
            fiber_suspend();
            continue;
        }
        if (queue_wait_up(a->queue, &err)) /* until then a later word may take its place */
            break;
        w = a->inbox;
        a->inbox = w->next;
        a->inbox_count--;
        struct queue_alert what = {.clear = w->clear,
                                   .rule = w->rule,
                                   .subject = w->subject,
                                   .severity = w->severity,
                                   .quiet_ms = w->quiet_ms,
                                   .summary = w->summary,
                                   .details = w->details};
        alert_decide(a, &what);
        word_free(w);
    }
    alert_fiber_ends(a);
}

/* One word an alert: the last one counts; what was to be cleared at once still is. */
static void put(struct alerts *a, struct alert_word *w)
{
    struct alert_word **p = &a->inbox;
    while (*p && (strcmp((*p)->rule, w->rule) != 0 || strcmp((*p)->subject, w->subject) != 0))
        p = &(*p)->next;
    if (*p) {
        if (w->clear && (*p)->clear && (*p)->quiet_ms < w->quiet_ms)
            w->quiet_ms = (*p)->quiet_ms;
        w->next = (*p)->next;
        word_free(*p);
        *p = w;
        return;
    }
    if (a->inbox_count == ALERT_INBOX_MAX) {
        struct alert_word *oldest = a->inbox;
        dr_log(DR_LOG_ERROR, "alert.dropped", "rule", oldest->rule, "subject", oldest->subject,
               "summary", oldest->summary, NULL);
        a->counts.dropped++;
        a->inbox = oldest->next;
        word_free(oldest);
        a->inbox_count--;
        for (p = &a->inbox; *p;)
            p = &(*p)->next;
    }
    *p = w;
    a->inbox_count++;
    if (a->inbox_waiting)
        fiber_wake(a->inbox_waiting);
    a->inbox_waiting = NULL;
}

static void say(struct alerts *a, const struct alert_word *said)
{
    const char *usual = alert_severity(said->rule);
    if (!a)
        return;
    struct alert_word *w = dr_xalloc(sizeof *w);
    *w = *said;
    w->rule = dr_xstrdup(said->rule);
    w->subject = dr_xstrdup(said->subject);
    w->severity = dr_xstrdup(said->severity ? said->severity : usual);
    w->summary = dr_xstrdup(said->summary);
    w->details = dr_xstrdup(said->details ? said->details : "");
    put(a, w);
}

void alert_raise(struct alerts *a, const char *rule, const char *subject, const char *severity,
                 const char *summary, const char *details)
{
    const struct alert_word w = {.rule = rule,
                                 .subject = subject,
                                 .severity = severity,
                                 .summary = summary,
                                 .details = details};
    say(a, &w);
}

void alert_clear_quiet(struct alerts *a, const char *rule, const char *subject, const char *summary,
                       int64_t quiet_ms)
{
    const struct alert_word w = {
        .clear = true, .rule = rule, .subject = subject, .summary = summary, .quiet_ms = quiet_ms};
    say(a, &w);
}

void alert_clear(struct alerts *a, const char *rule, const char *subject, const char *summary)
{
    alert_clear_quiet(a, rule, subject, summary, 0);
}

void alert_start(struct alerts *a)
{
    struct loop *l = a->services->loop;
    a->started = true;
    a->fibers = 2 + ALERT_TARGETS;
    fiber_start(l, inbox_fiber, a);
    fiber_start(l, alert_beat_fiber, a);
    for (unsigned i = 0; i < ALERT_TARGETS; i++)
        fiber_start(l, alert_sender_fiber, &a->sender[i]);
}

static void wake(struct fiber **f)
{
    struct fiber *waiting = *f;
    *f = NULL;
    if (waiting)
        fiber_wake(waiting);
}

void alert_stop(struct alerts *a, void (*done)(void *arg), void *arg)
{
    a->done = done;
    a->done_arg = arg;
    cancel_fire(&a->stop, DR_E_CANCELLED, "the worker ends");
    wake(&a->inbox_waiting);
    for (unsigned i = 0; i < ALERT_TARGETS; i++)
        wake(&a->sender[i].waiting);
    if (a->fibers == 0)
        loop_next_tick(a->services->loop, done, arg);
}

void alert_read_counts(const struct alerts *a, struct alert_counts *out)
{
    *out = a->counts;
    for (unsigned i = 0; i < ALERT_TARGETS; i++) {
        const struct alert_sender *s = &a->sender[i];
        out->target[i] = (struct alert_target_counts){.name = queue_alert_target_name(s->bit),
                                                      .configured = s->configured,
                                                      .sent = s->sent,
                                                      .failed_tries = s->failed_tries,
                                                      .given_up = s->given_up};
        for (const struct alert_held *h = a->held; h; h = h->next)
            out->target[i].waiting += (h->left & s->bit) != 0;
    }
}
