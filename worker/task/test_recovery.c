/* test-recovery: rehearses recovery procedures. What that is stands in worker/recovery/drill. */
#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "common/wire/args.h"
#include "worker/recovery/drill.h"
#include "worker/task/tasks.h"

static enum dr_rc refuse_unknown(const char *id, struct dr_err *err)
{
    char known[256] = "";
    for (unsigned i = 0; recovery_procedures[i]; i++) {
        size_t at = strlen(known);
        (void)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "",
                       recovery_procedures[i]->id);
    }
    return dr_fail(err, DR_E_REFUSED, "this version has no procedure %s, it has: %s", id, known);
}

static enum dr_rc decode(const struct dr_args *args, void *state, struct dr_err *err)
{
    struct drill *d = state;
    const char *id = dr_args_str(args, "procedure_id"), *level = dr_args_str(args, "level"),
               *backup = dr_args_str(args, "backup_id"), *before = dr_args_str(args, "before");
    d->level = !level || strcmp(level, "drill") == 0 ? DRILL_DRILL
               : strcmp(level, "plan") == 0          ? DRILL_PLAN
                                                     : DRILL_EXERCISE;
    if (id && !(d->only = recovery_find(id))) {
        (void)refuse_unknown(id, err);
        return dr_err_field(err, "a.procedure_id", id, strlen(id));
    }
    if (backup && !d->only && strcmp(backup, "latest") != 0) {
        (void)dr_fail(err, DR_E_INVALID, "one backup is of one procedure: name it in procedure_id");
        return dr_err_field(err, "a.backup_id", backup, strlen(backup));
    }
    if (before && !dr_parse_time(before, &d->before_ms)) {
        (void)dr_fail(err, DR_E_INVALID, "not a time of RFC 3339");
        return dr_err_field(err, "a.before", before, strlen(before));
    }
    (void)snprintf(d->backup_id, sizeof d->backup_id, "%s", backup ? backup : "");
    drill_lay_out(d);
    return DR_OK;
}

static const struct job_step *plan(const void *state)
{
    return ((const struct drill *)state)->table;
}

static void fini(void *state)
{
    drill_fini(state);
}

const struct job_task task_test_recovery = {
    .type = "test-recovery",
    .flags = TASK_HEAVY,
    .default_slots = 1,
    .state_bytes = sizeof(struct drill),
    .decode = decode,
    .plan = plan,
    .result = drill_result,
    .fini = fini,
};
