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
#include "worker/cli/show.h"

enum { ENTRY_JSON_MAX = 4096, HOUR_MS = 3600000 };

struct shown {
    struct store *store;
    const struct store_entry *list;
    int64_t now_ms, grace_ms;
};

static void add_pin(struct dr_buf *b, const struct store_pin *pin)
{
    dr_buf_str(b, ",\"pin\":{");
    show_text(b, "actor", pin->actor);
    show_text(b, "reason", pin->reason);
    show_time(b, "until", pin->until_ms);
    show_time(b, "at", pin->at_ms);
    b->len--; /* the last comma */
    dr_buf_str(b, "}");
}

static void add_json(const void *arg, size_t i, struct dr_buf *b)
{
    const struct shown *x = arg;
    const struct store_entry *e = &x->list[i];
    struct store_pin pin;
    char sha[65];
    dr_hex(e->manifest_sha256, 32, sha);
    dr_buf_str(b, "{");
    show_text(b, "backup_id", e->backup_id);
    show_text(b, "kind", e->kind);
    show_text(b, "class", e->class);
    show_text(b, "series", e->series);
    show_text(b, "job_id", e->job_id);
    show_text(b, "manifest_sha256", sha);
    show_time(b, "t_start", e->t_start_ms);
    show_time(b, "t_point", e->t_point_ms);
    show_time(b, "t_end", e->t_end_ms);
    show_time(b, "verified_at", e->verified_at_ms);
    show_time(b, "drilled_at", e->drilled_at_ms);
    show_time(b, "offsite_at", e->offsite_at_ms);
    show_time(b, "tombstoned_at", e->tombstoned_at_ms);
    show_time(b, "purge_after", e->tombstoned_at_ms ? e->tombstoned_at_ms + x->grace_ms : 0);
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

static void cell_bytes(struct show_table *t, uint64_t n)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)n;
    size_t u = 0;
    for (; v >= 1000 && u < 4; u++)
        v /= 1000;
    show_cell(t, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

static void cell_age(struct show_table *t, int64_t ms)
{
    int64_t s = ms / 1000;
    if (s < 0)
        show_cell(t, "in the future");
    else if (s < 120)
        show_cell(t, "%d s", (int)s);
    else if (s < 7200)
        show_cell(t, "%d min", (int)(s / 60));
    else if (s < 172800)
        show_cell(t, "%d h", (int)(s / 3600));
    else
        show_cell(t, "%" PRId64 " d", s / 86400);
}

static void cell_verified(struct show_table *t, const struct store_entry *e)
{
    if (e->bad[0])
        show_cell(t, "DAMAGED: %.60s", e->bad);
    else if (e->verified_at_ms && !e->verified_ok)
        show_cell(t, "FAILED");
    else
        show_cell_time(t, e->verified_at_ms, "never");
}

static void cell_keep(struct show_table *t, const struct store_entry *e, const struct shown *x)
{
    struct store_pin pin;
    char at[DR_TIME_TEXT];
    if (e->tombstoned_at_ms) {
        dr_format_time(e->tombstoned_at_ms + x->grace_ms, at);
        show_cell(t, "given up, to be purged after %.10s %.5s", at, at + 11);
    } else if (e->pinned && store_pin_of(x->store, e->backup_id, &pin)) {
        dr_format_time(pin.until_ms, at);
        if (pin.until_ms)
            show_cell(t, "pinned until %.10s %.5s: %s", at, at + 11, pin.reason);
        else
            show_cell(t, "pinned: %s", pin.reason);
    } else {
        show_cell(t, "%s", e->recorded ? "" : "unrecorded");
    }
}

static void print_table(const struct shown *x, size_t count)
{
    static const char *const heads[] = {"ID",    "KIND",   "CLASS",    "TIME (UTC)", "AGE",
                                        "PLAIN", "STORED", "VERIFIED", "OFF-SITE",   "KEEP"};
    struct show_table t;
    show_begin(&t, heads, sizeof heads / sizeof heads[0]);
    for (size_t i = 0; i < count; i++) {
        const struct store_entry *e = &x->list[i];
        show_cell(&t, "%s", e->backup_id);
        show_cell(&t, "%s", e->kind);
        show_cell(&t, "%s", e->class[0] ? e->class : "?");
        show_cell_time(&t, e->t_point_ms, "?");
        cell_age(&t, x->now_ms - e->t_point_ms);
        cell_bytes(&t, e->plain_bytes);
        cell_bytes(&t, e->stored_bytes);
        cell_verified(&t, e);
        show_cell_time(&t, e->offsite_at_ms, "no");
        cell_keep(&t, e, x);
    }
    show_end(&t);
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
    const struct shown x = {store, list, dr_wall_ms(),
                            dr_config_int(config, "RETENTION_GRACE_HOURS") * HOUR_MS};
    if (c->json)
        show_list(count, ENTRY_JSON_MAX, add_json, &x);
    else if (count)
        print_table(&x, count);
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
