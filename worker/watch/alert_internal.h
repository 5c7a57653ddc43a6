/* Shared by alert.c (deciding), alert_ends.c (ends of jobs), alert_send.c (delivering),
 * alert_webhook.c, alert_mail.c, alert_config.c. Not for other folders. */
#ifndef DR_WORKER_WATCH_ALERT_INTERNAL_H
#define DR_WORKER_WATCH_ALERT_INTERNAL_H

#include "common/mem.h"
#include "worker/core/cancel.h"
#include "worker/core/http.h"
#include "worker/queue/alert.h"
#include "worker/watch/alert.h"

struct fiber;

enum {
    ALERT_TARGETS = 2,
    ALERT_RECIPIENTS_MAX = 32,
    ALERT_INBOX_MAX = 64,
    ALERT_ANSWER_TEXT = 300,
};

struct alert_config {                    /* texts are the configuration's, but for the recipients */
    const struct dr_secret *webhook;     /* NULL: none */
    const struct dr_secret *webhook_key; /* len 0: not signed */
    bool allow_private;
    const char *smtp_url, *smtp_user, *from; /* smtp_url "": no mail */
    const struct dr_secret *smtp_password;
    char *recipients;                         /* owned */
    const char *to[ALERT_RECIPIENTS_MAX + 1]; /* into it */
    const char *ca_file;                      /* NULL: the system's */
    int64_t repeat_ms;
    unsigned tries;
    char host[65]; /* who sends */
    const char *ns;
};
enum dr_rc alert_config_read(const struct dr_config *c, struct alert_config *out,
                             struct dr_err *err) DR_MUST_CHECK;
void alert_config_fini(struct alert_config *c);

/* One target: its fiber takes the held notices in their order. */
struct alert_sender {
    struct alerts *alerts;
    unsigned bit;
    enum dr_rc (*send)(struct alerts *a, const struct queue_notice *n, uint64_t *retry_after_s,
                       struct dr_err *err);
    struct fiber *waiting;
    uint64_t sent, failed_tries, given_up;
    bool configured;
};

struct alert_held {
    struct alert_held *next;
    struct queue_notice *notice;
    unsigned left; /* targets of ours that are still to be told */
};

struct alert_word { /* waits in the inbox */
    struct alert_word *next;
    bool clear;
    int64_t quiet_ms;
    const char *rule, *subject, *severity, *summary, *details; /* its own */
};

struct alerts {
    const struct job_services *services;
    struct queue *queue;
    int64_t lease_ms;
    struct alert_config config;
    struct http *http; /* NULL: no target */
    struct alert_sender sender[ALERT_TARGETS];
    unsigned targets; /* configured */
    struct alert_held *held;
    unsigned held_count;
    struct alert_word *inbox;
    unsigned inbox_count;
    struct fiber *inbox_waiting;
    struct cancel stop;
    bool started, testing;
    unsigned fibers;
    void (*done)(void *arg);
    void *done_arg;
    struct alert_counts counts;
};

/* alert.c */
const char *alert_severity(const char *rule); /* what no row of alerts.def has, aborts */
void alert_decide(struct alerts *a, struct queue_alert *what); /* in a fiber: waits for Redis */

/* alert_send.c */
void alert_hold(struct alerts *a, struct queue_notice *n); /* takes it */
void alert_sender_fiber(void *sender);
void alert_beat_fiber(void *alerts);
void alert_fiber_ends(struct alerts *a);

/* One try. In a fiber; AUTH, PROTOCOL, .. as http.h has them; a status that is no success is
 * PROTOCOL. */
enum dr_rc alert_webhook_send(struct alerts *a, const struct queue_notice *n,
                              uint64_t *retry_after_s, struct dr_err *err);
enum dr_rc alert_mail_send(struct alerts *a, const struct queue_notice *n, uint64_t *retry_after_s,
                           struct dr_err *err);
/* Pure; for their tests, too. */
void alert_webhook_body(const struct alert_config *c, const struct queue_notice *n,
                        struct dr_buf *out);
void alert_mail_message(const struct alert_config *c, const struct queue_notice *n, int64_t now_ms,
                        struct dr_buf *out);

#endif
