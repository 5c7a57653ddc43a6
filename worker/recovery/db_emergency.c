/* The backup of what is about to be replaced. A live database that cannot be dumped does not stop
 * its own recovery: it stays as it is under its new name, without expiry. In a fiber. */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "worker/backup/take.h"
#include "worker/recovery/db_internal.h"

static enum dr_rc take(struct recovery *r, struct dr_err *err)
{
    char id[64];
    struct take *t = NULL;
    /* Of this delivery: what an earlier one saved may be hours old. */
    (void)snprintf(id, sizeof id, "%s-%s", r->run, r->ticket);
    const struct take_order o = {.env = r->env,
                                 .kind = "database",
                                 .class = "emergency",
                                 .job_id = id,
                                 .ticket = r->ticket,
                                 .cancel = recovery_cancel(r),
                                 .progress = job_progress_counter(r->job)};
    if (take_begin(&o, &t, err))
        return err->rc;
    enum dr_rc rc = take_all(t, err);
    if (!rc)
        (void)snprintf(r->emergency_id, sizeof r->emergency_id, "%s", take_manifest(t)->backup_id);
    take_free(t);
    return rc;
}

enum dr_rc db_emergency(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    struct dr_err why = {0};
    if (d->live_lost) {
        (void)snprintf(r->emergency_why, sizeof r->emergency_why, "there is no database %s",
                       d->live);
        recovery_step_outcome(r, "skipped (nothing to protect)");
        return DR_OK;
    }
    enum dr_rc rc = take(r, &why);
    if (!rc)
        return DR_OK;
    if (cancel_fired(recovery_cancel(r)) || rc == DR_E_CANCELLED || rc == DR_E_STALE) {
        *err = why;
        return rc;
    }
    dr_log_err(DR_LOG_WARN, "recovery.emergency", &why, "job", r->job_id, NULL);
    (void)snprintf(r->emergency_why, sizeof r->emergency_why, "%s", why.msg);
    d->live_damaged = true;
    recovery_step_outcome(r, "failed (kept by rename)");
    return DR_OK;
}
