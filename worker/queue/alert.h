/* Alerts as all workers of a namespace share them: `alert` says which ones fire, `alert:out` which
 * notices are still to be delivered and by whom. A notice is leased like a job: its worker says at
 * every beat that it is at it, and one whose worker died is given to another. In a fiber. */
#ifndef DR_WORKER_QUEUE_ALERT_H
#define DR_WORKER_QUEUE_ALERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct queue;

enum {
    QUEUE_ALERT_ID = 33,
    QUEUE_ALERT_TAKE = 16,    /* notices a beat */
    QUEUE_ALERT_HELD = 64,    /* notices that a worker may hold */
    QUEUE_ALERT_FIRING = 500, /* alerts of a namespace */
    QUEUE_ALERT_OUT = 200,    /* notices of a namespace; the oldest one makes room */
};

enum queue_alert_target { QUEUE_ALERT_WEBHOOK = 1, QUEUE_ALERT_MAIL = 2 };
const char *queue_alert_target_name(unsigned target); /* of one bit */

struct queue_alert {
    bool clear;
    const char *rule, *subject; /* what it is about; together they name the alert */
    const char *severity;       /* info, warning or critical */
    const char *summary, *details;
    unsigned targets; /* bits of queue_alert_target; 0: the feed only */
    int64_t quiet_ms; /* clear: for so long nobody may have raised it */
};

/* Text is one line each, valid UTF-8. */
struct queue_notice {
    char id[QUEUE_ALERT_ID]; /* for the receiver: the same id is the same notice */
    char kind[12];           /* firing, worse, reminder, resolved; test */
    char state[12];          /* firing, resolved; test */
    char severity[12], rule[32], subject[128], summary[256], details[1024];
    int64_t at_ms, since_ms; /* Redis' clock */
    uint64_t count;          /* how often it was raised */
    unsigned targets;        /* that are still to be told */
};

enum queue_alert_said {
    QUEUE_ALERT_NEWS,     /* *out is the caller's to deliver and free; NULL without targets */
    QUEUE_ALERT_REPEATED, /* it was counted */
    QUEUE_ALERT_NOTHING,  /* there was nothing to clear, or it was raised too recently */
    QUEUE_ALERT_FULL,
};

/* Waits for Redis; UNREACHABLE once the service was stopped, REDIS when it refuses. *dropped:
 * notices that made room. */
enum dr_rc queue_alert_decide(struct queue *q, const struct queue_alert *a,
                              enum queue_alert_said *said, struct queue_notice **out,
                              unsigned *dropped, struct dr_err *err) DR_MUST_CHECK;
/* The reminder that is due the longest: once for all workers, wait_ms after an alert was told last;
 * one that nobody raised for rest_ms is left alone. *due: there was one, and there may be more.
 * *out as above. */
enum dr_rc queue_alert_remind(struct queue *q, unsigned targets, int64_t wait_ms, int64_t rest_ms,
                              bool *due, struct queue_notice **out, unsigned *dropped,
                              struct dr_err *err) DR_MUST_CHECK;
/* Renews the lease of what is held; taken[0..*count) are the caller's to deliver and free. test:
 * room for the id of a delivery test, "" when there is none; NULL: none is taken. */
enum dr_rc queue_alert_beat(struct queue *q, const struct queue_notice *const *held, unsigned n,
                            unsigned targets, unsigned most, struct queue_notice **taken,
                            unsigned *count, char *test, struct dr_err *err) DR_MUST_CHECK;
/* Waits for Redis. */
enum dr_rc queue_alert_done(struct queue *q, const char *id, unsigned target,
                            struct dr_err *err) DR_MUST_CHECK;
/* Writes a notice into the feed, for a test: others are written where they are decided. */
enum dr_rc queue_alert_feed(struct queue *q, const struct queue_notice *n,
                            struct dr_err *err) DR_MUST_CHECK;
/* One line of the answer to a test: a target's name or "end", and a text. */
enum dr_rc queue_alert_answer(struct queue *q, const char *test, const char *name, const char *text,
                              struct dr_err *err) DR_MUST_CHECK;
/* At most size - 1 bytes of src as one line: control characters become blanks, what is no UTF-8
 * '?'.
 */
void queue_alert_line(char *out, size_t size, const char *src);

#endif
