/* The end of a job in words: summary, plan and losses of a dry run, downtime and what is kept of a
 * recovery, the error. Cursors over the packed result are copied, so that every look-up starts at
 * its map; what is missing or of another type is left out. */
#include "producer/account.h"

#include <string.h>

#include "common/str.h"
#include "common/wire/pull.h"
#include "producer/show.h"

enum {
    TEXT_MAX = 512, /* bytes of one text */
    LIST_MAX = 40,  /* lines of one list */
    NAME_WIDTH = 36,
    STEP_WIDTH = 11,
    STATUS_WIDTH = 14,
    CHECK_WIDTH = 16,
    DEPTH_MAX = 16
};

static bool find(struct dr_pull map, const char *key, struct dr_pull *out)
{
    size_t pairs = dr_pull_map(&map, 2), len;
    for (; pairs > 0 && !map.bad; pairs--) {
        const unsigned char *name = dr_pull_str(&map, &len);
        if (!map.bad && len == strlen(key) && memcmp(name, key, len) == 0) {
            *out = map;
            return true;
        }
        dr_pull_skip(&map, DEPTH_MAX);
    }
    return false;
}

static uint64_t number(struct dr_pull map, const char *key)
{
    struct dr_pull at;
    return find(map, key, &at) ? dr_pull_uint(&at) : 0;
}

/* NULL when there is none, or an empty one. */
static const unsigned char *text(struct dr_pull map, const char *key, size_t *len)
{
    struct dr_pull at;
    const unsigned char *s = find(map, key, &at) ? dr_pull_str(&at, len) : NULL;
    return s && !at.bad && *len > 0 ? s : NULL;
}

/* Control characters, line separators and marks that turn the direction of a line around. */
static bool unsafe(const unsigned char *s, size_t n)
{
    return n == 0 || s[0] < 0x20 || s[0] == 0x7f || (n == 2 && s[0] == 0xc2 && s[1] < 0xa0) ||
           (n == 3 && s[0] == 0xe2 && s[1] == 0x80 && s[2] >= 0xa8 && s[2] <= 0xae) ||
           (n == 3 && s[0] == 0xe2 && s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9);
}

/* Returns the number of characters. */
static int put(FILE *f, const unsigned char *s, size_t len)
{
    int shown = 0;
    for (size_t i = 0, n; i < len; i += n ? n : 1, shown++) {
        if (i >= TEXT_MAX) {
            (void)fputs("...", f);
            return shown + 3;
        }
        n = dr_utf8_len(s + i, len - i);
        if (unsafe(s + i, n))
            (void)fputc('?', f);
        else
            (void)fwrite(s + i, 1, n, f);
    }
    return shown;
}

static void put_padded(FILE *f, const unsigned char *s, size_t len, int width)
{
    int shown = s ? put(f, s, len) : 0;
    if (shown < width)
        (void)fprintf(f, "%*s", width - shown, "");
}

static void put_key(FILE *f, const char *before, struct dr_pull map, const char *key,
                    const char *behind)
{
    size_t len;
    const unsigned char *s = text(map, key, &len);
    if (!s)
        return;
    (void)fputs(before, f);
    (void)put(f, s, len);
    (void)fputs(behind, f);
}

static void put_ms(FILE *f, uint64_t ms)
{
    if (ms < 1000)
        (void)fprintf(f, "%llu ms", (unsigned long long)ms);
    else
        (void)fprintf(f, "%.1f s", (double)ms / 1000);
}

static void print_plan(FILE *f, struct dr_pull plan)
{
    size_t steps = dr_pull_array(&plan, 1), len = 0;
    (void)fputs("plan:\n", f);
    for (size_t i = 0; i < steps && i < LIST_MAX && !plan.bad; i++) {
        const unsigned char *name = text(plan, "step", &len);
        (void)fputs("  ", f);
        put_padded(f, name, len, STEP_WIDTH);
        put_key(f, " ", plan, "does", "");
        (void)fputc('\n', f);
        dr_pull_skip(&plan, DEPTH_MAX);
    }
}

static void put_rows(FILE *f, struct dr_pull row, const char *key)
{
    struct dr_pull at;
    if (find(row, key, &at) && !dr_pull_nil(&at))
        (void)fprintf(f, " %12llu", (unsigned long long)dr_pull_uint(&at));
    else
        (void)fprintf(f, " %12s", "?"); /* the table cannot be read */
}

static void print_tables(FILE *f, struct dr_pull loss, struct dr_pull tables)
{
    size_t count = dr_pull_map(&tables, 2), shown = 0, len;
    uint64_t differing = number(loss, "tables_differing");
    (void)fprintf(f, "would be lost: %llu rows\n", (unsigned long long)number(loss, "rows"));
    (void)fprintf(f, "  %-*s %12s %12s %12s\n", NAME_WIDTH, "rows of", "live", "backup", "lost");
    for (; shown < count && shown < LIST_MAX; shown++) {
        const unsigned char *name = dr_pull_str(&tables, &len);
        if (tables.bad)
            break;
        (void)fputs("  ", f);
        put_padded(f, name, len, NAME_WIDTH);
        put_rows(f, tables, "live");
        put_rows(f, tables, "backup");
        put_rows(f, tables, "lost");
        (void)fputc('\n', f);
        dr_pull_skip(&tables, DEPTH_MAX);
    }
    if (differing > shown)
        (void)fprintf(f, "  ... and %llu more tables that differ\n",
                      (unsigned long long)(differing - shown));
    (void)fprintf(f, "  %-*s", NAME_WIDTH, "all tables");
    put_rows(f, loss, "live_rows");
    put_rows(f, loss, "backup_rows");
    put_rows(f, loss, "rows");
    (void)fputc('\n', f);
}

static void print_files(FILE *f, struct dr_pull loss, struct dr_pull files)
{
    size_t count = dr_pull_array(&files, 1), shown = 0, len;
    uint64_t changed = number(loss, "changed"), added = number(loss, "added");
    (void)fprintf(
        f,
        "would be lost: %llu changed and %llu added files, %.1f MB, of %llu entries; "
        "%llu come back, %llu stay as they are\n",
        (unsigned long long)changed, (unsigned long long)added, (double)number(loss, "bytes") / 1e6,
        (unsigned long long)number(loss, "live_entries"),
        (unsigned long long)number(loss, "returning"), (unsigned long long)number(loss, "carried"));
    for (; shown < count && shown < LIST_MAX; shown++) {
        const unsigned char *name = dr_pull_str(&files, &len);
        if (files.bad)
            break;
        (void)fputs("  ", f);
        (void)put(f, name, len);
        (void)fputc('\n', f);
    }
    if (changed + added > shown)
        (void)fprintf(f, "  ... and %llu more\n", (unsigned long long)(changed + added - shown));
}

static void print_dry_run(FILE *f, struct dr_pull res, struct dr_pull plan)
{
    struct dr_pull loss, at;
    print_plan(f, plan);
    if (find(res, "would_lose", &loss)) {
        if (find(loss, "tables", &at))
            print_tables(f, loss, at);
        else if (find(loss, "files", &at))
            print_files(f, loss, at);
    }
    put_key(f, "live is damaged: ", res, "live_damage", "\n");
    (void)fputs("would take about ", f);
    put_ms(f, number(res, "eta_ms"));
    put_key(f, " (estimated from: ", res, "eta_from", ")");
    (void)fprintf(f, "\nan emergency backup of live before the swap is %s\n",
                  find(res, "emergency_possible", &at) && dr_pull_bool(&at) ? "possible"
                                                                            : "not possible");
}

static void print_recovery(FILE *f, struct dr_pull res, struct dr_pull down)
{
    struct dr_pull kept;
    size_t len;
    const unsigned char *outcome = text(res, "outcome", &len);
    bool done = outcome && len == 4 && memcmp(outcome, "done", 4) == 0;
    if (done || number(down, "total") > 0) {
        (void)fputs("downtime ", f);
        put_ms(f, number(down, "total"));
        (void)fputs(", of it services ", f);
        put_ms(f, number(down, "services"));
        (void)fputs("; in all ", f);
        put_ms(f, number(res, "total_ms"));
        (void)fputc('\n', f);
    }
    put_key(f, "emergency backup ", res, "emergency_backup_id", "\n");
    put_key(f, "no emergency backup: ", res, "emergency_backup_error", "\n");
    if (!find(res, "kept_old", &kept))
        return;
    size_t count = dr_pull_array(&kept, 1);
    for (size_t i = 0; i < count && i < LIST_MAX && !kept.bad; i++) {
        put_key(f, "kept: ", kept, "what", "");
        if (text(kept, "until", &len))
            put_key(f, ", until ", kept, "until", "");
        else
            (void)fputs(", without expiry", f);
        put_key(f, " (", kept, "note", ")");
        (void)fputc('\n', f);
        dr_pull_skip(&kept, DEPTH_MAX);
    }
}

static void put_word(FILE *f, struct dr_pull map, const char *key, int width)
{
    size_t len = 0;
    const unsigned char *s = text(map, key, &len);
    put_padded(f, s, len, width);
}

/* One check a line, the status of the worst gate above them. */
static void print_health(FILE *f, struct dr_pull res, struct dr_pull checks)
{
    size_t count = dr_pull_array(&checks, 1);
    put_key(f, "health ", res, "status", "");
    (void)fprintf(f, ", score %llu of 100\n", (unsigned long long)number(res, "score"));
    for (size_t i = 0; i < count && i < LIST_MAX && !checks.bad; i++) {
        (void)fputs("  ", f);
        put_word(f, checks, "status", STATUS_WIDTH);
        (void)fputc(' ', f);
        put_word(f, checks, "name", CHECK_WIDTH);
        put_key(f, " ", checks, "detail", "");
        (void)fputc('\n', f);
        dr_pull_skip(&checks, DEPTH_MAX);
    }
}

static bool truth(struct dr_pull map, const char *key)
{
    struct dr_pull at;
    return find(map, key, &at) && dr_pull_bool(&at);
}

static void print_findings(FILE *f, struct dr_pull evidence)
{
    struct dr_pull list;
    size_t count = find(evidence, "findings", &list) ? dr_pull_array(&list, 1) : 0, len;
    for (size_t i = 0; i < count && i < LIST_MAX && !list.bad; i++) {
        const unsigned char *s = dr_pull_str(&list, &len);
        if (list.bad)
            return;
        (void)fputs("  finding: ", f);
        (void)put(f, s, len);
        (void)fputc('\n', f);
    }
}

/* A value that was not measured is nil, and read as 0. */
static void print_drill(FILE *f, struct dr_pull drill)
{
    struct dr_pull evidence;
    bool rehearsed = number(drill, "rto_ms") > 0;
    put_key(f, " (", drill, "backup_id", ")");
    (void)fputs(truth(drill, "ok") ? ": ok" : ": FAILED", f);
    if (rehearsed) {
        (void)fputs(", RTO ", f);
        put_ms(f, number(drill, "rto_ms"));
        (void)fprintf(f, " of %llu s", (unsigned long long)number(drill, "rto_target_ms") / 1000);
    }
    (void)fprintf(f, ", RPO %llu s of %llu s\n", (unsigned long long)number(drill, "rpo_s"),
                  (unsigned long long)number(drill, "rpo_target_s"));
    if (!find(drill, "evidence", &evidence))
        return;
    print_findings(f, evidence);
    put_key(f, "  evidence: BACKUP_DIRECTORY/", evidence, "file", "\n");
}

static void print_drills(FILE *f, struct dr_pull drills)
{
    size_t pairs = dr_pull_map(&drills, 2), len;
    for (size_t i = 0; i < pairs && i < LIST_MAX && !drills.bad; i++) {
        const unsigned char *name = dr_pull_str(&drills, &len);
        if (drills.bad)
            return;
        (void)put(f, name, len);
        print_drill(f, drills);
        dr_pull_skip(&drills, DEPTH_MAX);
    }
}

/* What a log-cleanup dropped and what it left, with the reason. */
static void print_cleanup(FILE *f, struct dr_pull res, struct dr_pull kept)
{
    struct dr_pull dropped;
    size_t count = find(res, "dropped", &dropped) ? dr_pull_array(&dropped, 1) : 0, len;
    for (size_t i = 0; i < count && i < LIST_MAX && !dropped.bad; i++) {
        put_key(f, "dropped: ", dropped, "what", "");
        (void)fprintf(f, ", %.1f MB\n", (double)number(dropped, "bytes") / 1e6);
        dr_pull_skip(&dropped, DEPTH_MAX);
    }
    count = dr_pull_array(&kept, 1);
    for (size_t i = 0; i < count && i < LIST_MAX && !kept.bad; i++) {
        put_key(f, "kept: ", kept, "what", "");
        if (text(kept, "until", &len))
            put_key(f, ", until ", kept, "until", "");
        put_key(f, " (", kept, "why", ")");
        (void)fputc('\n', f);
        dr_pull_skip(&kept, DEPTH_MAX);
    }
}

static void print_error(FILE *f, struct dr_pull error)
{
    put_key(f, "error: ", error, "kind", "");
    put_key(f, " at step ", error, "step", "");
    put_key(f, ": ", error, "message", "");
    put_key(f, " [", error, "field", "=");
    size_t len;
    if (text(error, "field", &len)) {
        put_key(f, "", error, "value", "");
        (void)fputc(']', f);
    }
    (void)fputc('\n', f);
}

void account_print(struct cmd *c, const char *id, FILE *out)
{
    struct dr_err err = {0};
    struct dr_pull res, at;
    redisReply *r = NULL;
    char key[DR_KEY_MAX];
    if (link_text(c->link, 5000, &r, &err, "HMGET", dr_key(&c->keys, key, "job:", id), "res", "err",
                  NULL))
        return;
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 2)
        goto out;
    bool told = false;
    if (r->element[0]->type == REDIS_REPLY_STRING && r->element[0]->len > 0) {
        dr_pull_init(&res, r->element[0]->str, r->element[0]->len);
        put_key(out, "", res, "summary", "\n");
        if (find(res, "plan", &at))
            print_dry_run(out, res, at);
        else if (find(res, "downtime_ms", &at))
            print_recovery(out, res, at);
        else if (find(res, "checks", &at))
            print_health(out, res, at);
        else if (find(res, "procedures", &at))
            print_drills(out, at);
        else if (find(res, "journals_kept", &at) && find(res, "kept", &at))
            print_cleanup(out, res, at);
        told = find(res, "error", &at);
        if (told)
            print_error(out, at);
        put_key(out, "the result is long and lies in the store: BACKUP_DIRECTORY/", res, "uri",
                "\n");
        put_key(out, "the result is ", res, "note", "\n");
    }
    if (!told && r->element[1]->type == REDIS_REPLY_STRING && r->element[1]->len > 0) {
        dr_pull_init(&at, r->element[1]->str, r->element[1]->len);
        print_error(out, at);
    }
out:
    (void)fflush(out);
    freeReplyObject(r);
}
