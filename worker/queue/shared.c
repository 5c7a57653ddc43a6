/* Calls for many. The first fiber that asks gathers whoever else asks in its turn of the loop; the
 * one that fills the call, or else the first in the next turn, makes it and hands out the answers.
 */
#include "worker/queue/shared.h"

#include <stdlib.h>

#include "common/mem.h"
#include "worker/core/fiber.h"
#include "worker/queue/queue_internal.h"

enum { PARTS_MAX = QUEUE_BATCH, BYTES_MAX = 262144 };

/* A call that still gathers; on the stack of the first part's fiber. */
struct shared_call {
    struct shared_call *next;
    const struct shared_kind *kind;
    const char *lane;
    struct shared_part *first, **last;
    unsigned count;
    size_t bytes;
    bool turned; /* the first part's fiber is back from waiting for the others */
};

static void put_call(struct queue *q, struct script_call *c, const struct shared_kind *kind,
                     const struct shared_part *first)
{
    const char *lane = first->held->lane;
    script_begin(c, kind->script);
    script_key(c, &q->keys, "run", "");
    script_key(c, &q->keys, "lease:", lane);
    script_key(c, &q->keys, "own:", q->wid);
    for (const char *const *k = kind->keys; *k; k++)
        script_key(c, &q->keys, *k, "");
    for (const struct shared_part *p = first; p; p = p->next) {
        script_key(c, &q->keys, "job:", p->held->jid);
        script_key(c, &q->keys, "ev:", p->held->jid);
    }
    script_arg(c, lane);
    if (kind->wid)
        script_arg(c, q->wid);
    for (const struct shared_part *p = first; p; p = p->next)
        kind->put_args(c, p);
}

/* Each part takes its own answer out of the reply. */
static enum dr_rc hand_out(struct shared_part *first, redisReply *r, struct dr_err *err)
{
    size_t i = 0;
    for (struct shared_part *p = first; p; p = p->next, i++)
        if (i >= r->elements || r->element[i]->type != REDIS_REPLY_ARRAY)
            return dr_fail(err, DR_E_PROTOCOL, "answer %zu of %zu is no array", i, r->elements);
    i = 0;
    for (struct shared_part *p = first; p; p = p->next) {
        p->answer = r->element[i];
        r->element[i++] = NULL;
    }
    return DR_OK;
}

static enum dr_rc ask(struct queue *q, const struct shared_kind *kind, struct shared_part *first,
                      bool refusal_ends, struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    redisReply *r = NULL;
    put_call(q, c, kind, first);
    enum dr_rc rc = queue_run_sure(q, c, refusal_ends, &r, err);
    if (!rc)
        rc = hand_out(first, r, err);
    freeReplyObject(r);
    free(c);
    return rc;
}

static struct shared_call *gathering(struct queue *q, const struct shared_kind *kind,
                                     const struct shared_part *part)
{
    for (struct shared_call *s = q->gathering; s; s = s->next)
        if (s->kind == kind && s->lane == part->held->lane && s->count < PARTS_MAX &&
            s->bytes + part->bytes <= BYTES_MAX)
            return s;
    return NULL;
}

static void join(struct shared_call *s, struct shared_part *part)
{
    *s->last = part;
    s->last = &part->next;
    s->count++;
    s->bytes += part->bytes;
}

static void stop_gathering(struct queue *q, struct shared_call *s)
{
    struct shared_call **at = &q->gathering;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
}

/* In the fiber of `self`. */
static void make(struct queue *q, struct shared_call *s, const struct shared_part *self)
{
    struct dr_err err = {0};
    stop_gathering(q, s);
    enum dr_rc rc = ask(q, s->kind, s->first, s->count > 1, &err);
    bool first_waits = s->turned;
    for (struct shared_part *p = s->first, *next; p; p = next) {
        next = p->next; /* a part ends with its fiber; so does s, with the first */
        p->next = NULL;
        p->over = true;
        p->refused = rc == DR_E_REDIS;
        if (rc)
            p->err = err;
        if (p != self && (p != s->first || first_waits))
            fiber_wake(p->fiber);
    }
}

/* In the fiber of the first part, on whose stack s lies. */
static void gather(struct queue *q, struct shared_call *s)
{
    s->next = q->gathering;
    q->gathering = s;
    fiber_wake(s->first->fiber);
    fiber_suspend();
    s->turned = true;
    if (s->count < PARTS_MAX)
        make(q, s, s->first);
    else if (!s->first->over)
        fiber_suspend(); /* whoever filled it makes it */
}

enum dr_rc shared_run(struct queue *q, const struct shared_kind *kind, struct shared_part *part,
                      struct dr_err *err)
{
    struct shared_call *s = gathering(q, kind, part);
    part->fiber = fiber_self();
    if (s) {
        join(s, part);
        if (s->count == PARTS_MAX)
            make(q, s, part);
        else
            fiber_suspend();
    } else {
        struct shared_call own = {.kind = kind, .lane = part->held->lane, .last = &own.first};
        join(&own, part);
        gather(q, &own);
    }
    if (part->refused)
        return ask(q, kind, part, false, err);
    if (part->err.rc)
        *err = part->err;
    return part->err.rc;
}
