/* The scripts seed and fire. */
#include "worker/queue/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/wire/sched_info.h"
#include "worker/queue/queue_internal.h"

/* A definition that no worker has shown for so long is nobody's; it is shown thrice as often. */
enum { STALE_MS = 90000 };

static void read_last(struct queue_schedule *s, const redisReply *r, size_t i)
{
    struct dr_sched_last last;
    s->last_jid[0] = 0;
    s->last_ms = 0;
    if (i < r->elements && r->element[i]->type == REDIS_REPLY_STRING &&
        dr_sched_last_read(r->element[i]->str, r->element[i]->len, &last) &&
        dr_job_id_valid(last.jid, strlen(last.jid)) && last.slot_ms <= INT64_MAX / 2) {
        (void)snprintf(s->last_jid, sizeof s->last_jid, "%s", last.jid);
        s->last_ms = (int64_t)last.slot_ms;
    }
}

enum dr_rc queue_seed(struct queue *q, struct queue_schedule *s, unsigned count, int64_t *since_ms,
                      struct dr_err *err)
{
    static const char *const keys[] = {"sched", "schednext", "schedlast", "schedseen"};
    struct script_call *c = dr_xalloc(sizeof *c);
    redisReply *r = NULL;
    script_begin(c, "seed");
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        script_key(c, &q->keys, keys[i], "");
    script_number(c, *since_ms);
    script_number(c, STALE_MS);
    for (unsigned i = 0; i < count; i++) {
        script_arg(c, s[i].name);
        script_bytes(c, s[i].definition_len ? s[i].definition : "", s[i].definition_len);
        script_arg(c, s[i].when);
        script_number(c, s[i].first_ms);
        script_number(c, s[i].next_ms);
    }
    enum dr_rc rc = script_run(c, q->scripts, q->conn, &r, err);
    if (!rc && r->elements != 3 + 3 * (size_t)count)
        rc = dr_fail(err, DR_E_PROTOCOL, "script seed: %zu elements", r->elements);
    if (!rc) {
        queue_saw_clock(q, script_integer(r, 1));
        *since_ms = script_integer(r, 2);
        for (unsigned i = 0; i < count; i++) {
            int64_t next = script_integer(r, 4 + 3 * i);
            s[i].ours = script_integer(r, 3 + 3 * i) == 1;
            s[i].next_ms = next > 0 ? next : 0;
            read_last(&s[i], r, 5 + 3 * i);
        }
    }
    freeReplyObject(r);
    free(c);
    return rc;
}

static enum queue_fired fired_code(const char *code)
{
    static const char *const codes[] = {"FIRED", "PASSED",  "OVERLAP", "EXISTS",
                                        "EARLY", "ALREADY", "GONE",    "OTHER"};
    unsigned i = 0; /* in the order of enum queue_fired */
    while (i < QUEUE_OTHER && strcmp(code, codes[i]) != 0)
        i++;
    return (enum queue_fired)i;
}

enum dr_rc queue_fire(struct queue *q, struct queue_schedule *s, const struct queue_slot *slot,
                      enum queue_fired *out, struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    redisReply *r = NULL;
    script_begin(c, "fire");
    script_key(c, &q->keys, "schednext", "");
    script_key(c, &q->keys, "sched", "");
    script_key(c, &q->keys, "schedlast", "");
    script_key(c, &q->keys, "q:", s->lane);
    script_key(c, &q->keys, "job:", slot->jid);
    script_key(c, &q->keys, "job:", s->last_jid[0] ? s->last_jid : slot->jid);
    script_key(c, &q->keys, "ev", "");
    script_key(c, &q->keys, "stat", "");
    script_arg(c, s->name);
    script_bytes(c, s->definition, s->definition_len);
    script_number(c, s->next_ms);
    script_number(c, slot->slot_ms);
    script_number(c, slot->next_ms);
    script_bytes(c, slot->raw ? slot->raw : "", slot->raw ? slot->len : 0);
    script_arg(c, slot->jid);
    script_arg(c, slot->dig);
    script_arg(c, s->lane);
    script_number(c, slot->ttl_ms);
    script_arg(c, slot->unless_live ? "1" : "0");
    script_arg(c, slot->why ? slot->why : "");
    script_number(c, s->last_ms + slot->waits_ms);
    enum dr_rc rc = script_run(c, q->scripts, q->conn, &r, err);
    if (!rc) {
        int64_t next = script_integer(r, 2);
        queue_saw_clock(q, script_integer(r, 1));
        *out = fired_code(script_text(r, 0));
        s->ours = *out != QUEUE_OTHER;
        if (*out != QUEUE_NO_SLOT) /* what was known is then put there again */
            s->next_ms = next > 0 ? next : 0;
        read_last(s, r, 3);
    }
    freeReplyObject(r);
    free(c);
    return rc;
}

uint64_t queue_generation(const struct queue *q)
{
    return queue_conn_generation(q->conn);
}

void queue_on_clock(struct queue *q, void (*fn)(void *arg), void *arg)
{
    q->on_clock = fn;
    q->clock_arg = arg;
}
