/* execute: runs a recovery procedure. Which steps that is stands in worker/recovery. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"
#include "common/wire/args.h"
#include "worker/recovery/procedure.h"
#include "worker/task/tasks.h"

static void copy(char *out, size_t size, const struct dr_args *args, const char *name)
{
    const char *text = dr_args_str(args, name);
    (void)snprintf(out, size, "%s", text ? text : "");
}

static enum dr_rc decode(const struct dr_args *args, void *state, struct dr_err *err)
{
    struct recovery *r = state;
    struct recovery_order *o = &r->order;
    const char *id = dr_args_str(args, "procedure_id"), *before = dr_args_str(args, "before");
    const struct recovery_procedure *p = recovery_find(id ? id : "");
    copy(o->backup_id, sizeof o->backup_id, args, "backup_id");
    copy(o->reason, sizeof o->reason, args, "reason");
    copy(o->actor, sizeof o->actor, args, "actor");
    if (!o->backup_id[0])
        (void)snprintf(o->backup_id, sizeof o->backup_id, "latest");
    o->dry_run = dr_args_bool(args, "dry_run");
    o->no_swap = dr_args_bool(args, "no_swap");
    o->keep_newer = dr_args_bool(args, "keep_newer");
    if (!p) {
        (void)dr_fail(err, DR_E_REFUSED, "this version has no procedure %s", id ? id : "");
        return dr_err_field(err, "a.procedure_id", id ? id : "", id ? strlen(id) : 0);
    }
    if (before && !dr_parse_time(before, &o->before_ms)) {
        (void)dr_fail(err, DR_E_INVALID, "not a time of RFC 3339");
        return dr_err_field(err, "a.before", before, strlen(before));
    }
    r->procedure = p;
    r->own = dr_xalloc(p->own_bytes);
    return DR_OK;
}

static const struct job_step *plan(const void *state)
{
    const struct recovery *r = state;
    const struct recovery_procedure *p = r->procedure;
    return r->order.dry_run ? p->plan : r->order.no_swap ? p->beside : p->steps;
}

static unsigned result(struct job *j, struct dr_buf *map)
{
    return recovery_result(recovery_of(j), map);
}

static void fini(void *state)
{
    recovery_fini(state);
}

const struct job_task task_execute = {
    .type = "execute",
    .flags = TASK_HEAVY | TASK_RESERVED_PERMIT,
    .default_slots = 1,
    .state_bytes = sizeof(struct recovery),
    .decode = decode,
    .plan = plan,
    .result = result,
    .fini = fini,
};
