/* Quiesce and swap, forth and back. From the quiesce intent on nothing is believed but where inodes
 * lie, under the roots' locks. In a fiber, the work in the pool; cancel no longer reaches it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "worker/core/fault.h"
#include "worker/core/pool.h"
#include "worker/recovery/fs_internal.h"

struct swapping {
    struct recovery *r;
    char sha256[65];
    bool committed;
};

static void plan_name(const struct recovery *r, char out[64])
{
    (void)snprintf(out, 64, "%s.pairs", r->run);
}

static int open_journals(struct recovery *r, struct dr_err *err)
{
    int fd = openat(recovery_store_fd(r), "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        (void)dr_fail_errno(err, DR_E_IO, "open journal/");
    return fd;
}

/* ---- quiesce ---- */

static enum dr_rc ahead_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    (void)cancel;
    return swap_list_staged(item, err);
}

enum dr_rc fs_swap_quiesce(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    if (pool_run_long(r->env->pool, ahead_item, f->swap, recovery_cancel(r), err))
        return err->rc;
    if (!services_configured(&r->services))
        recovery_step_outcome(r, recovery_is_exercise(r) ? "done (services: not touched)"
                                                         : "done (services: not configured)");
    if (services_observe(&r->services, recovery_cancel(r), err))
        return err->rc;
    r->services.ms = 0;
    if (recovery_intent(r, "quiesce",
                        json_pack("{s:o,s:I,s:b,s:s,s:s,s:o,s:b}", "services",
                                  services_to_json(&r->services), "at_ms", (json_int_t)dr_wall_ms(),
                                  "damaged", f->live_damaged, "backup", r->chosen_id, "emergency",
                                  r->emergency_id, "emergency_why", recovery_text(r->emergency_why),
                                  "lost", f->live_lost),
                        err))
        return err->rc;
    r->point_passed = true;
    r->outcome = JOB_FAILED;
    if (recovery_services_down(r, err))
        return err->rc;
    return fault_point("execute.quiesce.services", err);
}

enum dr_rc fs_swap_release(struct recovery *r, struct dr_err *err)
{
    if (!r->point_passed)
        return DR_OK;
    if (recovery_services_up(r, err) || recovery_undone(r, "quiesce", NULL, err)) {
        r->undo_failed = true;
        return err->rc;
    }
    return DR_OK;
}

/* ---- swap ---- */

struct carrying {
    struct fs *f;
    unsigned root;
    struct dr_buf names; /* below the root, each ended by NUL */
};

/* With keep_newer: whatever the backup does not know goes over, the topmost of it. */
static enum dr_rc visit(void *arg, const char *path, const struct stat *st, bool *into,
                        struct dr_err *err)
{
    struct carrying *c = arg;
    char *full = dr_xasprintf("%s/%s", c->f->roots[c->root].path, path);
    bool known = fs_known_find(&c->f->known, full + 1, st) != FS_UNKNOWN;
    bool skipped = fs_index_skips(c->f, full); /* carried already */
    free(full);
    *into = known && !skipped;
    if (!known && !skipped)
        dr_buf_add(&c->names, path, strlen(path) + 1);
    return c->names.failed ? dr_fail(err, DR_E_TOO_BIG,
                                     "too many files that the backup does not "
                                     "know")
                           : DR_OK;
}

static enum dr_rc carry_newer(struct fs *f, unsigned i, struct cancel *cancel, struct dr_err *err)
{
    struct carrying c = {.f = f, .root = i};
    const struct fs_walk w = {.fd = swap_root_fd(f->swap, i),
                              .root = f->roots[i].path,
                              .visit = visit,
                              .arg = &c,
                              .cancel = cancel};
    dr_buf_init(&c.names, FS_SKIPS_MAX_BYTES);
    enum dr_rc rc = fs_walk(&w, err);
    for (size_t at = 0; !rc && at < c.names.len;) {
        const char *name = (const char *)c.names.data + at;
        rc = swap_carry(f->swap, i, name, strlen(name), err);
        at += strlen(name) + 1;
    }
    dr_buf_fini(&c.names);
    return rc;
}

static enum dr_rc carry_skips(struct fs *f, unsigned i, struct dr_err *err)
{
    const char *root = f->roots[i].path;
    size_t len = strlen(root);
    for (size_t k = 0; k < f->skip_count; k++) {
        const char *path = f->skips[k];
        if (strncmp(path, root, len) == 0 && path[len] == '/' &&
            swap_carry(f->swap, i, path + len + 1, strlen(path + len + 1), err))
            return err->rc;
    }
    return DR_OK;
}

static enum dr_rc plan_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct swapping *s = item;
    struct fs *f = fs_of(s->r);
    char name[64];
    enum dr_rc rc = swap_plan(f->swap, f->ignore_owner, err);
    for (unsigned i = 0; i < f->root_count && !rc; i++) {
        rc = carry_skips(f, i, err);
        if (!rc && s->r->order.keep_newer)
            rc = carry_newer(f, i, cancel, err);
    }
    int fd = rc ? -1 : open_journals(s->r, err);
    if (fd < 0)
        return err->rc;
    plan_name(s->r, name);
    rc = swap_save(f->swap, fd, name, s->sha256, err);
    (void)close(fd);
    return rc;
}

static enum dr_rc run_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct swapping *s = item;
    enum swap_state state = SWAP_MIXED;
    (void)cancel;
    if (swap_run(fs_of(s->r)->swap, err) || swap_observe(fs_of(s->r)->swap, &state, err))
        return err->rc;
    return state == SWAP_AFTER ? DR_OK
                               : dr_fail(err, DR_E_IO, "entries are not where the swap put them");
}

enum dr_rc fs_swap(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    struct swapping s = {.r = r};
    if (pool_run_long(r->env->pool, plan_item, &s, recovery_cancel(r), err) ||
        fault_point("execute.swap.planned", err) ||
        recovery_intent(r, "swap",
                        json_pack("{s:s,s:I,s:I}", "sha256", s.sha256, "pairs",
                                  (json_int_t)swap_pairs(f->swap), "carried",
                                  (json_int_t)swap_carried(f->swap)),
                        err) ||
        pool_run_long(r->env->pool, run_item, &s, NULL, err) ||
        fault_point("execute.swap.renamed", err))
        return err->rc;
    f->committed = true;
    return recovery_done(r, "swap", NULL, err);
}

/* ---- back ---- */

static enum dr_rc observe_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct swapping *s = item;
    struct fs *f = fs_of(s->r);
    const json_t *meant = recovery_find_intent(s->r, "swap");
    const char *sha256 = json_string_value(json_object_get(meant, "sha256"));
    enum swap_state state;
    char name[64];
    (void)cancel;
    if (!f->swap) {
        int fd = open_journals(s->r, err);
        if (fd < 0)
            return err->rc;
        plan_name(s->r, name);
        enum dr_rc rc = swap_load(fd, name, sha256 ? sha256 : "", s->r->run, &f->swap, err);
        (void)close(fd);
        if (rc)
            return rc;
    }
    if (swap_observe(f->swap, &state, err))
        return err->rc;
    s->committed = state == SWAP_AFTER;
    return DR_OK;
}

static enum dr_rc back_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct swapping *s = item;
    (void)cancel;
    return swap_undo(fs_of(s->r)->swap, s->committed, err);
}

enum dr_rc fs_swap_back(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    struct swapping s = {.r = r};
    const json_t *earlier = recovery_find_intent(r, "swap-back");
    struct dr_err ignored = {0};
    if (!r->point_passed || !recovery_find_intent(r, "swap"))
        return DR_OK;
    if (pool_run_long(r->env->pool, observe_item, &s, NULL, err))
        goto failed;
    if (f->live_lost && s.committed) {
        r->outcome = JOB_NEEDS_HUMAN;
        recovery_say(r, "the files are recovered and stay, but a step after the swap failed");
        return DR_OK;
    }
    s.committed = s.committed || json_is_true(json_object_get(earlier, "committed"));
    if (recovery_intent(r, "swap-back", json_pack("{s:b}", "committed", s.committed), err))
        goto failed;
    if (services_stop(&r->services, recovery_cancel(r), &ignored))
        dr_log_err(DR_LOG_WARN, "recovery.services", &ignored, "job", r->job_id, NULL);
    if (pool_run_long(r->env->pool, back_item, &s, NULL, err) ||
        recovery_done(r, "swap-back", NULL, err))
        goto failed;
    if (s.committed) {
        r->outcome = JOB_ROLLED_BACK;
        recovery_say(r, "the files are again what they were before this run");
    }
    return DR_OK;
failed:
    r->undo_failed = true;
    return err->rc;
}

/* ---- an open journal ---- */

static void read_intent(struct recovery *r)
{
    const json_t *meant = recovery_find_intent(r, "quiesce");
    const char *backup = json_string_value(json_object_get(meant, "backup"));
    const char *emergency = json_string_value(json_object_get(meant, "emergency"));
    const char *why = json_string_value(json_object_get(meant, "emergency_why"));
    json_int_t at = json_integer_value(json_object_get(meant, "at_ms"));
    int64_t ago = at ? dr_wall_ms() - at : 0;
    (void)snprintf(r->chosen_id, sizeof r->chosen_id, "%s", backup ? backup : "");
    (void)snprintf(r->emergency_id, sizeof r->emergency_id, "%s", emergency ? emergency : "");
    (void)snprintf(r->emergency_why, sizeof r->emergency_why, "%s", why ? why : "");
    fs_of(r)->live_damaged = json_is_true(json_object_get(meant, "damaged"));
    fs_of(r)->live_lost = json_is_true(json_object_get(meant, "lost"));
    r->down_ms = dr_clock_ms() - (ago > 0 ? ago : 0);
    r->point_passed = true;
    r->outcome = JOB_FAILED;
}

static enum dr_rc finish_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct swap *s = fs_of(((struct swapping *)item)->r)->swap;
    return swap_finish(s, err) ? err->rc : swap_discard(s, cancel, err);
}

static enum dr_rc finish(struct recovery *r, struct dr_err *err)
{
    struct swapping s = {.r = r};
    if (pool_run_long(r->env->pool, finish_item, &s, NULL, err) ||
        (!recovery_find_done(r, "swap") && recovery_done(r, "swap", NULL, err)) ||
        recovery_services_up(r, err) || fs_after_check(r, err))
        return err->rc;
    r->outcome = JOB_DONE;
    fs_after_keep(r, false);
    return DR_OK;
}

/* The staged trees of a run that planned no swap; their roots stand in its intent. */
static enum dr_rc sweep_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct recovery *r = item;
    const json_t *list = json_object_get(recovery_find_intent(r, "restore"), "roots");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *only[2] = {json_string_value(json_array_get(list, i)), NULL};
        const struct swap_spec spec = {.roots = only, .run = r->run};
        struct swap *s = NULL;
        struct dr_err why = {0};
        enum dr_rc rc = swap_open(&spec, &s, &why);
        if (!rc)
            rc = swap_discard(s, cancel, &why);
        swap_close(s);
        if (rc && rc != DR_E_NOT_FOUND) {
            *err = why;
            return rc;
        }
    }
    return DR_OK;
}

static enum dr_rc undo(struct recovery *r, struct dr_err *err)
{
    r->undo_failed = false;
    if (fs_swap_back(r, err) || fs_swap_release(r, err) || fs_stage_undone(r, err))
        return err->rc;
    if (!recovery_find_intent(r, "swap") && pool_run_long(r->env->pool, sweep_item, r, NULL, err))
        return err->rc;
    if (!r->summary[0])
        recovery_say(r, "interrupted before the swap: the files are unchanged");
    return DR_OK;
}

static enum dr_rc settle_point(struct recovery *r, struct dr_err *err)
{
    struct swapping s = {.r = r};
    struct dr_err why = {0};
    read_intent(r);
    if (services_from_json(&r->services,
                           json_object_get(recovery_find_intent(r, "quiesce"), "services"), err))
        return err->rc;
    if (!recovery_find_intent(r, "swap"))
        return undo(r, err);
    if (pool_run_long(r->env->pool, observe_item, &s, NULL, err))
        return err->rc;
    bool forward = s.committed && !recovery_find_intent(r, "swap-back");
    if (forward && finish(r, &why) == DR_OK)
        return DR_OK;
    if (forward)
        dr_log_err(DR_LOG_WARN, "recovery.finish", &why, "run", r->run, "job", r->job_id, NULL);
    return undo(r, err);
}

static enum dr_rc drill_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    return fs_drill_sweep(item, cancel, err);
}

enum dr_rc fs_settle(struct recovery *r, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    bool point = recovery_find_intent(r, "quiesce") != NULL;
    if (r->order.drill)
        return pool_run_long(r->env->pool, drill_item, r, NULL, err);
    if (point)
        rc = settle_point(r, err);
    else if (recovery_pending(r, "restore"))
        rc = pool_run_long(r->env->pool, sweep_item, r, NULL, err);
    if (!rc && !point && recovery_pending(r, "restore"))
        rc = recovery_undone(r, "restore", NULL, err);
    swap_close(fs_of(r)->swap);
    fs_of(r)->swap = NULL;
    r->settled = !rc && point;
    return rc;
}
