/* The gates of `health`: one function a gate, facts in, a check out. */
#include "worker/watch/gates.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "worker/watch/gates_internal.h"

const char *gate_status_name(enum gate_status s)
{
    static const char *const names[] = {"not_configured", "ok", "warning", "critical"};
    return names[s];
}

struct gate *gate_add(struct gates *g, const char *name, unsigned weight)
{
    struct gate *at = &g->at[g->count < GATES_MAX ? g->count++ : GATES_MAX - 1];
    memset(at, 0, sizeof *at);
    at->name = name;
    at->weight = weight;
    at->unit = "";
    return at;
}

void gate_is(struct gate *g, enum gate_status s, const char *fmt, ...)
{
    va_list ap;
    g->status = s;
    va_start(ap, fmt);
    (void)vsnprintf(g->detail, sizeof g->detail, fmt, ap);
    va_end(ap);
}

void gate_measure(struct gate *g, int64_t value, int64_t limit, const char *unit)
{
    g->measured = true;
    g->value = value;
    g->limit = limit;
    g->unit = unit;
}

void gate_span(int64_t s, char out[GATE_SPAN])
{
    if (s < 120)
        (void)snprintf(out, GATE_SPAN, "%lld s", (long long)s);
    else if (s < 7200)
        (void)snprintf(out, GATE_SPAN, "%lld min", (long long)s / 60);
    else if (s < 172800)
        (void)snprintf(out, GATE_SPAN, "%lld h", (long long)s / 3600);
    else
        (void)snprintf(out, GATE_SPAN, "%lld days", (long long)s / 86400);
}

static void judge_database(const struct facts *f, struct gates *g)
{
    struct gate *at = gate_add(g, "database", 2);
    switch (f->database) {
    case FACTS_NOT_CONFIGURED:
        gate_is(at, GATE_NOT_CONFIGURED, "DATABASE_URL is not set");
        break;
    case FACTS_UNKNOWN:
        gate_is(at, GATE_WARNING, "not looked at");
        break;
    case FACTS_GOOD:
        gate_is(at, GATE_OK, "%s", f->database_why);
        break;
    case FACTS_BAD:
        gate_is(at, GATE_CRITICAL, "%s", f->database_why);
        break;
    }
}

static void judge_clock(const struct facts *f, const struct gate_limits *l, struct gates *g)
{
    struct gate *at = gate_add(g, "clock", 1);
    int64_t off = f->survey.offset_ms, ms = off < 0 ? -off : off;
    if (!f->survey_ms) {
        gate_is(at, GATE_WARNING, "Redis has not told its clock");
        return;
    }
    gate_measure(at, ms, l->clock_ms, "ms");
    gate_is(at,
            ms > l->clock_critical_ms ? GATE_CRITICAL
            : ms > l->clock_ms        ? GATE_WARNING
                                      : GATE_OK,
            "this host's clock is %lld ms %s Redis'", (long long)ms,
            off < 0 ? "ahead of" : "behind");
}

static void judge_schedules(const struct facts *f, const struct gate_limits *l, struct gates *g)
{
    struct gate *at = gate_add(g, "schedules", 2);
    const struct survey *s = &f->survey;
    const struct survey_schedule *worst = NULL;
    char span[GATE_SPAN];
    if (!s->schedule_count) {
        gate_is(at, GATE_NOT_CONFIGURED, "no schedule stands in Redis");
        return;
    }
    for (unsigned i = 0; i < s->schedule_count; i++)
        if (!worst || s->schedules[i].due_ms < worst->due_ms)
            worst = &s->schedules[i];
    int64_t late_s = worst->due_ms < s->now_ms ? (s->now_ms - worst->due_ms) / 1000 : 0;
    gate_measure(at, late_s, l->late_s, "s");
    gate_span(late_s, span);
    if (late_s > l->late_s)
        gate_is(at, late_s > l->late_critical_s ? GATE_CRITICAL : GATE_WARNING,
                "%s is late by %s: nobody has fired its slot", worst->name, span);
    else
        gate_is(at, GATE_OK, "%u schedules, none is late", s->schedule_count);
}

/* Workers that fire slots, and say which. */
static bool has_schedule(const struct survey_worker *w)
{
    return w->schedule[0] && strcmp(w->schedule, "off") != 0;
}

static void judge_workers(const struct facts *f, struct gates *g)
{
    struct gate *at = gate_add(g, "workers", 1);
    const struct survey *s = &f->survey;
    const struct survey_worker *first = NULL, *other = NULL;
    for (unsigned i = 0; i < s->worker_count && !other; i++) {
        const struct survey_worker *w = &s->workers[i];
        if (!has_schedule(w))
            continue;
        if (!first)
            first = w;
        else if (strcmp(w->schedule, first->schedule) != 0)
            other = w;
    }
    gate_measure(at, s->worker_count, 1, "workers");
    if (!s->worker_count)
        gate_is(at, GATE_CRITICAL, "no worker beats");
    else if (other)
        gate_is(at, GATE_WARNING, "workers on %s and %s have different schedules", first->host,
                other->host);
    else
        gate_is(at, GATE_OK, "%u alive", s->worker_count);
}

static void judge_orders(const struct facts *f, struct gates *g)
{
    struct gate *at = gate_add(g, "signed-orders", 1);
    if (f->has_keys)
        gate_is(at, GATE_OK, "destructive orders need a signature");
    else if (f->allow_unsigned)
        gate_is(at, GATE_WARNING, "DR_ALLOW_UNSIGNED: whoever reaches Redis may order a recovery");
    else
        gate_is(at, GATE_NOT_CONFIGURED, "no DR_SIGN_KEYS_FILE: destructive orders are refused");
}

static void judge_offsite(const struct facts *f, struct gates *g)
{
    struct gate *at = gate_add(g, "offsite", 1);
    if (!f->has_offsite)
        gate_is(at, GATE_NOT_CONFIGURED, "OFFSITE_STORAGE_PROVIDER is none");
    else
        gate_is(at, GATE_WARNING, "an off-site store is named, but this version copies nothing");
}

static void judge_retention(const struct facts *f, struct gates *g)
{
    struct gate *at = gate_add(g, "retention", 1);
    const struct survey *s = &f->survey;
    if (!f->has_store || !s->retention_ms) {
        gate_is(at, GATE_NOT_CONFIGURED, "%s",
                f->has_store ? "Redis knows of no run" : "BACKUP_DIRECTORY is not set");
        return;
    }
    gate_measure(at, (int64_t)s->retention_waits, 0, "backups");
    if (s->retention_waits)
        gate_is(at, GATE_WARNING,
                "%llu backups are given up when somebody confirms it: drproducer retention --plan "
                "%s",
                (unsigned long long)s->retention_waits, s->retention_plan);
    else
        gate_is(at, GATE_OK, "its last run waits for nobody");
}

static void judge_all(struct gates *g)
{
    unsigned weights = 0, earned = 0;
    g->status = GATE_OK;
    for (unsigned i = 0; i < g->count; i++) {
        const struct gate *at = &g->at[i];
        if (at->status == GATE_NOT_CONFIGURED)
            continue;
        if (at->status > g->status)
            g->status = at->status;
        weights += 2 * at->weight;
        earned += (unsigned)(GATE_CRITICAL - at->status) * at->weight;
    }
    g->score = weights ? (200 * earned + weights) / (2 * weights) : 0;
    /* 100 means that everything is well, not that it nearly is */
    if (g->status != GATE_OK && g->score == 100)
        g->score = 99;
}

void gates_judge(const struct facts *f, const struct gate_limits *l, int64_t now_ms,
                 struct gates *out)
{
    memset(out, 0, sizeof *out);
    out->at_ms = now_ms;
    gates_judge_store(f, l, now_ms, out);
    judge_database(f, out);
    judge_offsite(f, out);
    judge_clock(f, l, out);
    judge_schedules(f, l, out);
    judge_workers(f, out);
    judge_orders(f, out);
    judge_retention(f, out);
    judge_all(out);
}
