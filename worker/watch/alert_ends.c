/* The rules that hang on the ends of jobs, and of recoveries that ended without their message: what
 * fails is raised under a subject that the next good end of its kind clears, and no weaker proof.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/str.h"
#include "common/wire/args.h"
#include "common/wire/envelope.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"
#include "worker/recovery/procedures.h"
#include "worker/recovery/resolve.h"
#include "worker/watch/alert_internal.h"
#include "worker/watch/facts.h"

enum { STUCK_QUIET_MS = 1200000 }; /* whoever is stuck says so every ten minutes */
enum { SUBJECT_MAX = 128, SUMMARY_MAX = 256, DETAILS_MAX = 1024 };

static const struct end_rule {
    const char *lane, *rule, *subject_arg, *subject, *noun;
    bool refused; /* a refusal is a failure, too: nothing was backed up, nothing proven */
} end_rules[] = {
    {"backup", "backup_failed", "kind", "full", "backup", true},
    {"execute", "recovery_failed", "procedure_id", "", "recovery", false},
    {"test-recovery", "recovery_failed", "procedure_id", "all procedures", "recovery test", false},
    {"verify", "verify_failed", NULL, "store", "verification", true},
    {"sync", "sync_failed", NULL, "offsite", "synchronisation", true},
    {"retention", "job_failed", NULL, "retention", "job", false},
    {"health", "job_failed", NULL, "health", "job", false},
    {"log-cleanup", "job_failed", NULL, "log-cleanup", "job", false},
};

/* A plan proves and changes nothing: it says nothing of what was tried. */
static bool is_plan(const char *lane, const struct dr_args *args)
{
    if (strcmp(lane, "test-recovery") == 0) {
        const char *level = dr_args_str(args, "level");
        return level && strcmp(level, "plan") == 0;
    }
    return (strcmp(lane, "execute") == 0 || strcmp(lane, "sync") == 0 ||
            strcmp(lane, "retention") == 0) &&
           dr_args_bool(args, "dry_run");
}

static const struct end_rule *rule_of(const char *lane, const struct dr_args *args)
{
    if (is_plan(lane, args))
        return NULL;
    for (size_t i = 0; i < sizeof end_rules / sizeof end_rules[0]; i++)
        if (strcmp(end_rules[i].lane, lane) == 0)
            return &end_rules[i];
    return NULL;
}

static bool is_good(const char *outcome)
{
    return strcmp(outcome, "done") == 0 || strcmp(outcome, "partial") == 0;
}

/* What is neither is no end of the work: cancelled, retry, parked, handed_back, stale. */
static bool is_bad(const struct end_rule *r, const char *outcome)
{
    return strcmp(outcome, "failed") == 0 || strcmp(outcome, "rolled_back") == 0 ||
           strcmp(outcome, "needs_human") == 0 || (r->refused && strcmp(outcome, "refused") == 0);
}

/* A drill, and a copy beside live, have subjects of their own: they do not clear a recovery that
 * failed. */
static void name_subject(const struct end_rule *r, const struct dr_args *args,
                         char out[SUBJECT_MAX])
{
    const char *arg = r->subject_arg ? dr_args_str(args, r->subject_arg) : NULL, *of = "";
    if (strcmp(r->lane, "test-recovery") == 0)
        of = "test of ";
    else if (strcmp(r->lane, "execute") == 0 && dr_args_bool(args, "no_swap"))
        of = "copy by ";
    (void)snprintf(out, SUBJECT_MAX, "%s%s", of, arg ? arg : r->subject);
}

struct damage {
    struct store *store;
    size_t bad;
};

static enum dr_rc count_damage(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct damage *d = item;
    struct store_entry *list = NULL;
    size_t count = 0;
    (void)cancel;
    if (store_list(d->store, &list, &count, err))
        return err->rc;
    for (size_t i = 0; i < count; i++)
        d->bad += facts_is_damaged(&list[i]);
    free(list);
    return DR_OK;
}

/* One backup that is good says nothing of another one. */
static bool damage_stands(const struct alerts *a)
{
    struct damage d = {.store = a->services->store};
    struct dr_err err = {0};
    if (!d.store)
        return false;
    if (pool_run(a->services->pool, count_damage, &d, NULL, &err) == DR_OK)
        return d.bad > 0;
    dr_log_err(DR_LOG_WARN, "alert.store", &err, NULL);
    return true;
}

/* Who drilled all that is configured has drilled each of them. */
static void clear_each_test(struct alerts *a, const char *details)
{
    for (unsigned i = 0; recovery_procedures[i]; i++) {
        char subject[SUBJECT_MAX], summary[SUMMARY_MAX];
        if (!recovery_procedures[i]->is_configured(a->services->config))
            continue;
        (void)snprintf(subject, sizeof subject, "test of %s", recovery_procedures[i]->id);
        (void)snprintf(summary, sizeof summary, "recovery test (%s): works again", subject);
        struct queue_alert what = {.clear = true,
                                   .rule = "recovery_failed",
                                   .subject = subject,
                                   .severity = alert_severity("recovery_failed"),
                                   .summary = summary,
                                   .details = details};
        alert_decide(a, &what);
    }
}

/* Who mistyped a name has heard so; of the backups that there are it says nothing. */
static bool is_mistyped(const struct dr_err *why)
{
    return why && (why->rc == DR_E_INVALID || why->rc == DR_E_NOT_FOUND) &&
           dr_starts(why->field, "a.");
}

void alert_on_order(struct alerts *a, const struct dispatch_order *o)
{
    char subject[SUBJECT_MAX], summary[SUMMARY_MAX], details[DETAILS_MAX];
    const struct end_rule *r = a && o->verdict == DISPATCH_ENDED ? rule_of(o->lane, o->args) : NULL;
    if (!r)
        return;
    bool good = is_good(o->outcome);
    if (!good && (!is_bad(r, o->outcome) || is_mistyped(o->err)))
        return;
    if (good && strcmp(r->lane, "verify") == 0 && damage_stands(a))
        return;
    name_subject(r, o->args, subject);
    (void)snprintf(summary, sizeof summary, "%s (%s): %s", r->noun, subject,
                   good ? "works again" : o->outcome);
    (void)snprintf(details, sizeof details, "job %s%s%s%s%s", o->job_id, good ? "" : ": ",
                   good ? "" : dr_rc_name(o->err->rc), good ? "" : ": ", good ? "" : o->err->msg);
    struct queue_alert what = {.clear = good,
                               .rule = r->rule,
                               .subject = subject,
                               .severity = alert_severity(r->rule),
                               .summary = summary,
                               .details = details};
    alert_decide(a, &what);
    if (good && strcmp(r->lane, "test-recovery") == 0 && !dr_args_str(o->args, "procedure_id"))
        clear_each_test(a, details);
}

void alert_on_poison(struct alerts *a, const char *lane, const void *raw, size_t len)
{
    char subject[SUBJECT_MAX], summary[SUMMARY_MAX], details[DETAILS_MAX];
    struct dr_envelope *e = NULL;
    struct dr_refusal refusal;
    struct dr_err err = {0};
    const struct dr_envelope_ctx ctx = {.ns = a ? a->services->ns : "",
                                        .lane = lane,
                                        .accepted = true, /* it was: workers died over it */
                                        .now_ms = dr_wall_ms()};
    if (!a || dr_envelope_check(&ctx, raw, len, &e, &refusal, &err))
        return;
    const struct end_rule *r = rule_of(lane, e->args);
    if (r) {
        name_subject(r, e->args, subject);
        (void)snprintf(summary, sizeof summary, "%s (%s): given up, its workers died", r->noun,
                       subject);
        (void)snprintf(details, sizeof details,
                       "job %s: %u deliveries ended with their worker; it is in the dead letters",
                       e->id, e->lane->lost_allowed + 1);
        alert_raise(a, r->rule, subject, NULL, summary, details);
    }
    dr_envelope_free(e);
}

/* A drill that was cut off has proven nothing and left nothing: its schedule repeats it. */
static void on_ended(const struct job_services *env, const struct resolve_end *e)
{
    char subject[SUBJECT_MAX], summary[SUMMARY_MAX], details[DETAILS_MAX];
    const char *outcome = job_outcome_name(e->outcome);
    bool good = is_good(outcome);
    if (e->rehearsed || (!good && e->outcome == JOB_CANCELLED))
        return;
    (void)snprintf(subject, sizeof subject, "%s%s", e->no_swap ? "copy by " : "", e->procedure);
    (void)snprintf(summary, sizeof summary, "recovery (%s): %s, taken up without its message",
                   subject, outcome);
    (void)snprintf(details, sizeof details, "job %s, run %s: %s", e->job_id, e->run, e->summary);
    if (good)
        alert_clear(env->alerts, "recovery_failed", subject, summary);
    else
        alert_raise(env->alerts, "recovery_failed", subject, NULL, summary, details);
}

static void on_stuck(const struct job_services *env, const char *run, const struct dr_err *why)
{
    static const char rule[] = "recovery_failed", subject[] = "interrupted runs";
    char summary[SUMMARY_MAX];
    if (!run) {
        alert_clear_quiet(env->alerts, rule, subject, "none of them needs a human", STUCK_QUIET_MS);
        return;
    }
    (void)snprintf(summary, sizeof summary, "an interrupted recovery needs a human: journal/%s.log",
                   run);
    alert_raise(env->alerts, rule, subject, NULL, summary, why->msg);
}

const struct resolve_listener alert_resolved = {.ended = on_ended, .stuck = on_stuck};
