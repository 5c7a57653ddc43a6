/* The procedures this worker knows: one row a procedure. */
#include <stddef.h>

#include "common/wire/pack.h"
#include "worker/recovery/database.h"
#include "worker/recovery/files.h"

const struct recovery_procedure *const recovery_procedures[] = {
    &recovery_database,
    &recovery_files,
    NULL,
};

static void pack_procedure(struct dr_buf *out, const struct recovery_procedure *p)
{
    size_t count = 0;
    while (p->steps[count].name)
        count++;
    dr_pack_map(out, 2);
    dr_pack_pair(out, "id", p->id);
    dr_pack_text(out, "steps");
    dr_pack_array(out, count);
    for (const struct job_step *s = p->steps; s->name; s++) {
        dr_pack_map(out, 2);
        dr_pack_pair(out, "name", s->name);
        dr_pack_text(out, "destructive");
        dr_pack_bool(out, s->flags & STEP_DESTRUCTIVE);
    }
}

void recovery_procedures_pack(struct dr_buf *out)
{
    size_t count = 0;
    while (recovery_procedures[count])
        count++;
    dr_pack_array(out, count);
    for (size_t i = 0; i < count; i++)
        pack_procedure(out, recovery_procedures[i]);
}
