/* Which backup: an id, or the newest consistent point. Refusals say what there is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/str.h"
#include "worker/backup/handle.h"
#include "worker/backup/store_internal.h"

enum { NAMED_MAX = 10 };

struct wish {
    const char *kind, *series, *which;
    int64_t before_ms;
};

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

static bool fits(const struct wish *w, const struct store_entry *e)
{
    return store_fits(e, w->kind, w->series);
}

/* A full backup may have been made without what is asked for. */
static enum dr_rc open_with(struct store *s, const struct wish *w, const struct store_entry *e,
                            struct backup_handle **out, struct dr_err *err)
{
    enum dr_rc rc = handle_open(s, e->backup_id, out, err);
    if (!rc && w->kind && strcmp(w->kind, "full") != 0 &&
        !manifest_object(handle_manifest(*out), w->kind)) {
        handle_close(*out);
        *out = NULL;
        rc = dr_fail(err, DR_E_NOT_FOUND, "backup %s holds no %s", e->backup_id, w->kind);
    }
    return rc;
}

static enum dr_rc none(const struct wish *w, const struct store_entry *list, size_t count,
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
                               list[i].bad[0]                            ? " (damaged)"
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
    return dr_err_field(err, "backup_id", w->which, strlen(w->which));
}

static enum dr_rc select_id(struct store *s, const struct wish *w, const struct store_entry *list,
                            size_t count, struct backup_handle **out, struct dr_err *err)
{
    char t[DR_TIME_TEXT];
    for (size_t i = 0; i < count; i++) {
        const struct store_entry *e = &list[i];
        if (strcmp(e->backup_id, w->which) != 0)
            continue;
        if (w->kind && strcmp(e->kind, w->kind) != 0 && strcmp(e->kind, "full") != 0) {
            (void)dr_fail(err, DR_E_REFUSED, "backup %s is of kind %s, not %s", e->backup_id,
                          e->kind, w->kind);
            return dr_err_field(err, "backup_id", w->which, strlen(w->which));
        }
        if (e->tombstoned_at_ms) {
            dr_format_time(e->tombstoned_at_ms, t);
            (void)dr_fail(err, DR_E_REFUSED,
                          "backup %s was given up on %s and waits in trash/: `drworker backups "
                          "--undelete %s` brings it back",
                          e->backup_id, t, e->backup_id);
            return dr_err_field(err, "backup_id", w->which, strlen(w->which));
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

static enum dr_rc select_latest(struct store *s, const struct wish *w,
                                const struct store_entry *list, size_t count,
                                struct backup_handle **out, struct dr_err *err)
{
    for (size_t i = 0; i < count; i++) {
        const struct store_entry *e = &list[i];
        struct dr_err why = {0};
        if (!fits(w, e) || e->tombstoned_at_ms || (w->before_ms && e->t_point_ms > w->before_ms) ||
            strcmp(e->class, "emergency") == 0)
            continue;
        if (!e->bad[0] && open_with(s, w, e, out, &why) == DR_OK)
            return DR_OK;
        if (why.rc && why.rc != DR_E_INTEGRITY && why.rc != DR_E_NOT_FOUND) {
            if (err && !err->rc)
                *err = why; /* no judgement on the backup: not to be passed over in silence */
            return why.rc;
        }
        dr_log(DR_LOG_WARN, "store.passed_over", "backup_id", e->backup_id, "class",
               e->bad[0]       ? e->bad
               : why.reason[0] ? why.reason
                               : dr_rc_name(why.rc),
               NULL);
    }
    return none(w, list, count, err);
}

enum dr_rc store_select(struct store *s, const char *kind, const char *series, const char *which,
                        int64_t before_ms, struct backup_handle **out, struct dr_err *err)
{
    const struct wish w = {kind, series, which, before_ms};
    struct store_entry *list = NULL;
    size_t count = 0;
    enum dr_rc rc = store_list(s, &list, &count, err);
    if (!rc && strcmp(which, "latest") == 0)
        rc = kind ? select_latest(s, &w, list, count, out, err)
                  : dr_fail(err, DR_E_BUG, "latest of no kind");
    else if (!rc)
        rc = select_id(s, &w, list, count, out, err);
    free(list);
    return rc;
}
