/* What workers say of themselves in common: fields of `info`, and the id of the store they share.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "worker/core/fault.h"
#include "worker/core/fiber.h"
#include "worker/queue/queue_internal.h"
#include "worker/queue/told.h"

struct queue_info {
    struct queue_info *next;
    char field[32];
    void *bytes;
    size_t len;
};

static void write_fiber(void *arg)
{
    struct queue *q = arg;
    char key[DR_KEY_MAX];
    const char *argv[2 + 2 * QUEUE_INFO_MAX] = {"HSET", dr_key(&q->keys, key, "info", "")};
    size_t len[2 + 2 * QUEUE_INFO_MAX] = {4, strlen(key)};
    int argc = 2;
    redisReply *r = NULL;
    struct dr_err err = {0};
    q->telling = false; /* what changes from here on is written by another one */
    for (const struct queue_info *i = q->told; i && argc < 2 + 2 * QUEUE_INFO_MAX; i = i->next) {
        argv[argc] = i->field;
        len[argc++] = strlen(i->field);
        argv[argc] = i->bytes;
        len[argc++] = i->len;
    }
    if (argc == 2 || q->stopped)
        goto out;
    if (queue_conn_call(q->conn, argc, argv, len, 0, NULL, &r, &err) == DR_OK &&
        r->type == REDIS_REPLY_ERROR)
        dr_log(DR_LOG_WARN, "queue.info", "msg", r->str, NULL);
out:
    freeReplyObject(r);
    q->fibers--;
}

static void head_fiber(void *arg)
{
    struct queue *q = arg;
    struct script_call *c = dr_xalloc(sizeof *c);
    char sha256[65];
    redisReply *r = NULL;
    struct dr_err err = {0};
    q->heading = false;
    memcpy(sha256, q->head_sha256, sizeof sha256);
    script_begin(c, "head");
    script_key(c, &q->keys, "info", "");
    script_number(c, (int64_t)q->head_seq);
    script_arg(c, sha256);
    script_arg(c, q->o.store_id ? q->o.store_id : "");
    if (fault_point("head.intent", &err) || script_run(c, q->scripts, q->conn, &r, &err)) {
        if (err.rc != DR_E_UNREACHABLE) /* else it is told at the next connect */
            dr_log_err(DR_LOG_WARN, "queue.head", &err, NULL);
    } else if (strcmp(script_text(r, 0), "OK") != 0) {
        q->o.on_other_head(q->o.arg, (uint64_t)script_integer(r, 1), script_text(r, 2));
    }
    freeReplyObject(r);
    free(c);
    q->fibers--;
}

static void write_head(struct queue *q)
{
    if (q->heading || !q->head_seq || q->stopped || !queue_is_up(q))
        return;
    q->heading = true;
    q->fibers++;
    fiber_start(q->o.loop, head_fiber, q);
}

void queue_tell_head(struct queue *q, uint64_t seq, const char *sha256_hex)
{
    if (seq < q->head_seq || (seq == q->head_seq && strcmp(sha256_hex, q->head_sha256) == 0))
        return;
    q->head_seq = seq;
    (void)snprintf(q->head_sha256, sizeof q->head_sha256, "%s", sha256_hex);
    write_head(q);
}

void queue_told_write(struct queue *q)
{
    write_head(q);
    if (q->telling || !q->told || !queue_is_up(q))
        return;
    q->telling = true;
    q->fibers++;
    fiber_start(q->o.loop, write_fiber, q);
}

void queue_tell(struct queue *q, const char *field, const void *bytes, size_t len)
{
    struct queue_info *i = q->told;
    unsigned count = 0;
    for (; i && strcmp(i->field, field) != 0; i = i->next)
        count++;
    if (i && i->len == len && memcmp(i->bytes, bytes, len) == 0)
        return;
    if (!i) {
        if (count == QUEUE_INFO_MAX)
            abort(); /* fields are literals of ours */
        i = dr_xalloc(sizeof *i);
        (void)snprintf(i->field, sizeof i->field, "%s", field);
        i->next = q->told;
        q->told = i;
    }
    free(i->bytes);
    i->bytes = dr_xalloc(len + 1);
    memcpy(i->bytes, bytes, len);
    i->len = len;
    queue_told_write(q);
}

enum dr_rc queue_tell_once(struct queue *q, const char *field, const void *bytes, size_t len,
                           struct dr_err *err)
{
    char key[DR_KEY_MAX];
    const char *argv[] = {"HSET", dr_key(&q->keys, key, "info", ""), field, bytes};
    const size_t lens[] = {4, strlen(key), strlen(field), len};
    redisReply *r = NULL;
    q->fibers++; /* the queue is not at rest while this waits */
    enum dr_rc rc = queue_conn_call(q->conn, 4, argv, lens, 0, NULL, &r, err);
    q->fibers--;
    if (!rc && r->type == REDIS_REPLY_ERROR)
        rc = dr_fail(err, DR_E_REDIS, "info %s: %s", field, r->str);
    freeReplyObject(r);
    return rc;
}

void queue_told_free(struct queue *q)
{
    while (q->told) {
        struct queue_info *next = q->told->next;
        free(q->told->bytes);
        free(q->told);
        q->told = next;
    }
}

static enum dr_rc ask(struct queue *q, int argc, const char **argv, redisReply **out,
                      struct dr_err *err)
{
    size_t len[4];
    for (int i = 0; i < argc; i++)
        len[i] = strlen(argv[i]);
    return queue_conn_call(q->conn, argc, argv, len, 0, NULL, out, err);
}

/* Asked once a connection: a Redis that was emptied, or another one, is told again or refused. */
enum dr_rc queue_told_store(struct queue *q, struct dr_err *err)
{
    char key[DR_KEY_MAX];
    uint64_t generation = queue_conn_generation(q->conn);
    redisReply *set = NULL, *got = NULL;
    if (!q->o.store_id || q->store_checked == generation)
        return DR_OK;
    const char *put[] = {"SET", dr_key(&q->keys, key, "store", ""), q->o.store_id, "NX"};
    const char *get[] = {"GET", key};
    enum dr_rc rc = ask(q, 4, put, &set, err);
    if (!rc)
        rc = ask(q, 2, get, &got, err);
    if (!rc && got->type != REDIS_REPLY_STRING)
        rc = dr_fail(err, DR_E_REDIS, "%s: %s", key,
                     got->type == REDIS_REPLY_ERROR ? got->str : "it vanished");
    if (!rc && strcmp(got->str, q->o.store_id) != 0)
        rc = dr_fail(err, DR_E_CONFIG,
                     "BACKUP_DIRECTORY holds the store %.40s, but the workers of this namespace "
                     "share the store %.40s. All of them need the same directory: "
                     "`drworker recover --adopt --from ...` brings that store here; one that "
                     "`drworker keys init --new-store` made to replace it takes over once all "
                     "workers are stopped and `redis-cli DEL %s` is said",
                     q->o.store_id, got->str, key);
    if (!rc)
        q->store_checked = generation;
    freeReplyObject(set);
    freeReplyObject(got);
    return rc;
}
