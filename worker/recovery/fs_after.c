/* After the swap: services, a look at what is live, and what is kept. In a fiber. */
#include "worker/core/pool.h"
#include "worker/recovery/fs_internal.h"

enum dr_rc fs_after_start(struct recovery *r, struct dr_err *err)
{
    if (!services_configured(&r->services))
        recovery_step_outcome(r, recovery_is_exercise(r) ? "done (services: not touched)"
                                                         : "skipped (not configured)");
    return recovery_services_up(r, err);
}

static enum dr_rc check_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    enum swap_state state;
    (void)cancel;
    if (swap_observe(item, &state, err))
        return err->rc;
    return state == SWAP_AFTER
               ? DR_OK
               : dr_fail(err, DR_E_INTEGRITY, "entries of the recovered tree are not in place");
}

/* Services may have changed the tree by now: its entries are asked for, not their content, which
 * was proven before the swap. */
enum dr_rc fs_after_check(struct recovery *r, struct dr_err *err)
{
    return pool_run_long(r->env->pool, check_item, fs_of(r)->swap, recovery_cancel(r), err);
}

void fs_after_keep(struct recovery *r, bool failed)
{
    struct fs *f = fs_of(r);
    for (unsigned i = 0; i < swap_count(f->swap); i++) {
        char path[4200];
        if (!swap_keeps(f->swap, i, failed))
            continue;
        (void)snprintf(path, sizeof path, "%s/.dr-%s/%s", swap_root_path(f->swap, i), r->run,
                       failed ? "failed" : "before");
        if (failed)
            recovery_keep(r, path, true, "what was live in between");
        else
            recovery_keep(r, path, !f->live_damaged, "the tree that was live until this run%s",
                          f->live_damaged ? "; without expiry, as it could not be backed up" : "");
        recovery_keep_id(r, "inode", swap_part_inode(f->swap, i, failed ? "failed" : "before"));
    }
    if (!failed)
        recovery_say(r, "files recovered from %s", r->chosen_id);
}
