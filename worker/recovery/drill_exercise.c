/* Level exercise: a recovery's own steps upon a target that is not production. What the drill's
 * frame needs for that: undo of the steps, and the figures of a run that a crash cut in two. In the
 * job's fiber. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/str.h"
#include "worker/core/fault.h"
#include "worker/recovery/drill_internal.h"

enum dr_rc drill_no_target(struct dr_err *err)
{
    char names[200] = "";
    for (unsigned i = 0; recovery_procedures[i]; i++) {
        size_t at = strlen(names);
        (void)snprintf(names + at, sizeof names - at, "%s%s", i ? " or " : "",
                       recovery_procedures[i]->target);
    }
    return dr_fail(err, DR_E_REFUSED,
                   "level exercise swaps on a target that is not production, and none is named for "
                   "what is protected: set %s",
                   names);
}

/* ---- what the journal has to tell, should this delivery not come to the end ---- */

static enum dr_rc note_prepared(struct drill *d, struct drill_part *p, struct dr_err *err)
{
    drill_note_world(d, p);
    json_t *data = json_pack("{s:I,s:I,s:I,s:s,s:O,s:O,s:O,s:O*}", "rto_ms", (json_int_t)p->rto_ms,
                             "rpo_s", (json_int_t)p->rpo_s, "began_ms", (json_int_t)p->began_ms,
                             "chosen_by", p->chosen_by, "phases", p->phases, "compared",
                             p->compared, "lists", p->lists, "about", p->backup);
    if (!data)
        return dr_fail(err, DR_E_BUG, "what was compared cannot be written as JSON");
    return recovery_done(&d->r, "prepared", data, err);
}

static void take(json_t **to, const json_t *from, const char *key)
{
    json_t *v = json_object_get(from, key);
    if (!v)
        return;
    json_decref(*to);
    *to = json_incref(v);
}

void drill_recall(struct drill *d, struct drill_part *p)
{
    const struct recovery *r = &d->r;
    const json_t *told = r->prepared;
    const char *by = json_string_value(json_object_get(told, "chosen_by"));
    (void)snprintf(p->backup_id, sizeof p->backup_id, "%s", r->chosen_id);
    if (!told)
        return;
    p->rto_ms =
        (uint64_t)json_integer_value(json_object_get(told, "rto_ms")) + r->downtime_total_ms;
    p->rpo_s = json_integer_value(json_object_get(told, "rpo_s"));
    p->began_ms = json_integer_value(json_object_get(told, "began_ms"));
    (void)snprintf(p->chosen_by, sizeof p->chosen_by, "%s", by ? by : "");
    take(&p->phases, told, "phases");
    take(&p->compared, told, "compared");
    take(&p->lists, told, "lists");
    take(&p->backup, told, "about");
}

/* ---- steps ---- */

enum dr_rc drill_exercise_step(struct drill *d, const struct drill_step *s, struct dr_err *err)
{
    struct drill_part *p = &d->parts[s->part];
    char point[64];
    (void)snprintf(point, sizeof point, "exercise.%s", s->name);
    if (fault_point(point, err))
        return err->rc;
    if (strcmp(s->inner->name, "quiesce") != 0 || d->r.settled)
        return DR_OK;
    return note_prepared(d, p, err);
}

void drill_take_back(struct drill *d, struct job *j)
{
    for (unsigned i = d->cursor; i-- > 0 && !d->steps[i].first;) {
        const struct drill_step *s = &d->steps[i];
        struct dr_err why = {0};
        if (!s->inner || !s->inner->undo || s->inner->undo(j, &why) == DR_OK)
            continue;
        dr_log_err(DR_LOG_ERROR, "drill.undo", &why, "run", d->r.run, "step", s->name, NULL);
        d->r.undo_failed = true;
    }
}

enum job_outcome drill_run_outcome(const struct recovery *r, const struct dr_err *err)
{
    if (!err->rc)
        return JOB_DONE;
    if (r->undo_failed || err->rc == DR_E_NEEDS_HUMAN)
        return JOB_NEEDS_HUMAN;
    if (r->settled || r->point_passed)
        return r->outcome == JOB_DONE ? JOB_FAILED : r->outcome;
    return err->rc == DR_E_REFUSED || err->rc == DR_E_PREFLIGHT ? JOB_REFUSED : JOB_FAILED;
}
