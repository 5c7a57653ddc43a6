/* status, cancel, workers: what Redis says of one job, and of workers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/embedded.h"
#include "common/str.h"
#include "common/who.h"
#include "common/wire/pack.h"
#include "producer/cmd.h"
#include "producer/show.h"

extern const struct dr_embedded producer_scripts[];

enum { JSON_MAX_BYTES = 16 << 20 };

const char *show_field(const redisReply *r, const char *name)
{
    for (size_t i = 0; i + 1 < r->elements; i += 2)
        if (r->element[i]->type == REDIS_REPLY_STRING && strcmp(r->element[i]->str, name) == 0)
            return r->element[i + 1]->str;
    return "";
}

static bool is_map(const char *name)
{
    return strcmp(name, "res") == 0 || strcmp(name, "err") == 0;
}

static bool is_number(const char *name, const char *value)
{
    static const char *const numbers[] = {"n",   "lost", "q_at",  "s_at", "e_at", "p_at",
                                          "pct", "done", "total", "rate", "eta",  "orphan"};
    int64_t v;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(numbers[i], name) == 0)
            return dr_parse_i64(value, INT64_MIN + 1, INT64_MAX, &v);
    return false;
}

static void json_value(struct dr_buf *b, const char *name, const redisReply *v)
{
    struct dr_err err = {0};
    size_t before = b->len;
    if (is_map(name)) {
        if (v->len == 0 || dr_wire_to_json(v->str, v->len, b, &err)) {
            b->len = before;
            dr_buf_str(b, "null");
        }
    } else if (is_number(name, v->str)) {
        dr_buf_str(b, v->str);
    } else {
        dr_buf_json(b, v->str, v->len);
    }
}

void show_json(struct dr_buf *b, const char *id_name, const char *id, const redisReply *r)
{
    dr_buf_printf(b, "{\"%s\":", id_name);
    dr_buf_json(b, id, strlen(id));
    for (size_t i = 0; i + 1 < r->elements; i += 2) {
        dr_buf_str(b, ",");
        dr_buf_json(b, r->element[i]->str, r->element[i]->len);
        dr_buf_str(b, ":");
        json_value(b, r->element[i]->str, r->element[i + 1]);
    }
    dr_buf_str(b, "}");
}

static void print_line(const char *name, const redisReply *r, size_t i)
{
    struct dr_buf b;
    const redisReply *v = r->element[i + 1];
    int64_t ms;
    char when[DR_TIME_TEXT];
    dr_buf_init(&b, JSON_MAX_BYTES);
    if (strlen(name) == 4 && strcmp(name + 1, "_at") == 0 &&
        dr_parse_i64(v->str, 0, INT64_MAX / 2, &ms)) {
        dr_format_time(ms, when);
        dr_buf_str(&b, when);
    } else {
        json_value(&b, name, v);
    }
    if (v->len > 0)
        (void)printf("%-10s %s\n", name, b.data ? (const char *)b.data : "");
    dr_buf_fini(&b);
}

enum dr_rc show_read(struct cmd *c, const char *kind, const char *name, redisReply **out,
                     struct dr_err *err)
{
    char key[DR_KEY_MAX];
    return link_text(c->link, 5000, out, err, "HGETALL", dr_key(&c->keys, key, kind, name), NULL);
}

int cmd_status(struct cmd *c)
{
    struct dr_err err = {0};
    struct dr_buf b;
    redisReply *r = NULL;
    if (cmd_only(c, "", &err))
        return cmd_fail(&err);
    if (c->argc != 1) {
        (void)dr_fail(&err, DR_E_USAGE, "status JOB");
        return cmd_fail(&err);
    }
    if (show_read(c, "job:", c->argv[0], &r, &err))
        return cmd_fail(&err);
    if (r->elements == 0) {
        (void)dr_fail(&err, DR_E_NOT_FOUND,
                      "no job %s: it ended long ago, or still waits in a "
                      "queue without a record",
                      c->argv[0]);
        freeReplyObject(r);
        return cmd_fail(&err);
    }
    if (c->json) {
        dr_buf_init(&b, JSON_MAX_BYTES);
        show_json(&b, "job", c->argv[0], r);
        (void)printf("%s\n", (const char *)b.data);
        dr_buf_fini(&b);
    } else {
        for (size_t i = 0; i + 1 < r->elements; i += 2)
            print_line(r->element[i]->str, r, i);
    }
    freeReplyObject(r);
    return 0;
}

int cmd_workers(struct cmd *c)
{
    struct dr_err err = {0};
    redisReply *r = NULL;
    char key[DR_KEY_MAX];
    if (cmd_only(c, "", &err) || link_text(c->link, 5000, &r, &err, "ZRANGE",
                                           dr_key(&c->keys, key, "wk", ""), "0", "-1", NULL))
        return cmd_fail(&err);
    for (size_t i = 0; i < r->elements; i++) {
        redisReply *w = NULL;
        struct dr_buf b;
        struct dr_err one = {0};
        if (show_read(c, "wk:", r->element[i]->str, &w, &one) || w->elements == 0) {
            freeReplyObject(w);
            continue; /* it has stopped */
        }
        if (c->json) {
            dr_buf_init(&b, 65536);
            show_json(&b, "wid", r->element[i]->str, w);
            (void)printf("%s\n", (const char *)b.data);
            dr_buf_fini(&b);
        } else {
            (void)printf("%.8s  %s:%s  %s  since %s  %s\n", r->element[i]->str,
                         show_field(w, "host"), show_field(w, "pid"), show_field(w, "version"),
                         show_field(w, "since"), show_field(w, "lanes"));
        }
        freeReplyObject(w);
    }
    freeReplyObject(r);
    return 0;
}

int cmd_cancel(struct cmd *c)
{
    struct dr_err err = {0};
    redisReply *r = NULL;
    char job[DR_KEY_MAX], ev[DR_KEY_MAX], evj[DR_KEY_MAX], run[DR_KEY_MAX], hint[DR_KEY_MAX];
    char by[DR_WHO_MAX];
    const char *text = NULL;
    int code = 0;
    dr_who(by); /* the audit log has it as their own words */
    for (const struct dr_embedded *e = producer_scripts; e->name; e++)
        if (strcmp(e->name, "cancel") == 0)
            text = e->text;
    if (cmd_only(c, "", &err) ||
        (c->argc != 1 && dr_fail(&err, DR_E_USAGE, "cancel JOB") != DR_OK) ||
        link_text(c->link, 5000, &r, &err, "EVAL", text, "4",
                  dr_key(&c->keys, job, "job:", c->argv[0]), dr_key(&c->keys, ev, "ev", ""),
                  dr_key(&c->keys, evj, "ev:", c->argv[0]), dr_key(&c->keys, run, "run", ""),
                  c->argv[0], dr_key(&c->keys, hint, "hint:", ""), by, NULL))
        return cmd_fail(&err);
    const char *word = r->element[0]->str, *st = r->elements > 1 ? r->element[1]->str : "";
    if (strcmp(word, "GONE") == 0) {
        (void)dr_fail(&err, DR_E_NOT_FOUND, "no job %s", c->argv[0]);
        code = cmd_fail(&err);
    } else if (strcmp(word, "ENDED") == 0) {
        (void)dr_fail(&err, DR_E_REFUSED, "job %s has ended already: %s", c->argv[0], st);
        code = cmd_fail(&err);
    } else if (c->json) { /* the id is valid: a job of that name is there */
        (void)printf("{\"job\":\"%s\",\"st\":\"%s\"}\n", c->argv[0], st);
    } else {
        (void)printf("%s\n", strcmp(st, "running") == 0 ? "asked to stop" : st);
    }
    freeReplyObject(r);
    return code;
}
