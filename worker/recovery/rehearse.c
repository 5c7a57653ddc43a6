/* Preflight without an order. See rehearse.h. */
#include "worker/recovery/rehearse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/backup/handle.h"
#include "worker/backup/prove.h"
#include "worker/backup/store.h"
#include "worker/backup/store_select.h"
#include "worker/core/pool.h"
#include "worker/recovery/database.h"
#include "worker/recovery/db_internal.h"

static enum dr_rc expect(void *arg, const struct index_record *rec, struct dr_err *err)
{
    return db_expect_record(arg, "database", rec, err);
}

/* What was saved, as the index says it; every byte used of it is authenticated. */
static enum dr_rc select_newest(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct recovery *r = item;
    struct db *d = db_of(r);
    char series[NAMES_SERIES_SIZE];
    names_series("database", d->live, strlen(d->live), series);
    const struct store_wish wish = {
        .kind = "database", .series = series, .which = "latest", .passed = &r->passed};
    enum dr_rc rc = store_select(r->env->store, &wish, &r->backup, err);
    return rc ? rc : prove_each_record(r->backup, "database", cancel, expect, d, err);
}

enum dr_rc rehearse_database(const struct job_services *env, struct cancel *cancel,
                             struct rehearsed *out, struct dr_err *err)
{
    struct recovery *r = dr_xalloc(sizeof *r);
    r->procedure = &recovery_database;
    r->env = env;
    r->cancel = cancel;
    r->order.dry_run = true; /* resolves nothing */
    r->own = dr_xalloc(r->procedure->own_bytes);
    enum dr_rc rc = db_conn_urls(r, err);
    if (!rc)
        rc = pool_run_long(env->pool, select_newest, r, cancel, err);
    if (!rc) {
        (void)snprintf(out->backup_id, sizeof out->backup_id, "%s",
                       handle_manifest(r->backup)->backup_id);
        out->passed = r->passed;
        rc = db_preflight(r, err);
    }
    recovery_fini(r);
    free(r);
    return rc;
}
