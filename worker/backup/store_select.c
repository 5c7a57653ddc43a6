/* Which backup: an id, or the newest consistent point. Refusals say what there is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/str.h"
#include "worker/backup/handle.h"
#include "worker/backup/store_internal.h"
#include "worker/backup/store_select.h"
#include "worker/backup/verdict.h"

enum { NAMED_MAX = 10 };

/* A full backup holds every kind's object. Its series has the database's name: for a database that
 * must be the same, trees are those of the store whatever the database. */
bool store_fits(const struct store_entry *e, const char *kind, const char *series)
{
    bool full = strcmp(e->kind, "full") == 0;
    if (kind && strcmp(e->kind, kind) != 0 && !full)
        return false;
    if (!series || strcmp(e->series, series) == 0)
        return true;
    const char *a = strchr(series, ':'), *b = strchr(e->series, ':');
    return full && a && b && (strcmp(a, ":default") == 0 || strcmp(a, b) == 0);
}

bool store_is_damaged(const struct store_entry *e)
{
    return e->bad[0] || (e->verified_at_ms && !e->verified_ok);
}

/* Of a manifest that is not believed only id and kind are known: it may be of the series. */
static bool fits(const struct store_wish *w, const struct store_entry *e)
{
    return store_fits(e, w->kind, e->bad[0] ? NULL : w->series);
}

static const char *finding_of(const struct store_entry *e)
{
    return e->bad[0] ? e->bad : e->finding[0] ? e->finding : "damaged";
}

/* A full backup may have been made without what is asked for. */
static enum dr_rc open_with(struct store *s, const struct store_wish *w,
                            const struct store_entry *e, struct backup_handle **out,
                            struct dr_err *err)
{
    enum dr_rc rc = handle_open(s, e->backup_id, out, err);
    if (!rc && w->kind && strcmp(w->kind, "full") != 0 &&
        !manifest_object(handle_manifest(*out), w->kind)) {
        handle_close(*out);
        *out = NULL;
        (void)dr_fail(err, DR_E_NOT_FOUND, "backup %s holds no %s", e->backup_id, w->kind);
        rc = dr_err_reason(err, "not-held");
    }
    return rc;
}

static bool is_latest(const struct store_wish *w)
{
    return strcmp(w->which, "latest") == 0;
}

static enum dr_rc none(const struct store_wish *w, const struct store_entry *list, size_t count,
                       struct dr_err *err)
{
    char what[400], ids[512] = "", before[DR_TIME_TEXT + 16] = "", t[DR_TIME_TEXT];
    size_t at = 0, named = 0, others = 0;
    for (size_t i = 0; i < count; i++) {
        if (!fits(w, &list[i]) || list[i].tombstoned_at_ms)
            continue;
        if (named >= NAMED_MAX || at + 80 > sizeof ids) {
            others++;
            continue;
        }
        at += (size_t)snprintf(ids + at, sizeof ids - at, "%s%s%s", named++ ? ", " : "",
                               list[i].backup_id,
                               store_is_damaged(&list[i])                ? " (damaged)"
                               : strcmp(list[i].class, "emergency") == 0 ? " (emergency)"
                                                                         : "");
    }
    if (w->before_ms) {
        dr_format_time(w->before_ms, t);
        (void)snprintf(before, sizeof before, " before %s", t);
    }
    (void)snprintf(what, sizeof what, "no backup '%.64s'%s%s%s", w->which,
                   w->series ? " of "
                   : w->kind ? " of kind "
                             : "",
                   w->series ? w->series
                   : w->kind ? w->kind
                             : "",
                   before);
    if (others)
        (void)dr_fail(err, DR_E_NOT_FOUND, "%s; there are: %s and %zu more", what, ids, others);
    else if (named)
        (void)dr_fail(err, DR_E_NOT_FOUND, "%s; there are: %s", what, ids);
    else
        (void)dr_fail(err, DR_E_NOT_FOUND, "%s; there is none at all", what);
    return is_latest(w) ? err->rc /* nobody mistyped that */
                        : dr_err_field(err, "a.backup_id", w->which, strlen(w->which));
}

static enum dr_rc select_id(struct store *s, const struct store_wish *w,
                            const struct store_entry *list, size_t count,
                            struct backup_handle **out, struct dr_err *err)
{
    char t[DR_TIME_TEXT];
    for (size_t i = 0; i < count; i++) {
        const struct store_entry *e = &list[i];
        if (strcmp(e->backup_id, w->which) != 0)
            continue;
        if (w->kind && strcmp(e->kind, w->kind) != 0 && strcmp(e->kind, "full") != 0) {
            (void)dr_fail(err, DR_E_REFUSED, "backup %s is of kind %s, not %s", e->backup_id,
                          e->kind, w->kind);
            return dr_err_field(err, "a.backup_id", w->which, strlen(w->which));
        }
        if (e->tombstoned_at_ms) {
            dr_format_time(e->tombstoned_at_ms, t);
            (void)dr_fail(err, DR_E_REFUSED,
                          "backup %s was given up on %s and waits in trash/: `drworker backups "
                          "--undelete %s` brings it back",
                          e->backup_id, t, e->backup_id);
            return dr_err_field(err, "a.backup_id", w->which, strlen(w->which));
        }
        if (strcmp(e->bad, "catalog-manifest") == 0) {
            (void)dr_fail(err, DR_E_INTEGRITY, "%s: its manifest is not the one the catalog added",
                          e->backup_id);
            return dr_err_reason(err, e->bad);
        }
        return open_with(s, w, e, out, err);
    }
    return none(w, list, count, err);
}

static bool is_candidate(const struct store_wish *w, const struct store_entry *e)
{
    return fits(w, e) && !e->tombstoned_at_ms && strcmp(e->class, "emergency") != 0 &&
           (!w->before_ms || e->t_point_ms <= w->before_ms);
}

static void pass_over(struct store_passed *passed, const struct store_entry *e, const char *class)
{
    char at[DR_TIME_TEXT] = "";
    struct store_passed_one *one = &passed->list[passed->count];
    bool recorded = !e->bad[0] && store_is_damaged(e);
    if (recorded)
        dr_format_time(e->verified_at_ms, at);
    dr_log(DR_LOG_WARN, "store.passed_over", "backup_id", e->backup_id, "class", class, "found_at",
           at, NULL);
    if (passed->count++ >= STORE_PASSED_MAX)
        return;
    (void)snprintf(one->backup_id, sizeof one->backup_id, "%s", e->backup_id);
    (void)snprintf(one->class, sizeof one->class, "%s", class);
    one->found_at_ms = recorded ? e->verified_at_ms : 0;
}

void store_passed_text(const struct store_passed *p, char *out, size_t size)
{
    char at[DR_TIME_TEXT], more[32] = "";
    const struct store_passed_one *first = &p->list[0];
    if (size)
        out[0] = 0;
    if (!p->count)
        return;
    dr_format_time(first->found_at_ms, at);
    if (p->count > 1)
        (void)snprintf(more, sizeof more, ", and %u more", p->count - 1);
    (void)snprintf(out, size, "passed over as damaged: %s (%s%s%s)%s", first->backup_id,
                   first->class, first->found_at_ms ? ", found " : "", first->found_at_ms ? at : "",
                   more);
}

/* All that there is was found damaged: which of them is worth a try is for a person to say. */
static enum dr_rc all_damaged(const struct store_wish *w, const struct store_passed *p,
                              struct dr_err *err)
{
    char text[STORE_PASSED_TEXT];
    store_passed_text(p, text, sizeof text);
    (void)dr_fail(err, DR_E_INTEGRITY,
                  "no backup of %s%s is known as good; %s. `--backup ID` tries one all the same, "
                  "`drproducer verify ID` looks at one again, `drworker backups` lists them",
                  w->series ? w->series : w->kind, w->before_ms ? " before that time" : "", text);
    return dr_err_reason(err, "all-damaged");
}

/* One whose damage nobody has recorded yet is passed over as well, but not in silence what says
 * nothing of the backup: the store that does not answer, or this process's own trouble. */
static enum dr_rc select_latest(struct store *s, const struct store_wish *w,
                                const struct store_entry *list, size_t count,
                                struct store_passed *p, struct backup_handle **out,
                                struct dr_err *err)
{
    size_t candidates = 0;
    for (size_t i = 0; i < count; i++)
        candidates += is_candidate(w, &list[i]);
    for (size_t i = 0; i < count; i++) {
        const struct store_entry *e = &list[i];
        struct dr_err why = {0};
        if (!is_candidate(w, e))
            continue;
        if (!e->bad[0] && store_is_damaged(e)) {
            pass_over(p, e, finding_of(e));
            continue;
        }
        if (strcmp(e->bad, "catalog-manifest") == 0) {
            pass_over(p, e, e->bad);
            continue;
        }
        if (open_with(s, w, e, out, &why) == DR_OK)
            return DR_OK;
        if (strcmp(why.reason, "not-held") == 0)
            continue; /* a full backup without what is asked for */
        enum verdict is = verdict_of(s, e->backup_id, candidates < 2, &why);
        if (is == VERDICT_NONE) {
            if (err && !err->rc)
                *err = why;
            return why.rc;
        }
        if (is == VERDICT_BAD)
            pass_over(p, e, why.reason[0] ? why.reason : dr_rc_name(why.rc));
    }
    return p->count ? all_damaged(w, p, err) : none(w, list, count, err);
}

enum dr_rc store_select(struct store *s, const struct store_wish *w, struct backup_handle **out,
                        struct dr_err *err)
{
    struct store_passed own = {0}, *passed = w->passed ? w->passed : &own;
    struct store_entry *list = NULL;
    size_t count = 0;
    *passed = (struct store_passed){0};
    enum dr_rc rc = store_list(s, &list, &count, err);
    if (!rc && is_latest(w))
        rc = w->kind ? select_latest(s, w, list, count, passed, out, err)
                     : dr_fail(err, DR_E_BUG, "latest of no kind");
    else if (!rc)
        rc = select_id(s, w, list, count, out, err);
    free(list);
    return rc;
}
