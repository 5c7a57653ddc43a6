/* What stands in the store, who needs it, and the plan for it. */
#include "worker/recovery/expiry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/zone.h"
#include "worker/recovery/held.h"

enum dr_rc expiry_terms_read(const struct dr_config *c, struct expiry_terms *out,
                             struct dr_err *err)
{
    struct dr_buf text;
    struct dr_err why = {0};
    memset(out, 0, sizeof *out);
    if (retain_policy_read(c, &out->policy, out->warning, err))
        return err->rc;
    if (dr_zone_open(out->policy.tz, &out->zone, &why)) {
        (void)dr_fail(err, why.rc, "RETENTION_TZ: %s", why.msg);
        return dr_err_field(err, "RETENTION_TZ", out->policy.tz, strlen(out->policy.tz));
    }
    out->offsite_configured = strcmp(dr_config_str(c, "OFFSITE_STORAGE_PROVIDER"), "none") != 0;
    dr_buf_init(&text, sizeof out->policy_text);
    retain_policy_text(&out->policy, &text);
    enum dr_rc rc = text.failed || text.len >= sizeof out->policy_text
                        ? dr_fail(err, DR_E_BUG, "the policy's text is too long")
                        : DR_OK;
    if (!rc)
        memcpy(out->policy_text, text.data, text.len + 1);
    dr_buf_fini(&text);
    return rc;
}

void expiry_terms_free(struct expiry_terms *t)
{
    dr_zone_free(t->zone);
    t->zone = NULL;
}

void expiry_view_free(struct expiry_view *v)
{
    for (size_t i = 0; v->bases && i < v->entry_count; i++) {
        free(v->bases[i]);
        free(v->base_names[i]);
    }
    free(v->bases);
    free(v->base_names);
    retain_plan_free(v->plan);
    free(v->items);
    free(v->of);
    free(v->by_id);
    free(v->entries);
    memset(v, 0, sizeof *v);
}

/* ---- items ---- */

static bool takes_part(const struct store_entry *e, bool given_up_too)
{
    return e->recorded && (given_up_too || !e->tombstoned_at_ms);
}

static void take_bases(struct store *s, struct expiry_view *v, size_t i)
{
    unsigned count;
    store_bases(s, v->items[i].id, &v->bases[i], &count);
    v->base_names[i] = count ? dr_xarray(count, sizeof *v->base_names[i]) : NULL;
    for (unsigned k = 0; k < count; k++)
        v->base_names[i][k] = v->bases[i][k];
    v->items[i].bases = v->base_names[i];
    v->items[i].base_count = count;
}

/* A backup whose manifest is not believed tells no series: whatever series of its kind it belongs
 * to, a proof failed in it. */
static bool kind_is_damaged(const struct expiry_view *v, const char *kind)
{
    for (size_t i = 0; i < v->entry_count; i++)
        if (v->entries[i].recorded && v->entries[i].bad[0] && !v->entries[i].tombstoned_at_ms &&
            strcmp(v->entries[i].kind, kind) == 0)
            return true;
    return false;
}

static size_t take_items(struct store *s, struct expiry_view *v, bool given_up_too,
                         const struct held *held)
{
    static const char *const kinds[] = {"database", "files", "config", "full"};
    bool damaged[4];
    size_t n = 0;
    for (size_t k = 0; k < 4; k++)
        damaged[k] = kind_is_damaged(v, kinds[k]);
    for (size_t i = 0; i < v->entry_count; i++) {
        const struct store_entry *e = &v->entries[i];
        if (!takes_part(e, given_up_too))
            continue;
        struct retain_item *item = &v->items[n];
        v->of[n] = e;
        retain_item_of(e, item);
        item->leased = store_in_use(s, e->backup_id);
        item->journal = held_names(held, e->backup_id);
        item->acknowledged = e->acknowledged;
        for (size_t k = 0; k < 4; k++)
            if (damaged[k] && strcmp(e->kind, kinds[k]) == 0)
                item->frozen = true;
        take_bases(s, v, n++);
    }
    return n;
}

static int32_t offset(const void *zone, int64_t utc_s)
{
    return dr_zone_offset(zone, utc_s);
}

static enum dr_rc make_plan(struct store *s, const struct expiry_terms *t, struct expiry_view *v,
                            size_t count, struct dr_err *err)
{
    char applied[STORE_POLICY_MAX];
    const struct retain_input in = {.policy = &t->policy,
                                    .items = v->items,
                                    .count = count,
                                    .now_ms = t->now_ms,
                                    .offset = offset,
                                    .zone = t->zone,
                                    .offsite_configured = t->offsite_configured,
                                    .clock_wrong = t->clock_wrong,
                                    .applied_policy = applied};
    if (store_last_policy(s, applied, err))
        return err->rc;
    struct retain_input known = in;
    if (!applied[0])
        known.applied_policy = NULL;
    return retain_plan(&known, &v->plan, err);
}

/* ---- by id ---- */

static int by_id(const void *a, const void *b)
{
    const struct store_entry *const *x = a, *const *y = b;
    return strcmp((*x)->backup_id, (*y)->backup_id);
}

static void index_entries(struct expiry_view *v)
{
    v->by_id = dr_xarray(v->entry_count + 1, sizeof *v->by_id);
    for (size_t i = 0; i < v->entry_count; i++)
        v->by_id[i] = &v->entries[i];
    qsort(v->by_id, v->entry_count, sizeof *v->by_id, by_id);
}

static int find_id(const void *key, const void *member)
{
    const struct store_entry *const *e = member;
    return strcmp(key, (*e)->backup_id);
}

const struct store_entry *expiry_entry(const struct expiry_view *v, const char *backup_id)
{
    const struct store_entry **at =
        bsearch(backup_id, v->by_id, v->entry_count, sizeof *v->by_id, find_id);
    return at ? *at : NULL;
}

/* Items are in the order of the entries that they were made of. */
static int find_item(const void *key, const void *member)
{
    const struct store_entry *const *of = member;
    const struct store_entry *e = key;
    return e < *of ? -1 : e > *of;
}

const struct retain_verdict *expiry_verdict(const struct expiry_view *v, const char *backup_id)
{
    const struct store_entry *e = expiry_entry(v, backup_id);
    const struct store_entry **at =
        e ? bsearch(e, v->of, v->plan->count, sizeof *v->of, find_item) : NULL;
    return at ? &v->plan->verdicts[at - v->of] : NULL;
}

enum dr_rc expiry_look(struct store *s, const struct expiry_terms *t, bool given_up_too,
                       struct expiry_view *out, struct dr_err *err)
{
    struct held held;
    memset(out, 0, sizeof *out);
    enum dr_rc rc = store_list_at(s, &out->entries, &out->entry_count, &out->seq, err);
    if (rc)
        return rc;
    index_entries(out);
    out->items = dr_xarray(out->entry_count + 1, sizeof *out->items);
    out->of = dr_xarray(out->entry_count + 1, sizeof *out->of);
    out->bases = dr_xarray(out->entry_count + 1, sizeof *out->bases);
    out->base_names = dr_xarray(out->entry_count + 1, sizeof *out->base_names);
    if (!(rc = held_read(store_dirfd(s), &held, err))) {
        rc = make_plan(s, t, out, take_items(s, out, given_up_too, &held), err);
        held_free(&held);
    }
    if (rc)
        expiry_view_free(out);
    return rc;
}
