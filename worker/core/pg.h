/* PostgreSQL on the loop: libpq without blocking, in straight-line code of a fiber. A connection
 * has one owner, used by one fiber at a time, one statement at a time. Names are resolved, and
 * statements cancelled, in the pool. Loop thread only, but for the pg_quote functions.
 *
 * Errors: UNREACHABLE when there is no connection (any more), SQL for what the server refused
 * (reason: the SQLSTATE; message: its first line), TIMEOUT and CANCELLED. After each of them the
 * connection is usable or closed, never half: pg_alive tells. A transaction is not rolled back. */
#ifndef DR_WORKER_CORE_PG_H
#define DR_WORKER_CORE_PG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/pg_url.h"
#include "worker/core/cancel.h"

struct loop;
struct pool;
struct pg_conn;
struct pg_rows;

/* What a role lets its sessions do shall end none of ours: CREATE DATABASE copies for seconds. */
#define PG_NO_TIMEOUTS                                                                             \
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"

struct pg_options {
    const char *dbname;           /* NULL: the URL's */
    const char *application_name; /* NULL: the URL's, or drworker */
    const char *options;          /* as PGOPTIONS, after the URL's; may be NULL */
    bool lock_session;   /* keepalives and timeouts on both sides: a lost peer is noticed in 20 s */
    uint64_t connect_ms; /* resolving included; 0: the URL's, or 10 s */
    uint64_t statement_ms; /* of each pg_query; in a COPY, of the silence between data. 0: none */
    uint64_t cancel_ms;    /* for a cancelled statement to end, then we hang up; 0: 5 s */
};

enum dr_rc pg_connect(struct loop *l, struct pool *pool, const struct dr_pg_url *url,
                      const struct pg_options *options /* NULL: defaults */, struct cancel *cancel,
                      struct pg_conn **out, struct dr_err *err) DR_MUST_CHECK;
void pg_close(struct pg_conn *c); /* NULL is allowed */
/* Looks at the socket without waiting: false once the server has ended the session. A peer that
 * went silent shows only in a statement with a deadline (or by lock_session's timeouts). */
bool pg_alive(struct pg_conn *c);
int pg_server_version(const struct pg_conn *c);       /* 150018 */
void pg_statement_ms(struct pg_conn *c, uint64_t ms); /* from the next statement on */

/* params: NULL-ended texts for $1, $2, … (pg_null for SQL NULL). NULL: the simple protocol, which
 * allows several statements in one text; the last one's rows are kept. rows may be NULL. */
enum dr_rc pg_query(struct pg_conn *c, struct cancel *cancel, struct pg_rows **rows,
                    struct dr_err *err, const char *sql, const char *const *params) DR_MUST_CHECK;
extern const char pg_null[];
unsigned pg_rows_count(const struct pg_rows *r); /* NULL: 0 */
unsigned pg_rows_columns(const struct pg_rows *r);
/* NULL: SQL NULL, or no such row or column. Text of the server, borrowed from r. */
const char *pg_rows_value(const struct pg_rows *r, unsigned row, unsigned col);
void pg_rows_free(struct pg_rows *r); /* NULL is allowed */

/* Whole rows with their newlines, in order; in a pool thread, one call at a time. */
typedef enum dr_rc pg_sink_fn(void *arg, const void *bytes, size_t len, struct dr_err *err);
/* COPY … TO STDOUT: batches of 256 KiB or more go to the sink while the loop fills the other
 * buffer; two at the most, then the socket is left alone. An error of the sink ends the COPY. */
enum dr_rc pg_copy_out(struct pg_conn *c, struct cancel *cancel, const char *sql, pg_sink_fn *sink,
                       void *arg, struct dr_err *err) DR_MUST_CHECK;

/* "name" and 'text' for SQL in UTF-8; the caller frees. Any thread. */
char *pg_quote_ident(const char *name);
char *pg_quote_literal(const char *text);

/* What pg_dump and its like need to reach a database: for proc_spec's env and keep_fds. The
 * password is in a sealed memfd named by PGPASSFILE, nowhere else. */
struct pg_child_env {
    char **env;      /* NULL-ended */
    int keep_fds[2]; /* ended by -1 */
};
enum dr_rc pg_child_env_new(const struct dr_pg_url *url, const char *dbname /* NULL: the URL's */,
                            const char *pgoptions /* after the URL's; NULL: none */,
                            struct pg_child_env **out, struct dr_err *err) DR_MUST_CHECK;
void pg_child_env_free(struct pg_child_env *e); /* NULL is allowed */

/* The tool of exactly this server major: in bin_dir when that is given, else in
 * /usr/lib/postgresql/MAJOR/bin, else on PATH; each candidate is asked for its --version. In a
 * fiber. PREFLIGHT names what was found instead. */
enum dr_rc pg_tool_path(struct loop *l, struct cancel *cancel, const char *bin_dir, unsigned major,
                        const char *tool, char out[4096], struct dr_err *err) DR_MUST_CHECK;

#endif
