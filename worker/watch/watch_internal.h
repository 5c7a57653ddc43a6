/* Shared by watch.c (collecting) and metrics.c (telling). */
#ifndef DR_WORKER_WATCH_INTERNAL_H
#define DR_WORKER_WATCH_INTERNAL_H

#include "worker/core/cancel.h"
#include "worker/watch/exposition.h"
#include "worker/watch/gates.h"
#include "worker/watch/watch.h"

enum { WATCH_LANES = 16, WATCH_OUTCOMES = JOB_CANCELLED + 1 };

struct watch_lane {
    const char *lane;
    uint64_t ended[WATCH_OUTCOMES];
    struct exposition_histogram seconds;
};

struct watch {
    struct watch_options o;
    struct facts facts;
    struct watch_lane lanes[WATCH_LANES];
    unsigned lane_count;
    struct cancel stop;
    bool running;
    void (*done)(void *arg);
    void *done_arg;
    /* process */
    int64_t started_ms;
    uint64_t rss_bytes;
    int64_t scrape_us; /* of the last answer to /metrics */
    /* the last health job here */
    bool judged;
    unsigned health_status, health_score;
    int64_t judged_ms;
    /* alarm.c: since when a gate stands badly, and the store cannot be read; 0: it does not */
    int64_t bad_since_ms[GATES_MAX], unreadable_since_ms;
};

/* What the gates, judged now, have to say between health jobs. */
void watch_say(struct watch *w, const struct gates *g, int64_t now_ms);

#endif
