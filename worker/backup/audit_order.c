/* Orders as records of the audit log: see audit_order.h. Loop thread; the log is written in the
 * pool. */
#include "worker/backup/audit_order.h"

#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/wire/args.h"
#include "worker/backup/audit.h"
#include "worker/core/pool.h"

static void member(struct dr_buf *b, const char *name, const char *value)
{
    dr_buf_printf(b, ",\"%s\":", name);
    dr_buf_json(b, value, strlen(value));
}

static const char *pack(const struct dispatch_order *o, unsigned unwritten, struct dr_buf *b)
{
    static const char *const types[] = {"refused", "started", "ended"};
    dr_buf_str(b, "{\"job\":");
    dr_buf_json(b, o->job_id, strlen(o->job_id));
    member(b, "lane", o->lane);
    member(b, "actor", o->actor);
    member(b, "worker", o->worker);
    if (o->verdict == DISPATCH_STARTED)
        dr_buf_printf(b, ",\"attempt\":%u", o->attempt);
    if (o->verdict != DISPATCH_ENDED || !o->attempt) { /* nothing else says what it was */
        member(b, "kid", o->kid);
        member(b, "claimed_actor", o->claimed_actor);
        if (o->args) {
            dr_buf_str(b, ",\"args\":");
            dr_args_json(o->args, b);
        }
    }
    if (o->verdict == DISPATCH_ENDED) {
        member(b, "outcome", o->outcome);
        if (o->cancelled_by[0])
            member(b, "cancelled_by", o->cancelled_by);
    }
    if (o->verdict == DISPATCH_REFUSED) {
        member(b, "reason", o->reason);
        member(b, "field", o->err->field);
        member(b, "value", o->err->value);
        dr_buf_printf(b, ",\"unwritten\":%u", unwritten);
    }
    if (o->err) {
        member(b, "kind", o->err->reason[0] ? o->err->reason : dr_rc_name(o->err->rc));
        member(b, "message", o->err->msg);
    }
    dr_buf_str(b, "}");
    return types[o->verdict];
}

struct writing {
    struct store *store;
    const char *type, *data;
    struct catalog_head catalog;
};

static enum dr_rc write_record(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct writing *w = item;
    (void)cancel;
    enum dr_rc rc = audit_append(w->store, w->type, w->data, err);
    store_head(w->store,
               &w->catalog); /* its mutex may be held while files are read: not on the loop */
    return rc;
}

/* True: this refusal is only counted. */
static bool too_many(struct audit_orders *a)
{
    int64_t minute = dr_clock_ms() / 60000;
    if (minute != a->minute)
        a->refused = 0;
    a->minute = minute;
    if (a->refused++ < AUDIT_REFUSED_A_MINUTE)
        return false;
    a->unwritten++;
    return true;
}

void audit_order(struct audit_orders *a, const struct dispatch_order *o)
{
    struct dr_err err = {0};
    struct dr_buf b;
    if (!a->services->store || (o->trivial && o->verdict != DISPATCH_REFUSED) ||
        (o->verdict == DISPATCH_REFUSED && too_many(a)))
        return;
    unsigned unwritten = a->unwritten;
    dr_buf_init(&b, AUDIT_DATA_MAX);
    struct writing w = {.store = a->services->store};
    w.type = pack(o, unwritten, &b);
    w.data = (const char *)b.data;
    enum dr_rc rc =
        b.failed ? dr_fail(&err, DR_E_TOO_BIG, "an order's record over %d bytes", AUDIT_DATA_MAX)
                 : pool_run(a->services->pool, write_record, &w, NULL, &err);
    dr_buf_fini(&b);
    if (w.catalog.seq > a->catalog.seq)
        a->catalog = w.catalog;
    if (rc)
        dr_log_err(DR_LOG_ERROR, "audit.unwritten", &err, "job", o->job_id, "type", w.type, NULL);
    else if (o->verdict == DISPATCH_REFUSED)
        a->unwritten -= unwritten;
}
