/* The backup of what is about to be replaced. A live target that cannot be read does not stop its
 * own recovery: it is kept by rename, without expiry. In a fiber. */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "worker/backup/take.h"
#include "worker/recovery/procedure.h"

static enum dr_rc take(struct recovery *r, const char *kind, struct dr_err *err)
{
    char id[64];
    struct take *t = NULL;
    /* Of this delivery: what an earlier one saved may be hours old. */
    (void)snprintf(id, sizeof id, "%s-%s", r->run, r->ticket);
    const struct take_order o = {.env = r->env,
                                 .kind = kind,
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

enum dr_rc recovery_emergency(struct recovery *r, const char *kind, const char *nothing,
                              bool *damaged, struct dr_err *err)
{
    struct dr_err why = {0};
    if (recovery_is_exercise(r)) {
        recovery_step_outcome(r, "skipped (the target is not production)");
        return DR_OK;
    }
    if (nothing) {
        (void)snprintf(r->emergency_why, sizeof r->emergency_why, "%s", nothing);
        recovery_step_outcome(r, "skipped (nothing to protect)");
        return DR_OK;
    }
    enum dr_rc rc = take(r, kind, &why);
    if (!rc)
        return DR_OK;
    if (cancel_fired(recovery_cancel(r)) || rc == DR_E_CANCELLED || rc == DR_E_STALE) {
        *err = why;
        return rc;
    }
    dr_log_err(DR_LOG_WARN, "recovery.emergency", &why, "job", r->job_id, NULL);
    (void)snprintf(r->emergency_why, sizeof r->emergency_why, "%s", why.msg);
    *damaged = true;
    recovery_step_outcome(r, "failed (kept by rename)");
    return DR_OK;
}
