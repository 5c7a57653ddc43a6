/* What stands in Redis of orders, beside their transitions. */
#include "worker/queue/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/queue/queue_internal.h"

void queue_cancelled_by(struct queue *q, const char *jid, char out[QUEUE_BY_MAX])
{
    char key[DR_KEY_MAX];
    const char *argv[] = {"HGET", dr_key(&q->keys, key, "job:", jid), "cancel_by"};
    size_t len[] = {4, strlen(key), strlen(argv[2])};
    redisReply *r = NULL;
    struct dr_err err = {0};
    out[0] = 0;
    if (!queue_is_up(q) || queue_conn_call(q->conn, 3, argv, len, 0, NULL, &r, &err))
        return;
    if (r->type == REDIS_REPLY_STRING)
        (void)snprintf(out, QUEUE_BY_MAX, "%s", r->str);
    freeReplyObject(r);
}

enum dr_rc queue_forget_dead(struct queue *q, uint64_t *removed, struct dr_err *err)
{
    enum { AT_ONCE = 200 };
    *removed = 0;
    for (int64_t n = AT_ONCE; n == AT_ONCE;) {
        struct script_call *c = dr_xalloc(sizeof *c);
        redisReply *r = NULL;
        script_begin(c, "forget_dead");
        script_key(c, &q->keys, "dead", "");
        script_key(c, &q->keys, "deadraw", "");
        script_key(c, &q->keys, "deadinfo", "");
        script_key(c, &q->keys, "stat", "");
        script_number(c, (int64_t)QUEUE_DEAD_DAYS * 86400000);
        script_number(c, QUEUE_DEAD_MAX);
        script_number(c, AT_ONCE);
        enum dr_rc rc = queue_run_sure(q, c, true, &r, err);
        free(c);
        if (rc)
            return rc;
        n = script_integer(r, 1);
        *removed += (uint64_t)n;
        freeReplyObject(r);
    }
    return DR_OK;
}
