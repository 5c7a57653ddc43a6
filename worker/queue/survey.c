/* One look at the queue. */
#include "worker/queue/survey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/envelope.h"
#include "common/wire/sched_info.h"
#include "worker/queue/queue_internal.h"

enum { NEXT_MAX = 16384, FIELDS = 6, JITTER_MAX_MS = 3600000 };

/* The i-th array of the reply; one that is none has no elements. */
static const redisReply *list(const redisReply *r, size_t i)
{
    static const redisReply none = {.type = REDIS_REPLY_ARRAY};
    return i < r->elements && r->element[i]->type == REDIS_REPLY_ARRAY ? r->element[i] : &none;
}

static uint64_t count(const redisReply *r, size_t i)
{
    int64_t n = script_integer(r, i);
    return n > 0 ? (uint64_t)n : 0;
}

static void read_lane(struct survey_lane *l, const redisReply *r)
{
    l->urgent = count(r, 1);
    l->waiting = count(r, 0) + l->urgent;
    l->delayed = count(r, 2);
    l->running = count(r, 3);
    l->paused = script_integer(r, 4) != 0;
    if (r->elements < FIELDS || r->element[5]->type != REDIS_REPLY_STRING || !r->element[5]->len)
        return;
    dr_wire_mid(r->element[5]->str, (size_t)r->element[5]->len, l->next_mid);
    l->next_iat_ms = dr_envelope_iat(r->element[5]->str, (size_t)r->element[5]->len);
}

static void read_workers(struct survey *s, const redisReply *r)
{
    for (size_t i = 0; i < r->elements && s->worker_count < SURVEY_MOST; i++) {
        const redisReply *w = list(r, i);
        struct survey_worker *out = &s->workers[s->worker_count++];
        (void)snprintf(out->wid, sizeof out->wid, "%s", script_text(w, 0));
        out->beat_ms = script_integer(w, 1);
        (void)snprintf(out->host, sizeof out->host, "%s", script_text(w, 2));
        (void)snprintf(out->version, sizeof out->version, "%s", script_text(w, 3));
        (void)snprintf(out->schedule, sizeof out->schedule, "%s", script_text(w, 5));
    }
}

static void read_counters(struct survey *s, const redisReply *r)
{
    for (size_t i = 0; i + 1 < r->elements && s->counter_count < SURVEY_COUNTERS; i += 2) {
        uint64_t value;
        if (!dr_parse_u64(script_text(r, i + 1), 0, UINT64_MAX, &value))
            continue;
        (void)snprintf(s->counters[s->counter_count].name, sizeof s->counters[0].name, "%s",
                       script_text(r, i));
        s->counters[s->counter_count++].value = value;
    }
}

/* Of the beginning of a definition, in which it stands before the arguments. */
static int64_t read_jitter(const redisReply *one)
{
    struct dr_sched_info info;
    if (one->elements < 3 || one->element[2]->type != REDIS_REPLY_STRING ||
        !dr_sched_info_read(one->element[2]->str, one->element[2]->len, &info))
        return 0;
    return info.jitter_ms < JITTER_MAX_MS ? (int64_t)info.jitter_ms : JITTER_MAX_MS;
}

static void read_schedules(struct survey *s, const redisReply *r)
{
    for (size_t i = 0; i < r->elements && s->schedule_count < SURVEY_MOST; i++) {
        const redisReply *one = list(r, i);
        struct survey_schedule *out = &s->schedules[s->schedule_count++];
        (void)snprintf(out->name, sizeof out->name, "%s", script_text(one, 0));
        out->next_ms = script_integer(one, 1);
        out->due_ms = out->next_ms + read_jitter(one);
    }
}

/* A hash or an id of (size - 1) / 2 bytes; what is none is left out: it is shown to people as a
 * part of a command. */
static void read_hex(char *out, size_t size, const char *text)
{
    unsigned char raw[32];
    bool whole = strlen(text) == size - 1 && dr_unhex(text, size - 1, raw, (size - 1) / 2);
    (void)snprintf(out, size, "%s", whole ? text : "");
}

static void read_told(struct survey *s, const redisReply *head, const redisReply *retention)
{
    s->head_seq = count(head, 0);
    read_hex(s->head_sha256, sizeof s->head_sha256, script_text(head, 1));
    read_hex(s->head_store, sizeof s->head_store, script_text(head, 2));
    s->retention_ms = script_integer(retention, 0);
    s->retention_waits = count(retention, 1);
    read_hex(s->retention_plan, sizeof s->retention_plan, script_text(retention, 2));
}

enum dr_rc queue_survey(struct queue *q, struct survey *out, struct dr_err *err)
{
    struct script_call *c;
    redisReply *r = NULL;
    memset(out, 0, sizeof *out);
    if (q->stopped || !queue_is_up(q))
        return dr_fail(err, DR_E_UNREACHABLE, "Redis does not answer");
    c = dr_xalloc(sizeof *c);
    script_begin(c, "survey");
    script_key(c, &q->keys, "wk", "");
    script_number(c, SURVEY_MOST);
    script_number(c, NEXT_MAX);
    for (const char *const *l = q->o.lanes; *l && out->lane_count < SURVEY_LANES; l++) {
        out->lanes[out->lane_count++].lane = *l;
        script_arg(c, *l);
    }
    int64_t asked_ms = dr_wall_ms();
    q->fibers++; /* the queue is not at rest while this waits */
    enum dr_rc rc = script_run(c, q->scripts, q->conn, &r, err);
    q->fibers--;
    if (!rc) {
        int64_t now_ms = dr_wall_ms();
        out->now_ms = script_integer(r, 0);
        out->offset_ms = out->now_ms - (asked_ms + (now_ms - asked_ms) / 2);
        for (unsigned i = 0; i < out->lane_count; i++)
            read_lane(&out->lanes[i], list(list(r, 1), i));
        read_counters(out, list(r, 2));
        read_workers(out, list(r, 3));
        out->dead = count(r, 4);
        read_schedules(out, list(r, 5));
        read_told(out, list(r, 6), list(r, 7));
    }
    freeReplyObject(r);
    free(c);
    return rc;
}

uint64_t queue_connections(const struct queue *q)
{
    return queue_conn_generation(q->conn);
}
