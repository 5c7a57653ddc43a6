/* drworker leftovers: what recoveries keep beside live, where, until when. Reads journals only. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/str.h"
#include "worker/backup/store.h"
#include "worker/cli/cli.h"
#include "worker/recovery/cleanup.h"

enum { HOUR_MS = 3600000, JSON_MAX = 64 << 20 };

static bool is_over(const struct cleanup_item *item, int64_t now_ms)
{
    return item->until_ms && item->until_ms <= now_ms;
}

static void print_json(const struct cleanup_list *list, int64_t now_ms)
{
    struct dr_buf b;
    dr_buf_init(&b, JSON_MAX);
    dr_buf_str(&b, "[");
    for (size_t i = 0; i < list->count; i++) {
        const struct cleanup_item *item = &list->items[i];
        const char *const texts[][2] = {
            {"what", item->what}, {"where", item->where}, {"run", item->run}, {"why", item->why}};
        char until[DR_TIME_TEXT];
        dr_format_time(item->until_ms, until);
        dr_buf_str(&b, i ? ",\n {" : "\n {");
        for (size_t k = 0; k < 4; k++) {
            dr_buf_printf(&b, "\"%s\":", texts[k][0]);
            dr_buf_json(&b, texts[k][1], strlen(texts[k][1]));
            dr_buf_str(&b, ",");
        }
        if (item->until_ms)
            dr_buf_printf(&b, "\"until\":\"%s\",", until);
        else
            dr_buf_str(&b, "\"until\":null,");
        dr_buf_printf(&b, "\"over\":%s}", is_over(item, now_ms) ? "true" : "false");
    }
    dr_buf_str(&b, list->count ? "\n]\n" : "]\n");
    (void)fputs(b.failed ? "null\n" : (const char *)b.data, stdout);
    dr_buf_fini(&b);
}

static void print_table(const struct cleanup_list *list, int64_t now_ms)
{
    if (list->count == 0)
        (void)printf("recoveries keep nothing\n");
    for (size_t i = 0; i < list->count; i++) {
        const struct cleanup_item *item = &list->items[i];
        char until[DR_TIME_TEXT];
        dr_format_time(item->until_ms, until);
        (void)printf("%s (%s)\n  run %s, ", item->what, item->where, item->run);
        if (!item->until_ms)
            (void)printf("no expiry: log-cleanup leaves it\n");
        else
            (void)printf("until %s%s\n", until,
                         is_over(item, now_ms) ? ": the next log-cleanup drops it" : "");
        if (item->why[0])
            (void)printf("  %s\n", item->why);
    }
}

int cli_leftovers(const struct cli *c)
{
    struct dr_config *config = NULL;
    struct store *store = NULL;
    struct dr_err err = {0};
    struct cleanup_report report = {0};
    if (!dr_config_load(c->config_file, &config, &err) &&
        !store_open(config, STORE_READ, &store, &err) &&
        !cleanup_look(store_dirfd(store),
                      dr_config_int(config, "RECOVERY_KEEP_OLD_HOURS") * HOUR_MS, &report, &err)) {
        if (c->json)
            print_json(&report.kept, dr_wall_ms());
        else
            print_table(&report.kept, dr_wall_ms());
        if (fflush(stdout) != 0)
            (void)dr_fail(&err, DR_E_IO, "standard output");
    }
    cleanup_report_fini(&report);
    store_close(store);
    dr_config_free(config);
    return err.rc ? cli_fail(&err) : 0;
}
