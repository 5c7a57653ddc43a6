/* A recovery run's frame: journal, resumption, services, result. In fibers on the loop thread; the
 * state is the job's or the taker's. */
#include "worker/recovery/procedure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/digest.h"
#include "common/wire/pack.h"
#include "worker/backup/handle.h"
#include "worker/backup/store.h"
#include "worker/core/fiber.h"
#include "worker/core/pool.h"

enum {
    LOCKED_POLL_MS = 300,
    LOCKED_FOR_MS = 2000,
    SETTLE_POLL_MS = 2000,
    SETTLE_FOR_MS = 600000,
    HOUR_MS = 3600000
};

struct recovery *recovery_of(struct job *j)
{
    struct recovery *r = job_state(j);
    if (r->job)
        return r;
    r->job = j;
    r->env = job_services(j);
    r->began_ms = dr_clock_ms();
    r->kept_old = json_array();
    (void)snprintf(r->job_id, sizeof r->job_id, "%s", job_id(j));
    (void)snprintf(r->mid, sizeof r->mid, "%s", job_mid(j));
    (void)snprintf(r->ticket, sizeof r->ticket, "%s", job_ticket(j));
    return r;
}

struct cancel *recovery_cancel(struct recovery *r)
{
    return r->job ? job_cancel_token(r->job) : r->cancel;
}

int recovery_store_fd(struct recovery *r)
{
    return store_dirfd(r->env->store);
}

const struct recovery_procedure *recovery_find(const char *id)
{
    for (const struct recovery_procedure *const *p = recovery_procedures; *p; p++)
        if (strcmp((*p)->id, id) == 0)
            return *p;
    return NULL;
}

/* ---- journal ---- */

struct opening {
    int store_fd;
    const char *run;
    struct journal *journal;
};

static enum dr_rc open_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct opening *o = item;
    (void)cancel;
    return journal_open(o->store_fd, o->run, true, &o->journal, err);
}

struct appending {
    struct journal *journal;
    const char *type;
    json_t *data;
};

static enum dr_rc append_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct appending *a = item;
    (void)cancel;
    return journal_append(a->journal, a->type, a->data, err);
}

static enum dr_rc append(struct recovery *r, const char *type, json_t *data, struct dr_err *err)
{
    struct appending a = {.journal = r->journal, .type = type, .data = data};
    struct dr_err why = {0};
    if (!r->journal) {
        json_decref(data);
        return DR_OK;
    }
    if (!data) /* a text that is no UTF-8: nobody could resume from what is missing */
        return dr_fail(err, DR_E_BUG, "journal record %s cannot be written as JSON", type);
    if (pool_run(r->env->pool, append_item, &a, NULL, &why)) {
        *err = why;
        return why.rc;
    }
    return DR_OK;
}

static enum dr_rc append_step(struct recovery *r, const char *type, const char *step, json_t *data,
                              struct dr_err *err)
{
    if (!data)
        data = json_object();
    (void)json_object_set_new(data, "step", json_string(step));
    return append(r, type, data, err);
}

enum dr_rc recovery_intent(struct recovery *r, const char *step, json_t *data, struct dr_err *err)
{
    return append_step(r, "step-intent", step, data, err);
}

enum dr_rc recovery_done(struct recovery *r, const char *step, json_t *data, struct dr_err *err)
{
    return append_step(r, "step-done", step, data, err);
}

enum dr_rc recovery_undone(struct recovery *r, const char *step, json_t *data, struct dr_err *err)
{
    return append_step(r, "step-undone", step, data, err);
}

const json_t *recovery_find_intent(const struct recovery *r, const char *step)
{
    return r->journal ? journal_last(r->journal, "step-intent", step) : NULL;
}

const json_t *recovery_find_done(const struct recovery *r, const char *step)
{
    return r->journal ? journal_last(r->journal, "step-done", step) : NULL;
}

bool recovery_pending(const struct recovery *r, const char *step)
{
    for (size_t i = r->journal ? journal_count(r->journal) : 0; i-- > 0;) {
        const struct journal_record *rec = journal_at(r->journal, i);
        const char *of = json_string_value(json_object_get(rec->data, "step"));
        if (of && strcmp(of, step) == 0)
            return strcmp(rec->type, "step-undone") != 0;
    }
    return false;
}

json_t *recovery_text(const char *text)
{
    char *copy = dr_xstrdup(text);
    for (size_t i = 0, left = strlen(copy), n; left > 0; i += n, left -= n) {
        n = dr_utf8_len((const unsigned char *)copy + i, left);
        if (n == 0) {
            copy[i] = '?';
            n = 1;
        }
    }
    json_t *json = json_string(copy);
    free(copy);
    return json;
}

static void take_text(char *out, size_t size, const json_t *data, const char *key)
{
    const char *text = json_string_value(json_object_get(data, key));
    (void)snprintf(out, size, "%s", text ? text : "");
}

bool recovery_is_exercise(const struct recovery *r)
{
    return r->order.target[0] != 0;
}

void recovery_read_target(struct recovery *r)
{
    take_text(r->order.target, sizeof r->order.target, journal_last(r->journal, "run-open", NULL),
              "target");
}

static uint64_t total_ms(const struct recovery *r)
{
    return r->total_ms || !r->began_ms ? r->total_ms : (uint64_t)(dr_clock_ms() - r->began_ms);
}

enum dr_rc recovery_close(struct recovery *r, enum job_outcome outcome, struct dr_err *err)
{
    json_t *data =
        json_pack("{s:s,s:o,s:s,s:s,s:o,s:I,s:I,s:I,s:O}", "outcome", job_outcome_name(outcome),
                  "summary", recovery_text(r->summary), "backup", r->chosen_id, "emergency",
                  r->emergency_id, "emergency_why", recovery_text(r->emergency_why), "downtime_ms",
                  (json_int_t)r->downtime_total_ms, "downtime_services_ms",
                  (json_int_t)r->downtime_services_ms, "total_ms", (json_int_t)total_ms(r),
                  "kept_old", r->kept_old);
    r->outcome = outcome;
    if (append(r, "run-closed", data, err))
        return err->rc;
    journal_free(r->journal);
    r->journal = NULL;
    return DR_OK;
}

static bool outcome_by_name(const char *name, enum job_outcome *out)
{
    for (int o = JOB_DONE; name && o <= JOB_CANCELLED; o++)
        if (strcmp(job_outcome_name((enum job_outcome)o), name) == 0) {
            *out = (enum job_outcome)o;
            return true;
        }
    return false;
}

bool recovery_read_closed(struct recovery *r)
{
    const json_t *end = journal_last(r->journal, "run-closed", NULL);
    const json_t *kept = json_object_get(end, "kept_old");
    if (r->order.drill)
        return false; /* it left nothing: the message may have it again */
    if (!outcome_by_name(json_string_value(json_object_get(end, "outcome")), &r->outcome))
        return false;
    if (r->outcome != JOB_DONE && r->outcome != JOB_PARTIAL && !recovery_find_intent(r, "quiesce"))
        return false;
    take_text(r->summary, sizeof r->summary, end, "summary");
    take_text(r->chosen_id, sizeof r->chosen_id, end, "backup");
    take_text(r->emergency_id, sizeof r->emergency_id, end, "emergency");
    take_text(r->emergency_why, sizeof r->emergency_why, end, "emergency_why");
    r->downtime_total_ms = (uint64_t)json_integer_value(json_object_get(end, "downtime_ms"));
    r->downtime_services_ms =
        (uint64_t)json_integer_value(json_object_get(end, "downtime_services_ms"));
    r->total_ms = (uint64_t)json_integer_value(json_object_get(end, "total_ms"));
    if (json_is_array(kept)) {
        json_decref(r->kept_old);
        r->kept_old = json_deep_copy(kept);
    }
    r->settled = true;
    return true;
}

/* ---- begin ---- */

/* Whoever holds the journal of this run decides it: the message comes again later. */
static enum dr_rc open_journal(struct recovery *r, struct dr_err *err)
{
    int64_t end = dr_clock_ms() + LOCKED_FOR_MS;
    for (;;) {
        struct opening o = {.store_fd = recovery_store_fd(r), .run = r->run};
        struct dr_err why = {0};
        if (pool_run(r->env->pool, open_item, &o, NULL, &why) == DR_OK) {
            r->journal = o.journal;
            return DR_OK;
        }
        if (why.rc != DR_E_LOCKED || dr_clock_ms() > end) {
            *err = why;
            return why.rc == DR_E_LOCKED ? dr_err_reason(err, "park") : why.rc;
        }
        if (job_sleep(r->job, LOCKED_POLL_MS, err))
            return err->rc;
    }
}

/* Until the world can be seen: a database that is just restarting is no reason to give up. */
static enum dr_rc settle(struct recovery *r, struct dr_err *err)
{
    int64_t end = dr_clock_ms() + SETTLE_FOR_MS;
    for (;;) {
        struct dr_err why = {0};
        if (r->procedure->settle(r, &why) == DR_OK)
            return DR_OK;
        dr_log_err(DR_LOG_WARN, "recovery.settle", &why, "run", r->run, "job", r->job_id, NULL);
        if (dr_clock_ms() > end)
            return dr_fail(err, DR_E_NEEDS_HUMAN, "journal/%s.log stays open: %s", r->run, why.msg);
        job_message(r->job, "%s", why.msg);
        if (job_sleep(r->job, SETTLE_POLL_MS, err))
            return err->rc;
    }
}

/* An exercise's target is the one that it began with, whatever this worker is configured with. And
 * the journal goes once the run is settled, while what it compared has to be told even so. */
static void resume_exercise(struct recovery *r)
{
    const json_t *prepared = recovery_find_done(r, "prepared");
    char *configured = dr_xstrdup(r->order.target);
    recovery_read_target(r);
    if (strcmp(configured, r->order.target) != 0) {
        r->procedure->fini(r);
        memset(r->own, 0, r->procedure->own_bytes);
    }
    free(configured);
    if (prepared)
        r->prepared = json_deep_copy(prepared);
}

static enum dr_rc resume(struct recovery *r, struct dr_err *err)
{
    const json_t *open = journal_last(r->journal, "run-open", NULL);
    const char *mid = json_string_value(json_object_get(open, "mid"));
    if (!mid || strcmp(mid, r->mid) != 0) {
        (void)dr_fail(err, DR_E_EXISTS, "journal/%s.log belongs to another message of this id",
                      r->run);
        journal_free(r->journal); /* not ours: an undo must not close it */
        r->journal = NULL;
        return dr_err_reason(err, "id-collision");
    }
    if (recovery_is_exercise(r))
        resume_exercise(r);
    if (journal_is_closed(r->journal)) {
        (void)recovery_read_closed(r);
        return DR_OK;
    }
    if (recovery_find_intent(r, "quiesce"))
        r->point_passed = true;
    if (settle(r, err))
        return err->rc;
    return r->settled ? recovery_close(r, r->outcome, err) : DR_OK;
}

static enum dr_rc open_run(struct recovery *r, struct dr_err *err)
{
    if (open_journal(r, err) || (journal_count(r->journal) > 0 && resume(r, err)))
        return err->rc;
    if (r->settled) {
        journal_free(r->journal);
        r->journal = NULL;
        if (r->outcome == JOB_DONE || r->outcome == JOB_PARTIAL)
            return DR_OK;
        job_outcome_is(r->job, r->outcome);
        return dr_fail(err, r->outcome == JOB_NEEDS_HUMAN ? DR_E_NEEDS_HUMAN : DR_E_CANCELLED,
                       "an earlier delivery was interrupted: %s", r->summary);
    }
    return append(r, "run-open",
                  json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:o,s:b,s:b,s:o*}", "job", r->job_id, "mid",
                            r->mid, "ticket", r->ticket, "procedure", r->procedure->id, "backup",
                            r->order.backup_id, "actor", recovery_text(job_actor(r->job)), "reason",
                            recovery_text(r->order.reason), "no_swap", r->order.no_swap, "drill",
                            r->order.drill, "target",
                            recovery_is_exercise(r) ? recovery_text(r->order.target) : NULL),
                  err);
}

/* An exercise knows none: whatever stands in the configuration serves production. */
static enum dr_rc load_services(struct recovery *r, struct dr_err *err)
{
    if (recovery_is_exercise(r))
        return DR_OK;
    return services_load(&r->services, r->env->loop, r->env->config, r->procedure->services, err);
}

enum dr_rc recovery_begin(struct recovery *r, struct dr_err *err)
{
    if (!r->env->store)
        return dr_fail(err, DR_E_CONFIG,
                       "BACKUP_DIRECTORY is not set: there is nothing to recover "
                       "from");
    if (!r->order.drill && !recovery_is_exercise(r)) /* these have a run for each procedure */
        dr_run_name(r->env->ns, r->job_id, r->run);
    (void)snprintf(r->services.fence, sizeof r->services.fence, "%s", r->ticket);
    (void)snprintf(r->services.run, sizeof r->services.run, "%s", r->run);
    if (load_services(r, err))
        return err->rc;
    return r->order.dry_run ? DR_OK : open_run(r, err);
}

enum dr_rc recovery_adopt(struct recovery *r, struct dr_err *err)
{
    const struct journal *j = r->journal;
    const json_t *open = journal_last(j, "run-open", NULL);
    char id[40];
    take_text(id, sizeof id, open, "procedure");
    r->procedure = recovery_find(id);
    if (!r->procedure)
        return dr_fail(err, DR_E_NEEDS_HUMAN, "journal/%s.log names no procedure", journal_run(j));
    take_text(r->job_id, sizeof r->job_id, open, "job");
    take_text(r->mid, sizeof r->mid, open, "mid");
    take_text(r->ticket, sizeof r->ticket, open, "ticket");
    (void)snprintf(r->run, sizeof r->run, "%s", journal_run(j));
    (void)snprintf(r->services.fence, sizeof r->services.fence, "%s", r->ticket);
    (void)snprintf(r->services.run, sizeof r->services.run, "%s", r->run);
    r->order.drill = json_is_true(json_object_get(open, "drill"));
    recovery_read_target(r);
    r->own = dr_xalloc(r->procedure->own_bytes);
    r->kept_old = json_array();
    r->began_ms = dr_clock_ms();
    r->point_passed = recovery_find_intent(r, "quiesce") != NULL;
    return load_services(r, err);
}

bool recovery_skips(struct recovery *r)
{
    if (r->settled)
        recovery_step_outcome(r, "skipped (settled)");
    return r->settled;
}

/* ---- end ---- */

static enum job_outcome failed_outcome(const struct recovery *r)
{
    if (r->point_passed)
        return r->outcome == JOB_DONE ? JOB_FAILED : r->outcome;
    switch (job_error(r->job)->rc) {
    case DR_E_CANCELLED:
        return JOB_CANCELLED;
    case DR_E_REFUSED:
    case DR_E_PREFLIGHT:
        return JOB_REFUSED;
    default:
        return JOB_FAILED;
    }
}

enum dr_rc recovery_abandon(struct job *j, struct dr_err *err)
{
    struct recovery *r = recovery_of(j);
    if (!r->journal)
        return DR_OK;
    bool others_go_on = job_cancel_kind(j) == DR_E_STALE || job_handed_back(j);
    if (r->undo_failed || (others_go_on && !r->point_passed) ||
        job_error(j)->rc == DR_E_NEEDS_HUMAN) {
        journal_free(r->journal); /* open: whoever comes next looks at the world */
        r->journal = NULL;
        return DR_OK;
    }
    if (!r->summary[0])
        recovery_say(r, "%s", job_error(j)->msg);
    enum job_outcome outcome = failed_outcome(r);
    if (r->point_passed)
        job_outcome_is(j, outcome);
    return recovery_close(r, outcome, err);
}

enum dr_rc recovery_services_down(struct recovery *r, struct dr_err *err)
{
    if (!r->down_ms)
        r->down_ms = dr_clock_ms();
    return services_stop(&r->services, recovery_cancel(r), err);
}

enum dr_rc recovery_services_up(struct recovery *r, struct dr_err *err)
{
    enum dr_rc rc = services_start(&r->services, recovery_cancel(r), err);
    if (r->down_ms)
        r->downtime_total_ms = (uint64_t)(dr_clock_ms() - r->down_ms);
    r->downtime_services_ms = r->services.ms;
    return rc;
}

void recovery_keep(struct recovery *r, const char *what, bool expires, const char *fmt, ...)
{
    char note[512], until[DR_TIME_TEXT];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(note, sizeof note, fmt, ap);
    va_end(ap);
    dr_format_time(
        dr_wall_ms() + dr_config_int(r->env->config, "RECOVERY_KEEP_OLD_HOURS") * HOUR_MS, until);
    json_t *kept =
        json_pack("{s:o,s:o,s:o}", "what", recovery_text(what), "until",
                  expires ? json_string(until) : json_null(), "note", recovery_text(note));
    (void)json_array_append_new(r->kept_old, kept);
}

void recovery_keep_id(struct recovery *r, const char *key, uint64_t id)
{
    json_t *last = json_array_get(r->kept_old, json_array_size(r->kept_old) - 1);
    (void)json_object_set_new(last, key, json_integer((json_int_t)id));
}

void recovery_say(struct recovery *r, const char *fmt, ...)
{
    char passed[STORE_PASSED_TEXT];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(r->summary, sizeof r->summary, fmt, ap);
    va_end(ap);
    store_passed_text(&r->passed, passed, sizeof passed);
    if (passed[0] && r->chosen_id[0]) {
        size_t used = strlen(r->summary);
        (void)snprintf(r->summary + used, sizeof r->summary - used, "; %s", passed);
    }
    if (r->job)
        job_summary(r->job, "%s", r->summary);
}

void recovery_step_outcome(struct recovery *r, const char *outcome)
{
    if (r->job)
        job_step_outcome(r->job, outcome);
}

static void pack_text_or_nil(struct dr_buf *map, const char *key, const char *value)
{
    dr_pack_text(map, key);
    if (value[0])
        dr_pack_text(map, value);
    else
        dr_pack_nil(map);
}

static void pack_kept(struct dr_buf *map, const json_t *kept)
{
    static const char *const keys[] = {"what", "until", "note"};
    dr_pack_map(map, 3);
    for (size_t i = 0; i < 3; i++) {
        const char *text = json_string_value(json_object_get(kept, keys[i]));
        pack_text_or_nil(map, keys[i], text ? text : "");
    }
}

static void pack_passed(struct dr_buf *map, const struct store_passed *p)
{
    unsigned told = p->count < STORE_PASSED_MAX ? p->count : STORE_PASSED_MAX;
    dr_pack_text(map, "passed_over");
    dr_pack_array(map, told);
    for (unsigned i = 0; i < told; i++) {
        char at[DR_TIME_TEXT];
        dr_format_time(p->list[i].found_at_ms, at);
        dr_pack_map(map, 3);
        dr_pack_pair(map, "backup_id", p->list[i].backup_id);
        dr_pack_pair(map, "class", p->list[i].class);
        pack_text_or_nil(map, "found_at", p->list[i].found_at_ms ? at : "");
    }
}

unsigned recovery_result(struct recovery *r, struct dr_buf *map)
{
    uint64_t total = r->downtime_total_ms, theirs = r->downtime_services_ms;
    unsigned pairs = 8;
    dr_pack_pair(map, "procedure_id", r->procedure->id);
    pack_text_or_nil(map, "backup_id", r->chosen_id);
    pack_text_or_nil(map, "emergency_backup_id", r->emergency_id);
    dr_pack_text(map, "downtime_ms");
    dr_pack_map(map, 3);
    dr_pack_text(map, "total");
    dr_pack_uint(map, total);
    dr_pack_text(map, "services");
    dr_pack_uint(map, theirs);
    dr_pack_text(map, "ours");
    dr_pack_uint(map, total > theirs ? total - theirs : 0);
    dr_pack_text(map, "total_ms");
    dr_pack_uint(map, total_ms(r));
    dr_pack_text(map, "rolled_back");
    dr_pack_bool(map, r->outcome == JOB_ROLLED_BACK);
    dr_pack_text(map, "kept_old");
    dr_pack_array(map, json_array_size(r->kept_old));
    for (size_t i = 0; i < json_array_size(r->kept_old); i++)
        pack_kept(map, json_array_get(r->kept_old, i));
    pack_passed(map, &r->passed);
    if (r->emergency_why[0]) {
        dr_pack_pair(map, "emergency_backup_error", r->emergency_why);
        pairs++;
    }
    return pairs + (r->procedure->result && !r->settled ? r->procedure->result(r, map) : 0);
}

void recovery_fini(struct recovery *r)
{
    if (r->procedure && r->procedure->fini && r->own)
        r->procedure->fini(r);
    free(r->own);
    journal_free(r->journal);
    handle_close(r->backup);
    json_decref(r->kept_old);
    json_decref(r->prepared);
    memset(r, 0, sizeof *r);
}
