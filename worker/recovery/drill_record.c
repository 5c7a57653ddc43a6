/* Evidence of drills: drills/<time>-<run>.json in the store, written whole, then a record `drilled`
 * in the signed catalog that holds its SHA-256; and the series read back from there. Blocking. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/digest.h"
#include "worker/backup/disk.h"
#include "worker/backup/store.h"
#include "worker/core/fault.h"
#include "worker/recovery/drill.h"

enum {
    KEPT_FILES = 800, /* a year of two procedures daily; the catalog's series goes on */
    EVIDENCE_MAX = 8 << 20,
};

/* ---- writing ---- */

struct names {
    char **list;
    size_t count, cap;
};

static enum dr_rc add_name(void *arg, const char *name, struct dr_err *err)
{
    struct names *n = arg;
    (void)err;
    if (n->count == n->cap) {
        n->cap = n->cap ? n->cap * 2 : 256;
        n->list = dr_xrealloc(n->list, n->cap * sizeof *n->list);
    }
    n->list[n->count++] = dr_xstrdup(name);
    return DR_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names begin with the time: the first are the oldest. */
static void drop_oldest(int fd)
{
    struct names n = {0};
    struct dr_err why = {0};
    if (disk_each(fd, ".", add_name, &n, &why))
        dr_log_err(DR_LOG_WARN, "drill.evidence", &why, NULL);
    if (n.count > KEPT_FILES)
        qsort(n.list, n.count, sizeof *n.list, by_text);
    for (size_t i = 0; i + KEPT_FILES < n.count; i++)
        (void)unlinkat(fd, n.list[i], 0);
    for (size_t i = 0; i < n.count; i++)
        free(n.list[i]);
    free(n.list);
}

static enum dr_rc write_file(struct store *s, struct drill_part *p, const char *run,
                             struct dr_err *err)
{
    char t[DR_TIME_TEXT], name[64];
    int fd = -1;
    bool made;
    json_t *whole = json_deep_copy(p->evidence);
    (void)json_object_update(whole, p->lists);
    char *text = json_dumps(whole, JSON_INDENT(1) | JSON_ENSURE_ASCII);
    json_decref(whole);
    if (!text)
        return dr_fail(err, DR_E_BUG, "the evidence cannot be written as JSON");
    dr_format_time(p->began_ms, t);
    (void)snprintf(name, sizeof name, "%.4s%.2s%.2sT%.2s%.2s%.2sZ-%s.json", t, t + 5, t + 8, t + 11,
                   t + 14, t + 17, run);
    (void)snprintf(p->file, sizeof p->file, "drills/%s", name);
    dr_sha256_hex(text, strlen(text), p->sha256);
    enum dr_rc rc = fault_point("test-recovery.evidence", err);
    if (!rc)
        rc = disk_mkdir(store_dirfd(s), "drills", &made, err);
    if (!rc)
        rc = disk_open_dir(store_dirfd(s), "drills", &fd, err);
    if (!rc)
        rc = disk_replace(fd, name, text, strlen(text), err);
    if (!rc)
        drop_oldest(fd);
    if (fd >= 0)
        (void)close(fd);
    free(text);
    return rc;
}

/* What was not measured is not said: the catalog knows no null and no negative number. */
static void add_number(json_t *to, const char *name, const json_t *from, const char *part,
                       const char *key)
{
    json_t *v = json_object_get(json_object_get(from, part), key);
    if (json_is_integer(v))
        (void)json_object_set(to, name, v);
}

/* An earlier delivery of this exercise may have come as far as this. */
static enum dr_rc is_saved(struct drill_saving *s, bool *saved, struct dr_err *err)
{
    struct drill_line *lines = NULL;
    size_t count = 0;
    *saved = false;
    if (!s->r->settled)
        return DR_OK;
    enum dr_rc rc = drill_history(s->r->env->store, false, &lines, &count, err);
    for (size_t i = 0; i < count && !*saved; i++) {
        if (strcmp(lines[i].run, s->r->run) != 0 || lines[i].ok != s->part->ok)
            continue;
        (void)snprintf(s->part->file, sizeof s->part->file, "%s", lines[i].file);
        (void)snprintf(s->part->sha256, sizeof s->part->sha256, "%s", lines[i].sha256);
        *saved = true;
    }
    free(lines);
    return rc;
}

enum dr_rc drill_save(void *saving, struct cancel *cancel, struct dr_err *err)
{
    struct drill_saving *s = saving;
    struct drill_part *p = s->part;
    struct store *store = s->r->env->store;
    bool saved = false;
    (void)cancel;
    if (is_saved(s, &saved, err) || saved)
        return err->rc;
    if (write_file(store, p, s->r->run, err))
        return dr_wrap(err, "evidence of the drill");
    json_t *record =
        json_pack("{s:b,s:s,s:s,s:s,s:s,s:s,s:s}", "ok", p->ok, "level",
                  drill_level_name(s->d->level), "procedure", p->procedure->id, "run", s->r->run,
                  "chosen_by", p->chosen_by, "file", p->file, "sha256", p->sha256);
    /* Integrity: what was restored is not what was saved. That was settled before an exercise came
     * to quiesce: what fails there is not the backup's fault. */
    if (!p->ok && p->err.rc && !s->r->point_passed)
        (void)json_object_set_new(record, "kind", json_string(dr_rc_name(p->err.rc)));
    add_number(record, "rto_ms", p->evidence, "rto", "ms");
    add_number(record, "rto_target_ms", p->evidence, "rto", "target_ms");
    add_number(record, "rpo_s", p->evidence, "rpo", "s");
    add_number(record, "rpo_target_s", p->evidence, "rpo", "target_s");
    char *text = json_dumps(record, JSON_COMPACT);
    json_decref(record);
    if (!text)
        return dr_fail(err, DR_E_BUG, "the record of a drill cannot be written as JSON");
    enum dr_rc rc = store_append(store, "drilled", p->backup_id, text, err);
    free(text);
    return rc ? dr_wrap(err, "record of the drill") : DR_OK;
}

/* ---- reading ---- */

struct reading {
    struct drill_line *lines;
    size_t count, cap;
};

static void text_of(const json_t *o, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(o, key));
    (void)snprintf(out, size, "%s", text ? text : "");
}

static int64_t int_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? json_integer_value(v) : -1;
}

static enum dr_rc add_line(void *arg, const struct catalog_record *rec, struct dr_err *err)
{
    struct reading *r = arg;
    json_t *o = json_loads(rec->data_json ? rec->data_json : "{}", 0, NULL);
    (void)err;
    if (r->count == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 64;
        r->lines = dr_xrealloc(r->lines, r->cap * sizeof *r->lines);
    }
    struct drill_line *l = &r->lines[r->count++];
    *l = (struct drill_line){.at_ms = rec->at_ms,
                             .ok = rec->has_ok && rec->ok,
                             .rto_ms = int_of(o, "rto_ms"),
                             .rto_target_ms = int_of(o, "rto_target_ms"),
                             .rpo_s = int_of(o, "rpo_s"),
                             .rpo_target_s = int_of(o, "rpo_target_s"),
                             .evidence = ""};
    (void)snprintf(l->backup_id, sizeof l->backup_id, "%s", rec->backup_id);
    text_of(o, "level", l->level, sizeof l->level);
    text_of(o, "procedure", l->procedure, sizeof l->procedure);
    text_of(o, "chosen_by", l->chosen_by, sizeof l->chosen_by);
    text_of(o, "run", l->run, sizeof l->run);
    text_of(o, "file", l->file, sizeof l->file);
    text_of(o, "sha256", l->sha256, sizeof l->sha256);
    l->rto_late = l->rto_ms < 0 || l->rto_ms > l->rto_target_ms;
    l->rpo_late = l->rpo_s < 0 || l->rpo_s > l->rpo_target_s;
    json_decref(o);
    return DR_OK;
}

static const char *look_at(struct store *s, const struct drill_line *l)
{
    struct dr_buf b;
    struct dr_err why = {0};
    char sha[65] = "";
    if (strncmp(l->file, "drills/", 7) != 0 || strchr(l->file + 7, '/'))
        return "removed";
    dr_buf_init(&b, EVIDENCE_MAX);
    enum dr_rc rc = disk_read(store_dirfd(s), l->file, &b, &why);
    if (!rc)
        dr_sha256_hex(b.data, b.len, sha);
    dr_buf_fini(&b);
    if (rc == DR_E_NOT_FOUND)
        return "removed";
    return strcmp(sha, l->sha256) == 0 ? "there" : "changed";
}

enum dr_rc drill_history(struct store *s, bool look, struct drill_line **out, size_t *count,
                         struct dr_err *err)
{
    struct reading r = {0};
    *out = NULL;
    *count = 0;
    if (store_each_record(s, "drilled", add_line, &r, err)) {
        free(r.lines);
        return err->rc;
    }
    for (size_t i = 0; i < r.count / 2; i++) {
        struct drill_line l = r.lines[i];
        r.lines[i] = r.lines[r.count - 1 - i];
        r.lines[r.count - 1 - i] = l;
    }
    for (size_t i = 0; look && i < r.count; i++)
        r.lines[i].evidence = look_at(s, &r.lines[i]);
    *out = r.lines;
    *count = r.count;
    return DR_OK;
}
