/* A call with its repeats, and what needs no more than calls: head, delete, abort, lists. */
#include "worker/storage/engine_internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "worker/core/fiber.h"

enum { RETRY_AFTER_MAX_S = 900 };

static const char *const names[] = {"put", "begin", "part", "complete",     "abort",  "list parts",
                                    "get", "head",  "list", "list uploads", "delete", "authorise"};

static uint64_t or (uint64_t value, uint64_t usual)
{
    return value ? value : usual;
}

enum dr_rc engine_new(const struct engine_options *o, struct engine **out, struct dr_err *err)
{
    if (!o->dialect->local && !o->http)
        return dr_fail(err, DR_E_BUG, "%s goes over HTTP", o->dialect->provider);
    if (o->dialect->flags)
        return dr_fail(err, DR_E_BUG, "%s wants what the engine does not do yet",
                       o->dialect->provider);
    enum dr_rc rc = o->dialect->check(o->target, err);
    if (rc)
        return rc;
    struct engine *e = dr_xalloc(sizeof *e);
    e->o = *o;
    e->o.whole_bytes = or (o->whole_bytes, 32 << 20);
    if (e->o.whole_bytes > o->dialect->put_max)
        e->o.whole_bytes = o->dialect->put_max;
    e->o.part_bytes = or (o->part_bytes, 16 << 20);
    if (e->o.part_bytes < o->dialect->part_min)
        e->o.part_bytes = o->dialect->part_min;
    e->o.memory_bytes = or (o->memory_bytes, 96 << 20);
    e->o.at_once = (unsigned) or (o->at_once, 4);
    e->o.tries = (unsigned) or (o->tries, 8);
    e->o.budget = (unsigned) or (o->budget, 200);
    e->o.backoff_ms = or (o->backoff_ms, 200);
    e->o.backoff_cap_ms = or (o->backoff_cap_ms, 20000);
    e->o.slow_cap_ms = or (o->slow_cap_ms, 120000);
    e->o.min_bytes_s = or (o->min_bytes_s, 32 << 10);
    e->o.stall_ms = or (o->stall_ms, 60000);
    engine_refill(e);
    *out = e;
    return DR_OK;
}

void engine_free(struct engine *e)
{
    free(e);
}

void engine_refill(struct engine *e)
{
    e->budget = e->o.budget;
}

void engine_look(const struct engine *e, struct engine_numbers *out)
{
    *out = e->numbers;
}

unsigned engine_at_once(const struct engine *e, uint64_t piece)
{
    uint64_t room = e->o.memory_bytes / piece;
    return room < 1 ? 1 : room < e->o.at_once ? (unsigned)room : e->o.at_once;
}

struct storage_call engine_prepare(struct engine *e, enum storage_op op, const char *key)
{
    return (struct storage_call){.op = op, .target = e->o.target, .route = &e->route, .key = key};
}

/* What the answer taught; false: nothing, so that another try would end the same way. */
static bool learn(struct engine *e, enum storage_class class, const struct storage_answer *a)
{
    if (class == STORAGE_SKEW && a->date_unix_s) {
        e->route.clock_ahead_s = a->date_unix_s - dr_wall_ms() / 1000;
        return true;
    }
    if (class != STORAGE_REGION || (!a->region[0] && !a->host[0]))
        return false;
    if (a->region[0])
        memcpy(e->route.region, a->region, sizeof e->route.region);
    memcpy(e->route.host, a->host, sizeof e->route.host);
    return true;
}

/* Full jitter: anything up to a cap that doubles, so that many who failed together do not come
 * again together. */
static uint64_t pause_ms(const struct engine *e, bool slow, unsigned tried, uint64_t after_s)
{
    uint64_t most = slow ? e->o.slow_cap_ms : e->o.backoff_cap_ms;
    uint64_t cap = e->o.backoff_ms * (slow ? 4 : 1);
    for (unsigned i = 1; i < tried && cap < most; i++)
        cap *= 2;
    uint64_t ms = (uint64_t)(dr_random_unit() * (double)(cap < most ? cap : most));
    uint64_t after = (after_s < RETRY_AFTER_MAX_S ? after_s : RETRY_AFTER_MAX_S) * 1000;
    return ms > after ? ms : after;
}

/* True: try again, the pause is over. */
static bool again(struct engine *e, enum storage_class class, const struct storage_answer *a,
                  unsigned tried, unsigned *taught, struct cancel *cancel, struct dr_err *err)
{
    enum storage_act act = storage_class_act(class);
    if (cancel_fired(cancel))
        return false;
    if (act == STORAGE_ACT_RESIGN)
        return (*taught)++ < 2 && learn(e, class, a);
    if ((act != STORAGE_ACT_RETRY && act != STORAGE_ACT_SLOW) || tried >= e->o.tries)
        return false;
    if (e->budget == 0) {
        (void)dr_wrap(err, "no repeats left in this run");
        return false;
    }
    e->budget--;
    return fiber_sleep(pause_ms(e, act == STORAGE_ACT_SLOW, tried, a->retry_after_s), cancel) ==
           DR_OK;
}

enum dr_rc engine_call(struct engine *e, struct storage_call *c, const void *payload, void *into,
                       struct cancel *cancel, struct storage_answer *out, enum storage_class *class,
                       struct dr_err *err)
{
    struct dr_err last = {0};
    unsigned taught = 0;
    for (unsigned tried = 1;; tried++) {
        dr_err_clear(&last);
        *class = engine_exchange(e, c, payload, into, cancel, out, &last);
        if (*class == STORAGE_OK)
            return DR_OK;
        if (!again(e, *class, out, tried, &taught, cancel, &last))
            break;
        storage_answer_fini(out);
        e->numbers.repeats++;
    }
    if (cancel_fired(cancel)) {
        dr_err_clear(&last);
        (void)dr_fail(&last, cancel_fired(cancel), "%s", cancel_reason(cancel));
    }
    (void)dr_wrap(&last, "%s %s", names[c->op], c->key ? c->key : "");
    if (err && err->rc == DR_OK)
        *err = last;
    return last.rc;
}

enum dr_rc engine_head(struct engine *e, const char *key, struct cancel *cancel,
                       struct storage_answer *out, struct dr_err *err)
{
    struct storage_call c = engine_prepare(e, STORAGE_HEAD, key);
    enum storage_class class;
    return engine_call(e, &c, NULL, NULL, cancel, out, &class, err);
}

static enum dr_rc forget_answer(struct engine *e, struct storage_call *c, struct cancel *cancel,
                                struct dr_err *err)
{
    struct storage_answer a;
    enum storage_class class;
    enum dr_rc rc = engine_call(e, c, NULL, NULL, cancel, &a, &class, err);
    storage_answer_fini(&a);
    return rc;
}

enum dr_rc engine_delete(struct engine *e, const char *key, struct cancel *cancel,
                         struct dr_err *err)
{
    struct storage_call c = engine_prepare(e, STORAGE_DELETE, key);
    return forget_answer(e, &c, cancel, err);
}

enum dr_rc engine_abort(struct engine *e, const char *key, const char *upload_id,
                        struct cancel *cancel, struct dr_err *err)
{
    struct storage_call c = engine_prepare(e, STORAGE_ABORT, key);
    c.upload_id = upload_id;
    return forget_answer(e, &c, cancel, err);
}

static enum dr_rc pages(struct engine *e, enum storage_op op, const char *prefix,
                        struct cancel *cancel, engine_entry_fn *fn, void *arg, struct dr_err *err)
{
    char *after = NULL;
    enum dr_rc rc;
    do {
        struct storage_call c = engine_prepare(e, op, prefix);
        struct storage_answer a;
        enum storage_class class;
        c.after = after;
        rc = engine_call(e, &c, NULL, NULL, cancel, &a, &class, err);
        for (size_t i = 0; !rc && i < a.entry_count; i++)
            rc = fn(arg, &a.entries[i], err);
        free(after);
        after = a.next;
        a.next = NULL;
        storage_answer_fini(&a);
    } while (!rc && after);
    free(after);
    return rc;
}

enum dr_rc engine_list(struct engine *e, const char *prefix, struct cancel *cancel,
                       engine_entry_fn *fn, void *arg, struct dr_err *err)
{
    return pages(e, STORAGE_LIST, prefix, cancel, fn, arg, err);
}

enum dr_rc engine_list_uploads(struct engine *e, const char *prefix, struct cancel *cancel,
                               engine_entry_fn *fn, void *arg, struct dr_err *err)
{
    return pages(e, STORAGE_LIST_UPLOADS, prefix, cancel, fn, arg, err);
}
