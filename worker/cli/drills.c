/* drworker drills: the series of drills as the signed catalog has it, newest first, and whether the
 * evidence of each still is what was written. Reads only. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/backup/store.h"
#include "worker/cli/cli.h"
#include "worker/cli/show.h"
#include "worker/recovery/drill.h"

enum { LINE_JSON_MAX = 2048 };

static void json_number(struct dr_buf *b, const char *key, int64_t value)
{
    if (value < 0)
        dr_buf_printf(b, "\"%s\":null,", key);
    else
        dr_buf_printf(b, "\"%s\":%" PRId64 ",", key, value);
}

static void add_json(const void *list, size_t i, struct dr_buf *b)
{
    const struct drill_line *l = (const struct drill_line *)list + i;
    dr_buf_str(b, "{");
    show_time(b, "at", l->at_ms);
    show_text(b, "level", l->level);
    show_text(b, "procedure_id", l->procedure);
    show_text(b, "backup_id", l->backup_id);
    show_text(b, "chosen_by", l->chosen_by);
    show_text(b, "run", l->run);
    json_number(b, "rto_ms", l->rto_ms);
    json_number(b, "rto_target_ms", l->rto_target_ms);
    json_number(b, "rpo_s", l->rpo_s);
    json_number(b, "rpo_target_s", l->rpo_target_s);
    show_text(b, "file", l->file);
    show_text(b, "sha256", l->sha256);
    show_text(b, "evidence", l->evidence);
    dr_buf_printf(b, "\"late\":%s,\"ok\":%s}",
                  l->ok && (l->rto_late || l->rpo_late) ? "true" : "false",
                  l->ok ? "true" : "false");
}

/* "12.3 of 1800 s"; "- of 1800 s" where nothing was measured. */
static void cell_of(struct show_table *t, int64_t value, int64_t target, double unit)
{
    if (value < 0)
        show_cell(t, "- of %.0f s", (double)target / unit);
    else
        show_cell(t, "%.1f of %.0f s", (double)value / unit, (double)target / unit);
}

static void print_table(const struct drill_line *list, size_t count)
{
    static const char *const heads[] = {"TIME (UTC)", "LEVEL", "PROCEDURE", "BACKUP",  "BY",
                                        "OK",         "RTO",   "RPO",       "EVIDENCE"};
    struct show_table t;
    show_begin(&t, heads, sizeof heads / sizeof heads[0]);
    for (size_t i = 0; i < count; i++) {
        const struct drill_line *l = &list[i];
        show_cell_time(&t, l->at_ms, "?");
        show_cell(&t, "%s", l->level);
        show_cell(&t, "%s", l->procedure);
        show_cell(&t, "%s", l->backup_id[0] ? l->backup_id : "-");
        show_cell(&t, "%s", l->chosen_by);
        show_cell(&t, "%s", !l->ok ? "FAILED" : l->rto_late || l->rpo_late ? "late" : "yes");
        cell_of(&t, l->rto_ms, l->rto_target_ms, 1000);
        cell_of(&t, l->rpo_s, l->rpo_target_s, 1);
        show_cell(&t, "%s", l->evidence);
    }
    show_end(&t);
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
        show_list(count, LINE_JSON_MAX, add_json, list);
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
