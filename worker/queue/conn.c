/* Redis connection: resolve, connect, TLS, greet, ready, back off. The states follow each other in
 * one place, set_state; pending commands are a FIFO with a deadline each. */
#include "worker/queue/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "worker/core/cancel.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/queue/address.h"
#include "worker/queue/greet.h"
#include "worker/queue/resp.h"
#include "common/wire/tls.h"

enum state {
    IDLE,       /* not started, or freed */
    RESOLVING,  /* getaddrinfo in the pool */
    CONNECTING, /* socket and TLS handshake */
    GREETING,   /* AUTH, SELECT, checks: commands of our own only */
    READY,
    BACKOFF, /* timer until the next try */
};
enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
    HEALTHY_MS = 30000, /* a connection that lived so long resets the backoff */
    IDLE_PING_MS = 10000,
    TICK_MS = 500,
    READ_MAX = 256 * 1024,
    COMMAND_MAX_BYTES = 32 << 20,
};

struct pending {
    struct pending *next;
    queue_conn_cb *cb;
    void *arg;
    int64_t deadline_ms;
};

struct queue_conn {
    struct loop *loop;
    struct pool *pool;
    struct queue_conn_options o;
    enum state state;
    struct ssl_ctx_st *tls;
    struct ssl_st *ssl;
    struct bufferevent *bev;
    redisReader *reader;
    struct resp_guard guard;
    struct pending *first, **last, *spare;
    struct evbuffer *out; /* one write a turn */
    bool flush_queued, freed, in_callback;
    unsigned busy; /* next-tick calls and pool items that still name us */
    struct loop_timer *backoff, *tick;
    int64_t backoff_ms, up_since_ms, last_heard_ms, connect_deadline_ms;
    uint64_t generation;
    struct address addresses; /* of the last lookup */
    struct greet greet;
};

static void set_state(struct queue_conn *c, enum state s)
{
    static const char *const names[] = {"idle",     "resolving", "connecting",
                                        "greeting", "ready",     "backoff"};
    dr_log(DR_LOG_DEBUG, "redis.state", "name", c->o.name, "from", names[c->state], "to", names[s],
           NULL);
    c->state = s;
}

static void maybe_release(struct queue_conn *c);
static void begin(struct queue_conn *c);

static void lose_all(struct queue_conn *c, const struct dr_err *why)
{
    struct pending *p = c->first;
    c->first = NULL;
    c->last = &c->first;
    while (p) {
        struct pending *next = p->next;
        p->cb(p->arg, NULL, why);
        free(p);
        p = next;
    }
}

static void close_transport(struct queue_conn *c)
{
    if (c->bev)
        bufferevent_free(c->bev); /* frees ssl and socket with it */
    c->bev = NULL;
    c->ssl = NULL;
    if (c->reader)
        redisReaderFree(c->reader);
    c->reader = NULL;
    (void)evbuffer_drain(c->out, evbuffer_get_length(c->out));
}

/* The one way down: transport closed, pending lost, next try armed. */
static void down(struct queue_conn *c, const struct dr_err *why)
{
    struct dr_err kept = *why; /* the callbacks below may free what why lies in */
    if (c->state == IDLE || c->state == BACKOFF)
        return;
    bool healthy = c->state == READY && dr_clock_ms() - c->up_since_ms > HEALTHY_MS;
    set_state(c, BACKOFF);
    close_transport(c);
    c->backoff_ms = healthy || !c->backoff_ms ? BACKOFF_MIN_MS : c->backoff_ms * 2;
    if (c->backoff_ms > BACKOFF_MAX_MS)
        c->backoff_ms = BACKOFF_MAX_MS;
    double wait = (double)c->backoff_ms * (0.1 + 0.9 * dr_random_unit());
    loop_timer_arm(c->backoff, (uint64_t)wait + 1);
    c->busy++;
    lose_all(c, &kept);
    if (c->o.on_down)
        c->o.on_down(c->o.arg, &kept);
    c->busy--;
    maybe_release(c);
}

static void fail_with(struct queue_conn *c, enum dr_rc rc, const char *text)
{
    struct dr_err err = {0};
    (void)dr_fail(&err, rc, "Redis: %s", text);
    down(c, &err);
}

void queue_conn_reset(struct queue_conn *c, const char *reason)
{
    fail_with(c, DR_E_UNREACHABLE, reason);
}

/* A bufferevent writes in the loop's next turn. What a plain socket takes at once goes at once, so
 * that Redis works while the rest of this turn is done here; errors are left to the bufferevent. */
void queue_conn_push(struct queue_conn *c)
{
    if (c->freed || !c->bev || (c->state != READY && c->state != GREETING))
        return;
    bool direct = !c->tls && evbuffer_get_length(bufferevent_get_output(c->bev)) == 0;
    while (direct && evbuffer_get_length(c->out) > 0 &&
           evbuffer_write(c->out, bufferevent_getfd(c->bev)) > 0)
        continue;
    if (evbuffer_get_length(c->out) > 0)
        (void)bufferevent_write_buffer(c->bev, c->out);
}

static void flush(void *arg)
{
    struct queue_conn *c = arg;
    c->busy--;
    c->flush_queued = false;
    queue_conn_push(c);
    maybe_release(c);
}

static void send_now(struct queue_conn *c, int argc, const char **argv, const size_t *len,
                     int64_t timeout_ms, queue_conn_cb *cb, void *arg)
{
    char *text = NULL;
    long long n = redisFormatCommandArgv(&text, argc, argv, len);
    if (n < 0 || n > COMMAND_MAX_BYTES || evbuffer_add(c->out, text, (size_t)n) != 0)
        abort(); /* messages are bounded far below */
    redisFreeCommand(text);
    struct pending *p = dr_xalloc(sizeof *p);
    p->cb = cb;
    p->arg = arg;
    p->deadline_ms = dr_clock_ms() + (timeout_ms ? timeout_ms : c->o.command_timeout_ms);
    *c->last = p;
    c->last = &p->next;
    if (c->flush_queued)
        return;
    c->flush_queued = true;
    c->busy++;
    loop_next_tick(c->loop, flush, c);
}

static void greeted(void *arg, redisReply *reply, const struct dr_err *why)
{
    struct queue_conn *c = arg;
    struct dr_err err = {0};
    if (!reply || c->freed)
        return; /* down() is already on its way */
    (void)why;
    switch (greet_step(&c->greet, reply, &err)) {
    case GREET_MORE:
        send_now(c, c->greet.argc, c->greet.argv, c->greet.len, 0, greeted, c);
        return;
    case GREET_FAILED:
        down(c, &err);
        return;
    case GREET_DONE:
        break;
    }
    set_state(c, READY);
    c->generation++;
    c->up_since_ms = dr_clock_ms();
    if (c->o.on_up)
        c->o.on_up(c->o.arg);
}

static bool is_push(const redisReply *r)
{
    return r->type == REDIS_REPLY_ARRAY && r->elements == 3 &&
           r->element[0]->type == REDIS_REPLY_STRING && strcmp(r->element[0]->str, "message") == 0;
}

static void deliver(struct queue_conn *c, redisReply *r)
{
    struct pending *p = c->first;
    struct dr_err err = {0};
    if (c->o.on_push && is_push(r)) {
        c->o.on_push(c->o.arg, r);
        freeReplyObject(r);
        return;
    }
    if (!p) { /* "max number of clients reached" comes without a command */
        (void)dr_fail(&err, DR_E_UNREACHABLE, "Redis: unexpected reply: %.120s",
                      r->type == REDIS_REPLY_ERROR ? r->str : "not an error");
        freeReplyObject(r);
        down(c, &err);
        return;
    }
    c->first = p->next;
    if (!c->first)
        c->last = &c->first;
    p->cb(p->arg, r, NULL);
    freeReplyObject(r);
    free(p);
}

static void parse_replies(struct queue_conn *c)
{
    redisReader *reader = c->reader;
    while (c->reader == reader && reader) {
        void *r = NULL;
        if (redisReaderGetReply(reader, &r) != REDIS_OK) {
            fail_with(c, DR_E_PROTOCOL, "reply cannot be parsed");
            return;
        }
        if (!r)
            return;
        deliver(c, r);
        if (c->freed)
            return;
    }
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct queue_conn *c = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    c->busy++;
    c->last_heard_ms = dr_clock_ms();
    for (;;) {
        struct evbuffer_iovec v;
        if (c->freed || c->bev != bev || evbuffer_peek(in, -1, NULL, &v, 1) < 1 || v.iov_len == 0)
            break;
        if (!resp_guard_feed(&c->guard, v.iov_base, v.iov_len)) {
            fail_with(c, DR_E_PROTOCOL, "reply too deep, too large or no RESP");
            break;
        }
        if (redisReaderFeed(c->reader, v.iov_base, v.iov_len) != REDIS_OK) {
            fail_with(c, DR_E_NOMEM, "reply buffer");
            break;
        }
        (void)evbuffer_drain(in, v.iov_len);
        parse_replies(c);
    }
    c->busy--;
    maybe_release(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct queue_conn *c = arg;
    struct dr_err err = {0};
    if (what & BEV_EVENT_CONNECTED) {
        set_state(c, GREETING);
        c->reader = redisReaderCreate();
        resp_guard_init(&c->guard, c->o.max_reply_bytes);
        greet_begin(&c->greet, c->o.url, c->o.name);
        send_now(c, c->greet.argc, c->greet.argv, c->greet.len, 0, greeted, c);
        return;
    }
    unsigned long tls = c->ssl ? bufferevent_get_openssl_error(bev) : 0;
    if (c->ssl && c->state == CONNECTING && (what & BEV_EVENT_ERROR))
        (void)dr_tls_explain(c->ssl, tls, &err);
    else if (what & BEV_EVENT_EOF)
        (void)dr_fail(&err, DR_E_UNREACHABLE, "Redis closed the connection");
    else
        (void)dr_fail_errno(&err, DR_E_UNREACHABLE, "Redis connection");
    down(c, &err);
}

static int open_socket(const struct queue_conn *c)
{
    const struct sockaddr *a = (const struct sockaddr *)&c->addresses.at;
    int on = 1, user_timeout_ms = 15000;
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && a->sa_family != AF_UNIX) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms,
                         sizeof user_timeout_ms);
    }
    return fd;
}

static void connect_now(struct queue_conn *c)
{
    struct dr_err err = {0};
    int fd = open_socket(c);
    set_state(c, CONNECTING);
    c->connect_deadline_ms = dr_clock_ms() + c->o.connect_timeout_ms;
    if (fd < 0) {
        (void)dr_fail_errno(&err, DR_E_UNREACHABLE, "socket");
        down(c, &err);
        return;
    }
    struct event_base *base = loop_base(c->loop);
    if (c->tls && dr_tls_new(c->tls, c->o.url, &c->ssl, &err)) {
        (void)close(fd);
        down(c, &err);
        return;
    }
    c->bev = c->tls ? bufferevent_openssl_socket_new(base, fd, c->ssl, BUFFEREVENT_SSL_CONNECTING,
                                                     BEV_OPT_CLOSE_ON_FREE)
                    : bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!c->bev)
        abort();
    bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
    (void)bufferevent_set_max_single_read(c->bev, READ_MAX);
    (void)bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    if (bufferevent_socket_connect(c->bev, (const struct sockaddr *)&c->addresses.at,
                                   (int)c->addresses.len) != 0 &&
        c->state == CONNECTING) {
        (void)dr_fail_errno(&err, DR_E_UNREACHABLE, "connect");
        down(c, &err);
    }
}

static void resolved(void *arg, enum dr_rc rc, const struct dr_err *why)
{
    struct queue_conn *c = arg;
    c->busy--;
    if (!c->freed && c->state == RESOLVING) {
        if (rc)
            down(c, why);
        else
            connect_now(c);
    }
    maybe_release(c);
}

static void begin(struct queue_conn *c)
{
    set_state(c, RESOLVING);
    if (address_unix(&c->addresses, c->o.url)) {
        connect_now(c);
        return;
    }
    c->busy++;
    pool_submit(c->pool, address_lookup, &c->addresses, resolved, c);
}

static void on_backoff(void *arg)
{
    struct queue_conn *c = arg;
    if (c->state == BACKOFF && c->busy == 0)
        begin(c);
    else if (c->state == BACKOFF) /* a lookup is still under way */
        loop_timer_arm(c->backoff, BACKOFF_MIN_MS);
}

static void ignore(void *arg, redisReply *reply, const struct dr_err *why)
{
    (void)arg;
    (void)reply;
    (void)why;
}

static void on_tick(void *arg)
{
    struct queue_conn *c = arg;
    int64_t now = dr_clock_ms();
    loop_timer_arm(c->tick, TICK_MS);
    if (c->state == CONNECTING && now > c->connect_deadline_ms) {
        fail_with(c, DR_E_UNREACHABLE,
                  c->tls ? "no TLS handshake within its time" : "no connection within its time");
        return;
    }
    for (const struct pending *p = c->first; p; p = p->next)
        if (now > p->deadline_ms) {
            fail_with(c, DR_E_UNREACHABLE, "no reply within its time");
            return;
        }
    if (c->state == READY && !c->first && now - c->last_heard_ms > IDLE_PING_MS) {
        static const char *argv[] = {"PING"};
        static const size_t len[] = {4};
        send_now(c, 1, argv, len, 0, ignore, NULL);
    }
}

enum dr_rc queue_conn_new(struct loop *l, struct pool *p, const struct queue_conn_options *o,
                          struct queue_conn **out, struct dr_err *err)
{
    struct queue_conn *c = dr_xalloc(sizeof *c);
    c->loop = l;
    c->pool = p;
    c->o = *o;
    c->last = &c->first;
    if (!c->o.connect_timeout_ms)
        c->o.connect_timeout_ms = 2000;
    if (!c->o.command_timeout_ms)
        c->o.command_timeout_ms = 5000;
    if (!c->o.max_reply_bytes)
        c->o.max_reply_bytes = 64 << 20;
    address_init(&c->addresses, o->url);
    c->out = evbuffer_new();
    c->backoff = loop_timer_new(l, on_backoff, c);
    c->tick = loop_timer_new(l, on_tick, c);
    if (!c->out || (o->url->kind == DR_REDIS_TLS && dr_tls_context_new(o->url, &c->tls, err))) {
        queue_conn_free(c);
        return dr_fail(err, DR_E_NOMEM, "connection");
    }
    *out = c;
    return DR_OK;
}

void queue_conn_start(struct queue_conn *c)
{
    if (c->state != IDLE)
        return;
    loop_timer_arm(c->tick, TICK_MS);
    begin(c);
}

static void maybe_release(struct queue_conn *c)
{
    if (!c->freed || c->busy > 0)
        return;
    if (c->out)
        evbuffer_free(c->out);
    dr_tls_context_free(c->tls);
    free(c);
}

void queue_conn_free(struct queue_conn *c)
{
    struct dr_err err = {0};
    if (!c || c->freed)
        return;
    c->freed = true;
    c->state = IDLE;
    c->busy++;
    loop_timer_free(c->backoff);
    loop_timer_free(c->tick);
    if (c->out)
        close_transport(c);
    (void)dr_fail(&err, DR_E_UNREACHABLE, "the connection was closed");
    lose_all(c, &err);
    c->busy--;
    maybe_release(c);
}

bool queue_conn_is_up(const struct queue_conn *c)
{
    return c->state == READY;
}

uint64_t queue_conn_generation(const struct queue_conn *c)
{
    return c->generation;
}

struct refused {
    struct queue_conn *conn;
    queue_conn_cb *cb;
    void *arg;
};

static void refuse(void *arg)
{
    struct refused *r = arg;
    struct dr_err err = {0};
    (void)dr_fail(&err, DR_E_UNREACHABLE, "no connection to Redis");
    r->cb(r->arg, NULL, &err);
    r->conn->busy--;
    maybe_release(r->conn);
    free(r);
}

void queue_conn_send(struct queue_conn *c, int argc, const char **argv, const size_t *len,
                     int64_t timeout_ms, queue_conn_cb *cb, void *arg)
{
    if (c->state == READY) {
        send_now(c, argc, argv, len, timeout_ms, cb, arg);
        return;
    }
    struct refused *r = dr_xalloc(sizeof *r);
    *r = (struct refused){c, cb, arg};
    c->busy++;
    loop_next_tick(c->loop, refuse, r);
}
