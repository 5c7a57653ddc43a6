/* One try of a call: over HTTP, signed when its turn has come, or on a pool thread. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/str.h"
#include "worker/core/http.h"
#include "worker/core/pool.h"
#include "worker/storage/engine_internal.h"

enum {
    BASE_MS = 30000,
    COMPLETE_MS = 600000 /* some join what was sent while we wait */,
    PARSE_IN_POOL = 64 << 10,
    STALL_BYTES_S = 1024
};

struct exchange {
    struct engine *engine;
    struct storage_call *call;
    struct storage_request first, fresh; /* first: method and body; fresh: URL and signature */
    const void *payload;
    void *into, *joined;
};

static enum dr_rc sign(void *arg, struct http_request *r, struct dr_err *err)
{
    struct exchange *x = arg;
    storage_request_fini(&x->fresh);
    x->call->now_unix_s = dr_wall_ms() / 1000 + x->engine->route.clock_ahead_s;
    enum dr_rc rc = x->engine->o.dialect->build(x->call, &x->fresh, err);
    r->url = x->fresh.url;
    r->headers = (const char *const *)x->fresh.fields;
    return rc;
}

static bool put_body(struct exchange *x, struct http_request *r)
{
    const struct storage_request *q = &x->first;
    size_t around = q->before.len + q->after.len, len = q->payload ? x->call->length : 0;
    r->body_len = around + len;
    if (!around || !len) {
        r->body = len ? x->payload : q->before.len ? q->before.data : q->after.data;
        return len || !q->before.len || !q->after.len;
    }
    unsigned char *p = x->joined = dr_try_alloc(around + len);
    if (!p)
        return false;
    if (q->before.len)
        memcpy(p, q->before.data, q->before.len);
    memcpy(p + q->before.len, x->payload, len);
    if (q->after.len)
        memcpy(p + q->before.len + len, q->after.data, q->after.len);
    r->body = p;
    return true;
}

struct reading {
    const struct storage_dialect *dialect;
    const struct storage_call *call;
    const struct storage_reply *reply;
    struct storage_answer *out;
    enum storage_class class;
};

static enum dr_rc parse_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct reading *r = item;
    (void)cancel;
    r->class = r->dialect->parse(r->call, r->reply, r->out, err);
    return err->rc;
}

static const char *field(const void *head, const char *name)
{
    return http_header(head, name);
}

static enum storage_class parse(struct exchange *x, const struct http_response *a, bool to_caller,
                                struct storage_answer *out, struct dr_err *err)
{
    struct storage_reply reply = {.status = a->status,
                                  .field = field,
                                  .head = a,
                                  .date_unix_s = a->date_unix,
                                  .retry_after_s = a->retry_after_s,
                                  .body = a->body.data,
                                  .body_len = to_caller ? 0 : a->body.len};
    struct reading r = {x->engine->o.dialect, x->call, &reply, out, STORAGE_NONSENSE};
    if (reply.body_len > PARSE_IN_POOL)
        (void)pool_run(x->engine->o.pool, parse_item, &r, NULL, err);
    else
        (void)parse_item(&r, NULL, err);
    return r.class;
}

static void count(struct engine *e, const struct http_response *a)
{
    e->numbers.sent_bytes += a->sent_bytes;
    e->numbers.received_bytes += a->received_bytes;
    if (a->date_unix)
        e->numbers.clock_ahead_s = a->date_unix - dr_wall_ms() / 1000;
}

/* The request did not come to its end. A refusal that was read before is the better answer: a store
 * that says no closes the connection on what is still being sent. */
static enum storage_class broken(struct exchange *x, const struct http_response *a,
                                 struct storage_answer *out, struct dr_err *err)
{
    if (a->status >= 300 && err->rc != DR_E_CANCELLED) {
        struct dr_err told = {0};
        enum storage_class class = parse(x, a, false, out, &told);
        if (class != STORAGE_NONSENSE && class != STORAGE_OK) {
            *err = told;
            return class;
        }
        storage_answer_fini(out);
    }
    bool passes = err->rc == DR_E_UNREACHABLE || err->rc == DR_E_TIMEOUT ||
                  err->rc == DR_E_PROTOCOL || err->rc == DR_E_NOMEM;
    return passes ? STORAGE_TRANSIENT : STORAGE_PERMANENT;
}

static enum storage_class by_http(struct exchange *x, struct cancel *cancel,
                                  struct storage_answer *out, struct dr_err *err)
{
    struct engine *e = x->engine;
    const struct engine_options *o = &e->o;
    struct http_response a = {0};
    struct http_request r = {.method = x->first.method,
                             .url = x->first.url,
                             .ca_file = o->target->ca_file,
                             .plain = dr_starts(x->first.url, "http://"),
                             .response_max_bytes = x->first.answer_max,
                             .deadline_ms = BASE_MS + x->call->length * 1000 / o->min_bytes_s,
                             .max_bytes_s = o->max_bytes_s / o->at_once,
                             .sign = sign,
                             .sign_arg = x};
    if (x->call->op == STORAGE_COMPLETE)
        r.deadline_ms = COMPLETE_MS;
    if (x->first.body_to_caller || x->first.payload) {
        r.stall_ms = o->stall_ms;
        r.stall_bytes = o->stall_ms * STALL_BYTES_S / 1000;
    }
    if (x->first.body_to_caller) {
        r.into = x->into;
        r.into_max = x->call->length;
    }
    if (!put_body(x, &r)) {
        (void)dr_fail(err, DR_E_NOMEM, "a body of %zu bytes", r.body_len);
        return STORAGE_TRANSIENT;
    }
    enum storage_class class;
    if (http_perform(o->http, &r, cancel, &a, err) != DR_OK)
        class = broken(x, &a, out, err);
    else
        class = parse(x, &a, x->first.body_to_caller && a.status < 300, out, err);
    if (class == STORAGE_OK && x->first.body_to_caller && a.into_len != x->call->length)
        class = storage_fail(err, STORAGE_TRANSIENT, "%zu bytes came, not %llu", a.into_len,
                             (unsigned long long)x->call->length);
    count(e, &a);
    http_response_fini(&a);
    return class;
}

struct local_item {
    const struct storage_dialect *dialect;
    const struct storage_call *call;
    const void *payload;
    void *into;
    struct storage_answer *out;
    enum storage_class class;
};

static enum dr_rc local_run(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct local_item *i = item;
    i->class = i->dialect->local->run(i->call, i->payload, i->into, cancel, i->out, err);
    return err->rc;
}

static enum storage_class by_pool(struct engine *e, struct storage_call *c, const void *payload,
                                  void *into, struct cancel *cancel, struct storage_answer *out,
                                  struct dr_err *err)
{
    struct local_item i = {e->o.dialect, c, payload, into, out, STORAGE_PERMANENT};
    (void)pool_run_long(e->o.pool, local_run, &i, cancel, err);
    if (i.class == STORAGE_OK && c->op != STORAGE_GET)
        e->numbers.sent_bytes += payload ? c->length : 0;
    else if (i.class == STORAGE_OK)
        e->numbers.received_bytes += c->length;
    return i.class;
}

enum storage_class engine_exchange(struct engine *e, struct storage_call *c, const void *payload,
                                   void *into, struct cancel *cancel, struct storage_answer *out,
                                   struct dr_err *err)
{
    struct exchange x = {.engine = e, .call = c, .payload = payload, .into = into};
    enum storage_class class = STORAGE_OK;
    memset(out, 0, sizeof *out);
    e->numbers.requests++;
    c->now_unix_s = dr_wall_ms() / 1000 + e->route.clock_ahead_s;
    if (e->o.dialect->local)
        return by_pool(e, c, payload, into, cancel, out, err);
    if (e->o.dialect->build(c, &x.first, err))
        class = STORAGE_PERMANENT;
    else if (x.first.method)
        class = by_http(&x, cancel, out, err);
    storage_request_fini(&x.first);
    storage_request_fini(&x.fresh);
    free(x.joined);
    return class;
}
