/* schedule: what workers order by themselves: definition, the slot that comes next, the last one
 * and what became of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "common/wire/sched_info.h"
#include "producer/show.h"

enum { JSON_MAX_BYTES = 1 << 20, SHOWN_MAX = 64, NAME_TEXT = 64 };

struct shown {
    char name[NAME_TEXT];
    struct dr_sched_info info;
    struct dr_sched_last last, passed;
    bool off;
    int64_t next_ms, late_ms; /* late: the next slot and its jitter are over by so much */
    char st[16], outcome[24];
};

static const redisReply *value_of(const redisReply *hash, const char *name)
{
    for (size_t i = 0; i + 1 < hash->elements; i += 2)
        if (strcmp(hash->element[i]->str, name) == 0)
            return hash->element[i + 1];
    return NULL;
}

static void read_last(const redisReply *hash, const char *name, const char *suffix,
                      struct dr_sched_last *out)
{
    char field[NAME_TEXT + 8];
    (void)snprintf(field, sizeof field, "%s%s", name, suffix);
    const redisReply *v = value_of(hash, field);
    if (v)
        (void)dr_sched_last_read(v->str, v->len, out);
}

static enum dr_rc read_job(struct cmd *c, struct shown *s, struct dr_err *err)
{
    redisReply *r = NULL;
    if (!dr_job_id_valid(s->last.jid, strlen(s->last.jid)))
        return DR_OK;
    if (show_read(c, "job:", s->last.jid, &r, err))
        return err->rc;
    (void)snprintf(s->st, sizeof s->st, "%s", show_field(r, "st"));
    (void)snprintf(s->outcome, sizeof s->outcome, "%s", show_field(r, "outcome"));
    freeReplyObject(r);
    return DR_OK;
}

static void put(struct dr_buf *b, const char *name, const char *value)
{
    dr_buf_printf(b, ",\"%s\":", name);
    dr_buf_json(b, value, strlen(value));
}

static void put_time(struct dr_buf *b, const char *name, int64_t ms)
{
    char text[DR_TIME_TEXT];
    dr_format_time(ms, text);
    put(b, name, text);
}

static void print_json(const struct shown *s, bool first)
{
    struct dr_buf b;
    dr_buf_init(&b, JSON_MAX_BYTES);
    dr_buf_str(&b, first ? "[\n {\"name\":" : ",\n {\"name\":");
    dr_buf_json(&b, s->name, strlen(s->name));
    if (s->off) {
        dr_buf_str(&b, ",\"off\":true");
    } else {
        put(&b, "lane", s->info.lane);
        put(&b, "cron", s->info.cron);
        put(&b, "zone", s->info.zone);
        put(&b, "misfire", s->info.misfire);
        put(&b, "overlap", s->info.overlap);
    }
    if (s->next_ms) {
        put_time(&b, "next", s->next_ms);
        dr_buf_printf(&b, ",\"late_by_ms\":%lld", (long long)s->late_ms);
    }
    if (s->last.slot_ms) {
        put_time(&b, "last_slot", (int64_t)s->last.slot_ms);
        put_time(&b, "last_at", (int64_t)s->last.at_ms);
        put(&b, "last_job", s->last.jid);
        put(&b, "last_st", s->st);
        put(&b, "last_outcome", s->outcome);
    }
    if (s->passed.slot_ms) {
        put_time(&b, "passed_slot", (int64_t)s->passed.slot_ms);
        put(&b, "passed_why", s->passed.why);
    }
    dr_buf_str(&b, "}");
    (void)fputs((const char *)b.data, stdout);
    dr_buf_fini(&b);
}

/* Names of jobs and schedules are checked; texts from Redis are shown as JSON strings are, without
 * control characters. */
static void print_line(const struct shown *s)
{
    struct dr_buf b;
    char next[DR_TIME_TEXT] = "-", last[DR_TIME_TEXT] = "-";
    if (s->next_ms)
        dr_format_time(s->next_ms, next);
    if (s->last.slot_ms)
        dr_format_time((int64_t)s->last.slot_ms, last);
    dr_buf_init(&b, 4096);
    dr_buf_json(&b, s->info.cron, strlen(s->info.cron));
    dr_buf_str(&b, " ");
    dr_buf_json(&b, s->info.zone, strlen(s->info.zone));
    (void)printf("%-20s %-30s next %-24s late by %5lld s  last %-24s %s\n", s->name,
                 s->off ? "off" : (const char *)b.data, next, (long long)(s->late_ms / 1000), last,
                 s->outcome[0]     ? s->outcome
                 : s->st[0]        ? s->st
                 : s->last.slot_ms ? "forgotten"
                                   : "never ran");
    dr_buf_fini(&b);
}

static enum dr_rc read_one(struct cmd *c, const redisReply *definition, struct shown *s,
                           const redisReply *last, int64_t now, struct dr_err *err)
{
    char key[DR_KEY_MAX];
    redisReply *score = NULL;
    s->off = definition->len == 0;
    if (!s->off)
        (void)dr_sched_info_read(definition->str, definition->len, &s->info);
    read_last(last, s->name, "", &s->last);
    read_last(last, s->name, ":passed", &s->passed);
    if (link_text(c->link, 5000, &score, err, "ZSCORE", dr_key(&c->keys, key, "schednext", ""),
                  s->name, NULL))
        return err->rc;
    if (score->type == REDIS_REPLY_STRING)
        (void)dr_parse_i64(score->str, 0, INT64_MAX, &s->next_ms);
    freeReplyObject(score);
    int64_t due_ms = s->next_ms + (int64_t)(s->info.jitter_ms % (1u << 31));
    s->late_ms = s->next_ms && due_ms < now ? now - due_ms : 0;
    return read_job(c, s, err);
}

struct pair {
    const redisReply *name, *definition;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pair *)a)->name->str, ((const struct pair *)b)->name->str);
}

static unsigned sorted(const redisReply *all, struct pair out[SHOWN_MAX])
{
    unsigned n = 0;
    for (size_t i = 0; i + 1 < all->elements && n < SHOWN_MAX; i += 2)
        if (dr_job_id_valid(all->element[i]->str, all->element[i]->len) &&
            all->element[i]->len < NAME_TEXT)
            out[n++] = (struct pair){all->element[i], all->element[i + 1]};
    qsort(out, n, sizeof *out, by_name);
    return n;
}

static enum dr_rc list(struct cmd *c, const redisReply *all, const redisReply *last, int64_t now,
                       struct dr_err *err)
{
    struct pair pairs[SHOWN_MAX];
    unsigned shown = sorted(all, pairs);
    for (unsigned i = 0; i < shown; i++) {
        struct shown s = {0};
        (void)snprintf(s.name, sizeof s.name, "%s", pairs[i].name->str);
        if (read_one(c, pairs[i].definition, &s, last, now, err))
            return err->rc;
        if (c->json)
            print_json(&s, i == 0);
        else
            print_line(&s);
    }
    if (c->json)
        (void)puts(shown ? "\n]" : "[]");
    else if (!shown)
        (void)puts("no schedules: no worker with a store has been here");
    return DR_OK;
}

static enum dr_rc server_now(struct cmd *c, int64_t *ms, struct dr_err *err)
{
    redisReply *r = NULL;
    int64_t s = 0, us = 0;
    if (link_text(c->link, 5000, &r, err, "TIME", NULL))
        return err->rc;
    bool ok = r->type == REDIS_REPLY_ARRAY && r->elements == 2 &&
              dr_parse_i64(r->element[0]->str, 0, INT64_MAX / 1000, &s) &&
              dr_parse_i64(r->element[1]->str, 0, 999999, &us);
    freeReplyObject(r);
    *ms = s * 1000 + us / 1000;
    return ok ? DR_OK : dr_fail(err, DR_E_PROTOCOL, "TIME: no time");
}

int cmd_schedule(struct cmd *c)
{
    struct dr_err err = {0};
    redisReply *all = NULL, *last = NULL;
    int64_t now = 0;
    int code = cmd_only(c, "", &err) || server_now(c, &now, &err) ||
                       show_read(c, "sched", "", &all, &err) ||
                       show_read(c, "schedlast", "", &last, &err) || list(c, all, last, now, &err)
                   ? cmd_fail(&err)
                   : 0;
    freeReplyObject(all);
    freeReplyObject(last);
    return code;
}
