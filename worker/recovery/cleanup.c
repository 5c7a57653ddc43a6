/* Journals one after the other: what each left, whether it goes, whether the journal itself goes. A
 * journal is locked while it is worked on, so that a redelivery of its run and another cleanup
 * wait. In a fiber on the loop thread. */
#include "worker/recovery/cleanup.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/audit.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"
#include "worker/recovery/cleanup_internal.h"
#include "worker/recovery/database.h"
#include "worker/recovery/resolve.h"

enum { SKEW_MS = 300000, HOUR_MS = 3600000 };

/* ---- clock ---- */

#if DR_FAULTS
/* Tests cannot wait for three days: name is read once a call from the environment. */
static int64_t shifted(const char *name)
{
    const char *text = getenv(name);
    int64_t ms = 0;
    if (text && !dr_parse_i64(text, INT64_MIN / 2, INT64_MAX / 2, &ms))
        abort();
    return ms;
}
#define SHIFTED(name) shifted(name)
#else
#define SHIFTED(name) INT64_C(0)
#endif

enum dr_rc cleanup_clock(int64_t redis_ms, int64_t *now_ms, struct dr_err *err)
{
    int64_t host = dr_wall_ms() + SHIFTED("DR_FAULT_SKEW_MS"), off = host - redis_ms;
    if (off > SKEW_MS || off < -SKEW_MS) {
        (void)dr_fail(err, DR_E_REFUSED,
                      "the host's clock and Redis' clock differ by %lld s: nothing is removed by "
                      "its age",
                      (long long)(off / 1000));
        return dr_err_reason(err, "clock");
    }
    *now_ms = (host < redis_ms ? host : redis_ms) + SHIFTED("DR_FAULT_CLOCK_MS");
    return DR_OK;
}

/* ---- the report ---- */

static struct cleanup_item *add(struct cleanup_list *list, const char *run, const char *what,
                                const char *where, const char *why)
{
    if (list->count == list->cap) {
        list->cap = list->cap ? 2 * list->cap : 16;
        list->items = dr_xrealloc(list->items, list->cap * sizeof *list->items);
    }
    struct cleanup_item *item = &list->items[list->count++];
    *item = (struct cleanup_item){
        .what = dr_xstrdup(what), .where = dr_xstrdup(where), .why = dr_xstrdup(why)};
    (void)snprintf(item->run, sizeof item->run, "%s", run);
    return item;
}

static void fini_list(struct cleanup_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i].what);
        free(list->items[i].where);
        free(list->items[i].why);
    }
    free(list->items);
}

void cleanup_report_fini(struct cleanup_report *r)
{
    fini_list(&r->dropped);
    fini_list(&r->kept);
    *r = (struct cleanup_report){0};
}

/* A journal as a whole that is left alone. */
static void add_journal(struct cleanup_report *out, const char *run, const char *why)
{
    char name[64];
    (void)snprintf(name, sizeof name, "journal/%s.log", run);
    (void)add(&out->kept, run, name, "store", why);
    out->journals_kept++;
}

/* ---- one leftover ---- */

enum dr_rc cleanup_keep(struct leftover *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(l->why, sizeof l->why, fmt, ap);
    va_end(ap);
    l->fate = LEFTOVER_KEPT;
    return DR_OK;
}

bool cleanup_is_due(struct leftover *l)
{
    char until[DR_TIME_TEXT];
    dr_format_time(l->until_ms, until);
    if (!l->until_ms)
        (void)cleanup_keep(l, "without expiry: an operator drops it");
    else if (l->terms->now_ms < l->until_ms)
        (void)cleanup_keep(l, "its time is not over before %s", until);
    else if (l->hold[0])
        (void)cleanup_keep(l, "%s", l->hold);
    return !l->why[0];
}

json_t *cleanup_record(const struct leftover *l)
{
    return json_pack("{s:s,s:I,s:I,s:o,s:o}", "what", l->what, "id", (json_int_t)l->id, "bytes",
                     (json_int_t)l->bytes, "job", recovery_text(l->terms->job_id), "actor",
                     recovery_text(l->terms->actor));
}

struct noting {
    struct leftover *l;
    const char *type;
};

static enum dr_rc note_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct noting *n = item;
    (void)cancel;
    return journal_append(n->l->r->journal, n->type, cleanup_record(n->l), err);
}

enum dr_rc cleanup_note(struct leftover *l, const char *type, struct dr_err *err)
{
    struct noting n = {l, type};
    return pool_run(l->r->env->pool, note_item, &n, NULL, err);
}

/* The later of what was promised and of RECOVERY_KEEP_OLD_HOURS since the journal was closed; what
 * was promised to stay stays. */
static int64_t until_of(const struct journal *j, const json_t *kept, int64_t keep_ms)
{
    const char *text = json_string_value(json_object_get(kept, "until"));
    int64_t until, closed = journal_closed_ms(j);
    if (!text || !dr_parse_time(text, &until) || closed <= 0)
        return 0;
    return until > closed + keep_ms ? until : closed + keep_ms;
}

static const json_t *kept_of(const struct journal *j)
{
    return json_object_get(journal_last(j, "run-closed", NULL), "kept_old");
}

static enum dr_rc audit_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct leftover *l = item;
    char reason[160];
    (void)snprintf(reason, sizeof reason, "log-cleanup %s", l->terms->job_id);
    const char *const members[][2] = {{"actor", l->terms->actor},
                                      {"action", "leftover.dropped"},
                                      {"subject", l->what},
                                      {"reason", reason}};
    struct dr_buf b;
    (void)cancel;
    dr_buf_init(&b, AUDIT_DATA_MAX);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        dr_buf_printf(&b, "%c\"%s\":", i ? ',' : '{', members[i][0]);
        dr_buf_json(&b, members[i][1], strlen(members[i][1]));
    }
    dr_buf_str(&b, "}");
    enum dr_rc rc = audit_append(l->r->env->store, "changed", (const char *)b.data, err);
    dr_buf_fini(&b);
    return rc;
}

static void tell(struct leftover *l, struct cleanup_report *out)
{
    const char *run = l->r->run;
    struct dr_err err = {0};
    if (l->fate == LEFTOVER_GONE)
        return;
    if (l->fate != LEFTOVER_DROPPED) {
        add(&out->kept, run, l->what, l->where, l->why)->until_ms = l->until_ms;
        out->troubles += l->trouble;
        return;
    }
    add(&out->dropped, run, l->what, l->where, "")->bytes = l->bytes;
    out->freed_bytes += l->bytes;
    dr_log(DR_LOG_INFO, "cleanup.dropped", "what", l->what, "run", run, "job", l->terms->job_id,
           NULL);
    if (pool_run(l->r->env->pool, audit_item, l, NULL, &err))
        dr_log_err(DR_LOG_ERROR, "audit.unwritten", &err, "job", l->terms->job_id, "type",
                   "changed", NULL);
}

/* ---- one journal ---- */

static enum dr_rc one(struct leftover *l, const json_t *kept, struct dr_err *err)
{
    struct dr_err why = {0};
    bool database = l->r->procedure == &recovery_database;
    l->id = (uint64_t)json_integer_value(json_object_get(kept, database ? "oid" : "inode"));
    enum dr_rc rc = database ? cleanup_database(l, &why) : cleanup_tree(l, &why);
    if (rc && cancel_fired(l->terms->cancel)) {
        *err = why;
        return rc;
    }
    if (rc) {
        dr_log_err(DR_LOG_WARN, "cleanup.leftover", &why, "what", l->what, "run", l->r->run, NULL);
        (void)cleanup_keep(l, "%s", why.msg);
        l->trouble = true;
    }
    return DR_OK;
}

struct run {
    const struct cleanup_terms *terms;
    const char *hold;
    struct cleanup_report *out;
    int64_t keep_ms;
};

/* *left: something of it still stands. */
static enum dr_rc leftovers(const struct run *x, struct recovery *r, bool *left, struct dr_err *err)
{
    const json_t *list = kept_of(r->journal);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *kept = json_array_get(list, i);
        const char *what = json_string_value(json_object_get(kept, "what"));
        struct leftover l = {.r = r,
                             .terms = x->terms,
                             .what = what ? what : "",
                             .until_ms = until_of(r->journal, kept, x->keep_ms),
                             .hold = x->hold};
        if (journal_says(r->journal, "leftover-gone", l.what))
            continue;
        if (one(&l, kept, err))
            return err->rc;
        *left = *left || l.fate == LEFTOVER_KEPT;
        tell(&l, x->out);
    }
    return DR_OK;
}

struct journals {
    int store_fd;
    char **runs;
    struct journal *journal;
};

static enum dr_rc list_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct journals *o = item;
    (void)cancel;
    return journal_list_all(o->store_fd, &o->runs, err);
}

static enum dr_rc remove_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct journals *o = item;
    (void)cancel;
    return journal_remove(o->journal, o->store_fd, err);
}

static void adopt(struct recovery *r, const struct run *x, struct journal *j)
{
    const json_t *open = journal_last(j, "run-open", NULL);
    const char *id = json_string_value(json_object_get(open, "procedure"));
    r->journal = j;
    r->env = x->terms->env;
    r->cancel = x->terms->cancel;
    r->procedure = id ? recovery_find(id) : NULL;
    r->own = r->procedure ? dr_xalloc(r->procedure->own_bytes) : NULL;
    r->kept_old = json_array();
    recovery_read_target(r);
    (void)snprintf(r->run, sizeof r->run, "%s", journal_run(j));
}

/* An empty one was never written to: whoever waits for its lock looks for it again. */
static bool is_over(const struct run *x, const struct journal *j)
{
    return journal_count(j) == 0 || x->terms->now_ms - journal_closed_ms(j) > x->terms->journal_ms;
}

static enum dr_rc closed_run(const struct run *x, struct recovery *r, struct dr_err *err)
{
    struct journals o = {.store_fd = recovery_store_fd(r), .journal = r->journal};
    bool left = false;
    if (!r->procedure && json_array_size(kept_of(r->journal)) > 0) {
        add_journal(x->out, r->run, "it names no procedure of this version");
        return DR_OK;
    }
    if (leftovers(x, r, &left, err))
        return err->rc;
    if (left || !is_over(x, r->journal))
        x->out->journals_kept++;
    else if (pool_run(r->env->pool, remove_item, &o, NULL, err) == DR_OK)
        x->out->journals_removed++;
    return err->rc;
}

static enum dr_rc clean(const struct run *x, const char *run, struct dr_err *err)
{
    struct journal *journal = NULL;
    struct dr_err why = {0};
    if (resolve_open(x->terms->env, run, &journal, &why)) {
        if (why.rc == DR_E_LOCKED) {
            add_journal(x->out, run, "somebody works on it");
        } else if (why.rc != DR_E_NOT_FOUND) {
            add_journal(x->out, run, why.msg);
            x->out->troubles++;
        }
        return DR_OK;
    }
    struct recovery *r = dr_xalloc(sizeof *r);
    adopt(r, x, journal);
    enum dr_rc rc = DR_OK;
    if (journal_count(r->journal) > 0 && !journal_is_closed(r->journal))
        add_journal(x->out, run, "its run is not at its end");
    else
        rc = closed_run(x, r, err);
    recovery_fini(r);
    free(r);
    return rc;
}

/* A run that is open past quiesce: whoever brings it to its end may need every old copy. */
static enum dr_rc find_hold(const struct cleanup_terms *t, char out[128], struct dr_err *err)
{
    char **runs = NULL;
    out[0] = 0;
    if (resolve_list(t->env, &runs, err))
        return err->rc;
    for (char **run = runs; *run && !out[0]; run++) {
        struct journal *j = resolve_peek(t->env, *run);
        if (j && !journal_is_closed(j) && journal_last(j, "step-intent", "quiesce"))
            (void)snprintf(out, 128, "recovery run %s is open", *run);
        journal_free(j);
    }
    journal_list_free(runs);
    return DR_OK;
}

static int64_t keep_ms(const struct dr_config *config)
{
    return dr_config_int(config, "RECOVERY_KEEP_OLD_HOURS") * HOUR_MS;
}

enum dr_rc cleanup_run(const struct cleanup_terms *t, struct cleanup_report *out,
                       struct dr_err *err)
{
    struct journals o = {.store_fd = store_dirfd(t->env->store)};
    char hold[128];
    struct run x = {.terms = t, .hold = hold, .out = out, .keep_ms = keep_ms(t->env->config)};
    if (find_hold(t, hold, err) || pool_run(t->env->pool, list_item, &o, t->cancel, err))
        return err->rc;
    for (char **run = o.runs; *run && !err->rc; run++)
        if (cancel_fired(t->cancel))
            (void)dr_fail(err, cancel_fired(t->cancel), "%s", cancel_reason(t->cancel));
        else
            (void)clean(&x, *run, err);
    journal_list_free(o.runs);
    return err->rc;
}

/* ---- looking only ---- */

/* Its root is there, and it is not. */
static bool tree_is_gone(const char *what)
{
    struct stat st;
    const char *end = what + strlen(what);
    if (what[0] != '/' || lstat(what, &st) == 0)
        return false;
    for (unsigned parts = 0; end > what && parts < 2; parts += *end == '/')
        end--;
    char *lock = dr_xasprintf("%.*s/.dr-lock", (int)(end - what), what);
    bool gone = lstat(lock, &st) == 0;
    free(lock);
    return gone;
}

static void look_at(const struct journal *j, int64_t keep, struct cleanup_report *out)
{
    const json_t *list = kept_of(j);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *kept = json_array_get(list, i);
        const char *what = json_string_value(json_object_get(kept, "what"));
        const char *note = json_string_value(json_object_get(kept, "note"));
        if (!what || journal_says(j, "leftover-gone", what) || tree_is_gone(what))
            continue;
        add(&out->kept, journal_run(j), what, what[0] == '/' ? "file system" : "database server",
            note ? note : "")
            ->until_ms = until_of(j, kept, keep);
    }
}

enum dr_rc cleanup_look(int store_dirfd, int64_t keep, struct cleanup_report *out,
                        struct dr_err *err)
{
    char **runs = NULL;
    if (journal_list_all(store_dirfd, &runs, err))
        return err->rc;
    for (char **run = runs; *run; run++) {
        struct journal *j = NULL;
        struct dr_err why = {0};
        if (journal_peek(store_dirfd, *run, &j, &why)) {
            if (why.rc != DR_E_NOT_FOUND)
                add_journal(out, *run, why.msg);
        } else if (journal_count(j) > 0 && !journal_is_closed(j)) {
            add_journal(out, *run, "its run is not at its end");
        } else {
            look_at(j, keep, out);
        }
        journal_free(j);
    }
    journal_list_free(runs);
    return DR_OK;
}
