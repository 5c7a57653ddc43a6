/* retention: the plan, then what it allows. A backup that is given up goes to trash/ first and is
 * purged by a later run, when its time of grace is over and a plan over everything gives it up
 * again. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/wire/args.h"
#include "common/wire/pack.h"
#include "worker/core/pool.h"
#include "worker/job/job.h"
#include "worker/recovery/expiry.h"
#include "worker/queue/told.h"
#include "worker/task/tasks.h"
#include "worker/watch/watch.h"

enum { INFO_MAX = 16384 };

struct retention {
    bool dry_run;
    char confirmed[RETAIN_HASH_TEXT]; /* "": nobody confirmed a plan */
    struct expiry_terms terms;
    struct expiry_view view;
    struct expiry_ids allowed;
    struct expiry_done done;
    int64_t clock_ahead_ms;
    bool planned, applied, no_room; /* for a record, until something is purged */
    size_t waiting_for_yes;         /* of this plan: go only when somebody confirms it */
};

static enum dr_rc decode(const struct dr_args *args, void *state, struct dr_err *err)
{
    struct retention *r = state;
    const char *plan = dr_args_str(args, "plan");
    r->dry_run = dr_args_bool(args, "dry_run");
    if (plan && r->dry_run)
        return dr_fail(err, DR_E_INVALID, "a.dry_run and a.plan exclude each other");
    (void)snprintf(r->confirmed, sizeof r->confirmed, "%s", plan ? plan : "");
    return DR_OK;
}

/* A step's blocking half. */
struct work {
    struct store *store;
    struct retention *r;
};

static enum dr_rc in_pool(struct job *j, pool_fn *fn, struct dr_err *err)
{
    struct work w = {job_services(j)->store, job_state(j)};
    return pool_run_long(job_services(j)->pool, fn, &w, job_cancel_token(j), err);
}

/* ---- plan ---- */

/* What is refused is found before anything changes. */
static enum dr_rc read_terms(struct job *j, struct dr_err *err)
{
    const struct job_services *env = job_services(j);
    struct retention *r = job_state(j);
    int64_t wall = dr_wall_ms(), redis = env->redis_ms ? env->redis_ms(env->queue) : wall;
    if (!env->store)
        return dr_fail(err, DR_E_CONFIG, "BACKUP_DIRECTORY is not set on this worker");
    if (expiry_terms_read(env->config, &r->terms, err))
        return err->rc;
    if (r->terms.warning[0])
        dr_log(DR_LOG_WARN, "retention.policy", "what", r->terms.warning, NULL);
    r->clock_ahead_ms = wall - redis;
    r->terms.now_ms = wall < redis ? wall : redis; /* the earlier of two keeps more */
    r->terms.clock_wrong =
        llabs((long long)r->clock_ahead_ms) > (long long)r->terms.policy.clock_skew_s * 1000;
    return DR_OK;
}

/* What wants a confirmation and was not allowed by one; both lists have one order. */
static size_t waiting(const struct retention *r)
{
    const struct retain_plan *p = r->view.plan;
    size_t allowed = 0, count = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (allowed < r->allowed.count && strcmp(r->view.items[i].id, r->allowed.ids[allowed]) == 0)
            allowed++;
        else
            count += !p->verdicts[i].keep && p->verdicts[i].confirm;
    }
    return count;
}

static enum dr_rc make_plan(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct work *w = item;
    struct retention *r = w->r;
    struct dr_err why = {0};
    (void)cancel;
    if (!r->dry_run && store_settle(w->store, err))
        return err->rc;
    if (expiry_look(w->store, &r->terms, false, &r->view, err))
        return err->rc;
    r->planned = true;
    /* On a full disk, say: what frees room goes on, and the same plan can still be confirmed. */
    if (r->view.plan->given_up > 0 && expiry_keep_plan(w->store, &r->terms, &r->view, &why))
        dr_log_err(DR_LOG_WARN, "retention.plan_not_kept", &why, "plan", r->view.plan->hash, NULL);
    if (expiry_allowed(w->store, &r->terms, &r->view, r->confirmed, &r->allowed, err))
        return err->rc;
    r->waiting_for_yes = waiting(r);
    return DR_OK;
}

static void words(retain_mask m, char *out, size_t size)
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < RETAIN_REASONS && at < size; i++)
        if (m & (retain_mask)1 << i)
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "",
                                   retain_word((enum retain_reason)i));
}

/* ---- what clients list ---- */

static void pack_words(struct dr_buf *map, retain_mask m)
{
    size_t count = 0;
    for (int r = 0; r < RETAIN_REASONS; r++)
        count += (m >> r) & 1;
    dr_pack_array(map, count);
    for (int r = 0; r < RETAIN_REASONS; r++)
        if ((m >> r) & 1)
            dr_pack_text(map, retain_word((enum retain_reason)r));
}

static void pack_count(struct dr_buf *map, const char *key, uint64_t n)
{
    dr_pack_text(map, key);
    dr_pack_uint(map, n);
}

/* `NAME=value` lines as a map of texts. */
static void pack_policy(struct dr_buf *map, const char *text)
{
    char name[64], value[80];
    size_t lines = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    dr_pack_text(map, "policy");
    dr_pack_map(map, lines);
    for (const char *c = text, *end; (end = strchr(c, '\n')); c = end + 1) {
        size_t key = strcspn(c, "=");
        (void)snprintf(name, sizeof name, "%.*s", (int)key, c);
        (void)snprintf(value, sizeof value, "%.*s", (int)(end - c - (ptrdiff_t)key - 1),
                       c + key + 1);
        dr_pack_pair(map, name, value);
    }
}

/* Field `retention` of info: the policy, and what its last run came to. It is how health and the
 * alerts of all workers know of a plan that waits. */
static void tell(struct job *j)
{
    const struct retention *r = job_state(j);
    const struct retain_plan *p = r->view.plan;
    struct dr_buf b;
    struct dr_err err = {0};
    if (!job_services(j)->watch)
        return;
    dr_buf_init(&b, INFO_MAX);
    dr_pack_map(&b, 12);
    dr_pack_text(&b, "at");
    dr_pack_int(&b, r->terms.now_ms);
    dr_pack_pair(&b, "job", job_id(j));
    pack_policy(&b, r->terms.policy_text);
    dr_pack_pair(&b, "plan_hash", p->hash);
    pack_count(&b, "kept", p->kept);
    pack_count(&b, "given_up", p->given_up);
    pack_count(&b, "waiting_for_yes", r->waiting_for_yes);
    dr_pack_text(&b, "confirm");
    pack_words(&b, r->waiting_for_yes ? p->confirm : 0);
    pack_count(&b, "tombstoned", r->done.tombstoned.count);
    pack_count(&b, "purged", r->done.purged.count);
    pack_count(&b, "in_trash", r->done.waiting + r->done.held_count);
    pack_count(&b, "freed_bytes", r->done.freed_bytes);
    if (!b.failed &&
        queue_tell_once(watch_queue(job_services(j)->watch), "retention", b.data, b.len, &err))
        dr_log_err(DR_LOG_WARN, "retention.info", &err, NULL); /* the result says the same */
    dr_buf_fini(&b);
}

static enum dr_rc judge_plan(struct job *j, struct dr_err *err)
{
    const struct retention *r = job_state(j);
    const struct retain_plan *p = r->view.plan;
    char why[128];
    if (r->terms.clock_wrong && !r->dry_run) {
        (void)dr_fail(err, DR_E_REFUSED,
                      "this host's clock is %lld s %s Redis': nothing is given up until they agree "
                      "(RETENTION_CLOCK_SKEW_S=%d)",
                      llabs((long long)r->clock_ahead_ms) / 1000,
                      r->clock_ahead_ms > 0 ? "ahead of" : "behind", r->terms.policy.clock_skew_s);
        return dr_err_reason(err, "clock");
    }
    if (r->dry_run || r->confirmed[0] || !r->waiting_for_yes || r->allowed.count)
        return DR_OK;
    tell(j);
    words(p->confirm, why, sizeof why);
    (void)dr_fail(err, DR_E_REFUSED,
                  "the plan would give up %zu of %zu backups and waits for a confirmation (%s): "
                  "drproducer retention --plan %s",
                  p->given_up, p->count, why, p->hash);
    return dr_err_reason(err, "confirm");
}

static enum dr_rc plan(struct job *j, struct dr_err *err)
{
    enum dr_rc rc = read_terms(j, err);
    if (!rc)
        rc = in_pool(j, make_plan, err);
    return rc ? rc : judge_plan(j, err);
}

/* ---- what it allows ---- */

static enum dr_rc give_up(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct work *w = item;
    return expiry_tombstone(w->store, &w->r->terms, &w->r->view, &w->r->allowed, &w->r->done,
                            cancel, err);
}

static enum dr_rc remove_given_up(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct work *w = item;
    return expiry_purge(w->store, &w->r->terms, &w->r->done, cancel, err);
}

static enum dr_rc tombstone(struct job *j, struct dr_err *err)
{
    struct retention *r = job_state(j);
    if (r->dry_run) {
        job_step_outcome(j, "skipped (dry run)");
        return DR_OK;
    }
    struct dr_err why = {0};
    r->applied = true;
    if (in_pool(j, give_up, &why) == DR_E_NO_SPACE) {
        dr_log_err(DR_LOG_WARN, "retention.no_room", &why, "job", job_id(j), NULL);
        r->no_room = true;
        return DR_OK;
    }
    if (why.rc)
        *err = why;
    return why.rc;
}

static void sum_up(struct job *j)
{
    const struct retention *r = job_state(j);
    const struct retain_plan *p = r->view.plan;
    const struct expiry_done *d = &r->done;
    char more[160] = "";
    if (r->dry_run && p->given_up)
        (void)snprintf(
            more, sizeof more, "%s: drproducer retention%s%s",
            p->needs_confirmation ? "; that would wait for a confirmation" : "; to do it",
            p->needs_confirmation ? " --plan " : "", p->needs_confirmation ? p->hash : "");
    else if (r->waiting_for_yes)
        (void)snprintf(more, sizeof more,
                       "; %zu wait for a confirmation: drproducer retention --plan %s",
                       r->waiting_for_yes, p->hash);
    else if (d->held_count)
        (void)snprintf(more, sizeof more, "; %zu in trash/ are not purged: see held",
                       d->held_count);
    if (r->dry_run)
        job_summary(j, "%zu kept, %zu would be given up%s", p->kept, p->given_up, more);
    else
        job_summary(j, "%zu kept, %zu given up, %zu purged, %" PRIu64 " bytes freed%s",
                    p->count - d->tombstoned.count, d->tombstoned.count, d->purged.count,
                    d->freed_bytes, more);
}

static enum dr_rc purge(struct job *j, struct dr_err *err)
{
    struct retention *r = job_state(j);
    if (r->dry_run)
        job_step_outcome(j, "skipped (dry run)");
    else if (in_pool(j, remove_given_up, err) || (r->no_room && in_pool(j, give_up, err)))
        return err->rc;
    if (!r->dry_run && r->waiting_for_yes)
        job_mark_partial(j);
    if (!r->dry_run)
        tell(j);
    sum_up(j);
    return DR_OK;
}

/* ---- result ---- */

static void pack_ids(struct dr_buf *map, const char *key, const struct expiry_ids *l)
{
    dr_pack_text(map, key);
    dr_pack_array(map, l->count);
    for (size_t i = 0; i < l->count; i++)
        dr_pack_text(map, l->ids[i]);
}

static void pack_verdicts(struct dr_buf *map, const struct expiry_view *v, bool keep)
{
    dr_pack_text(map, keep ? "keep" : "delete");
    dr_pack_array(map, keep ? v->plan->kept : v->plan->given_up);
    for (size_t i = 0; i < v->plan->count; i++)
        if (v->plan->verdicts[i].keep == keep)
            dr_pack_text(map, v->items[i].id);
}

static void pack_spared(struct dr_buf *map, const char *key, const struct expiry_spared *list,
                        size_t count)
{
    dr_pack_text(map, key);
    dr_pack_map(map, count);
    for (size_t i = 0; i < count; i++)
        dr_pack_pair(map, list[i].backup_id, list[i].why);
}

static unsigned result(struct job *j, struct dr_buf *map)
{
    const struct retention *r = job_state(j);
    const struct expiry_view *v = &r->view;
    const struct expiry_done *d = &r->done;
    if (!r->planned)
        return 0;
    dr_pack_pair(map, "plan_hash", v->plan->hash);
    pack_verdicts(map, v, true);
    pack_verdicts(map, v, false);
    dr_pack_text(map, "reasons");
    dr_pack_map(map, v->plan->count);
    for (size_t i = 0; i < v->plan->count; i++) {
        dr_pack_text(map, v->items[i].id);
        pack_words(map, v->plan->verdicts[i].reasons);
    }
    dr_pack_text(map, "confirm");
    pack_words(map, v->plan->confirm);
    dr_pack_text(map, "delete_bytes");
    dr_pack_uint(map, v->plan->delete_bytes);
    dr_pack_text(map, "applied");
    dr_pack_bool(map, r->applied);
    pack_ids(map, "tombstoned", &d->tombstoned);
    pack_ids(map, "purged", &d->purged);
    pack_spared(map, "spared", d->spared, d->spared_count);
    pack_spared(map, "held", d->held, d->held_count);
    dr_pack_text(map, "waiting");
    dr_pack_uint(map, d->waiting);
    dr_pack_text(map, "freed_bytes");
    dr_pack_uint(map, d->freed_bytes);
    if (!r->terms.warning[0])
        return 13;
    dr_pack_pair(map, "warning", r->terms.warning);
    return 14;
}

static void fini(void *state)
{
    struct retention *r = state;
    expiry_done_free(&r->done);
    expiry_view_free(&r->view);
    expiry_terms_free(&r->terms);
    free(r->allowed.ids);
}

static const struct job_step steps[] = {
    {"plan", 20, 0, plan, NULL},
    {"tombstone", 40, STEP_DESTRUCTIVE, tombstone, NULL},
    {"purge", 40, STEP_DESTRUCTIVE, purge, NULL},
    {0},
};

const struct job_task task_retention = {
    .type = "retention",
    .flags = TASK_HEAVY,
    .default_slots = 1,
    .state_bytes = sizeof(struct retention),
    .decode = decode,
    .steps = steps,
    .result = result,
    .fini = fini,
};
