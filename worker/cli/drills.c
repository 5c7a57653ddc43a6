/* drworker drills: the series of drills as the signed catalog has it, newest first, and whether the
 * evidence of each still is what was written. Reads only. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/backup/store.h"
#include "worker/cli/cli.h"
#include "worker/recovery/drill.h"

enum { LINE_JSON_MAX = 2048 };

static void json_text(struct dr_buf *b, const char *key, const char *value)
{
    dr_buf_printf(b, "\"%s\":", key);
    dr_buf_json(b, value, strlen(value));
    dr_buf_str(b, ",");
}

static void json_number(struct dr_buf *b, const char *key, int64_t value)
{
    if (value < 0)
        dr_buf_printf(b, "\"%s\":null,", key);
    else
        dr_buf_printf(b, "\"%s\":%" PRId64 ",", key, value);
}

static void add_json(struct dr_buf *b, const struct drill_line *l)
{
    char t[DR_TIME_TEXT];
    dr_format_time(l->at_ms, t);
    dr_buf_str(b, "{");
    json_text(b, "at", t);
    json_text(b, "level", l->level);
    json_text(b, "procedure_id", l->procedure);
    json_text(b, "backup_id", l->backup_id);
    json_text(b, "chosen_by", l->chosen_by);
    json_text(b, "run", l->run);
    json_number(b, "rto_ms", l->rto_ms);
    json_number(b, "rto_target_ms", l->rto_target_ms);
    json_number(b, "rpo_s", l->rpo_s);
    json_number(b, "rpo_target_s", l->rpo_target_s);
    json_text(b, "file", l->file);
    json_text(b, "sha256", l->sha256);
    json_text(b, "evidence", l->evidence);
    dr_buf_printf(b, "\"late\":%s,\"ok\":%s}",
                  l->ok && (l->rto_late || l->rpo_late) ? "true" : "false",
                  l->ok ? "true" : "false");
}

static void print_json(const struct drill_line *list, size_t count)
{
    struct dr_buf b;
    dr_buf_init(&b, (count + 1) * LINE_JSON_MAX);
    dr_buf_str(&b, "[");
    for (size_t i = 0; i < count; i++) {
        dr_buf_str(&b, i ? ",\n " : "\n ");
        add_json(&b, &list[i]);
    }
    dr_buf_str(&b, count ? "\n]\n" : "]\n");
    (void)fputs((const char *)b.data, stdout);
    dr_buf_fini(&b);
}

/* "12.3 of 1800 s"; "- of 1800 s" where nothing was measured. */
static void show(char out[48], int64_t value, int64_t target, double unit)
{
    if (value < 0)
        (void)snprintf(out, 48, "- of %.0f s", (double)target / unit);
    else
        (void)snprintf(out, 48, "%.1f of %.0f s", (double)value / unit, (double)target / unit);
}

static void print_table(const struct drill_line *list, size_t count)
{
    (void)printf("%-16s  %-8s  %-20s  %-42s  %-8s  %-6s  %-18s  %-20s  %s\n", "TIME (UTC)", "LEVEL",
                 "PROCEDURE", "BACKUP", "BY", "OK", "RTO", "RPO", "EVIDENCE");
    for (size_t i = 0; i < count; i++) {
        const struct drill_line *l = &list[i];
        char t[DR_TIME_TEXT], rto[48], rpo[48];
        dr_format_time(l->at_ms, t);
        show(rto, l->rto_ms, l->rto_target_ms, 1000);
        show(rpo, l->rpo_s, l->rpo_target_s, 1);
        (void)printf("%.10s %.5s  %-8s  %-20s  %-42s  %-8s  %-6s  %-18s  %-20s  %s\n", t, t + 11,
                     l->level, l->procedure, l->backup_id[0] ? l->backup_id : "-", l->chosen_by,
                     !l->ok                       ? "FAILED"
                     : l->rto_late || l->rpo_late ? "late"
                                                  : "yes",
                     rto, rpo, l->evidence);
    }
}

int cli_drills(const struct cli *c)
{
    struct dr_config *config = NULL;
    struct store *store = NULL;
    struct drill_line *list = NULL;
    struct dr_err err = {0};
    size_t count = 0;
    int code = 0;
    if (dr_config_load(c->config_file, &config, &err) ||
        store_open(config, STORE_READ, &store, &err) ||
        drill_history(store, true, &list, &count, &err)) {
        code = cli_fail(&err);
        goto out;
    }
    if (c->json)
        print_json(list, count);
    else if (count)
        print_table(list, count);
    else
        (void)printf("no drills in %s yet\n", store_path(store));
    if (fflush(stdout) != 0)
        code = 1;
out:
    free(list);
    store_close(store);
    dr_config_free(config);
    return code;
}
