/* drworker backups: what the catalog holds, newest first. */
#include "worker/cli/backups.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/str.h"
#include "worker/backup/store.h"
#include "worker/backup/trash.h"
#include "worker/cli/args.h"

enum { ENTRY_JSON_MAX = 4096, COLUMNS = 10, CELL = 72, KEEP_CELL = 400, HOUR_MS = 3600000 };

struct shown {
    struct store *store;
    int64_t now_ms, grace_ms;
};

static void json_text(struct dr_buf *b, const char *key, const char *value)
{
    dr_buf_printf(b, "\"%s\":", key);
    dr_buf_json(b, value, strlen(value));
    dr_buf_str(b, ",");
}

static void json_time(struct dr_buf *b, const char *key, int64_t ms)
{
    char t[DR_TIME_TEXT];
    dr_format_time(ms, t);
    if (ms)
        dr_buf_printf(b, "\"%s\":\"%s\",", key, t);
    else
        dr_buf_printf(b, "\"%s\":null,", key);
}

static void add_pin(struct dr_buf *b, const struct store_pin *pin)
{
    dr_buf_str(b, ",\"pin\":{");
    json_text(b, "actor", pin->actor);
    json_text(b, "reason", pin->reason);
    json_time(b, "until", pin->until_ms);
    json_time(b, "at", pin->at_ms);
    b->len--; /* the last comma */
    dr_buf_str(b, "}");
}

static void add_json(struct dr_buf *b, const struct store_entry *e, const struct shown *x)
{
    struct store_pin pin;
    char sha[65];
    dr_hex(e->manifest_sha256, 32, sha);
    dr_buf_str(b, "{");
    json_text(b, "backup_id", e->backup_id);
    json_text(b, "kind", e->kind);
    json_text(b, "class", e->class);
    json_text(b, "series", e->series);
    json_text(b, "job_id", e->job_id);
    json_text(b, "manifest_sha256", sha);
    json_time(b, "t_start", e->t_start_ms);
    json_time(b, "t_point", e->t_point_ms);
    json_time(b, "t_end", e->t_end_ms);
    json_time(b, "verified_at", e->verified_at_ms);
    json_time(b, "drilled_at", e->drilled_at_ms);
    json_time(b, "offsite_at", e->offsite_at_ms);
    json_time(b, "tombstoned_at", e->tombstoned_at_ms);
    json_time(b, "purge_after", e->tombstoned_at_ms ? e->tombstoned_at_ms + x->grace_ms : 0);
    dr_buf_printf(b,
                  "\"seq\":%" PRIu64 ",\"age_s\":%" PRId64 ",\"plain_bytes\":%" PRIu64
                  ",\"stored_bytes\":%" PRIu64 ",\"verified_ok\":%s,\"recorded\":%s,"
                  "\"keep\":[%s],\"damaged\":",
                  e->seq, (x->now_ms - e->t_point_ms) / 1000, e->plain_bytes, e->stored_bytes,
                  e->verified_ok ? "true" : "false", e->recorded ? "true" : "false",
                  e->pinned ? "\"pinned\"" : "");
    if (e->bad[0])
        dr_buf_json(b, e->bad, strlen(e->bad));
    else
        dr_buf_str(b, "null");
    if (e->pinned && store_pin_of(x->store, e->backup_id, &pin))
        add_pin(b, &pin);
    dr_buf_str(b, "}");
}

static void show_bytes(uint64_t n, char out[CELL])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)n;
    size_t u = 0;
    for (; v >= 1000 && u < 4; u++)
        v /= 1000;
    (void)snprintf(out, CELL, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

static void show_age(int64_t ms, char out[CELL])
{
    int64_t s = ms / 1000;
    if (s < 0)
        (void)snprintf(out, CELL, "in the future");
    else if (s < 120)
        (void)snprintf(out, CELL, "%d s", (int)s);
    else if (s < 7200)
        (void)snprintf(out, CELL, "%d min", (int)(s / 60));
    else if (s < 172800)
        (void)snprintf(out, CELL, "%d h", (int)(s / 3600));
    else
        (void)snprintf(out, CELL, "%" PRId64 " d", s / 86400);
}

static void show_time(int64_t ms, const char *none, char out[CELL])
{
    char t[DR_TIME_TEXT];
    dr_format_time(ms, t);
    if (ms)
        (void)snprintf(out, CELL, "%.10s %.5s", t, t + 11);
    else
        (void)snprintf(out, CELL, "%s", none);
}

static void show_keep(const struct store_entry *e, const struct shown *x, char out[KEEP_CELL])
{
    struct store_pin pin;
    char until[CELL] = "";
    if (e->tombstoned_at_ms) {
        show_time(e->tombstoned_at_ms + x->grace_ms, "?", until);
        (void)snprintf(out, KEEP_CELL, "given up, to be purged after %s", until);
    } else if (e->pinned && store_pin_of(x->store, e->backup_id, &pin)) {
        show_time(pin.until_ms, "", until);
        (void)snprintf(out, KEEP_CELL, "pinned%s%s: %s", until[0] ? " until " : "", until,
                       pin.reason);
    } else {
        (void)snprintf(out, KEEP_CELL, "%s", e->recorded ? "" : "unrecorded");
    }
}

static void fill_row(const struct store_entry *e, const struct shown *x, char row[COLUMNS][CELL])
{
    (void)snprintf(row[0], CELL, "%s", e->backup_id);
    (void)snprintf(row[1], CELL, "%s", e->kind);
    (void)snprintf(row[2], CELL, "%s", e->class[0] ? e->class : "?");
    show_time(e->t_point_ms, "?", row[3]);
    show_age(x->now_ms - e->t_point_ms, row[4]);
    show_bytes(e->plain_bytes, row[5]);
    show_bytes(e->stored_bytes, row[6]);
    show_time(e->verified_at_ms, "never", row[7]);
    if (e->bad[0])
        (void)snprintf(row[7], CELL, "DAMAGED: %s", e->bad);
    else if (e->verified_at_ms && !e->verified_ok)
        (void)snprintf(row[7], CELL, "FAILED");
    show_time(e->offsite_at_ms, "no", row[8]);
}

static void print_table(const struct store_entry *list, size_t count, const struct shown *x)
{
    static const char *const heads[COLUMNS] = {"ID",    "KIND",   "CLASS",    "TIME (UTC)", "AGE",
                                               "PLAIN", "STORED", "VERIFIED", "OFF-SITE",   "KEEP"};
    size_t width[COLUMNS];
    char row[COLUMNS][CELL], keep[KEEP_CELL];
    for (size_t c = 0; c < COLUMNS; c++)
        width[c] = strlen(heads[c]);
    for (size_t i = 0; i < count; i++) {
        fill_row(&list[i], x, row);
        for (size_t c = 0; c + 1 < COLUMNS; c++)
            if (strlen(row[c]) > width[c])
                width[c] = strlen(row[c]);
    }
    for (size_t c = 0; c + 1 < COLUMNS; c++)
        (void)printf("%-*s  ", (int)width[c], heads[c]);
    (void)printf("%s\n", heads[COLUMNS - 1]);
    for (size_t i = 0; i < count; i++) {
        fill_row(&list[i], x, row);
        show_keep(&list[i], x, keep);
        for (size_t c = 0; c + 1 < COLUMNS; c++)
            (void)printf("%-*s  ", (int)width[c], row[c]);
        (void)printf("%s\n", keep);
    }
}

static void print_json(const struct store_entry *list, size_t count, const struct shown *x)
{
    struct dr_buf b;
    dr_buf_init(&b, (count + 1) * ENTRY_JSON_MAX);
    dr_buf_str(&b, "[");
    for (size_t i = 0; i < count; i++) {
        dr_buf_str(&b, i ? ",\n " : "\n ");
        add_json(&b, &list[i], x);
    }
    dr_buf_str(&b, count ? "\n]\n" : "]\n");
    (void)fputs((const char *)b.data, stdout);
    dr_buf_fini(&b);
}

int cli_backups(const struct cli *c)
{
    struct cli words = *c;
    struct dr_config *config = NULL;
    struct store *store = NULL;
    struct store_entry *list = NULL;
    struct dr_err err = {0};
    size_t count = 0;
    int code = 0;
    if (backups_change(&words, &code))
        return code;
    if (!args_only(&words, "backups", 0))
        return 2;
    if (dr_config_load(c->config_file, &config, &err) ||
        store_open(config, STORE_READ, &store, &err) || store_list(store, &list, &count, &err)) {
        code = cli_fail(&err);
        goto out;
    }
    const struct shown x = {store, dr_wall_ms(),
                            dr_config_int(config, "RETENTION_GRACE_HOURS") * HOUR_MS};
    if (c->json)
        print_json(list, count, &x);
    else if (count)
        print_table(list, count, &x);
    else
        (void)printf("no backups in %s yet\n", store_path(store));
    if (fflush(stdout) != 0)
        code = 1;
out:
    free(list);
    store_close(store);
    dr_config_free(config);
    return code;
}
