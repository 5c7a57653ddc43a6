/* Script calls. */
#include "worker/queue/script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/embedded.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/envelope.h"

extern const struct dr_embedded queue_scripts[];

enum { SCRIPTS_MAX = 32 };

struct script_set {
    struct {
        const char *name, *text;
        char sha1[41];
    } at[SCRIPTS_MAX];
    unsigned count;
};

struct script_set *script_set_new(void)
{
    struct script_set *s = dr_xalloc(sizeof *s);
    for (const struct dr_embedded *e = queue_scripts; e->name && s->count < SCRIPTS_MAX; e++) {
        s->at[s->count].name = e->name;
        s->at[s->count].text = e->text;
        dr_wire_mid(e->text, strlen(e->text), s->at[s->count].sha1);
        s->count++;
    }
    return s;
}

void script_set_free(struct script_set *s)
{
    free(s);
}

void script_begin(struct script_call *c, const char *name)
{
    c->name = c->point = name;
    c->keys = c->args = c->key_texts = c->numbers = 0;
}

static void add(struct script_call *c, const void *bytes, size_t len)
{
    unsigned i = 3 + c->keys + c->args; /* EVALSHA sha count come first */
    if (i >= SCRIPT_ARGS_MAX)
        abort();
    c->argv[i] = bytes;
    c->len[i] = len;
}

void script_key_text(struct script_call *c, const char *key)
{
    add(c, key, strlen(key));
    c->keys++;
}

void script_key(struct script_call *c, const struct dr_keys *k, const char *kind, const char *name)
{
    if (c->key_texts >= SCRIPT_KEYS)
        abort();
    script_key_text(c, dr_key(k, c->key_text[c->key_texts++], kind, name));
}

void script_bytes(struct script_call *c, const void *bytes, size_t len)
{
    add(c, bytes, len);
    c->args++;
}

void script_arg(struct script_call *c, const char *text)
{
    script_bytes(c, text, strlen(text));
}

void script_number(struct script_call *c, int64_t n)
{
    if (c->numbers >= SCRIPT_NUMBERS)
        abort();
    char *text = c->number_text[c->numbers++];
    (void)snprintf(text, sizeof c->number_text[0], "%lld", (long long)n);
    script_arg(c, text);
}

static void put_head(struct script_call *c, const char *verb, const char *what)
{
    (void)snprintf(c->key_count, sizeof c->key_count, "%u", c->keys);
    const char *head[3] = {verb, what, c->key_count};
    for (unsigned i = 0; i < 3; i++) {
        c->argv[i] = head[i];
        c->len[i] = strlen(head[i]);
    }
}

static enum dr_rc send_as(struct script_call *c, const char *verb, const char *what,
                          struct queue_conn *conn, redisReply **out, struct dr_err *err)
{
    put_head(c, verb, what);
    return queue_conn_call_named(conn, c->point, (int)(3 + c->keys + c->args), c->argv, c->len, out,
                                 err);
}

static unsigned find(const struct script_set *set, const char *name)
{
    unsigned i = 0;
    while (i < set->count && strcmp(set->at[i].name, name) != 0)
        i++;
    if (i == set->count)
        abort(); /* names are literals of this folder */
    return i;
}

void script_post(struct script_call *c, const struct script_set *set, struct queue_conn *conn,
                 bool whole, queue_conn_cb *cb, void *arg)
{
    unsigned i = find(set, c->name);
    put_head(c, whole ? "EVAL" : "EVALSHA", whole ? set->at[i].text : set->at[i].sha1);
    queue_conn_send(conn, (int)(3 + c->keys + c->args), c->argv, c->len, 0, cb, arg);
}

enum dr_rc script_run(struct script_call *c, const struct script_set *set, struct queue_conn *conn,
                      redisReply **out, struct dr_err *err)
{
    unsigned i = find(set, c->name);
    redisReply *r = NULL;
    if (send_as(c, "EVALSHA", set->at[i].sha1, conn, &r, err))
        return dr_wrap(err, "script %s", c->name);
    if (r->type == REDIS_REPLY_ERROR && dr_starts(r->str, "NOSCRIPT")) {
        freeReplyObject(r);
        r = NULL;
        if (send_as(c, "EVAL", set->at[i].text, conn, &r, err))
            return dr_wrap(err, "script %s", c->name);
    }
    if (r->type == REDIS_REPLY_ARRAY && r->elements > 0) {
        *out = r;
        return DR_OK;
    }
    (void)dr_fail(err, r->type == REDIS_REPLY_ERROR ? DR_E_REDIS : DR_E_PROTOCOL, "script %s: %s",
                  c->name, r->type == REDIS_REPLY_ERROR ? r->str : "not an array");
    freeReplyObject(r);
    return err ? err->rc : DR_E_REDIS;
}

const char *script_text(const redisReply *r, size_t i)
{
    if (i >= r->elements || !r->element[i])
        return "";
    const redisReply *e = r->element[i];
    return e->type == REDIS_REPLY_STRING || e->type == REDIS_REPLY_STATUS ? e->str : "";
}

int64_t script_integer(const redisReply *r, size_t i)
{
    int64_t v = 0;
    if (i >= r->elements || !r->element[i])
        return 0;
    if (r->element[i]->type == REDIS_REPLY_INTEGER)
        return r->element[i]->integer;
    return dr_parse_i64(script_text(r, i), INT64_MIN + 1, INT64_MAX, &v) ? v : 0;
}
