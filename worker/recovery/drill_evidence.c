/* What a drill says of itself: findings, evidence, result map. An auditor reads this. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/str.h"
#include "common/wire/pack.h"
#include "worker/backup/handle.h"
#include "worker/recovery/drill_internal.h"

enum { DEPTH_MAX = 8 };

static json_t *time_json(int64_t ms)
{
    char t[DR_TIME_TEXT];
    dr_format_time(ms, t);
    return json_string(t);
}

static json_t *pairs_json(const struct manifest_pair *pairs, unsigned count)
{
    json_t *o = json_object();
    for (unsigned i = 0; i < count; i++)
        (void)json_object_set_new(o, pairs[i].name, recovery_text(pairs[i].value));
    return o;
}

json_t *drill_backup_json(const struct backup_handle *h, const char *chosen_by)
{
    const struct manifest *m = handle_manifest(h);
    uint64_t plain = 0, stored = 0;
    char sha[65];
    dr_hex(handle_sha256(h), 32, sha);
    for (unsigned i = 0; i < m->object_count; i++) {
        plain += m->objects[i].plain_bytes;
        stored += m->objects[i].stored_bytes;
    }
    return json_pack("{s:s,s:s,s:o,s:s,s:I,s:o,s:s,s:I,s:I,s:o,s:o}", "backup_id", m->backup_id,
                     "manifest_sha256", sha, "series", recovery_text(m->series), "class", m->class,
                     "seq", (json_int_t)m->seq, "t_point", time_json(m->t_point_ms), "chosen_by",
                     chosen_by, "plain_bytes", (json_int_t)plain, "stored_bytes",
                     (json_int_t)stored, "tools", pairs_json(m->tools, m->tool_count), "server",
                     pairs_json(m->server, m->server_count));
}

/* ---- findings: what is true although the backup restores ---- */

static void find(struct drill_part *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void find(struct drill_part *p, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)json_array_append_new(p->findings, recovery_text(text));
}

static void find_all(struct drill *d, struct drill_part *p, int64_t rto_target_s,
                     int64_t rpo_target_s)
{
    const struct recovery *r = &d->r;
    char passed[STORE_PASSED_TEXT];
    json_array_clear(p->findings);
    if (p->ok && d->level != DRILL_PLAN && p->rto_ms > (uint64_t)rto_target_s * 1000)
        find(p, "late: the recovery took %llu ms, the target is %lld s",
             (unsigned long long)p->rto_ms, (long long)rto_target_s);
    if (p->rpo_s < 0)
        find(p, "late: there is no usable backup");
    else if (p->rpo_s > rpo_target_s)
        find(p, "late: the newest usable backup is %lld s old, the target is %lld s",
             (long long)p->rpo_s, (long long)rpo_target_s);
    store_passed_text(&r->passed, passed, sizeof passed);
    if (passed[0])
        find(p, "%s", passed);
    if (p->latest_over)
        find(p,
             "the latest backup is of %llu bytes, over DR_DRILL_BUDGET_BYTES (%lld): it is drilled "
             "all the same",
             (unsigned long long)p->latest_over,
             (long long)dr_config_int(d->env->config, "DR_DRILL_BUDGET_BYTES"));
    if (r->obstacle[0])
        find(p, "a recovery would be refused now: %s", r->obstacle);
    if (p->ok && strncmp(r->self_test, "not possible", 12) == 0)
        find(p, "self-test %s", r->self_test);
}

/* ---- evidence ---- */

static json_t *error_json(const struct drill_part *p)
{
    const struct dr_err *e = &p->err;
    return e->rc ? json_pack("{s:s,s:s,s:o,s:s}", "kind", dr_rc_name(e->rc), "reason", e->reason,
                             "message", recovery_text(e->msg), "step", p->failed_step)
                 : json_null();
}

static json_t *where_json(void)
{
    char host[256] = "";
    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = 0;
    return json_pack("{s:o,s:s}", "host", recovery_text(host), "drworker", DR_VERSION);
}

static json_t *rto_json(const struct drill *d, const struct drill_part *p, int64_t target_s)
{
    static const char *const not_measured[] = {"all but the plan",
                                               "emergency backup, quiesce, swap, start of services",
                                               "emergency backup, stop and start of services"};
    bool measured = p->ok && d->level != DRILL_PLAN;
    return json_pack(
        "{s:o,s:I,s:b,s:s}", "ms", measured ? json_integer((json_int_t)p->rto_ms) : json_null(),
        "target_ms", (json_int_t)target_s * 1000, "late",
        measured && p->rto_ms > (uint64_t)target_s * 1000, "not_measured", not_measured[d->level]);
}

/* What became of the target, in place of what a drill says of its scratch. */
static void add_exercise(json_t *e, const struct drill_part *p, const struct recovery *r)
{
    (void)json_object_set_new(e, "target", recovery_text(r->order.target));
    (void)json_object_set_new(e, "outcome", json_string(job_outcome_name(p->outcome)));
    (void)json_object_set_new(
        e, "downtime_ms",
        r->down_ms || r->settled ? json_integer((json_int_t)r->downtime_total_ms) : json_null());
    (void)json_object_set(e, "kept_old", r->kept_old);
    (void)json_object_set_new(e, "interrupted", json_boolean(r->settled));
}

static void add_scratch(json_t *e, const struct recovery *r)
{
    (void)json_object_set_new(e, "self_test",
                              json_string(r->self_test[0] ? r->self_test : "not reached"));
    (void)json_object_set_new(e, "removed", json_boolean(!r->undo_failed));
}

void drill_judge(struct drill *d, struct drill_part *p)
{
    const struct recovery *r = &d->r;
    const struct dr_config *config = d->env->config;
    int64_t rto_s = dr_config_int(config, p->procedure->rto),
            rpo_s = dr_config_int(config, p->procedure->rpo);
    find_all(d, p, rto_s, rpo_s);
    json_decref(p->evidence);
    p->evidence = json_pack("{s:i,s:o,s:s,s:s,s:s,s:b,s:o,s:o,s:o}", "v", 1, "job_id",
                            recovery_text(r->job_id), "run", r->run, "procedure", p->procedure->id,
                            "level", drill_level_name(d->level), "ok", p->ok, "where", where_json(),
                            "began", time_json(p->began_ms), "ended", time_json(p->ended_ms));
    json_t *e = p->evidence;
    (void)json_object_set(e, "backup", p->backup ? p->backup : json_null());
    (void)json_object_set(e, "phases", p->phases);
    (void)json_object_set_new(e, "rto", rto_json(d, p, rto_s));
    (void)json_object_set_new(
        e, "rpo",
        json_pack("{s:o,s:I,s:b}", "s", p->rpo_s < 0 ? json_null() : json_integer(p->rpo_s),
                  "target_s", (json_int_t)rpo_s, "late", p->rpo_s < 0 || p->rpo_s > rpo_s));
    (void)json_object_set(e, "findings", p->findings);
    (void)json_object_set_new(e, "error", error_json(p));
    if (p->passed_over)
        (void)json_object_set_new(e, "passed_over", json_integer((json_int_t)p->passed_over));
    if (d->level == DRILL_PLAN)
        return;
    (void)json_object_set(e, "compared", p->compared);
    if (d->level == DRILL_EXERCISE)
        add_exercise(e, p, r);
    else
        add_scratch(e, r);
}

/* ---- result ---- */

static void pack_json(struct dr_buf *b, const json_t *v, unsigned depth)
{
    const char *key;
    json_t *item, *o = (json_t *)(uintptr_t)v; /* jansson iterates over what is not const */
    switch (depth < DEPTH_MAX ? json_typeof(v) : JSON_NULL) {
    case JSON_OBJECT:
        dr_pack_map(b, json_object_size(v));
        json_object_foreach(o, key, item)
        {
            dr_pack_text(b, key);
            pack_json(b, item, depth + 1);
        }
        break;
    case JSON_ARRAY:
        dr_pack_array(b, json_array_size(v));
        for (size_t i = 0; i < json_array_size(v); i++)
            pack_json(b, json_array_get(v, i), depth + 1);
        break;
    case JSON_STRING:
        dr_pack_text(b, json_string_value(v));
        break;
    case JSON_INTEGER:
        dr_pack_int(b, json_integer_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        dr_pack_bool(b, json_is_true(v));
        break;
    default:
        dr_pack_nil(b);
    }
}

static void pack_number(struct dr_buf *b, const char *key, const json_t *in, const char *name)
{
    dr_pack_text(b, key);
    pack_json(b, json_object_get(in, name) ? json_object_get(in, name) : json_null(), 0);
}

/* Paths stay out of Redis where names shall: the file in the store has them. */
static json_t *for_redis(const struct drill *d, const struct drill_part *p)
{
    bool detail = dr_config_bool(d->env->config, "DR_REDIS_DETAIL");
    json_t *e = json_copy(p->evidence), *roots = json_object_get(p->lists, "roots");
    if (detail && roots)
        (void)json_object_set(e, "roots", roots);
    if (!detail && json_object_get(e, "compared")) {
        json_t *compared = json_copy(p->compared);
        (void)json_object_del(compared, "scratch");
        (void)json_object_set_new(e, "compared", compared);
        (void)json_object_del(e, "target");
        (void)json_object_del(e, "kept_old");
    }
    if (p->file[0]) {
        (void)json_object_set_new(e, "file", json_string(p->file));
        (void)json_object_set_new(e, "sha256", json_string(p->sha256));
    }
    return e;
}

static void pack_part(struct dr_buf *map, const struct drill *d, const struct drill_part *p)
{
    const json_t *rto = json_object_get(p->evidence, "rto"),
                 *rpo = json_object_get(p->evidence, "rpo");
    json_t *evidence = for_redis(d, p);
    dr_pack_text(map, p->procedure->id);
    dr_pack_map(map, 8 + p->plan_pairs);
    dr_pack_text(map, "ok");
    dr_pack_bool(map, p->ok);
    dr_pack_pair(map, "level", drill_level_name(d->level));
    dr_pack_text(map, "backup_id");
    if (p->backup_id[0])
        dr_pack_text(map, p->backup_id);
    else
        dr_pack_nil(map);
    pack_number(map, "rto_ms", rto, "ms");
    pack_number(map, "rto_target_ms", rto, "target_ms");
    pack_number(map, "rpo_s", rpo, "s");
    pack_number(map, "rpo_target_s", rpo, "target_s");
    dr_pack_text(map, "evidence");
    pack_json(map, evidence, 0);
    json_decref(evidence);
    if (p->plan_pairs)
        dr_buf_add(map, p->plan.data, p->plan.len);
}

static void pack_skipped(struct dr_buf *map, const char *procedure, const char *why)
{
    dr_pack_map(map, 2);
    dr_pack_pair(map, "procedure_id", procedure);
    dr_pack_pair(map, "why", why);
}

unsigned drill_result(struct job *j, struct dr_buf *map)
{
    const struct drill *d = job_state(j);
    const bool no_full = !d->only && !recovery_find(DRILL_FULL);
    unsigned ended = 0, skipped = no_full;
    for (unsigned i = 0; i < d->part_count; i++) {
        ended += d->parts[i].evidence != NULL;
        skipped += d->parts[i].skipped[0] != 0;
    }
    dr_pack_text(map, "procedures");
    dr_pack_map(map, ended);
    for (unsigned i = 0; i < d->part_count; i++)
        if (d->parts[i].evidence)
            pack_part(map, d, &d->parts[i]);
    dr_pack_text(map, "skipped");
    dr_pack_array(map, skipped);
    for (unsigned i = 0; i < d->part_count; i++)
        if (d->parts[i].skipped[0])
            pack_skipped(map, d->parts[i].procedure->id, d->parts[i].skipped);
    if (no_full)
        pack_skipped(map, DRILL_FULL, "this version has no procedure for it");
    if (!d->recovery_code[0])
        return 2;
    dr_pack_pair(map, "recovery_code", d->recovery_code);
    return 3;
}
