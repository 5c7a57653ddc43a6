/* Threads that work side by side on a stream cut into segments, in order outside. A segment goes
 * through fill (in order, one thread at a time), work (any order, all threads), drain (in order,
 * one at a time). A writer fills by hand and lets the crew drain; a reader lets it fill and takes
 * by hand. Whoever is free takes the oldest step there is, so that no thread waits while there is
 * work; with 0 threads the caller's own thread takes the steps.
 * The error of a step is the crew's when its segment's turn comes: the first of the stream's order
 * wins, whatever the threads did meanwhile. One caller; blocking, for pool threads. */
#ifndef DR_WORKER_PIPE_CREW_H
#define DR_WORKER_PIPE_CREW_H

#include <stdbool.h>

#include "common/err.h"
#include "worker/core/cancel.h"

enum { CREW_THREADS_MAX = 16, CREW_SEGMENTS_MAX = 40 };

struct crew_spec {
    unsigned threads;      /* at most CREW_THREADS_MAX */
    void *const *segments; /* the array is copied; the segments belong to the caller */
    unsigned count;        /* 1..CREW_SEGMENTS_MAX */
    /* last: no segment follows this one (which may be empty). NULL: crew_room and crew_submit. */
    enum dr_rc (*fill)(void *arg, void *segment, bool *last, struct dr_err *err);
    /* worker: 0..threads - 1, or 0 for the caller when there are no threads. */
    enum dr_rc (*work)(void *arg, unsigned worker, void *segment, struct dr_err *err);
    enum dr_rc (*drain)(void *arg, void *segment, struct dr_err *err); /* NULL: crew_take */
    void *arg;
    struct cancel *cancel; /* asked before every step and by every call; may be NULL */
};

struct crew;
enum dr_rc crew_new(const struct crew_spec *spec, struct crew **out,
                    struct dr_err *err) DR_MUST_CHECK;
/* Stops between steps and joins the threads; in any state; NULL is allowed. */
void crew_free(struct crew *c);

/* Writer: a free segment, to be submitted by the next call. */
enum dr_rc crew_room(struct crew *c, void **segment, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc crew_submit(struct crew *c, struct dr_err *err) DR_MUST_CHECK;
/* Everything submitted is drained. */
enum dr_rc crew_flush(struct crew *c, struct dr_err *err) DR_MUST_CHECK;

/* Reader: the next segment, borrowed until the next call; NULL after the last one. */
enum dr_rc crew_take(struct crew *c, void **segment, struct dr_err *err) DR_MUST_CHECK;

#endif
