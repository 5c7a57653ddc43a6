/* The target of an exercise of database_recovery: a database that is not production. Made empty
 * where it is missing, so that the swap is a true one; what stood there before is dropped at the
 * end when journals know that an exercise made it. In a fiber. */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "worker/core/fault.h"
#include "worker/core/pool.h"
#include "worker/recovery/db_drill.h"
#include "worker/recovery/drill_target.h"

struct asking {
    int store_fd;
    const char *target;
    uint32_t oid;
    bool made;
};

static const char *text_of(const json_t *data, const char *key)
{
    const char *text = json_string_value(json_object_get(data, key));
    return text ? text : "";
}

static bool tells(const struct journal_record *rec, uint32_t oid)
{
    const char *step = text_of(rec->data, "step");
    json_t *told = NULL;
    if (strcmp(rec->type, "step-done") == 0 && strcmp(step, "target") == 0)
        told = json_object_get(rec->data, "oid");
    else if (strcmp(rec->type, "step-intent") == 0 && strcmp(step, "quiesce") == 0)
        told = json_object_get(rec->data, "scratch_oid");
    return told && json_integer_value(told) == (json_int_t)oid;
}

/* Name and OID together: what bears the name now came there by that run. */
static bool has_made(const struct journal *j, const struct asking *a)
{
    const json_t *open = journal_last(j, "run-open", NULL);
    if (strcmp(text_of(open, "procedure"), "database_recovery") != 0 ||
        strcmp(text_of(open, "target"), a->target) != 0)
        return false;
    for (size_t i = 0; i < journal_count(j); i++)
        if (tells(journal_at(j, i), a->oid))
            return true;
    return false;
}

static enum dr_rc ask_journals(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct asking *a = item;
    char **runs = NULL;
    (void)cancel;
    if (journal_list_all(a->store_fd, &runs, err))
        return err->rc;
    for (char **run = runs; *run && !a->made; run++) {
        struct journal *j = NULL;
        struct dr_err unreadable = {0}; /* then nothing is known, and what is there is kept */
        if (journal_peek(a->store_fd, *run, &j, &unreadable) == DR_OK)
            a->made = has_made(j, a);
        journal_free(j);
    }
    journal_list_free(runs);
    return DR_OK;
}

static enum dr_rc make_target(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    if (recovery_intent(r, "target", NULL, err) ||
        db_conn_run(r, d->lock, err, "CREATE DATABASE %I TEMPLATE template0", d->live) ||
        db_lock_oid(r, d->live, &d->live_oid, err))
        return err->rc ? dr_wrap(err, "DR_EXERCISE_DATABASE %s", d->live) : DR_OK;
    d->live_lost = false;
    d->live_ours = true;
    return recovery_done(r, "target", json_pack("{s:I}", "oid", (json_int_t)d->live_oid), err);
}

enum dr_rc db_exercise_prepare(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    const char *const live[] = {d->live, NULL};
    char text[8];
    if (drill_target_database(r->env->config, d->live, err) ||
        db_conn_text(r, d->lock, text, sizeof text, err,
                     "SELECT datistemplate FROM pg_catalog.pg_database WHERE datname = $1", live))
        return err->rc;
    if (text[0] == 't')
        return dr_fail(err, DR_E_PREFLIGHT, "DR_EXERCISE_DATABASE %s is a template", d->live);
    if (d->live_lost)
        return make_target(r, err);
    struct asking a = {
        .store_fd = recovery_store_fd(r), .target = r->order.target, .oid = d->live_oid};
    if (pool_run(r->env->pool, ask_journals, &a, recovery_cancel(r), err))
        return err->rc;
    d->live_ours = a.made;
    return DR_OK;
}

bool db_exercise_dropped(struct recovery *r)
{
    struct db *d = db_of(r);
    struct dr_err why = {0};
    if (!recovery_is_exercise(r) || !d->live_ours)
        return false;
    /* Without force: nobody can have come in, and what somebody holds is kept. */
    if (recovery_intent(r, "drop-before", NULL, &why) ||
        db_conn_run(r, d->lock, &why, "DROP DATABASE IF EXISTS %I", d->before) ||
        fault_point("exercise.dropped", &why)) {
        dr_log_err(DR_LOG_WARN, "recovery.drop_before", &why, "run", r->run, NULL);
        return false;
    }
    return true;
}
