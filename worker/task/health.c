/* health: looks at everything afresh, then judges it by the gates. The job itself is done when it
 * has looked; what it found stands in its result, in `info` and in /metrics. */
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/pg_url.h"
#include "common/wire/pack.h"
#include "worker/backup/audit.h"
#include "worker/backup/store.h"
#include "worker/backup/trash.h"
#include "worker/core/pg.h"
#include "worker/core/pool.h"
#include "worker/job/job.h"
#include "worker/queue/told.h"
#include "worker/task/tasks.h"
#include "worker/watch/alert.h"
#include "worker/watch/gates.h"
#include "worker/watch/watch.h"

enum { CONNECT_MS = 5000, STATEMENT_MS = 5000, INFO_MAX = 65536, DEADLINE_S = 600 };

struct health {
    struct gates gates;
    bool judged;
};

static struct facts *facts_of(struct job *j)
{
    return watch_facts(job_services(j)->watch);
}

static enum dr_rc look(struct job *j, struct dr_err *err)
{
    if (!job_services(j)->watch)
        return dr_fail(err, DR_E_CONFIG, "this worker keeps no watch");
    facts_of(j)->store.listed_ms = 0; /* afresh, though the catalog's head stands */
    watch_collect(job_services(j)->watch, job_cancel_token(j));
    return DR_OK;
}

struct looking {
    const char *event; /* in the log, where it does not end well */
    struct store *store;
    unsigned unrecorded, trash_unknown;
    struct audit_state audit;
};

/* The whole chain, with writers kept out. */
static enum dr_rc walk_catalog(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct looking *l = item;
    (void)cancel;
    enum dr_rc rc = store_audit(l->store, &l->unrecorded, err);
    return rc ? rc : store_count_unknown_trash(l->store, &l->trash_unknown, err);
}

/* The audit log's chain, its signed head, and what the catalog witnesses of it. */
static enum dr_rc walk_audit(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct looking *l = item;
    (void)cancel;
    return audit_verify(l->store, NULL, NULL, &l->audit, err);
}

/* Only a record or a head that is not what it was is a finding: a log that is busy, or a disk that
 * fails, was not looked at, which is told. */
static enum dr_rc walk(struct job *j, pool_fn *fn, struct looking *l, enum facts_found *found,
                       char said[FACTS_WHY], struct dr_err *err)
{
    struct dr_err why = {0};
    l->store = job_services(j)->store;
    if (!l->store) {
        job_step_outcome(j, "skipped (not configured)");
        return DR_OK;
    }
    enum dr_rc rc = pool_run_long(job_services(j)->pool, fn, l, job_cancel_token(j), &why);
    if (rc == DR_E_CANCELLED || rc == DR_E_TIMEOUT)
        return dr_fail(err, rc, "%s", why.msg);
    *found = !rc ? FACTS_GOOD : rc == DR_E_INTEGRITY ? FACTS_BAD : FACTS_UNKNOWN;
    (void)snprintf(said, FACTS_WHY, "%s", rc ? why.msg : "");
    if (rc)
        dr_log_err(DR_LOG_ERROR, l->event, &why, NULL);
    return DR_OK;
}

static enum dr_rc look_at_catalog(struct job *j, struct dr_err *err)
{
    struct facts *f = facts_of(j);
    struct looking l = {.event = "health.catalog"};
    if (walk(j, walk_catalog, &l, &f->catalog, f->catalog_why, err) || !l.store)
        return err->rc;
    f->catalog_ms = dr_wall_ms();
    f->unrecorded = l.unrecorded;
    f->trash_unknown = l.trash_unknown;
    return DR_OK;
}

static enum dr_rc look_at_audit(struct job *j, struct dr_err *err)
{
    struct facts *f = facts_of(j);
    struct looking l = {.event = "health.audit"};
    if (walk(j, walk_audit, &l, &f->audit, f->audit_why, err) || !l.store)
        return err->rc;
    f->audit_records = l.audit.records;
    return DR_OK;
}

static enum dr_rc reach(struct job *j, const struct dr_pg_url *url, char why[FACTS_WHY],
                        struct dr_err *err)
{
    const struct pg_options o = {.application_name = "drworker-health",
                                 .connect_ms = CONNECT_MS,
                                 .statement_ms = STATEMENT_MS};
    struct pg_conn *c = NULL;
    enum dr_rc rc = pg_connect(job_services(j)->loop, job_services(j)->pool, url, &o,
                               job_cancel_token(j), &c, err);
    if (!rc)
        rc = pg_query(c, job_cancel_token(j), NULL, err, "SELECT 1", NULL);
    if (!rc)
        (void)snprintf(why, FACTS_WHY, "it answers, PostgreSQL %d.%d", pg_server_version(c) / 10000,
                       pg_server_version(c) % 10000);
    pg_close(c);
    return rc;
}

static enum dr_rc look_at_database(struct job *j, struct dr_err *err)
{
    struct facts *f = facts_of(j);
    struct dr_pg_url url = {0};
    struct dr_err found = {0};
    char why[FACTS_WHY] = "";
    if (!f->has_database) {
        job_step_outcome(j, "skipped (not configured)");
        return DR_OK;
    }
    const struct dr_secret *text = dr_config_secret(job_services(j)->config, "DATABASE_URL");
    enum dr_rc rc = dr_pg_url_parse((const char *)text->bytes, &url, &found);
    if (!rc)
        rc = reach(j, &url, why, &found);
    dr_pg_url_free(&url);
    if (rc == DR_E_CANCELLED)
        return dr_fail(err, rc, "%s", found.msg);
    f->database = rc ? FACTS_BAD : FACTS_GOOD;
    (void)snprintf(f->database_why, sizeof f->database_why, "%s", rc ? found.msg : why);
    return DR_OK;
}

/* What clients list without asking a worker. */
static void tell(struct job *j, const struct gates *g)
{
    struct dr_buf b;
    struct dr_err err = {0};
    dr_buf_init(&b, INFO_MAX);
    dr_pack_map(&b, 4);
    dr_pack_text(&b, "at");
    dr_pack_int(&b, g->at_ms);
    (void)gates_pack(g, &b);
    if (!b.failed &&
        queue_tell_once(watch_queue(job_services(j)->watch), "health", b.data, b.len, &err))
        dr_log_err(DR_LOG_WARN, "health.info", &err, NULL); /* the result says the same */
    dr_buf_fini(&b);
}

static enum dr_rc judge(struct job *j, struct dr_err *err)
{
    struct health *h = job_state(j);
    struct gate_limits limits;
    unsigned bad = 0;
    const struct gate *worst = NULL;
    (void)err;
    gates_limits(&limits, job_services(j)->config);
    gates_judge(facts_of(j), &limits, dr_wall_ms(), &h->gates);
    h->judged = true;
    for (unsigned i = 0; i < h->gates.count; i++) {
        const struct gate *g = &h->gates.at[i];
        bad += g->status > GATE_OK;
        if (g->status > GATE_OK && (!worst || g->status > worst->status))
            worst = g;
    }
    if (worst)
        job_summary(j, "%s: %u of %u checks; first %s: %s", gate_status_name(h->gates.status), bad,
                    h->gates.count, worst->name, worst->detail);
    else
        job_summary(j, "ok, score %u", h->gates.score);
    watch_judged(job_services(j)->watch, &h->gates);
    tell(j, &h->gates);
    alert_on_gates(job_services(j)->alerts, &h->gates);
    return DR_OK;
}

static unsigned result(struct job *j, struct dr_buf *map)
{
    const struct health *h = job_state(j);
    return h->judged ? gates_pack(&h->gates, map) : 0;
}

static const struct job_step steps[] = {
    {"look", 30, 0, look, NULL},           {"catalog", 30, 0, look_at_catalog, NULL},
    {"audit", 20, 0, look_at_audit, NULL}, {"database", 15, 0, look_at_database, NULL},
    {"judge", 5, 0, judge, NULL},          {0},
};

const struct job_task task_health = {
    .type = "health",
    .default_slots = 1,
    .deadline_s = DEADLINE_S,
    .state_bytes = sizeof(struct health),
    .steps = steps,
    .result = result,
};
