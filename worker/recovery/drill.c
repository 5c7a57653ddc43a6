/* A drill's frame: the procedures' steps one after the other, their times, what is removed, and the
 * verdict. See drill.h. In the job's fiber. */
#include "worker/recovery/drill.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/wire/digest.h"
#include "worker/backup/handle.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"
#include "worker/recovery/drill_internal.h"

enum { PLAN_BYTES_MAX = 1 << 20 };

static bool is_step(const struct drill_step *s, const char *name)
{
    return s->inner && strcmp(s->inner->name, name) == 0;
}

const char *drill_level_name(enum drill_level level)
{
    static const char *const names[] = {"plan", "drill", "exercise"};
    return names[level];
}

/* ---- begin of one procedure ---- */

static void look_whether_configured(const struct drill *d, struct drill_part *p)
{
    const struct recovery_procedure *x = p->procedure;
    if (!d->only && !x->is_configured(d->env->config))
        (void)snprintf(p->skipped, sizeof p->skipped, "not configured");
    else if (d->level == DRILL_EXERCISE && !dr_config_str(d->env->config, x->target)[0])
        (void)snprintf(p->skipped, sizeof p->skipped, "not configured: %s is not set", x->target);
}

static enum dr_rc begin_part(struct drill *d, struct drill_part *p, struct job *j,
                             struct dr_err *err)
{
    struct recovery *r = &d->r;
    struct drill_choice c = {.r = r, .part = p};
    char name[160];
    p->begun = d->open = true;
    p->began_ms = dr_wall_ms();
    p->rpo_s = -1;
    p->phases = json_array();
    p->findings = json_array();
    p->compared = json_object();
    p->lists = json_object();
    r->procedure = p->procedure;
    r->own = dr_xalloc(p->procedure->own_bytes);
    (void)recovery_of(j);
    (void)snprintf(r->order.backup_id, sizeof r->order.backup_id, "%s", d->backup_id);
    r->order.before_ms = d->before_ms;
    r->order.dry_run = d->level == DRILL_PLAN;
    r->order.drill = d->level == DRILL_DRILL;
    if (d->level == DRILL_EXERCISE)
        (void)snprintf(r->order.target, sizeof r->order.target, "%s",
                       dr_config_str(d->env->config, p->procedure->target));
    /* No job id holds a slash: the names of other runs are not met. */
    (void)snprintf(name, sizeof name, "%s/%s", r->job_id, p->procedure->id);
    dr_run_name(d->env->ns, name, r->run);
    if (!d->env->store)
        return dr_fail(err, DR_E_CONFIG, "BACKUP_DIRECTORY is not set on this worker");
    if (p->procedure->series(r, c.series, err))
        return err->rc;
    return pool_run(d->env->pool, drill_choose, &c, recovery_cancel(r), err);
}

/* ---- end of one procedure ---- */

static void fail_part(struct drill_part *p, const char *step, const struct dr_err *why)
{
    dr_log_err(DR_LOG_ERROR, "drill.failed", why, "procedure", p->procedure->id, "step", step,
               NULL);
    if (p->err.rc)
        return; /* the first says it */
    p->err = *why;
    (void)snprintf(p->failed_step, sizeof p->failed_step, "%s", step);
}

/* What of the recovery its evidence needs, before it is taken down. */
void drill_note_world(struct drill *d, struct drill_part *p)
{
    struct recovery *r = &d->r;
    if (r->backup)
        p->backup = drill_backup_json(r->backup, p->chosen_by);
    if (r->chosen_id[0])
        (void)snprintf(p->backup_id, sizeof p->backup_id, "%s", r->chosen_id);
    p->procedure->evidence(r, p->compared, p->lists);
}

/* A drill that compared nothing proves nothing, however well its steps went. */
static void demand_evidence(struct drill_part *p)
{
    static const char *const any[] = {"digests", "files"};
    struct dr_err why = {0};
    for (size_t i = 0; i < sizeof any / sizeof any[0]; i++)
        if (json_integer_value(json_object_get(p->compared, any[i])) > 0)
            return;
    (void)dr_fail(&why, DR_E_INTEGRITY,
                  "no evidence: the backup holds no rows with a digest and no files to compare");
    (void)dr_err_reason(&why, "no-evidence");
    fail_part(p, "verify", &why);
}

/* What could not be removed, or not be seen, stays in an open journal: it is asked for again every
 * minute. */
static void close_part(struct drill *d, struct drill_part *p)
{
    struct recovery *r = &d->r;
    struct dr_err why = {0};
    bool exercise = d->level == DRILL_EXERCISE;
    if (!r->journal || r->undo_failed || (exercise && p->err.rc == DR_E_NEEDS_HUMAN))
        return;
    if (!r->summary[0] && p->err.rc)
        recovery_say(r, "%s", p->err.msg);
    enum job_outcome outcome = exercise ? p->outcome : p->ok ? JOB_DONE : JOB_FAILED;
    if (recovery_close(r, outcome, &why))
        dr_log_err(DR_LOG_WARN, "drill.journal", &why, "run", r->run, NULL);
}

static void end_part(struct drill *d, struct drill_part *p, struct job *j)
{
    struct recovery *r = &d->r;
    struct dr_err why = {0};
    p->ended_ms = dr_wall_ms();
    if (r->settled)
        drill_recall(d, p);
    else if (!p->backup)
        drill_note_world(d, p);
    if (d->level == DRILL_EXERCISE)
        p->outcome = drill_run_outcome(r, &p->err);
    if (d->level != DRILL_PLAN && !p->err.rc)
        demand_evidence(p);
    p->ok = !p->err.rc;
    drill_judge(d, p);
    struct drill_saving s = {.d = d, .part = p, .r = r};
    if (d->level != DRILL_PLAN && d->env->store &&
        pool_run(d->env->pool, drill_save, &s, NULL, &why)) {
        fail_part(p, "record", &why);
        p->ok = false;
        drill_judge(d, p);
    }
    if (d->level == DRILL_PLAN) {
        dr_buf_init(&p->plan, PLAN_BYTES_MAX);
        p->plan_pairs = p->ok && r->procedure->result ? r->procedure->result(r, &p->plan) : 0;
    }
    if (json_array_size(p->findings))
        job_mark_partial(j);
    close_part(d, p);
    recovery_fini(r);
    d->open = false;
}

/* ---- the steps ---- */

/* Who stops the whole job, rather than being found out by the drill. */
static bool ends_job(const struct job *j, const struct dr_err *why)
{
    return job_cancel_kind(j) || (why->rc == DR_E_LOCKED && strcmp(why->reason, "park") == 0) ||
           strcmp(why->reason, "id-collision") == 0;
}

/* Of the recovery's own time: not what a drill adds, nor what comes after a swap. */
static bool is_timed(const struct drill_step *s)
{
    static const char *const others[] = {"remove", "self_test", "start", "check", "close"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (is_step(s, others[i]))
            return false;
    return true;
}

static enum dr_rc run_inner(struct drill *d, const struct drill_step *s, struct job *j,
                            struct dr_err *err)
{
    struct drill_part *p = &d->parts[s->part];
    bool removes = is_step(s, "remove");
    int64_t began = dr_clock_ms();
    struct dr_err why = {0};
    if (removes && !p->backup)
        drill_note_world(d, p);
    if (d->level == DRILL_EXERCISE)
        (void)drill_exercise_step(d, s, &why);
    enum dr_rc rc = why.rc ? why.rc : s->inner->run(j, &why);
    uint64_t ms = (uint64_t)(dr_clock_ms() - began);
    (void)json_array_append_new(p->phases, json_pack("{s:s,s:I,s:b}", "name", s->inner->name, "ms",
                                                     (json_int_t)ms, "ok", !rc));
    if (is_timed(s))
        p->rto_ms += ms;
    if (rc && ends_job(j, &why)) {
        *err = why;
        return why.rc;
    }
    if (rc) {
        d->r.undo_failed = removes;
        fail_part(p, s->inner->name, &why);
        if (d->level == DRILL_EXERCISE)
            drill_take_back(d, j);
    }
    if (rc || d->level != DRILL_EXERCISE) /* a recovery's own steps say what they left out */
        job_step_outcome(j, rc ? "failed" : "done");
    return DR_OK;
}

static enum dr_rc run_next(struct job *j, struct dr_err *err)
{
    struct drill *d = job_state(j);
    const struct drill_step *s = &d->steps[d->cursor++];
    struct drill_part *p = &d->parts[s->part];
    struct dr_err why = {0};
    d->env = job_services(j);
    if (s->first)
        look_whether_configured(d, p);
    if (p->skipped[0]) {
        job_step_outcome(j, "skipped (not configured)");
        return DR_OK;
    }
    if (s->first && begin_part(d, p, j, &why)) {
        if (ends_job(j, &why)) {
            *err = why;
            return why.rc;
        }
        fail_part(p, "choose", &why);
    }
    if (p->err.rc && !is_step(s, "remove"))
        job_step_outcome(j, "skipped (an earlier step failed)");
    else if (run_inner(d, s, j, err))
        return err->rc;
    if (s->last)
        end_part(d, p, j);
    return DR_OK;
}

/* The job was cancelled, handed back or failed otherwise: nothing of the drill stays. */
static enum dr_rc undo(struct job *j, struct dr_err *err)
{
    struct drill *d = job_state(j);
    struct recovery *r = &d->r;
    enum dr_rc rc = DR_OK;
    if (!d->open)
        return DR_OK;
    if (d->level == DRILL_EXERCISE)
        drill_take_back(d, j);
    if (r->order.drill && r->journal) {
        const struct job_step *s = r->procedure->drill;
        while (strcmp(s->name, "remove") != 0)
            s++;
        rc = s->run(j, err);
        r->undo_failed = rc != DR_OK;
    }
    struct dr_err why = {0};
    enum dr_rc closed = recovery_abandon(j, &why);
    if (!rc && closed) {
        *err = why;
        rc = closed;
    }
    recovery_fini(r);
    d->open = false;
    return rc;
}

static enum dr_rc run_code(struct job *j, struct dr_err *err)
{
    struct drill *d = job_state(j);
    d->env = job_services(j);
    if (!d->env->store)
        return DR_OK;
    if (pool_run_long(d->env->pool, drill_open_code, d, job_cancel_token(j), &d->code_err) == DR_OK)
        return DR_OK;
    if (ends_job(j, &d->code_err)) {
        *err = d->code_err;
        return err->rc;
    }
    dr_log_err(DR_LOG_ERROR, "drill.recovery_code", &d->code_err, NULL);
    job_step_outcome(j, "failed");
    return DR_OK;
}

static void say(struct drill *d, struct job *j)
{
    char text[256] = "";
    size_t at = 0;
    for (unsigned i = 0; i < d->part_count && at < sizeof text; i++) {
        const struct drill_part *p = &d->parts[i];
        if (p->skipped[0] || !p->begun)
            continue;
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s: %s in %llu ms", at ? "; " : "",
                               p->procedure->id, p->backup_id, (unsigned long long)p->rto_ms);
    }
    static const char *const what[] = {"planned", "restored, compared and removed",
                                       "restored, compared and swapped on the exercise's target"};
    job_summary(j, "%s: %s", what[d->level], text);
}

static enum dr_rc run_judge(struct job *j, struct dr_err *err)
{
    struct drill *d = job_state(j);
    unsigned drilled = 0;
    /* Each procedure was brought to its end: nothing is left that an undo could do. */
    d->table[0].undo = NULL;
    for (unsigned i = 0; i < d->part_count; i++) {
        const struct drill_part *p = &d->parts[i];
        drilled += !p->skipped[0];
        if (p->skipped[0] || p->ok)
            continue;
        *err = p->err;
        job_outcome_is(j, p->outcome ? p->outcome : JOB_FAILED);
        return dr_wrap(err, "%s, step %s", p->procedure->id, p->failed_step);
    }
    if (!drilled && d->level == DRILL_EXERCISE)
        return drill_no_target(err);
    if (!drilled)
        return dr_fail(err, DR_E_CONFIG,
                       "nothing to drill: neither DATABASE_URL nor BACKUP_FILES_PATHS is set");
    if (d->code_err.rc) {
        *err = d->code_err;
        job_outcome_is(j, JOB_FAILED);
        return dr_wrap(err, "recovery code");
    }
    say(d, j);
    return DR_OK;
}

/* ---- layout ---- */

static struct drill_step *add(struct drill *d, const char *name, unsigned weight, unsigned flags,
                              job_step_fn *run)
{
    struct drill_step *s = &d->steps[d->step_count];
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    d->table[d->step_count++] =
        (struct job_step){.name = s->name, .weight = weight, .flags = flags, .run = run};
    return s;
}

static void add_part(struct drill *d, const struct recovery_procedure *procedure)
{
    const struct job_step *const tables[] = {procedure->plan, procedure->drill, procedure->steps};
    const struct job_step *inner = tables[d->level];
    const char *end = strstr(procedure->id, "_recovery");
    struct drill_step *s = NULL;
    unsigned n = d->part_count++;
    d->parts[n].procedure = procedure;
    for (; inner->name; inner++) {
        char name[40];
        (void)snprintf(name, sizeof name, "%.*s.%s",
                       (int)(end ? (size_t)(end - procedure->id) : strlen(procedure->id)),
                       procedure->id, inner->name);
        bool first = !s;
        s = add(d, name, inner->weight, d->level == DRILL_EXERCISE ? inner->flags : 0, run_next);
        s->part = n;
        s->inner = inner;
        s->first = first;
    }
    s->last = true;
}

void drill_lay_out(struct drill *d)
{
    for (unsigned i = 0; recovery_procedures[i]; i++)
        if (!d->only || d->only == recovery_procedures[i])
            add_part(d, recovery_procedures[i]);
    if (d->level == DRILL_DRILL)
        (void)add(d, "recovery_code", 1, 0, run_code);
    (void)add(d, "judge", 0, 0, run_judge);
    d->table[0].undo = undo;
}

void drill_fini(struct drill *d)
{
    if (d->open)
        recovery_fini(&d->r);
    for (unsigned i = 0; i < d->part_count; i++) {
        struct drill_part *p = &d->parts[i];
        json_t *all[] = {p->phases, p->compared, p->lists, p->backup, p->findings, p->evidence};
        for (size_t k = 0; k < sizeof all / sizeof all[0]; k++)
            json_decref(all[k]);
        dr_buf_fini(&p->plan);
    }
}
