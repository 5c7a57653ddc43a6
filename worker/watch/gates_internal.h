/* Shared by gates*.c. */
#ifndef DR_WORKER_WATCH_GATES_INTERNAL_H
#define DR_WORKER_WATCH_GATES_INTERNAL_H

#include "worker/watch/gates.h"

enum { GATE_SPAN = 32 };

struct gate *gate_add(struct gates *g, const char *name, unsigned weight);
void gate_is(struct gate *g, enum gate_status s, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void gate_measure(struct gate *g, int64_t value, int64_t limit, const char *unit);
void gate_span(int64_t seconds, char out[GATE_SPAN]); /* "90 s", "3 h", "12 days" */
/* Backups, proofs, drills, catalog, disk, keys, open runs. */
void gates_judge_store(const struct facts *f, const struct gate_limits *l, int64_t now_ms,
                       struct gates *out);

#endif
