/* Calls of the alert scripts, and notices as text. What Redis holds is bounded and checked like any
 * message: a notice that does not parse is dropped. */
#include "worker/queue/alert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/queue/queue_internal.h"

enum { LINES = 13, TEST_KEPT_MS = 600000, SAY_MAX = 24 };

static const struct {
    unsigned bit;
    const char *name;
} target_names[] = {{QUEUE_ALERT_WEBHOOK, "webhook"}, {QUEUE_ALERT_MAIL, "mail"}};
enum { TARGETS = sizeof target_names / sizeof target_names[0], TARGETS_TEXT = 32 };

const char *queue_alert_target_name(unsigned target)
{
    for (size_t i = 0; i < TARGETS; i++)
        if (target_names[i].bit == target)
            return target_names[i].name;
    return "?";
}

static const char *targets_text(unsigned targets, char out[TARGETS_TEXT])
{
    out[0] = 0;
    for (size_t i = 0; i < TARGETS; i++)
        if (targets & target_names[i].bit) {
            size_t used = strlen(out);
            (void)snprintf(out + used, TARGETS_TEXT - used, "%s%s", used ? "," : "",
                           target_names[i].name);
        }
    return out;
}

static unsigned targets_of(const char *text)
{
    unsigned targets = 0;
    for (size_t i = 0; i < TARGETS; i++)
        if (strstr(text, target_names[i].name))
            targets |= target_names[i].bit;
    return targets;
}

void queue_alert_line(char *out, size_t size, const char *src)
{
    size_t n = 0, left = strlen(src);
    const unsigned char *p = (const unsigned char *)src;
    while (left > 0) {
        size_t len = dr_utf8_len(p, left);
        if (n + (len ? len : 1) >= size)
            break;
        if (len == 0)
            out[n++] = '?';
        else if (len == 1 && (*p < 0x20 || *p == 0x7f))
            out[n++] = ' ';
        else
            for (size_t i = 0; i < len; i++)
                out[n++] = (char)p[i];
        p += len ? len : 1;
        left -= len ? len : 1;
    }
    out[n] = 0;
}

/* Field by field of a notice's text, which is cut into its lines on the way. */
static bool notice_read(struct queue_notice *n, const char *id, char *text)
{
    char *line[LINES], *at = text;
    for (unsigned i = 0; i < LINES; i++) {
        line[i] = at;
        at = at ? strchr(at, '\n') : NULL;
        if ((at == NULL) != (i == LINES - 1))
            return false;
        if (at)
            *at++ = 0;
    }
    const struct {
        char *out;
        size_t size;
        unsigned line;
    } texts[] = {{n->kind, sizeof n->kind, 3},         {n->state, sizeof n->state, 4},
                 {n->severity, sizeof n->severity, 5}, {n->rule, sizeof n->rule, 6},
                 {n->subject, sizeof n->subject, 7},   {n->summary, sizeof n->summary, 11},
                 {n->details, sizeof n->details, 12}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        queue_alert_line(texts[i].out, texts[i].size, line[texts[i].line]);
    (void)snprintf(n->id, sizeof n->id, "%s", id);
    n->targets = targets_of(line[2]);
    return strlen(id) < sizeof n->id && dr_parse_i64(line[8], 0, INT64_MAX, &n->at_ms) &&
           dr_parse_i64(line[9], 0, INT64_MAX, &n->since_ms) &&
           dr_parse_u64(line[10], 0, UINT64_MAX, &n->count);
}

/* NULL: it is none. */
static struct queue_notice *notice_new(const char *id, const char *text)
{
    struct queue_notice *n = dr_xalloc(sizeof *n);
    char *copy = dr_xstrdup(text); /* bounded by what the connection takes */
    bool good = notice_read(n, id, copy);
    free(copy);
    if (good)
        return n;
    dr_log(DR_LOG_WARN, "alert.notice", "id", id, "msg", "not a notice", NULL);
    free(n);
    return NULL;
}

static int rank_of(const char *severity)
{
    return strcmp(severity, "critical") == 0 ? 2 : strcmp(severity, "warning") == 0 ? 1 : 0;
}

static enum queue_alert_said said_by(const char *code)
{
    if (strcmp(code, "REPEATED") == 0)
        return QUEUE_ALERT_REPEATED;
    if (strcmp(code, "NONE") == 0 || strcmp(code, "STILL") == 0)
        return QUEUE_ALERT_NOTHING;
    return strcmp(code, "FULL") == 0 ? QUEUE_ALERT_FULL : QUEUE_ALERT_NEWS;
}

/* Time first, so that ids sort as they were made. */
static void make_id(struct queue *q, char out[QUEUE_ALERT_ID])
{
    unsigned char id[16];
    dr_put_u64be(id, (uint64_t)queue_now_ms(q) << 16);
    dr_random_bytes(id + 6, sizeof id - 6);
    dr_hex(id, sizeof id, out);
}

struct asking {
    const char *op, *point;
    const struct queue_alert *what;
    int64_t wait_ms, rest_ms;
    struct queue_notice line; /* the texts as they are sent; until the call has ended */
    char targets[TARGETS_TEXT];
};

static void ask(struct queue *q, struct script_call *c, struct asking *a)
{
    const struct queue_alert *what = a->what;
    struct queue_notice *line = &a->line;
    make_id(q, line->id);
    queue_alert_line(line->rule, sizeof line->rule, what->rule);
    queue_alert_line(line->subject, sizeof line->subject, what->subject);
    queue_alert_line(line->summary, sizeof line->summary, what->summary);
    queue_alert_line(line->details, sizeof line->details, what->details);
    script_begin(c, "alert");
    c->point = a->point;
    script_key(c, &q->keys, "alert", "");
    script_key(c, &q->keys, "alert:out", "");
    script_key(c, &q->keys, "ev", "");
    script_arg(c, a->op);
    script_arg(c, line->id);
    script_arg(c, q->wid);
    script_number(c, q->o.lease_ms);
    script_arg(c, targets_text(what->targets, a->targets));
    script_number(c, a->wait_ms);
    script_arg(c, line->rule);
    script_arg(c, line->subject);
    script_arg(c, what->severity);
    script_number(c, rank_of(what->severity));
    script_arg(c, line->summary);
    script_arg(c, line->details);
    script_number(c, QUEUE_ALERT_FIRING);
    script_number(c, QUEUE_ALERT_OUT);
    script_number(c, a->rest_ms);
}

enum dr_rc queue_alert_decide(struct queue *q, const struct queue_alert *a,
                              enum queue_alert_said *said, struct queue_notice **out,
                              unsigned *dropped, struct dr_err *err)
{
    struct asking asking = {.op = a->clear ? "clear" : "raise",
                            .point = a->clear ? "alert.clear" : "alert.raise",
                            .what = a,
                            .wait_ms = a->quiet_ms};
    struct script_call *c = dr_xalloc(sizeof *c);
    redisReply *r = NULL;
    *out = NULL;
    *dropped = 0;
    ask(q, c, &asking);
    enum dr_rc rc = queue_run_sure(q, c, true, &r, err);
    if (!rc) {
        *said = said_by(script_text(r, 0));
        *dropped = (unsigned)script_integer(r, 2);
        if (*said == QUEUE_ALERT_NEWS && script_text(r, 1)[0])
            *out = notice_new(asking.line.id, script_text(r, 1));
    }
    freeReplyObject(r);
    free(c);
    return rc;
}

/* A reply that is lost loses nothing: the notice's lease runs out, and it is taken over. */
enum dr_rc queue_alert_remind(struct queue *q, unsigned targets, int64_t wait_ms, int64_t rest_ms,
                              bool *due, struct queue_notice **out, unsigned *dropped,
                              struct dr_err *err)
{
    const struct queue_alert any = {.rule = "",
                                    .subject = "",
                                    .severity = "",
                                    .summary = "",
                                    .details = "",
                                    .targets = targets};
    struct asking asking = {.op = "remind",
                            .point = "alert.remind",
                            .what = &any,
                            .wait_ms = wait_ms,
                            .rest_ms = rest_ms};
    struct script_call *c = dr_xalloc(sizeof *c);
    redisReply *r = NULL;
    *out = NULL;
    *dropped = 0;
    *due = false;
    ask(q, c, &asking);
    enum dr_rc rc = script_run(c, q->scripts, q->conn, &r, err);
    if (!rc) {
        *due = strcmp(script_text(r, 0), "NONE") != 0;
        *dropped = (unsigned)script_integer(r, 2);
        if (script_text(r, 1)[0])
            *out = notice_new(asking.line.id, script_text(r, 1));
    }
    freeReplyObject(r);
    free(c);
    return rc;
}

enum dr_rc queue_alert_beat(struct queue *q, const struct queue_notice *const *held, unsigned n,
                            unsigned targets, unsigned most, struct queue_notice **taken,
                            unsigned *count, char *test, struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    char reach[TARGETS_TEXT], ids[QUEUE_ALERT_HELD][QUEUE_ALERT_ID];
    redisReply *r = NULL;
    *count = 0;
    script_begin(c, "alertbeat");
    script_key(c, &q->keys, "alert:out", "");
    script_key(c, &q->keys, "alert:test", "");
    script_arg(c, q->wid);
    script_number(c, q->o.lease_ms);
    script_arg(c, targets_text(targets, reach));
    script_number(c, most < QUEUE_ALERT_TAKE ? most : QUEUE_ALERT_TAKE);
    script_arg(c, test ? "1" : "0");
    for (unsigned i = 0; i < n && i < QUEUE_ALERT_HELD; i++) { /* they may go while we wait */
        memcpy(ids[i], held[i]->id, sizeof ids[i]);
        script_arg(c, ids[i]);
    }
    enum dr_rc rc = script_run(c, q->scripts, q->conn, &r, err);
    if (!rc && test) {
        bool valid = dr_job_id_valid(script_text(r, 1), strlen(script_text(r, 1)));
        (void)snprintf(test, QUEUE_ALERT_ID, "%s", valid ? script_text(r, 1) : "");
    }
    for (size_t i = 2; !rc && i + 1 < r->elements && *count < QUEUE_ALERT_TAKE; i += 2) {
        struct queue_notice *got = notice_new(script_text(r, i), script_text(r, i + 1));
        if (got)
            taken[(*count)++] = got;
    }
    freeReplyObject(r);
    free(c);
    return rc;
}

enum dr_rc queue_alert_done(struct queue *q, const char *id, unsigned target, struct dr_err *err)
{
    struct script_call *c = dr_xalloc(sizeof *c);
    redisReply *r = NULL;
    script_begin(c, "alertdone");
    script_key(c, &q->keys, "alert:out", "");
    script_arg(c, id);
    script_arg(c, queue_alert_target_name(target));
    enum dr_rc rc = queue_run_sure(q, c, true, &r, err);
    freeReplyObject(r);
    free(c);
    return rc;
}

static enum dr_rc say(struct queue *q, int argc, const char **argv, struct dr_err *err)
{
    size_t len[SAY_MAX];
    redisReply *r = NULL;
    for (int i = 0; i < argc; i++)
        len[i] = strlen(argv[i]);
    enum dr_rc rc = queue_conn_call(q->conn, argc, argv, len, 0, NULL, &r, err);
    if (!rc && r->type == REDIS_REPLY_ERROR)
        rc = dr_fail(err, DR_E_REDIS, "%s", r->str);
    freeReplyObject(r);
    return rc;
}

enum dr_rc queue_alert_answer(struct queue *q, const char *test, const char *name, const char *text,
                              struct dr_err *err)
{
    char key[DR_KEY_MAX], ms[24];
    (void)snprintf(ms, sizeof ms, "%d", TEST_KEPT_MS);
    const char *put[] = {"HSET", dr_key(&q->keys, key, "alert:test:", test), name, text};
    const char *keep[] = {"PEXPIRE", key, ms};
    return say(q, 4, put, err) ? err->rc : say(q, 3, keep, err);
}

enum dr_rc queue_alert_feed(struct queue *q, const struct queue_notice *n, struct dr_err *err)
{
    char key[DR_KEY_MAX], at[24];
    (void)snprintf(at, sizeof at, "%lld", (long long)n->at_ms);
    const char *add[] = {"XADD",     dr_key(&q->keys, key, "ev", ""),
                         "MAXLEN",   "~",
                         "10000",    "*",
                         "e",        "alert",
                         "at",       at,
                         "rule",     n->rule,
                         "subject",  n->subject,
                         "state",    n->state,
                         "kind",     n->kind,
                         "severity", n->severity,
                         "summary",  n->summary};
    return say(q, (int)(sizeof add / sizeof add[0]), add, err);
}
