/* Connections to PostgreSQL: waiting, connecting, closing. The connection owns its PGconn; libpq is
 * called on the loop thread only, but for the PGcancel of pg_query.c. */
#include "worker/core/pg_internal.h"

#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "common/clock.h"
#include "common/mem.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"

enum { CONNECT_MS = 10000, CANCEL_MS = 5000, ADDRESSES_MAX = 4, PARAMS_MAX = 32, ALIVE_READS = 8 };

int64_t pg_deadline(uint64_t ms)
{
    return ms ? dr_clock_ms() + (int64_t)ms : 0;
}

void pg_wait_begin(struct pg_wait *w)
{
    *w = (struct pg_wait){.fiber = fiber_self()};
}

void pg_wait_wake(struct pg_wait *w, enum dr_rc rc)
{
    if (w->woken)
        return;
    w->woken = true;
    w->rc = rc;
    fiber_wake(w->fiber);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    pg_wait_wake(arg, what & EV_TIMEOUT ? DR_E_TIMEOUT : DR_OK);
}

struct token {
    struct cancel_hook hook;
    struct cancel *cancel;
    struct pg_wait *wait;
};

static void on_cancel(void *arg)
{
    struct token *t = arg;
    pg_wait_wake(t->wait, cancel_fired(t->cancel));
}

enum dr_rc pg_wait_for(struct pg_conn *c, struct pg_wait *w, int fd, short what,
                       int64_t deadline_ms, struct cancel *cancel)
{
    struct token token = {.cancel = cancel, .wait = w};
    struct timeval tv = {0}, *timeout = NULL;
    int64_t now = dr_clock_ms();
    if (cancel_fired(cancel))
        return cancel_fired(cancel);
    if (deadline_ms) {
        int64_t left = deadline_ms > now ? deadline_ms - now : 0;
        tv = (struct timeval){.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
        timeout = &tv;
    }
    struct event *event = event_new(loop_base(c->loop), fd, what, on_event, w);
    if (!event || ((fd >= 0 || timeout) && event_add(event, timeout) != 0)) {
        if (event)
            event_free(event);
        return DR_E_NOMEM;
    }
    if (cancel)
        cancel_hook_add(cancel, &token.hook, on_cancel, &token);
    fiber_suspend();
    cancel_hook_remove(&token.hook);
    event_free(event);
    return w->rc;
}

enum dr_rc pg_wait_socket(struct pg_conn *c, short what, int64_t deadline_ms, struct cancel *cancel)
{
    struct pg_wait w;
    int fd = PQsocket(c->pg);
    if (fd < 0) /* libpq has given it up by itself */
        return DR_E_UNREACHABLE;
    pg_wait_begin(&w);
    return pg_wait_for(c, &w, fd, what, deadline_ms, cancel);
}

static void on_task_done(void *arg, enum dr_rc rc, const struct dr_err *err)
{
    struct pg_task *t = arg;
    if (!t->wait) {
        t->free(t);
        return;
    }
    t->rc = rc;
    t->err = *err;
    pg_wait_wake(t->wait, DR_OK);
    t->wait = NULL;
}

enum dr_rc pg_task_run(struct pg_conn *c, struct pg_task *t, int64_t deadline_ms,
                       struct cancel *cancel)
{
    struct pg_wait w;
    pg_wait_begin(&w);
    t->wait = &w;
    pool_submit(c->pool, t->fn, t, on_task_done, t);
    enum dr_rc rc = pg_wait_for(c, &w, -1, 0, deadline_ms, cancel);
    bool came_back = !t->wait; /* it may have, between the wake and now */
    t->wait = NULL;
    if (came_back && rc)
        t->free(t);
    return rc;
}

void pg_conn_drop(struct pg_conn *c)
{
    if (c->pg)
        PQfinish(c->pg);
    c->pg = NULL;
}

static int first_line(const char *text)
{
    return (int)strcspn(text ? text : "", "\n");
}

enum dr_rc pg_conn_lost(struct pg_conn *c, struct dr_err *err)
{
    const char *why = c->pg ? PQerrorMessage(c->pg) : "";
    if (!why[0])
        why = "connection lost";
    enum dr_rc rc = dr_fail(err, DR_E_UNREACHABLE, "%.*s", first_line(why), why);
    pg_conn_drop(c);
    return rc;
}

/* What the server says beside statements; a FATAL there is its farewell. */
static void on_notice(void *arg, const PGresult *res)
{
    struct pg_conn *c = arg;
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (severity && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0))
        c->doomed = true;
}

/* Name look-up, in the pool. */
struct lookup {
    struct pg_task task;
    char host[256], port[8];
    char addresses[ADDRESSES_MAX][64];
    unsigned count;
};

static enum dr_rc look_up(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct lookup *l = item;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    (void)cancel;
    int rc = getaddrinfo(l->host, l->port, &hints, &list);
    for (struct addrinfo *a = list; rc == 0 && a && l->count < ADDRESSES_MAX; a = a->ai_next) {
        char *text = l->addresses[l->count];
        if (getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof l->addresses[0], NULL, 0,
                        NI_NUMERICHOST) == 0)
            l->count++;
    }
    if (list)
        freeaddrinfo(list);
    if (l->count)
        return DR_OK;
    return dr_fail(err, DR_E_UNREACHABLE, "%s: %s", l->host, rc ? gai_strerror(rc) : "no address");
}

static void lookup_free(struct pg_task *t)
{
    free(t); /* its first member */
}

struct params {
    const char *keys[PARAMS_MAX], *values[PARAMS_MAX];
    unsigned count;
    char hosts[ADDRESSES_MAX * 256], addresses[ADDRESSES_MAX * 64], options[1024];
};

static void param(struct params *p, const char *key, const char *value)
{
    if (!value || !value[0] || p->count + 1 >= PARAMS_MAX)
        return;
    p->keys[p->count] = key;
    p->values[p->count++] = value;
}

/* PQconnectStart would look names up itself, and block: it gets addresses. The name goes along,
 * once for each address: certificates and password files are matched against it. */
static void param_addresses(struct params *p, const struct lookup *l)
{
    size_t h = 0, a = 0;
    for (unsigned i = 0; i < l->count; i++) {
        const char *comma = i ? "," : "";
        h += (size_t)snprintf(p->hosts + h, sizeof p->hosts - h, "%s%s", comma, l->host);
        a += (size_t)snprintf(p->addresses + a, sizeof p->addresses - a, "%s%s", comma,
                              l->addresses[i]);
    }
    param(p, "host", p->hosts);
    param(p, "hostaddr", p->addresses);
}

static void set_params(struct params *p, const struct dr_pg_url *u, const struct pg_options *o)
{
    const char *own = o->application_name;
    param(p, "port", u->port);
    param(p, "user", u->user);
    param(p, "password", (const char *)u->password.bytes);
    param(p, "dbname", o->dbname ? o->dbname : u->dbname);
    param(p, "sslmode", u->sslmode);
    param(p, "sslrootcert", u->sslrootcert);
    param(p, "sslcert", u->sslcert);
    param(p, "sslkey", u->sslkey);
    param(p, "application_name",
          own                      ? own
          : u->application_name[0] ? u->application_name
                                   : "drworker");
    (void)snprintf(p->options, sizeof p->options, "%s%s%s", u->options, u->options[0] ? " " : "",
                   o->options ? o->options : "");
    param(p, "options", p->options);
    param(p, "client_encoding", "UTF8");
    param(p, "gssencmode", "disable"); /* Kerberos would block */
    param(p, "keepalives_idle", o->lock_session ? "5" : "30");
    param(p, "keepalives_interval", o->lock_session ? "5" : "10");
    param(p, "keepalives_count", "3");
    param(p, "tcp_user_timeout", o->lock_session ? "15000" : "60000");
}

static enum dr_rc not_connected(enum dr_rc rc, struct cancel *cancel, struct dr_err *err)
{
    if (cancel_fired(cancel))
        return dr_fail(err, cancel_fired(cancel), "%s", cancel_reason(cancel));
    if (rc == DR_E_TIMEOUT)
        return dr_fail(err, DR_E_UNREACHABLE, "no answer in time");
    return dr_fail(err, rc, "waiting for the server");
}

static enum dr_rc start(struct pg_conn *c, const struct dr_pg_url *u, const struct pg_options *o,
                        int64_t deadline, struct cancel *cancel, struct dr_err *err)
{
    struct params p = {.count = 0};
    enum dr_rc rc = DR_OK;
    struct lookup *l = NULL;
    if (u->host[0] && u->host[0] != '/') {
        l = dr_xalloc(sizeof *l);
        l->task = (struct pg_task){.fn = look_up, .free = lookup_free};
        (void)snprintf(l->host, sizeof l->host, "%s", u->host);
        (void)snprintf(l->port, sizeof l->port, "%s", u->port);
        if ((rc = pg_task_run(c, &l->task, deadline, cancel)))
            return not_connected(rc, cancel, err);
        if ((rc = l->task.rc)) {
            if (err && !err->rc)
                *err = l->task.err;
            free(l);
            return rc;
        }
        param_addresses(&p, l);
    } else {
        param(&p, "host", u->host);
    }
    free(l);
    set_params(&p, u, o);
    c->pg = PQconnectStartParams(p.keys, p.values, 0);
    if (!c->pg)
        return dr_fail(err, DR_E_NOMEM, "connecting");
    (void)PQsetNoticeReceiver(c->pg, on_notice, c);
    return PQstatus(c->pg) == CONNECTION_BAD ? pg_conn_lost(c, err) : DR_OK;
}

static enum dr_rc shake_hands(struct pg_conn *c, int64_t deadline, struct cancel *cancel,
                              struct dr_err *err)
{
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    while (state != PGRES_POLLING_OK) {
        if (state == PGRES_POLLING_FAILED)
            return pg_conn_lost(c, err);
        enum dr_rc rc = pg_wait_socket(c, state == PGRES_POLLING_READING ? EV_READ : EV_WRITE,
                                       deadline, cancel);
        if (rc)
            return not_connected(rc, cancel, err);
        state = PQconnectPoll(c->pg);
    }
    if (PQsetnonblocking(c->pg, 1) != 0)
        return pg_conn_lost(c, err);
    return DR_OK;
}

/* The server lets go of the lock as soon as we notice that we lost it. */
static enum dr_rc guard_session(struct pg_conn *c, struct cancel *cancel, struct dr_err *err)
{
    return pg_query(c, cancel, NULL, err,
                    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; "
                    "SET tcp_keepalives_count = 3; SET tcp_user_timeout = 15000",
                    NULL);
}

static void name_it(struct pg_conn *c, const struct dr_pg_url *u, const struct pg_options *o)
{
    const char *host = u->host[0] ? u->host : "local socket";
    (void)snprintf(c->where, sizeof c->where, "database %s on %s port %s",
                   o->dbname ? o->dbname : u->dbname, host, u->port);
}

enum dr_rc pg_connect(struct loop *l, struct pool *pool, const struct dr_pg_url *url,
                      const struct pg_options *options, struct cancel *cancel, struct pg_conn **out,
                      struct dr_err *err)
{
    const struct pg_options none = {0}, *o = options ? options : &none;
    uint64_t ms = o->connect_ms             ? o->connect_ms
                  : url->connect_timeout_ms ? url->connect_timeout_ms
                                            : CONNECT_MS;
    struct pg_conn *c = dr_xalloc(sizeof *c);
    *out = NULL;
    c->loop = l;
    c->pool = pool;
    c->cancel_ms = o->cancel_ms ? o->cancel_ms : CANCEL_MS;
    name_it(c, url, o);
    int64_t deadline = pg_deadline(ms);
    enum dr_rc rc = start(c, url, o, deadline, cancel, err);
    if (!rc)
        rc = shake_hands(c, deadline, cancel, err);
    if (rc)
        (void)dr_wrap(err, "%s", c->where);
    if (!rc && o->lock_session) {
        c->statement_ms = ms;
        rc = guard_session(c, cancel, err);
    }
    c->statement_ms = o->statement_ms;
    if (rc) {
        pg_close(c);
        return rc;
    }
    *out = c;
    return DR_OK;
}

void pg_close(struct pg_conn *c)
{
    if (!c)
        return;
    pg_conn_drop(c);
    free(c);
}

bool pg_alive(struct pg_conn *c)
{
    if (!c || !c->pg)
        return false;
    for (int i = 0; i < ALIVE_READS && !c->busy; i++) {
        struct pollfd p = {.fd = PQsocket(c->pg), .events = POLLIN};
        int ready = poll(&p, 1, 0);
        if (ready == 0)
            break;
        if (ready < 0 || !PQconsumeInput(c->pg)) {
            pg_conn_drop(c);
            return false;
        }
        (void)PQisBusy(c->pg); /* parses: a notice receiver may be called */
    }
    if (c->doomed && !c->busy)
        pg_conn_drop(c);
    return c->pg && PQstatus(c->pg) == CONNECTION_OK;
}

int pg_server_version(const struct pg_conn *c)
{
    return c->pg ? PQserverVersion(c->pg) : 0;
}

void pg_statement_ms(struct pg_conn *c, uint64_t ms)
{
    c->statement_ms = ms;
}
