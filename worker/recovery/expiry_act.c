/* What a plan allows, done: tombstones, purges. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "worker/core/cancel.h"
#include "worker/recovery/expiry.h"
#include "worker/recovery/held.h"

enum { LOOKS_MAX = 1000, HOUR_MS = 3600000 };

void expiry_ids_add(struct expiry_ids *l, const char *id)
{
    l->ids = dr_xrealloc(l->ids, (l->count + 1) * sizeof *l->ids);
    (void)snprintf(l->ids[l->count++], sizeof *l->ids, "%s", id);
}

static void spare(struct expiry_spared **list, size_t *count, const char *id, const char *why)
{
    *list = dr_xrealloc(*list, (*count + 1) * sizeof **list);
    struct expiry_spared *x = &(*list)[(*count)++];
    (void)snprintf(x->backup_id, sizeof x->backup_id, "%s", id);
    (void)snprintf(x->why, sizeof x->why, "%s", why);
}

void expiry_done_free(struct expiry_done *d)
{
    free(d->tombstoned.ids);
    free(d->purged.ids);
    free(d->spared);
    free(d->held);
    memset(d, 0, sizeof *d);
}

static const char *first_word(const struct retain_verdict *v)
{
    for (int r = 0; v && r < RETAIN_REASONS; r++)
        if (v->reasons & (retain_mask)1 << r)
            return retain_word((enum retain_reason)r);
    return "kept";
}

/* ---- what may go ---- */

enum dr_rc expiry_keep_plan(struct store *s, const struct expiry_terms *t,
                            const struct expiry_view *v, struct dr_err *err)
{
    const char **ids = dr_xarray(v->plan->given_up + 1, sizeof *ids);
    char hash[RETAIN_HASH_TEXT];
    size_t n = 0;
    for (size_t i = 0; i < v->plan->count; i++)
        if (!v->plan->verdicts[i].keep)
            ids[n++] = v->items[i].id;
    enum dr_rc rc = retain_plan_hash(&t->policy, ids, n, hash, err); /* sorts them */
    if (!rc)
        rc = store_keep_plan(s, t->policy_text, ids, n, hash, err);
    free(ids);
    return rc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

enum dr_rc expiry_allowed(struct store *s, const struct expiry_terms *t,
                          const struct expiry_view *v, const char *confirmed,
                          struct expiry_ids *out, struct dr_err *err)
{
    const struct retain_plan *p = v->plan;
    bool this_one = strcmp(confirmed, p->hash) == 0;
    char(*ids)[64] = NULL;
    size_t n = 0;
    memset(out, 0, sizeof *out);
    if (confirmed[0] && !this_one) {
        if (store_read_plan(s, t->policy_text, confirmed, &ids, &n, err))
            return err->rc;
        qsort(ids, n, sizeof *ids, by_text);
    }
    for (size_t i = 0; i < p->count; i++) {
        const char *id = v->items[i].id;
        if (p->verdicts[i].keep)
            continue;
        if (this_one || (confirmed[0] ? n && bsearch(id, ids, n, sizeof *ids, by_text)
                                      : !p->verdicts[i].confirm))
            expiry_ids_add(out, id);
    }
    free(ids);
    return DR_OK;
}

/* ---- acting upon the catalog that was looked at ---- */

struct acting {
    struct store *store;
    const struct expiry_terms *terms;
    bool given_up_too;
    const struct expiry_view *view; /* borrowed, or own */
    struct expiry_view own;
    struct cancel *cancel;
    struct trash_grounds why;
    uint64_t seq;
    unsigned looks;
};

static enum dr_rc not_held(void *arg, const char *backup_id, struct dr_err *err)
{
    const struct acting *a = arg;
    struct held held;
    if (held_read(store_dirfd(a->store), &held, err))
        return err->rc;
    bool needed = held_names(&held, backup_id);
    held_free(&held);
    if (!needed)
        return DR_OK;
    (void)dr_fail(err, DR_E_REFUSED, "an open recovery needs %s", backup_id);
    return dr_err_reason(err, "journal");
}

static void act_upon(struct acting *a, const struct expiry_view *v)
{
    a->view = v;
    a->seq = v->seq;
    a->why =
        (struct trash_grounds){.seq = &a->seq, .plan = v->plan->hash, .still = not_held, .arg = a};
}

/* Somebody wrote to the catalog: what was decided upon it is decided again. */
static enum dr_rc look_again(struct acting *a, struct dr_err *err)
{
    struct expiry_view fresh;
    if (++a->looks > LOOKS_MAX)
        return dr_fail(err, DR_E_LOCKED, "the catalog changes all the time");
    if (expiry_look(a->store, a->terms, a->given_up_too, &fresh, err))
        return err->rc;
    expiry_view_free(&a->own);
    a->own = fresh;
    act_upon(a, &a->own);
    return DR_OK;
}

static enum dr_rc asked_to_stop(const struct acting *a, struct dr_err *err)
{
    return cancel_pending(a->cancel)
               ? dr_fail(err, cancel_fired(a->cancel), "%s", cancel_reason(a->cancel))
               : DR_OK;
}

/* Kept for a reason that is no error of ours: its word. NULL: an error. */
static const char *kept_for(const struct dr_err *why)
{
    if (why->rc == DR_E_EXISTS)
        return "twin";
    return why->reason[0] && (why->rc == DR_E_LOCKED || why->rc == DR_E_REFUSED) ? why->reason
                                                                                 : NULL;
}

static bool has_moved(const struct dr_err *why)
{
    return why->rc == DR_E_LOCKED && strcmp(why->reason, "moved") == 0;
}

static enum dr_rc tombstone_one(struct acting *a, const char *id, struct expiry_done *d,
                                struct dr_err *err)
{
    for (;;) {
        struct dr_err why = {0};
        bool done = false;
        const struct retain_verdict *v = expiry_verdict(a->view, id);
        if (!v) /* given up by another worker */
            return DR_OK;
        if (v->keep) {
            spare(&d->spared, &d->spared_count, id, first_word(v));
            return DR_OK;
        }
        if (asked_to_stop(a, err))
            return err->rc;
        enum dr_rc rc = store_tombstone(a->store, id, &a->why, &done, &why);
        if (!rc && done)
            expiry_ids_add(&d->tombstoned, id);
        if (!rc || rc == DR_E_NOT_FOUND)
            return DR_OK;
        if (!has_moved(&why)) {
            if (!kept_for(&why)) {
                *err = why;
                return rc;
            }
            spare(&d->spared, &d->spared_count, id, kept_for(&why));
            dr_log_err(DR_LOG_INFO, "retention.spared", &why, "backup_id", id, NULL);
            return DR_OK;
        }
        if (look_again(a, err))
            return err->rc;
    }
}

enum dr_rc expiry_tombstone(struct store *s, const struct expiry_terms *t,
                            const struct expiry_view *v, const struct expiry_ids *allowed,
                            struct expiry_done *done, struct cancel *cancel, struct dr_err *err)
{
    struct acting a = {.store = s, .terms = t, .cancel = cancel};
    char hash[RETAIN_HASH_TEXT], last[STORE_POLICY_MAX];
    enum dr_rc rc = DR_OK;
    (void)snprintf(hash, sizeof hash, "%s", v->plan->hash);
    act_upon(&a, v);
    for (size_t i = 0; !rc && i < allowed->count; i++)
        rc = tombstone_one(&a, allowed->ids[i], done, err);
    expiry_view_free(&a.own);
    /* Nothing given up proves nothing of a policy: a series may have stood still. What is allowed
     * under another one, a person has confirmed; the first ever is what others are held against. */
    if (!rc && !(rc = store_last_policy(s, last, err)) && (allowed->count || !last[0]) &&
        strcmp(last, t->policy_text) != 0)
        rc = store_note_policy(s, t->policy_text, hash, err);
    return rc;
}

/* ---- purge ---- */

/* No plan decides on it: nothing is left of it but the record, or a person gave it up. */
static bool is_decided(const struct store_entry *e)
{
    return e->by_hand || (!e->series[0] && !e->bad[0]);
}

static enum dr_rc purge_one(struct acting *a, const char *id, struct expiry_done *d,
                            struct dr_err *err)
{
    int64_t until = a->terms->now_ms - (int64_t)a->terms->policy.grace_hours * HOUR_MS;
    for (;;) {
        struct dr_err why = {0};
        uint64_t freed = 0;
        bool done = false;
        const struct store_entry *e = expiry_entry(a->view, id);
        const struct retain_verdict *v = expiry_verdict(a->view, id);
        if (!e || !e->tombstoned_at_ms)
            return DR_OK; /* purged, or brought back, meanwhile */
        if (e->tombstoned_at_ms > until) {
            d->waiting++;
            return DR_OK;
        }
        if (!is_decided(e) && (!v || v->keep)) {
            spare(&d->held, &d->held_count, id, first_word(v));
            return DR_OK;
        }
        if (asked_to_stop(a, err))
            return err->rc;
        enum dr_rc rc = store_purge(a->store, id, &a->why, until, &freed, &done, &why);
        d->freed_bytes += freed;
        if (!rc && done)
            expiry_ids_add(&d->purged, id);
        if (!rc)
            return DR_OK;
        if (!has_moved(&why)) {
            if (!kept_for(&why)) {
                *err = why;
                return rc;
            }
            spare(&d->held, &d->held_count, id, kept_for(&why));
            return DR_OK;
        }
        if (look_again(a, err))
            return err->rc;
    }
}

enum dr_rc expiry_purge(struct store *s, const struct expiry_terms *t, struct expiry_done *done,
                        struct cancel *cancel, struct dr_err *err)
{
    struct acting a = {.store = s, .terms = t, .cancel = cancel, .given_up_too = true};
    struct expiry_ids candidates = {0};
    enum dr_rc rc = look_again(&a, err);
    for (size_t i = 0; !rc && i < a.own.entry_count; i++)
        if (a.own.entries[i].tombstoned_at_ms)
            expiry_ids_add(&candidates, a.own.entries[i].backup_id);
    for (size_t i = 0; !rc && i < candidates.count; i++)
        rc = purge_one(&a, candidates.ids[i], done, err);
    free(candidates.ids);
    expiry_view_free(&a.own);
    return rc;
}
