/* jobs: what the feed, the claims and the lists know, newest first, each job once. Nobody scans
 * keys; a bare message that still waits has no record and is shown by its own words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/wire/lanes.h"
#include "producer/show.h"

enum { JSON_MAX_BYTES = 16 << 20, SHOWN_MAX = 1000, WAITING_MAX = 200 };

struct listing {
    struct cmd *cmd;
    const char *lane, *state; /* NULL: all */
    char (*seen)[DR_JOB_ID_MAX + 1];
    size_t count;
};

static bool first_sight(struct listing *l, const char *id)
{
    if (id[0] == 0 || strlen(id) > DR_JOB_ID_MAX || l->count == SHOWN_MAX)
        return false;
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->seen[i], id) == 0)
            return false;
    (void)snprintf(l->seen[l->count++], sizeof l->seen[0], "%s", id);
    return true;
}

static void print(const struct listing *l, const char *id, const redisReply *record,
                  const char *lane)
{
    bool none = record->elements == 0;
    const char *in = none ? lane : show_field(record, "lane");
    const char *st = none ? "queued" : show_field(record, "st");
    struct dr_buf b;
    if ((l->lane && strcmp(in, l->lane) != 0) || (l->state && strcmp(st, l->state) != 0))
        return;
    if (!l->cmd->json) {
        const char *pct = show_field(record, "pct");
        (void)printf("%-40s %-14s %-10s %-10s %3s%%\n", id, in, st, show_field(record, "outcome"),
                     pct[0] ? pct : "0");
        return;
    }
    if (none) { /* a valid id and the name of a lane need no escapes */
        (void)printf("{\"job\":\"%s\",\"st\":\"queued\",\"lane\":\"%s\"}\n", id, lane);
        return;
    }
    dr_buf_init(&b, JSON_MAX_BYTES);
    show_json(&b, "job", id, record);
    (void)printf("%s\n", (const char *)b.data);
    dr_buf_fini(&b);
}

/* lane: where a message of the job waits or runs; NULL: the feed's word, which needs a record. */
static enum dr_rc show_job(struct listing *l, const char *id, const char *lane, struct dr_err *err)
{
    redisReply *r = NULL;
    if (!first_sight(l, id))
        return DR_OK;
    if (show_read(l->cmd, "job:", id, &r, err))
        return err->rc;
    if (r->elements > 0 || lane)
        print(l, id, r, lane);
    freeReplyObject(r);
    return DR_OK;
}

static enum dr_rc from_message(struct listing *l, const char *raw, size_t len, const char *lane,
                               struct dr_err *err)
{
    char id[DR_JOB_ID_MAX + 1], dig[DR_DIG_TEXT];
    return dr_envelope_peek(raw, len, id, dig) ? show_job(l, id, lane, err) : DR_OK;
}

static enum dr_rc from_feed(struct listing *l, struct dr_err *err)
{
    char key[DR_KEY_MAX], count[12];
    redisReply *r = NULL;
    (void)snprintf(count, sizeof count, "%d", SHOWN_MAX);
    if (link_text(l->cmd->link, 5000, &r, err, "XREVRANGE", dr_key(&l->cmd->keys, key, "ev", ""),
                  "+", "-", "COUNT", count, NULL))
        return err->rc;
    enum dr_rc rc = DR_OK;
    for (size_t i = 0; i < r->elements && !rc; i++)
        rc = show_job(l, show_field(r->element[i]->element[1], "j"), NULL, err);
    freeReplyObject(r);
    return rc;
}

/* run: ticket -> wid | lane | raw. */
static enum dr_rc from_claims(struct listing *l, struct dr_err *err)
{
    char key[DR_KEY_MAX];
    redisReply *r = NULL;
    enum dr_rc rc = link_text(l->cmd->link, 5000, &r, err, "HVALS",
                              dr_key(&l->cmd->keys, key, "run", ""), NULL);
    for (size_t i = 0; !rc && i < r->elements; i++) {
        const redisReply *v = r->element[i];
        const char *a = memchr(v->str, '|', v->len);
        const char *b = a ? memchr(a + 1, '|', v->len - (size_t)(a + 1 - v->str)) : NULL;
        const struct dr_lane *lane = b ? dr_lane_find(a + 1, (size_t)(b - a - 1)) : NULL;
        if (lane)
            rc = from_message(l, b + 1, v->len - (size_t)(b + 1 - v->str), lane->name, err);
    }
    freeReplyObject(r);
    return rc;
}

/* The messages that come next, of each lane. */
static enum dr_rc from_lists(struct listing *l, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    for (const struct dr_lane *lane = dr_lanes; lane->name && !rc; lane++) {
        char key[DR_KEY_MAX], from[12];
        redisReply *r = NULL;
        (void)snprintf(from, sizeof from, "-%d", WAITING_MAX);
        rc = link_text(l->cmd->link, 5000, &r, err, "LRANGE",
                       dr_key(&l->cmd->keys, key, "q:", lane->name), from, "-1", NULL);
        for (size_t i = 0; !rc && i < r->elements; i++)
            rc = from_message(l, r->element[i]->str, r->element[i]->len, lane->name, err);
        freeReplyObject(r);
    }
    return rc;
}

int cmd_jobs(struct cmd *c)
{
    struct dr_err err = {0};
    struct listing l = {.cmd = c, .lane = cmd_option(c, "lane"), .state = cmd_option(c, "state")};
    l.seen = dr_xarray(SHOWN_MAX, sizeof *l.seen);
    int code = cmd_only(c, "lane state", &err) || from_claims(&l, &err) || from_feed(&l, &err) ||
                       from_lists(&l, &err)
                   ? cmd_fail(&err)
                   : 0;
    free(l.seen);
    return code;
}
