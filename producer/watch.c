/* watch: a job live until its end, as a bar on a terminal, as JSON lines otherwise; then what
 * became of it in words, beside the JSON lines on standard error, with --json not at all. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/str.h"
#include "producer/account.h"
#include "producer/cmd.h"

enum {
    BAR = 30,
    EXIT_TIMED_OUT = 11,
    EXIT_INTERRUPTED = 130,
    NO_RECORD_MS = 60000,
    NEWS_MS = 1000,
};

static volatile sig_atomic_t interrupted; /* set by the handler only */

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

struct shown {
    char st[16], outcome[16], step[64], kind[32];
    uint64_t pct, done, total, rate, eta;
};

static void copy(char *out, size_t size, const redisReply *r)
{
    (void)snprintf(out, size, "%s", r->type == REDIS_REPLY_STRING ? r->str : "");
}

static uint64_t number(const redisReply *r)
{
    uint64_t v = 0;
    return r->type == REDIS_REPLY_STRING && dr_parse_u64(r->str, 0, UINT64_MAX, &v) ? v : 0;
}

/* error.kind out of the packed map: the text behind the key "kind". */
static void error_kind(char out[32], const redisReply *r)
{
    static const char key[] = "\xa4kind";
    out[0] = 0;
    if (r->type != REDIS_REPLY_STRING)
        return;
    const char *p = memmem(r->str, r->len, key, sizeof key - 1);
    if (!p || p + sizeof key - 1 >= r->str + r->len)
        return;
    p += sizeof key - 1;
    size_t n = (unsigned char)*p & 31u;
    if (((unsigned char)*p & 0xe0) == 0xa0 && p + 1 + n <= r->str + r->len)
        (void)snprintf(out, 32, "%.*s", (int)n, p + 1);
}

static enum dr_rc read_job(struct cmd *c, const char *id, struct shown *s, struct dr_err *err)
{
    char key[DR_KEY_MAX];
    redisReply *r = NULL;
    if (link_text(c->link, 5000, &r, err, "HMGET", dr_key(&c->keys, key, "job:", id), "st",
                  "outcome", "step", "pct", "done", "total", "rate", "eta", "err", NULL))
        return err->rc;
    if (r->type == REDIS_REPLY_ARRAY && r->elements == 9) {
        copy(s->st, sizeof s->st, r->element[0]);
        copy(s->outcome, sizeof s->outcome, r->element[1]);
        copy(s->step, sizeof s->step, r->element[2]);
        s->pct = number(r->element[3]);
        s->done = number(r->element[4]);
        s->total = number(r->element[5]);
        s->rate = number(r->element[6]);
        s->eta = number(r->element[7]);
        error_kind(s->kind, r->element[8]);
    }
    freeReplyObject(r);
    return DR_OK;
}

static void show(const char *id, const struct shown *s, bool terminal)
{
    char bar[BAR + 1];
    if (!terminal) {
        (void)printf(
            "{\"job\":\"%s\",\"st\":\"%s\",\"outcome\":\"%s\",\"step\":\"%s\",\"pct\":%llu,"
            "\"done\":%llu,\"total\":%llu,\"rate\":%llu,\"eta\":%llu}\n",
            id, s->st, s->outcome, s->step, (unsigned long long)s->pct, (unsigned long long)s->done,
            (unsigned long long)s->total, (unsigned long long)s->rate, (unsigned long long)s->eta);
        (void)fflush(stdout);
        return;
    }
    size_t full = s->pct > 100 ? BAR : (size_t)s->pct * BAR / 100;
    memset(bar, ' ', BAR);
    memset(bar, '#', full);
    bar[BAR] = 0;
    (void)printf("\r\033[K[%s] %3llu%% %s %s", bar, (unsigned long long)s->pct, s->st, s->step);
    if (s->total)
        (void)printf("  %.1f / %.1f MB  %.1f MB/s", (double)s->done / 1e6, (double)s->total / 1e6,
                     (double)s->rate / 1e6);
    if (s->eta)
        (void)printf(" ETA %llu s", (unsigned long long)(s->eta + 999) / 1000);
    (void)fflush(stdout);
}

static bool ended(const char *st)
{
    static const char *const ends[] = {"done", "failed", "cancelled", "expired", "dead"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (strcmp(st, ends[i]) == 0)
            return true;
    return false;
}

static int exit_code(const struct shown *s)
{
    static const struct {
        const char *word;
        int code;
    } outcomes[] = {{"done", 0},        {"partial", 3},     {"refused", 4},
                    {"rolled_back", 8}, {"needs_human", 9}, {"cancelled", 12}},
      kinds[] = {{"locked", 5}, {"key", 6}, {"integrity", 7}, {"unreachable", 10}};
    for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++)
        if (strcmp(s->outcome, outcomes[i].word) == 0)
            return outcomes[i].code;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(s->st, "failed") == 0 && strcmp(s->kind, kinds[i].word) == 0)
            return kinds[i].code;
    return 1;
}

/* Where the streams stand before the record is read: what comes after that is news. */
static enum dr_rc first_ids(struct cmd *c, char last[2][32], struct dr_err *err)
{
    char ev[DR_KEY_MAX];
    redisReply *r = NULL;
    if (link_text(c->link, 5000, &r, err, "XREVRANGE", dr_key(&c->keys, ev, "ev", ""), "+", "-",
                  "COUNT", "1", NULL))
        return err->rc;
    if (r->type == REDIS_REPLY_ARRAY && r->elements == 1)
        (void)snprintf(last[0], 32, "%s", r->element[0]->element[0]->str);
    freeReplyObject(r);
    return DR_OK;
}

/* Waits for news of the job: the feed wakes at its end, the job's own stream at each progress. */
static enum dr_rc wait_news(struct cmd *c, const char *id, char last[2][32], int64_t most_ms,
                            struct dr_err *err)
{
    char ev[DR_KEY_MAX], evj[DR_KEY_MAX], block[12];
    redisReply *r = NULL;
    (void)snprintf(block, sizeof block, "%d", most_ms < NEWS_MS ? (int)most_ms : NEWS_MS);
    if (link_text(c->link, 6000, &r, err, "XREAD", "COUNT", "100", "BLOCK", block, "STREAMS",
                  dr_key(&c->keys, ev, "ev", ""), dr_key(&c->keys, evj, "ev:", id), last[0],
                  last[1], NULL))
        return err->rc;
    for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i < r->elements; i++) {
        const redisReply *stream = r->element[i], *entries = stream->element[1];
        bool own = strcmp(stream->element[0]->str, evj) == 0;
        if (entries->elements > 0)
            (void)snprintf(last[own], 32, "%s",
                           entries->element[entries->elements - 1]->element[0]->str);
    }
    freeReplyObject(r);
    return DR_OK;
}

static int tell_end(struct cmd *c, const char *id, const struct shown *s, bool terminal)
{
    if (terminal)
        (void)printf("\n%s: %s\n", id, s->outcome[0] ? s->outcome : s->st);
    if (!c->json)
        account_print(c, id, terminal ? stdout : stderr);
    return exit_code(s);
}

int cmd_watch_job(struct cmd *c, const char *id)
{
    struct shown now = {0}, before = {0};
    struct dr_err err = {0};
    char last[2][32] = {"0", "0"};
    bool terminal = isatty(STDOUT_FILENO) && !c->json, first = true;
    int64_t began = dr_clock_ms();
    const char *timeout = cmd_option(c, "timeout");
    uint64_t most_ms = INT64_MAX / 2;
    if (timeout && (!dr_parse_duration_ms(timeout, &most_ms) || most_ms > INT64_MAX / 2)) {
        (void)dr_fail(&err, DR_E_USAGE, "--timeout: not a duration: %s", timeout);
        return cmd_fail(&err);
    }
    const struct sigaction sa = {.sa_handler = on_interrupt};
    (void)sigaction(SIGINT, &sa, NULL);
    if (first_ids(c, last, &err))
        return cmd_fail(&err);
    for (;;) {
        if (read_job(c, id, &now, &err))
            break;
        if (first || memcmp(&now, &before, sizeof now) != 0)
            show(id, &now, terminal);
        first = false;
        before = now;
        if (ended(now.st))
            return tell_end(c, id, &now, terminal);
        if (!now.st[0] && dr_clock_ms() - began > NO_RECORD_MS) {
            (void)dr_fail(&err, DR_E_NOT_FOUND, "no job %s", id);
            break;
        }
        int64_t left = (int64_t)most_ms - (dr_clock_ms() - began);
        if (left <= 0) {
            (void)fprintf(stderr, "drproducer: job %s goes on\n", id);
            return EXIT_TIMED_OUT;
        }
        if (interrupted || wait_news(c, id, last, left, &err))
            break;
    }
    if (interrupted)
        return EXIT_INTERRUPTED; /* the job goes on */
    return cmd_fail(&err);
}

int cmd_watch(struct cmd *c)
{
    struct dr_err err = {0};
    if (cmd_only(c, "timeout", &err) ||
        (c->argc != 1 && dr_fail(&err, DR_E_USAGE, "watch JOB") != DR_OK))
        return cmd_fail(&err);
    return cmd_watch_job(c, c->argv[0]);
}
