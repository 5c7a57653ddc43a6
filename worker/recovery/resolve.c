/* Resolving journals: see resolve.h. Owner of what is opened here: the call. */
#include "worker/recovery/resolve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "worker/backup/audit.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"

enum {
    SETTLE_MS = 600000,      /* of one attempt */
    ABANDONED_MS = 86400000, /* a run that changed nothing and whose message never came back */
};

struct look {
    int store_fd;
    const char *run;
    char **runs;
    struct journal *journal;
};

static enum dr_rc list_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct look *l = item;
    (void)cancel;
    return journal_list_open(l->store_fd, &l->runs, err);
}

static enum dr_rc open_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct look *l = item;
    (void)cancel;
    return journal_open(l->store_fd, l->run, false, &l->journal, err);
}

static enum dr_rc peek_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct look *l = item;
    (void)cancel;
    return journal_peek(l->store_fd, l->run, &l->journal, err);
}

enum dr_rc resolve_list(const struct job_services *env, char ***out, struct dr_err *err)
{
    struct look l = {.store_fd = store_dirfd(env->store)};
    if (pool_run(env->pool, list_item, &l, NULL, err))
        return err->rc;
    *out = l.runs;
    return DR_OK;
}

enum dr_rc resolve_open(const struct job_services *env, const char *run, struct journal **out,
                        struct dr_err *err)
{
    struct look l = {.store_fd = store_dirfd(env->store), .run = run};
    if (pool_run(env->pool, open_item, &l, NULL, err))
        return err->rc;
    *out = l.journal;
    return DR_OK;
}

struct journal *resolve_peek(const struct job_services *env, const char *run)
{
    struct look l = {.store_fd = store_dirfd(env->store), .run = run};
    struct dr_err ignored = {0};
    return pool_run(env->pool, peek_item, &l, NULL, &ignored) ? NULL : l.journal;
}

/* Nobody ordered it: the journal is the order. */
static enum dr_rc audit_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct recovery *r = item;
    const char *const members[][2] = {{"run", r->run},
                                      {"job", r->job_id},
                                      {"procedure", r->procedure->id},
                                      {"outcome", job_outcome_name(r->outcome)},
                                      {"message", r->summary}};
    struct dr_buf b;
    (void)cancel;
    dr_buf_init(&b, AUDIT_DATA_MAX);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        dr_buf_printf(&b, "%c\"%s\":", i ? ',' : '{', members[i][0]);
        dr_buf_json(&b, members[i][1], strlen(members[i][1]));
    }
    dr_buf_str(&b, "}");
    enum dr_rc rc = audit_append(r->env->store, "resolved", (const char *)b.data, err);
    dr_buf_fini(&b);
    return rc;
}

static void audit(struct recovery *r)
{
    struct dr_err err = {0};
    if (pool_run(r->env->pool, audit_item, r, NULL, &err))
        dr_log_err(DR_LOG_ERROR, "audit.unwritten", &err, "job", r->job_id, "type", "resolved",
                   NULL);
}

static void tell_end(const struct recovery *r, bool no_swap)
{
    const struct resolve_end e = {.procedure = r->procedure->id,
                                  .run = r->run,
                                  .job_id = r->job_id,
                                  .summary = r->summary,
                                  .rehearsed = r->order.drill || r->order.target[0],
                                  .no_swap = no_swap,
                                  .outcome = r->outcome};
    if (r->env->resolved)
        r->env->resolved->ended(r->env, &e);
}

static int64_t age_ms(const struct journal *j)
{
    const struct journal_record *last = journal_at(j, journal_count(j) - 1);
    return last ? dr_wall_ms() - last->at_ms : 0;
}

static enum dr_rc settle(struct recovery *r, struct dr_err *err)
{
    bool abandoned = age_ms(r->journal) > ABANDONED_MS;
    if (r->procedure->settle(r, err))
        return err->rc;
    if (!r->settled && !abandoned)
        return DR_OK; /* nothing is left of it; its message starts it over */
    if (!r->settled) {
        r->outcome = JOB_FAILED;
        recovery_say(r, "interrupted before anything was changed; its message did not come back");
    }
    dr_log(DR_LOG_WARN, "recovery.settled", "run", r->run, "job", r->job_id, "outcome",
           job_outcome_name(r->outcome), "message", r->summary, NULL);
    bool no_swap =
        json_is_true(json_object_get(journal_last(r->journal, "run-open", NULL), "no_swap"));
    enum dr_rc rc = recovery_close(r, r->outcome, err);
    if (rc)
        return rc;
    audit(r);
    tell_end(r, no_swap);
    return DR_OK;
}

enum dr_rc resolve_run(const struct job_services *env, const char *run, struct dr_err *err)
{
    struct journal *journal = NULL;
    struct cancel cancel;
    if (resolve_open(env, run, &journal, err))
        return err->rc;
    if (journal_is_closed(journal) || journal_count(journal) == 0) {
        journal_free(journal);
        return DR_OK;
    }
    struct recovery *r = dr_xalloc(sizeof *r);
    cancel_init(&cancel, env->loop);
    cancel_deadline(&cancel, SETTLE_MS);
    r->env = env;
    r->cancel = &cancel;
    r->journal = journal;
    enum dr_rc rc = recovery_adopt(r, err);
    if (!rc)
        rc = settle(r, err);
    recovery_fini(r);
    cancel_fini(&cancel);
    free(r);
    return rc;
}

static bool blocks(const struct journal *j, const struct recovery *r)
{
    const json_t *open = journal_last(j, "run-open", NULL);
    const char *procedure = json_string_value(json_object_get(open, "procedure")),
               *target = json_string_value(json_object_get(open, "target"));
    return procedure && strcmp(procedure, r->procedure->id) == 0 &&
           strcmp(target ? target : "", r->order.target) == 0 && !journal_is_closed(j) &&
           journal_last(j, "step-intent", "quiesce");
}

enum dr_rc resolve_blocking(struct recovery *r, char run[JOURNAL_RUN_BYTES + 1], struct dr_err *err)
{
    char **runs = NULL;
    run[0] = 0;
    if (resolve_list(r->env, &runs, err))
        return err->rc;
    for (char **p = runs; *p && !run[0]; p++) {
        struct journal *j = strcmp(*p, r->run) == 0 ? NULL : resolve_peek(r->env, *p);
        if (j && blocks(j, r))
            (void)snprintf(run, JOURNAL_RUN_BYTES + 1, "%s", *p);
        journal_free(j);
    }
    journal_list_free(runs);
    return DR_OK;
}
