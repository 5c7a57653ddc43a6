/* One statement at a time. What a deadline or a token ends is cancelled on the server and its
 * results are taken, or the connection is dropped. */
#include "worker/core/pg_internal.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "common/clock.h"
#include "common/mem.h"

enum { PARAMS_MAX = 64 };

const char pg_null[] = "";

struct pg_rows {
    PGresult *res;
};

enum dr_rc pg_statement_begin(struct pg_conn *c, struct cancel *cancel, struct dr_err *err)
{
    if (c->busy)
        return dr_fail(err, DR_E_BUG, "%s: two statements at once", c->where);
    if (cancel_fired(cancel))
        return dr_fail(err, cancel_fired(cancel), "%s", cancel_reason(cancel));
    if (!pg_alive(c))
        return dr_fail(err, DR_E_UNREACHABLE, "%s: connection lost", c->where);
    c->busy = true;
    return DR_OK;
}

enum dr_rc pg_statement_gave_up(enum dr_rc rc, struct cancel *cancel, struct dr_err *err)
{
    if (cancel_fired(cancel))
        return dr_fail(err, rc, "%s", cancel_reason(cancel));
    return dr_fail(err, rc,
                   rc == DR_E_TIMEOUT ? "statement took too long" : "waiting for the server");
}

enum dr_rc pg_statement_flush(struct pg_conn *c, int64_t deadline_ms, struct cancel *cancel,
                              struct dr_err *err)
{
    int left;
    while ((left = PQflush(c->pg)) > 0) { /* the server may want to be read before it reads on */
        enum dr_rc rc = pg_wait_socket(c, EV_READ | EV_WRITE, deadline_ms, cancel);
        if (rc)
            return pg_statement_gave_up(rc, cancel, err);
        if (!PQconsumeInput(c->pg))
            return pg_conn_lost(c, err);
    }
    return left < 0 ? pg_conn_lost(c, err) : DR_OK;
}

enum dr_rc pg_statement_next(struct pg_conn *c, int64_t deadline_ms, struct cancel *cancel,
                             PGresult **out, struct dr_err *err)
{
    *out = NULL;
    while (PQisBusy(c->pg)) {
        enum dr_rc rc = pg_wait_socket(c, EV_READ, deadline_ms, cancel);
        if (rc)
            return pg_statement_gave_up(rc, cancel, err);
        if (!PQconsumeInput(c->pg))
            return pg_conn_lost(c, err);
    }
    *out = PQgetResult(c->pg);
    return DR_OK;
}

enum dr_rc pg_statement_failed(const PGresult *res, struct dr_err *err)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    bool fatal = severity && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
    if (!text)
        text = PQresultErrorMessage(res);
    (void)dr_fail(err, fatal || !state ? DR_E_UNREACHABLE : DR_E_SQL, "%.*s",
                  (int)strcspn(text, "\n"), text);
    if (state)
        (void)dr_err_reason(err, state);
    return fatal || !state ? DR_E_UNREACHABLE : DR_E_SQL;
}

/* PQcancel opens a connection of its own and blocks: in the pool, left behind if need be. */
struct canceller {
    struct pg_task task;
    PGcancel *cancel;
};

static enum dr_rc send_cancel(void *item, struct cancel *unused, struct dr_err *err)
{
    struct canceller *k = item;
    char why[256] = "";
    (void)unused;
    return PQcancel(k->cancel, why, sizeof why) ? DR_OK : dr_fail(err, DR_E_UNREACHABLE, "%s", why);
}

static void canceller_free(struct pg_task *t)
{
    struct canceller *k = (struct canceller *)t; /* its first member */
    PQfreeCancel(k->cancel);
    free(k);
}

static bool cancel_on_server(struct pg_conn *c, int64_t deadline)
{
    struct canceller *k = dr_xalloc(sizeof *k);
    k->task = (struct pg_task){.fn = send_cancel, .free = canceller_free};
    k->cancel = PQgetCancel(c->pg);
    if (!k->cancel) {
        free(k);
        return false;
    }
    if (pg_task_run(c, &k->task, deadline, NULL))
        return false;
    bool sent = !k->task.rc;
    canceller_free(&k->task);
    return sent;
}

/* Everything up to the end of the statement, rows of a COPY too; errors are expected. */
static bool drain(struct pg_conn *c, int64_t deadline)
{
    struct dr_err ignored = {0};
    PGresult *res;
    while (c->pg) {
        char *row = NULL;
        int n;
        while ((n = PQgetCopyData(c->pg, &row, 1)) > 0)
            PQfreemem(row);
        if (n == 0) { /* in a COPY, and nothing there */
            if (pg_wait_socket(c, EV_READ, deadline, NULL) || !PQconsumeInput(c->pg))
                return false;
            continue;
        }
        if (pg_statement_next(c, deadline, NULL, &res, &ignored))
            return false;
        if (!res)
            return PQstatus(c->pg) == CONNECTION_OK;
        bool to_server = PQresultStatus(res) == PGRES_COPY_IN;
        PQclear(res);
        if (to_server)
            return false;
    }
    return false;
}

/* The cancel has reached the backend when PQcancel returns, so that it cannot hit the statement
 * after this one: an idle backend ignores it. */
enum dr_rc pg_statement_end(struct pg_conn *c, enum dr_rc rc, struct dr_err *err)
{
    c->busy = false;
    if (!c->pg || rc == DR_E_UNREACHABLE || PQstatus(c->pg) != CONNECTION_OK) {
        pg_conn_drop(c);
    } else if (PQtransactionStatus(c->pg) == PQTRANS_ACTIVE) {
        int64_t deadline = pg_deadline(c->cancel_ms);
        if (!cancel_on_server(c, deadline) || !drain(c, deadline))
            pg_conn_drop(c);
    }
    if (rc == DR_E_UNREACHABLE && err->rc == rc)
        (void)dr_wrap(err, "%s", c->where);
    return rc;
}

static enum dr_rc send_statement(struct pg_conn *c, const char *sql, const char *const *params,
                                 struct dr_err *err)
{
    const char *values[PARAMS_MAX];
    int n = 0;
    for (; params && params[n]; n++) {
        if (n == PARAMS_MAX)
            return dr_fail(err, DR_E_BUG, "more than %d parameters", PARAMS_MAX);
        values[n] = params[n] == pg_null ? NULL : params[n];
    }
    int sent = params ? PQsendQueryParams(c->pg, sql, n, NULL, values, NULL, NULL, 0)
                      : PQsendQuery(c->pg, sql);
    return sent == 1 ? DR_OK : pg_conn_lost(c, err);
}

/* Takes all results; the last good one is kept, the first error counts. */
static enum dr_rc collect(struct pg_conn *c, int64_t deadline, struct cancel *cancel,
                          PGresult **kept, struct dr_err *err)
{
    enum dr_rc rc = DR_OK, next;
    PGresult *res;
    while (!(next = pg_statement_next(c, deadline, cancel, &res, err)) && res) {
        ExecStatusType status = PQresultStatus(res);
        if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK ||
            status == PGRES_EMPTY_QUERY) {
            PQclear(*kept);
            *kept = res;
            continue;
        }
        if (status == PGRES_COPY_OUT || status == PGRES_COPY_IN || status == PGRES_COPY_BOTH)
            next = dr_fail(err, DR_E_BUG, "COPY in pg_query");
        else if (!rc)
            rc = pg_statement_failed(res, err);
        PQclear(res);
        if (next)
            return next;
    }
    return rc ? rc : next;
}

enum dr_rc pg_query(struct pg_conn *c, struct cancel *cancel, struct pg_rows **rows,
                    struct dr_err *err, const char *sql, const char *const *params)
{
    struct dr_err own = {0}, *e = err ? err : &own;
    PGresult *kept = NULL;
    if (rows)
        *rows = NULL;
    enum dr_rc rc = pg_statement_begin(c, cancel, e);
    if (rc)
        return rc;
    int64_t deadline = pg_deadline(c->statement_ms);
    rc = send_statement(c, sql, params, e);
    if (!rc)
        rc = pg_statement_flush(c, deadline, cancel, e);
    if (!rc)
        rc = collect(c, deadline, cancel, &kept, e);
    rc = pg_statement_end(c, rc, e);
    if (rc || !rows) {
        PQclear(kept);
        return rc;
    }
    *rows = dr_xalloc(sizeof **rows);
    (*rows)->res = kept;
    return DR_OK;
}

unsigned pg_rows_count(const struct pg_rows *r)
{
    return r ? (unsigned)PQntuples(r->res) : 0;
}

unsigned pg_rows_columns(const struct pg_rows *r)
{
    return r ? (unsigned)PQnfields(r->res) : 0;
}

const char *pg_rows_value(const struct pg_rows *r, unsigned row, unsigned col)
{
    if (row >= pg_rows_count(r) || col >= pg_rows_columns(r) ||
        PQgetisnull(r->res, (int)row, (int)col))
        return NULL;
    return PQgetvalue(r->res, (int)row, (int)col);
}

void pg_rows_free(struct pg_rows *r)
{
    if (!r)
        return;
    PQclear(r->res);
    free(r);
}
