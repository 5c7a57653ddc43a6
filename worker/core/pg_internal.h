/* Shared by pg.c, pg_query.c and pg_copy.c: the connection and its waits. Loop thread only. */
#ifndef DR_WORKER_CORE_PG_INTERNAL_H
#define DR_WORKER_CORE_PG_INTERNAL_H

#include <libpq-fe.h>

#include "worker/core/pg.h"
#include "worker/core/pool.h"

struct fiber;

struct pg_conn {
    struct loop *loop;
    struct pool *pool;
    PGconn *pg;      /* NULL: closed, for good */
    bool doomed;     /* the server said FATAL beside any statement */
    bool busy;       /* a statement is under way */
    char where[400]; /* for messages */
    uint64_t statement_ms, cancel_ms;
};

struct pg_wait { /* on the waiting fiber's stack; woken once */
    struct fiber *fiber;
    bool woken;
    enum dr_rc rc; /* DR_OK: ready; TIMEOUT; the token's kind */
};
void pg_wait_begin(struct pg_wait *w);
void pg_wait_wake(struct pg_wait *w, enum dr_rc rc);
/* Suspends until somebody wakes w, fd is ready (-1: no descriptor; what: EV_READ | EV_WRITE), the
 * deadline (dr_clock_ms; 0: none) or the token. */
enum dr_rc pg_wait_for(struct pg_conn *c, struct pg_wait *w, int fd, short what,
                       int64_t deadline_ms, struct cancel *cancel);
/* The socket of the connection. A new event each time: libpq may have put another socket under the
 * same number. */
enum dr_rc pg_wait_socket(struct pg_conn *c, short what, int64_t deadline_ms,
                          struct cancel *cancel);

/* A call that may block for long, in the pool: who waits may leave it behind. Owns its data. */
struct pg_task {
    pool_fn *fn; /* gets the task */
    void (*free)(struct pg_task *t);
    struct pg_wait *wait; /* NULL: left behind */
    enum dr_rc rc;
    struct dr_err err;
};
/* DR_OK: it came back, the caller frees it; else it was left behind and frees itself. */
enum dr_rc pg_task_run(struct pg_conn *c, struct pg_task *t, int64_t deadline_ms,
                       struct cancel *cancel);

void pg_conn_drop(struct pg_conn *c); /* closes it now, pg_alive is false from here on */
/* Records UNREACHABLE with libpq's words and drops the connection. */
enum dr_rc pg_conn_lost(struct pg_conn *c, struct dr_err *err);

enum dr_rc pg_statement_begin(struct pg_conn *c, struct cancel *cancel, struct dr_err *err);
/* Records why a wait ended without what it waited for. */
enum dr_rc pg_statement_gave_up(enum dr_rc rc, struct cancel *cancel, struct dr_err *err);
/* Sends what libpq has queued. */
enum dr_rc pg_statement_flush(struct pg_conn *c, int64_t deadline_ms, struct cancel *cancel,
                              struct dr_err *err);
/* The next result, *out NULL at the end. */
enum dr_rc pg_statement_next(struct pg_conn *c, int64_t deadline_ms, struct cancel *cancel,
                             PGresult **out, struct dr_err *err);
/* Records what a failed result says. */
enum dr_rc pg_statement_failed(const PGresult *res, struct dr_err *err);
/* After rc: cancels what still runs, takes what is left; usable afterwards, or dropped. */
enum dr_rc pg_statement_end(struct pg_conn *c, enum dr_rc rc, struct dr_err *err);
int64_t pg_deadline(uint64_t ms); /* 0: none */

#endif
