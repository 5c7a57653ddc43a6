/* A schedule as Redis knows it. */
#include "worker/queue/schedule.h"

#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "worker/queue/conn.h"
#include "worker/queue/script.h"

enum { WORDS_MAX = 4 };

static enum dr_rc ask(struct queue_conn *c, const char *const words[WORDS_MAX], int want,
                      redisReply **out, struct dr_err *err)
{
    const char *argv[WORDS_MAX];
    size_t len[WORDS_MAX];
    int argc = 0;
    for (; argc < WORDS_MAX && words[argc]; argc++) {
        argv[argc] = words[argc];
        len[argc] = strlen(words[argc]);
    }
    enum dr_rc rc = queue_conn_call(c, argc, argv, len, 0, NULL, out, err);
    if (!rc && (*out)->type != want && (*out)->type != REDIS_REPLY_NIL)
        rc = dr_fail(err, DR_E_REDIS, "%s %s: %s", words[0], words[1],
                     (*out)->type == REDIS_REPLY_ERROR ? (*out)->str : "another type");
    return rc;
}

static void read_last(const redisReply *r, size_t i, struct dr_sched_last *out)
{
    if (i < r->elements && r->element[i]->type == REDIS_REPLY_STRING)
        (void)dr_sched_last_read(r->element[i]->str, r->element[i]->len, out);
}

static enum dr_rc read_job(struct queue_conn *c, const struct dr_keys *k,
                           struct queue_schedule_state *s, struct dr_err *err)
{
    char key[DR_KEY_MAX];
    redisReply *r = NULL;
    if (!dr_job_id_valid(s->last.jid, strlen(s->last.jid)))
        return DR_OK;
    enum dr_rc rc =
        ask(c, (const char *const[]){"HMGET", dr_key(k, key, "job:", s->last.jid), "st", "outcome"},
            REDIS_REPLY_ARRAY, &r, err);
    if (!rc) {
        (void)snprintf(s->st, sizeof s->st, "%s", script_text(r, 0));
        (void)snprintf(s->outcome, sizeof s->outcome, "%s", script_text(r, 1));
    }
    freeReplyObject(r);
    return rc;
}

enum dr_rc queue_schedule_read(struct queue_conn *c, const struct dr_keys *k, const char *name,
                               struct queue_schedule_state *out, struct dr_err *err)
{
    char key[DR_KEY_MAX], passed[DR_SCHED_NAME_MAX + 8];
    redisReply *next = NULL, *last = NULL;
    memset(out, 0, sizeof *out);
    (void)snprintf(passed, sizeof passed, "%s:passed", name);
    enum dr_rc rc =
        ask(c, (const char *const[WORDS_MAX]){"ZSCORE", dr_key(k, key, "schednext", ""), name},
            REDIS_REPLY_STRING, &next, err);
    if (!rc && next->type == REDIS_REPLY_STRING)
        (void)dr_parse_i64(next->str, 0, INT64_MAX, &out->next_ms);
    if (!rc)
        rc = ask(c, (const char *const[]){"HMGET", dr_key(k, key, "schedlast", ""), name, passed},
                 REDIS_REPLY_ARRAY, &last, err);
    if (!rc) {
        read_last(last, 0, &out->last);
        read_last(last, 1, &out->passed);
        rc = read_job(c, k, out, err);
    }
    freeReplyObject(next);
    freeReplyObject(last);
    return rc;
}
