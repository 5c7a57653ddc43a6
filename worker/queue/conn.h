/* One Redis connection: hiredis as codec over a libevent bufferevent (TCP, unix socket, TLS with
 * host check). Reconnects by itself with jitter. Loop thread only. */
#ifndef DR_WORKER_QUEUE_CONN_H
#define DR_WORKER_QUEUE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hiredis/hiredis.h>

#include "common/err.h"
#include "common/redis_url.h"

struct loop;
struct pool;
struct cancel;
struct queue_conn;

struct queue_conn_options {
    const struct dr_redis_url *url; /* borrowed, outlives the connection */
    const char *name;               /* CLIENT SETNAME; static */
    int64_t connect_timeout_ms;     /* 0: 2000 */
    int64_t command_timeout_ms;     /* 0: 5000; a later reply is a dead peer */
    size_t max_reply_bytes;         /* 0: 64 MiB */
    void (*on_up)(void *arg);
    void (*on_down)(void *arg, const struct dr_err *err); /* every failed try, too */
    /* A message of a channel: {"message", channel, payload}; the reply is freed after the call. */
    void (*on_push)(void *arg, const redisReply *r);
    void *arg;
};

/* reply NULL: lost, the outcome is unknown; why says how. The reply is freed after the call. */
typedef void queue_conn_cb(void *arg, redisReply *reply, const struct dr_err *why);

enum dr_rc queue_conn_new(struct loop *l, struct pool *p, const struct queue_conn_options *o,
                          struct queue_conn **out, struct dr_err *err) DR_MUST_CHECK;
void queue_conn_start(struct queue_conn *c);
/* Anywhere on the loop thread; pending callbacks run with NULL first. NULL is allowed. */
void queue_conn_free(struct queue_conn *c);
bool queue_conn_is_up(const struct queue_conn *c);
uint64_t queue_conn_generation(const struct queue_conn *c); /* counts connections made */

/* cb runs exactly once, never from inside this call. timeout_ms 0: the default. Nothing is sent
 * while the connection is down: cb then gets NULL. */
void queue_conn_send(struct queue_conn *c, int argc, const char **argv, const size_t *len,
                     int64_t timeout_ms, queue_conn_cb *cb, void *arg);
/* The same for a fiber. The reply is the caller's. Error replies are DR_OK: look at its type.
 * A fired cancel does not withdraw what was sent: the reply is waited for or lost. */
enum dr_rc queue_conn_call(struct queue_conn *c, int argc, const char **argv, const size_t *len,
                           int64_t timeout_ms, struct cancel *cancel, redisReply **out,
                           struct dr_err *err) DR_MUST_CHECK;
/* The same with fault points NAME.sent, when the command has left, and NAME.reply, when it was
 * answered; one that fails loses the connection. */
enum dr_rc queue_conn_call_named(struct queue_conn *c, const char *name, int argc,
                                 const char **argv, const size_t *len, redisReply **out,
                                 struct dr_err *err) DR_MUST_CHECK;
void queue_conn_push(
    struct queue_conn *c); /* what was sent leaves now, not at the end of the turn */
/* Drops the connection: pending commands are lost, it connects again. */
void queue_conn_reset(struct queue_conn *c, const char *reason);

#endif
