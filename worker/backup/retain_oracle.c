/* The oracle's list, read element by element: a document of 200,000 would not fit into memory
 * that is worth its price. */
#include "worker/backup/retain_oracle.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/retain_internal.h"
#include "worker/backup/strict.h"

enum { ID_MAX = 256 };

struct element {
    char *id;
    int64_t t_ms;
    int32_t offset_s;
    size_t place;
};

struct reading {
    const char *p, *end;
    struct element *list;
    size_t count, cap;
    struct dr_err *err;
};

static enum dr_rc wrong(struct reading *r, const char *what)
{
    return dr_fail(r->err, DR_E_MALFORMED, "list of backups: element %zu: %s", r->count, what);
}

static char next(struct reading *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
    return r->p < r->end ? *r->p : 0;
}

/* Past the object that begins at p; NULL: it has no end within the bound. */
static const char *object_end(const char *p, const char *end)
{
    bool text = false;
    if (end - p > RETAIN_ORACLE_ITEM_BYTES)
        end = p + RETAIN_ORACLE_ITEM_BYTES;
    for (; p < end; p++) {
        if (text && *p == '\\')
            p++;
        else if (*p == '"')
            text = !text;
        else if (*p == '}' && !text)
            return p + 1; /* one that holds another one is refused by its parts */
    }
    return NULL;
}

static int32_t offset_of(const char *time)
{
    size_t len = strlen(time);
    uint64_t h = 0, m = 0;
    char digits[3] = {0};
    if (len < 6 || (time[len - 6] != '+' && time[len - 6] != '-'))
        return 0;
    memcpy(digits, time + len - 5, 2);
    if (!dr_parse_u64(digits, 0, 23, &h) || !dr_parse_u64(time + len - 2, 0, 59, &m))
        return 0;
    int32_t s = (int32_t)(h * 3600 + m * 60);
    return time[len - 6] == '-' ? -s : s;
}

static enum dr_rc take(struct reading *r, const json_t *obj)
{
    const char *id, *time;
    struct element e = {.place = r->count};
    if (json_object_size(obj) != 2 || !strict_text(obj, "id", 1, ID_MAX, &id) ||
        !strict_text(obj, "time", 1, 64, &time))
        return wrong(r, "not exactly an id and a time");
    if (!dr_parse_time(time, &e.t_ms)) {
        (void)wrong(r, "its time is not RFC 3339");
        return dr_err_field(r->err, "time", time, strlen(time));
    }
    if (r->count == RETAIN_ORACLE_ITEMS)
        return wrong(r, "more than 200000 of them");
    if (r->count == r->cap) {
        r->cap *= 2;
        r->list = dr_xrealloc(r->list, r->cap * sizeof *r->list);
    }
    e.offset_s = offset_of(time);
    e.id = dr_xstrdup(id);
    r->list[r->count++] = e;
    return DR_OK;
}

static enum dr_rc element(struct reading *r)
{
    char why[96] = "";
    const char *end = next(r) == '{' ? object_end(r->p, r->end) : NULL;
    if (!end)
        return wrong(r, "no object of at most 1024 bytes");
    json_t *obj = strict_parse(r->p, (size_t)(end - r->p), why);
    if (!obj)
        return wrong(r, why);
    enum dr_rc rc = take(r, obj);
    json_decref(obj);
    r->p = end;
    return rc;
}

static enum dr_rc read_list(struct reading *r)
{
    if (next(r) != '[')
        return wrong(r, "the text does not begin with '['");
    r->p++;
    for (bool first = true; next(r) != ']'; first = false) {
        if (!first && *r->p++ != ',')
            return wrong(r, "no comma before it");
        if (element(r))
            return r->err->rc;
        if (next(r) != ',' && next(r) != ']')
            return wrong(r, "neither ',' nor ']' follows");
    }
    r->p++;
    return next(r) || r->p < r->end ? wrong(r, "something follows the list") : DR_OK;
}

static int newest_first(const void *a, const void *b)
{
    const struct element *x = a, *y = b;
    if (x->t_ms != y->t_ms)
        return x->t_ms < y->t_ms ? 1 : -1;
    return (x->place > y->place) - (x->place < y->place);
}

static int by_id(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum dr_rc each_once(const struct reading *r)
{
    char **ids = dr_xarray(r->count + 1, sizeof *ids);
    enum dr_rc rc = DR_OK;
    for (size_t i = 0; i < r->count; i++)
        ids[i] = r->list[i].id;
    qsort(ids, r->count, sizeof *ids, by_id);
    for (size_t i = 1; i < r->count && !rc; i++)
        if (strcmp(ids[i], ids[i - 1]) == 0) {
            (void)dr_fail(r->err, DR_E_INVALID, "list of backups: an id stands twice");
            rc = dr_err_field(r->err, "id", ids[i], strlen(ids[i]));
        }
    free(ids);
    return rc;
}

static int32_t fixed(const void *zone, int64_t utc_s)
{
    (void)utc_s;
    return *(const int32_t *)zone;
}

/* reasons[i]: of the element that stood at place i. */
static void judge(const struct reading *r, const struct retain_policy *policy, int64_t now_ms,
                  retain_mask *reasons)
{
    struct retain_point *list = dr_xarray(r->count + 1, sizeof *list);
    retain_mask *kept = dr_xarray(r->count + 1, sizeof *kept);
    int32_t offset = 0; /* of the anchor: the calendar of the cut */
    int64_t widest, anchor;
    for (size_t i = 0; i < r->count; i++)
        list[i] = (struct retain_point){r->list[i].t_ms, r->list[i].offset_s, true};
    anchor = retain_anchor(list, r->count, now_ms);
    for (size_t i = r->count; i-- > 0;)
        if (list[i].t_ms == anchor)
            offset = list[i].offset_s;
    const struct retain_zone z = {fixed, &offset};
    retain_ladder(policy, &z, anchor, list, r->count, kept, &widest);
    for (size_t i = 0; i < r->count; i++)
        reasons[r->list[i].place] = kept[i]                 ? kept[i]
                                    : list[i].t_ms > widest ? RETAIN_BIT(DISPLACED)
                                                            : RETAIN_BIT(OUT_OF_RANGE);
    free(kept);
    free(list);
}

static void tell(const struct reading *r, const char *const *ids, const retain_mask *reasons,
                 struct dr_buf *out)
{
    const retain_mask gone = RETAIN_BIT(DISPLACED) | RETAIN_BIT(OUT_OF_RANGE);
    dr_buf_str(out, "[");
    for (size_t i = 0; i < r->count; i++) {
        dr_buf_str(out, i ? ",\n{\"id\":" : "{\"id\":");
        dr_buf_json(out, ids[i], strlen(ids[i]));
        dr_buf_printf(out, ",\"keep\":%s,\"reasons\":", reasons[i] & gone ? "false" : "true");
        retain_words_json(reasons[i], out);
        dr_buf_str(out, "}");
    }
    dr_buf_str(out, "]\n");
}

static enum dr_rc answer(struct reading *r, const struct retain_policy *policy, int64_t now_ms,
                         struct dr_buf *out)
{
    const char **ids = dr_xarray(r->count + 1, sizeof *ids);
    retain_mask *reasons = dr_xarray(r->count + 1, sizeof *reasons);
    qsort(r->list, r->count, sizeof *r->list, newest_first);
    judge(r, policy, now_ms, reasons);
    for (size_t i = 0; i < r->count; i++)
        ids[r->list[i].place] = r->list[i].id;
    tell(r, ids, reasons, out);
    free(reasons);
    free(ids);
    return out->failed ? dr_fail(r->err, DR_E_NOMEM, "list of backups: the answer") : DR_OK;
}

enum dr_rc retain_oracle(const struct retain_policy *policy, int64_t now_ms, const char *text,
                         size_t len, struct dr_buf *out, struct dr_err *err)
{
    struct reading r = {.p = text, .end = text + len, .cap = 256, .err = err};
    struct retain_policy p = *policy;
    p.hourly_hours = 0;
    if (!p.daily_days && !p.weekly_weeks && !p.monthly_months && !p.yearly_years)
        return dr_fail(err, DR_E_CONFIG, "the daily, weekly, monthly and yearly rule are all off");
    r.list = dr_xarray(r.cap, sizeof *r.list);
    enum dr_rc rc = read_list(&r);
    if (!rc)
        rc = each_once(&r);
    if (!rc)
        rc = answer(&r, &p, now_ms, out);
    for (size_t i = 0; i < r.count; i++)
        free(r.list[i].id);
    free(r.list);
    return rc;
}
