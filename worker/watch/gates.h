/* The gates of `health`: facts in, checks out; pure. The status is that of the worst gate; the
 * score beside it never decides anything. Source: anchors/dr.md 1.9; formula and limits: README. */
#ifndef DR_WORKER_WATCH_GATES_H
#define DR_WORKER_WATCH_GATES_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/watch/facts.h"

struct dr_buf;

/* Ordered: the worst is the highest. What is not configured is neither good nor bad. */
enum gate_status { GATE_NOT_CONFIGURED, GATE_OK, GATE_WARNING, GATE_CRITICAL };
const char *gate_status_name(enum gate_status s);

enum { GATES_MAX = 24 };

struct gate {
    const char *name;
    enum gate_status status;
    unsigned weight; /* in the score */
    char detail[240];
    bool unseen;   /* what it judges cannot be read: no news of it, neither good nor bad */
    bool measured; /* value and limit mean something; the unit is in the name of `unit` */
    int64_t value, limit;
    int64_t slack; /* a warning that is over its limit by no more calls nobody */
    const char *unit;
};

struct gates {
    struct gate at[GATES_MAX];
    unsigned count;
    enum gate_status status; /* ok, warning or critical */
    unsigned score;          /* 0..100 */
    int64_t at_ms;
};

struct gate_limits {
    int64_t rpo_database_s, rpo_files_s, rpo_full_s;
    int64_t proof_max_s, drill_max_s;
    int64_t clock_ms, clock_critical_ms;
    int64_t late_s, late_critical_s;
    int64_t run_silent_s;
};
/* How far over its RPO a backup that takes so long may be before anybody is called. */
int64_t gates_slack_s(int64_t took_ms);

struct dr_config;
void gates_limits(struct gate_limits *out, const struct dr_config *c);

void gates_judge(const struct facts *f, const struct gate_limits *l, int64_t now_ms,
                 struct gates *out);
/* status, score and checks as pairs of a msgpack map; 3 pairs. */
unsigned gates_pack(const struct gates *g, struct dr_buf *map);

#endif
