/* COPY … TO STDOUT. The loop fills one buffer while a pool thread empties the other; a sink that is
 * slower stops us from reading, the socket fills, and the server waits. The buffers belong to this
 * call, which returns only when the sink has come back. */
#include "worker/core/pg_internal.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "common/clock.h"
#include "common/mem.h"
#include "worker/core/fiber.h"

enum {
    BATCH_BYTES = 512 * 1024,
    TURN_US = 1000, /* of reading, then others have the loop */
    LOOK_EVERY = 64 /* rows between looks at the clock */
};

struct batch {
    char *data;
    size_t len, cap;
};

struct copy {
    struct pg_conn *c;
    struct cancel *cancel;
    pg_sink_fn *sink;
    void *arg;
    struct batch batches[2];
    unsigned filling; /* the one of the loop; the other is the sink's while it runs */
    bool sinking;
    struct pg_wait *wait; /* for the sink */
    enum dr_rc sink_rc;
    struct dr_err sink_err;
    int64_t turn_us; /* when this turn began */
};

static enum dr_rc run_sink(void *item, struct cancel *unused, struct dr_err *err)
{
    struct copy *x = item;
    const struct batch *b = &x->batches[!x->filling];
    (void)unused;
    return x->sink(x->arg, b->data, b->len, err);
}

static void on_sunk(void *arg, enum dr_rc rc, const struct dr_err *err)
{
    struct copy *x = arg;
    x->sinking = false;
    if (rc && !x->sink_rc) {
        x->sink_rc = rc;
        x->sink_err = *err;
    }
    if (x->wait)
        pg_wait_wake(x->wait, DR_OK);
}

/* Always until it has come back: it works on our memory. */
static enum dr_rc await_sink(struct copy *x, struct dr_err *err)
{
    while (x->sinking) {
        struct pg_wait w;
        pg_wait_begin(&w);
        x->wait = &w;
        (void)pg_wait_for(x->c, &w, -1, 0, 0, NULL);
        x->wait = NULL;
    }
    x->turn_us = dr_clock_us();
    if (x->sink_rc && err && !err->rc)
        *err = x->sink_err;
    return x->sink_rc;
}

/* Swaps the buffers once the sink is free, and sets it to work. */
static enum dr_rc hand_over(struct copy *x, struct dr_err *err)
{
    enum dr_rc rc = await_sink(x, err);
    if (rc || !x->batches[x->filling].len)
        return rc;
    x->filling = !x->filling;
    x->batches[x->filling].len = 0;
    x->sinking = true;
    pool_submit(x->c->pool, run_sink, x, on_sunk, x);
    return DR_OK;
}

static bool append(struct batch *b, const char *row, size_t len)
{
    if (b->cap - b->len < len) {
        size_t cap = b->len + len > BATCH_BYTES + 65536 ? b->len + len : BATCH_BYTES + 65536;
        char *p = realloc(b->data, cap);
        if (!p)
            return false;
        b->data = p;
        b->cap = cap;
    }
    memcpy(b->data + b->len, row, len);
    b->len += len;
    return true;
}

static void give_way(struct copy *x)
{
    fiber_wake(fiber_self());
    fiber_suspend();
    x->turn_us = dr_clock_us();
}

/* libpq has no whole row: takes what the socket has, or waits for more. */
static enum dr_rc more_input(struct copy *x, bool wait, struct dr_err *err)
{
    struct pg_conn *c = x->c;
    if (wait) {
        enum dr_rc rc = pg_wait_socket(c, EV_READ, pg_deadline(c->statement_ms), x->cancel);
        x->turn_us = dr_clock_us();
        if (rc)
            return pg_statement_gave_up(rc, x->cancel, err);
    }
    return PQconsumeInput(c->pg) ? DR_OK : pg_conn_lost(c, err);
}

/* All rows, up to the end of the COPY or an error. */
static enum dr_rc rows(struct copy *x, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    bool looked = false; /* at the socket, since the last row */
    for (unsigned n = 1;; n++) {
        char *row = NULL;
        int len = PQgetCopyData(x->c->pg, &row, 1);
        if (len < 0)
            return DR_OK; /* the result says whether it is good */
        if (len == 0) {
            rc = more_input(x, looked, err);
            looked = !looked;
        } else {
            struct batch *b = &x->batches[x->filling];
            bool ok = append(b, row, (size_t)len);
            PQfreemem(row);
            looked = false;
            rc = !ok                     ? dr_fail(err, DR_E_NOMEM, "a row of %d bytes", len)
                 : b->len >= BATCH_BYTES ? hand_over(x, err)
                                         : DR_OK;
        }
        if (!rc && n % LOOK_EVERY == 0) {
            if (dr_clock_us() - x->turn_us > TURN_US)
                give_way(x);
            if (cancel_fired(x->cancel))
                rc = dr_fail(err, cancel_fired(x->cancel), "%s", cancel_reason(x->cancel));
        }
        if (rc)
            return rc;
    }
}

static enum dr_rc expect(struct copy *x, ExecStatusType wanted, struct dr_err *err)
{
    struct pg_conn *c = x->c;
    PGresult *res;
    enum dr_rc rc = pg_statement_next(c, pg_deadline(c->statement_ms), x->cancel, &res, err);
    if (rc)
        return rc;
    ExecStatusType status = PQresultStatus(res);
    if (!res || (status != wanted && status != PGRES_FATAL_ERROR))
        rc = dr_fail(err, DR_E_BUG, "not one COPY TO STDOUT");
    else if (status != wanted)
        rc = pg_statement_failed(res, err);
    PQclear(res);
    return rc;
}

static enum dr_rc run(struct copy *x, const char *sql, struct dr_err *err)
{
    struct pg_conn *c = x->c;
    if (PQsendQuery(c->pg, sql) != 1)
        return pg_conn_lost(c, err);
    enum dr_rc rc = pg_statement_flush(c, pg_deadline(c->statement_ms), x->cancel, err);
    if (!rc)
        rc = expect(x, PGRES_COPY_OUT, err);
    if (!rc)
        rc = rows(x, err);
    if (!rc)
        rc = expect(x, PGRES_COMMAND_OK, err);
    return rc ? rc : hand_over(x, err);
}

/* What is left of a statement that came to its end: nothing, so that it need not be cancelled. */
static enum dr_rc nothing_left(struct copy *x, struct dr_err *err)
{
    struct pg_conn *c = x->c;
    PGresult *res;
    enum dr_rc rc = pg_statement_next(c, pg_deadline(c->statement_ms), x->cancel, &res, err);
    if (!rc && res)
        rc = dr_fail(err, DR_E_BUG, "not one COPY TO STDOUT");
    PQclear(res);
    return rc;
}

enum dr_rc pg_copy_out(struct pg_conn *c, struct cancel *cancel, const char *sql, pg_sink_fn *sink,
                       void *arg, struct dr_err *err)
{
    struct dr_err own = {0}, *e = err ? err : &own;
    struct copy x = {.c = c, .cancel = cancel, .sink = sink, .arg = arg};
    enum dr_rc rc = pg_statement_begin(c, cancel, e), sunk;
    if (rc)
        return rc;
    x.turn_us = dr_clock_us();
    rc = run(&x, sql, e);
    if (!rc || rc == DR_E_SQL) {
        enum dr_rc left = nothing_left(&x, e);
        rc = rc ? rc : left;
    }
    sunk = await_sink(&x, e);
    rc = pg_statement_end(c, rc ? rc : sunk, e);
    for (unsigned i = 0; i < 2; i++)
        free(x.batches[i].data);
    return rc;
}
