/* The plan as a whole: order, series by series, closure, hash. */
#include "worker/backup/retain.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/retain_internal.h"

static const char *const words[RETAIN_REASONS] = {
#define RETAIN_WORD(name, word, side, help) word,
#include "worker/backup/retain_words.def"
#undef RETAIN_WORD
};
_Static_assert(RETAIN_REASONS <= 64, "a mask holds every reason");

const char *retain_word(enum retain_reason r)
{
    return words[r];
}

void retain_words_json(retain_mask m, struct dr_buf *out)
{
    const char *comma = "";
    dr_buf_str(out, "[");
    for (unsigned r = 0; r < RETAIN_REASONS; r++)
        if (m >> r & 1) {
            dr_buf_printf(out, "%s\"%s\"", comma, words[r]);
            comma = ",";
        }
    dr_buf_str(out, "]");
}

static int by_id(const void *a, const void *b, void *arg)
{
    const struct retain_item *items = arg;
    return strcmp(items[*(const size_t *)a].id, items[*(const size_t *)b].id);
}

/* Recorded time, then the catalog's order; the id only so that equal ones have an order at all. */
static int by_series_newest_first(const void *a, const void *b, void *arg)
{
    const struct retain_item *items = arg, *x = &items[*(const size_t *)a],
                             *y = &items[*(const size_t *)b];
    int c = x->series == y->series ? 0 : strcmp(x->series, y->series);
    if (c)
        return c;
    if (x->t_ms != y->t_ms)
        return x->t_ms < y->t_ms ? 1 : -1;
    if (x->seq != y->seq)
        return x->seq < y->seq ? 1 : -1;
    return strcmp(x->id, y->id);
}

static enum dr_rc check_ids(const struct retain_work *w, struct dr_err *err)
{
    for (size_t k = 0; k < w->in->count; k++) {
        const char *id = w->in->items[w->by_id[k]].id;
        bool twice = k > 0 && strcmp(id, w->in->items[w->by_id[k - 1]].id) == 0, clean = id[0] != 0;
        for (const char *c = id; *c; c++)
            clean = clean && (unsigned char)*c >= 0x20;
        if (!twice && clean)
            continue;
        (void)dr_fail(err, DR_E_INVALID, "retention: %s",
                      twice ? "an id stands twice" : "an id is empty or holds a control character");
        return dr_err_field(err, "id", id, strlen(id));
    }
    return DR_OK;
}

static bool find(const struct retain_work *w, const char *id, size_t *at)
{
    size_t low = 0, high = w->in->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = strcmp(id, w->in->items[w->by_id[mid]].id);
        if (c == 0)
            return *at = w->by_id[mid], true;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return false;
}

void retain_close(struct retain_work *w)
{
    size_t *todo = dr_xarray(w->in->count, sizeof *todo), left = 0, base;
    for (size_t k = 0; k < w->in->count; k++)
        if (w->verdicts[k].reasons)
            todo[left++] = k;
    while (left > 0) {
        const struct retain_item *i = &w->in->items[todo[--left]];
        for (size_t b = 0; b < i->base_count; b++) {
            if (!find(w, i->bases[b], &base) || i == &w->in->items[base])
                continue;
            if (!w->verdicts[base].reasons)
                todo[left++] = base; /* each enters once: the list never holds more than all */
            w->verdicts[base].reasons |= RETAIN_BIT(BASE);
        }
    }
    free(todo);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

enum dr_rc retain_plan_hash(const struct retain_policy *policy, const char **ids, size_t n,
                            char out[RETAIN_HASH_TEXT], struct dr_err *err)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    unsigned char digest[32];
    struct dr_buf head;
    dr_buf_init(&head, RETAIN_POLICY_TEXT_MAX);
    dr_buf_str(&head, "plan-v1\n");
    retain_policy_text(policy, &head);
    qsort(ids, n, sizeof *ids, by_text);
    bool ok = c && !head.failed && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(c, head.data, head.len) == 1;
    for (size_t k = 0; ok && k < n; k++)
        ok = EVP_DigestUpdate(c, ids[k], strlen(ids[k])) == 1 && EVP_DigestUpdate(c, "\n", 1) == 1;
    ok = ok && EVP_DigestFinal_ex(c, digest, NULL) == 1;
    EVP_MD_CTX_free(c);
    dr_buf_fini(&head);
    if (!ok)
        return dr_fail(err, DR_E_NOMEM, "retention: SHA-256 of the plan");
    dr_hex(digest, sizeof digest, out);
    return DR_OK;
}

static enum dr_rc hash(const struct retain_work *w, struct retain_plan *p, struct dr_err *err)
{
    const char **ids = dr_xarray(p->given_up + 1, sizeof *ids);
    size_t n = 0;
    for (size_t k = 0; k < p->count; k++)
        if (!p->verdicts[w->by_id[k]].keep)
            ids[n++] = w->in->items[w->by_id[k]].id;
    enum dr_rc rc = retain_plan_hash(w->in->policy, ids, n, p->hash, err);
    free(ids);
    return rc;
}

/* What is not kept says why not. */
static retain_mask gone(const struct retain_work *w, size_t at)
{
    const struct retain_item *i = &w->in->items[at];
    if (!retain_valid(i))
        return RETAIN_BIT(INVALID);
    return i->t_ms > w->range[at] ? RETAIN_BIT(DISPLACED) : RETAIN_BIT(OUT_OF_RANGE);
}

static void each_series(struct retain_work *w)
{
    const struct retain_item *items = w->in->items;
    for (size_t first = 0, end; first < w->in->count; first = end) {
        for (end = first + 1; end < w->in->count; end++)
            if (strcmp(items[w->order[end]].series, items[w->order[first]].series) != 0)
                break;
        retain_series(w, first, end - first);
    }
}

static void decide(struct retain_work *w, struct retain_plan *p)
{
    each_series(w);
    retain_close(w);
    for (size_t k = 0; k < p->count; k++) {
        p->verdicts[k].keep = p->verdicts[k].reasons != 0;
        if (p->verdicts[k].keep) {
            p->kept++;
            continue;
        }
        p->verdicts[k].reasons = gone(w, k);
        p->given_up++;
        p->delete_bytes += w->in->items[k].bytes;
    }
    retain_confirm(w, p);
}

enum dr_rc retain_plan(const struct retain_input *in, struct retain_plan **out, struct dr_err *err)
{
    struct retain_plan *p = dr_xalloc(sizeof *p);
    struct retain_work w = {.in = in};
    p->count = in->count;
    p->verdicts = w.verdicts = dr_xarray(in->count + 1, sizeof *p->verdicts);
    w.order = dr_xarray(in->count + 1, sizeof *w.order);
    w.by_id = dr_xarray(in->count + 1, sizeof *w.by_id);
    w.range = dr_xarray(in->count + 1, sizeof *w.range);
    for (size_t k = 0; k < in->count; k++) {
        w.order[k] = w.by_id[k] = k;
        w.range[k] = INT64_MAX;
    }
    qsort_r(w.by_id, in->count, sizeof *w.by_id, by_id, (void *)(uintptr_t)in->items);
    qsort_r(w.order, in->count, sizeof *w.order, by_series_newest_first,
            (void *)(uintptr_t)in->items);
    enum dr_rc rc = check_ids(&w, err);
    if (!rc) {
        decide(&w, p);
        rc = hash(&w, p, err);
    }
    free(w.range);
    free(w.by_id);
    free(w.order);
    if (rc)
        retain_plan_free(p);
    else
        *out = p;
    return rc;
}

void retain_plan_free(struct retain_plan *p)
{
    if (!p)
        return;
    free(p->verdicts);
    free(p);
}
