/* Commands that a fiber waits for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/core/cancel.h"
#include "worker/core/fault.h"
#include "worker/core/fiber.h"
#include "worker/queue/conn.h"

struct call {
    struct fiber *fiber;
    redisReply *reply;
    struct dr_err err;
    bool done, waiting;
};

static void on_called(void *arg, redisReply *reply, const struct dr_err *why)
{
    struct call *call = arg;
    call->done = true;
    if (reply) { /* its parts are moved out: what is freed after this callback is an empty shell */
        call->reply = dr_xalloc(sizeof *reply);
        *call->reply = *reply;
        memset(reply, 0, sizeof *reply);
        reply->type = REDIS_REPLY_NIL;
    } else {
        call->err = *why;
    }
    if (call->waiting)
        fiber_wake(call->fiber);
}

static enum dr_rc answer(struct call *call, redisReply **out, struct dr_err *err)
{
    if (!call->done) {
        call->waiting = true;
        fiber_suspend();
    }
    if (!call->reply)
        return dr_fail(err, call->err.rc, "%s", call->err.msg);
    *out = call->reply;
    return DR_OK;
}

enum dr_rc queue_conn_call(struct queue_conn *c, int argc, const char **argv, const size_t *len,
                           int64_t timeout_ms, struct cancel *cancel, redisReply **out,
                           struct dr_err *err)
{
    struct call call = {.fiber = fiber_self()};
    if (cancel_fired(cancel))
        return dr_fail(err, cancel_fired(cancel), "%s", cancel_reason(cancel));
    queue_conn_send(c, argc, argv, len, timeout_ms, on_called, &call);
    return answer(&call, out, err);
}

#if DR_FAULTS
static void pass_point(struct queue_conn *c, const char *name, const char *what)
{
    char point[64];
    struct dr_err err = {0};
    (void)snprintf(point, sizeof point, "%s.%s", name, what);
    if (fault_point(point, &err))
        queue_conn_reset(c, point);
}
#endif

enum dr_rc queue_conn_call_named(struct queue_conn *c, const char *name, int argc,
                                 const char **argv, const size_t *len, redisReply **out,
                                 struct dr_err *err)
{
    struct call call = {.fiber = fiber_self()};
    queue_conn_send(c, argc, argv, len, 0, on_called, &call);
    queue_conn_push(c);
#if DR_FAULTS
    uint64_t generation = queue_conn_generation(c);
    pass_point(c, name, "sent");
    if (answer(&call, out, err))
        return err->rc;
    pass_point(c, name, "reply");
    if (queue_conn_is_up(c) && queue_conn_generation(c) == generation)
        return DR_OK;
    freeReplyObject(*out);
    *out = NULL;
    return dr_fail(err, DR_E_UNREACHABLE, "Redis: the reply to %s was lost", name);
#else
    (void)name;
    return answer(&call, out, err);
#endif
}
