/* One look at the queue for those who measure: a read-only script. In a fiber on the loop thread;
 * the result is plain data of the caller's. */
#ifndef DR_WORKER_QUEUE_SURVEY_H
#define DR_WORKER_QUEUE_SURVEY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct queue;

enum { SURVEY_LANES = 16, SURVEY_MOST = 64, SURVEY_COUNTERS = 24 };

struct survey_lane {
    const char *lane; /* of queue_options */
    uint64_t waiting; /* both lists */
    uint64_t urgent, delayed, running;
    bool paused;
    char next_mid[41];   /* the message that is next in line; "": none, or a very long one */
    int64_t next_iat_ms; /* when it was ordered, as it says itself; 0: it does not */
};

struct survey_worker {
    char wid[33], host[65], version[24], schedule[72];
    int64_t beat_ms; /* Redis' clock */
};

struct survey_schedule {
    char name[65];
    int64_t next_ms; /* the slot that comes next, or that nobody has fired yet */
    int64_t due_ms; /* the same and its definition's whole jitter: when it has been fired at last */
};

struct survey {
    int64_t now_ms;    /* Redis' clock */
    int64_t offset_ms; /* Redis' clock less ours */
    struct survey_lane lanes[SURVEY_LANES];
    struct survey_worker workers[SURVEY_MOST];
    struct survey_schedule schedules[SURVEY_MOST];
    struct {
        char name[40];
        uint64_t value;
    } counters[SURVEY_COUNTERS]; /* of `stat` */
    unsigned lane_count, worker_count, schedule_count, counter_count;
    uint64_t dead;
    uint64_t head_seq; /* the newest head of the catalog that Redis has seen; 0: none */
    char head_sha256[65];
    char head_store[33];      /* id of the store that it is of; "": it does not say */
    int64_t retention_ms;     /* when retention ran last; 0: Redis knows of none */
    uint64_t retention_waits; /* backups that it would give up if somebody confirmed its plan: */
    char retention_plan[65];
};

uint64_t queue_connections(const struct queue *q); /* to Redis, made since the start */
/* UNREACHABLE at once while Redis is away. */
enum dr_rc queue_survey(struct queue *q, struct survey *out, struct dr_err *err) DR_MUST_CHECK;

#endif
