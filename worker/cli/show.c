/* Lists, printed. */
#include "worker/cli/show.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"

enum { CELL_MAX = 1024 };

static void add(struct show_table *t, const char *text)
{
    t->cells = dr_xrealloc(t->cells, (t->count + 1) * sizeof *t->cells);
    t->cells[t->count++] = dr_xstrdup(text);
}

void show_begin(struct show_table *t, const char *const *heads, unsigned columns)
{
    *t = (struct show_table){.columns = columns < SHOW_COLUMNS ? columns : SHOW_COLUMNS};
    for (unsigned c = 0; c < t->columns; c++)
        add(t, heads[c]);
}

void show_cell(struct show_table *t, const char *fmt, ...)
{
    char text[CELL_MAX];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    add(t, text);
}

void show_cell_time(struct show_table *t, int64_t ms, const char *none)
{
    char text[DR_TIME_TEXT];
    dr_format_time(ms, text);
    if (ms)
        show_cell(t, "%.10s %.5s", text, text + 11);
    else
        add(t, none);
}

void show_end(struct show_table *t)
{
    size_t width[SHOW_COLUMNS] = {0};
    for (size_t i = 0; i < t->count; i++) {
        size_t len = strlen(t->cells[i]), c = i % t->columns;
        if (len > width[c])
            width[c] = len;
    }
    for (size_t i = 0; i < t->count; i++) {
        size_t c = i % t->columns;
        if (c + 1 < t->columns)
            (void)printf("%-*s  ", (int)width[c], t->cells[i]);
        else
            (void)printf("%s\n", t->cells[i]);
        free(t->cells[i]);
    }
    free(t->cells);
    *t = (struct show_table){0};
}

void show_text(struct dr_buf *b, const char *key, const char *value)
{
    dr_buf_printf(b, "\"%s\":", key);
    dr_buf_json(b, value, strlen(value));
    dr_buf_str(b, ",");
}

void show_time(struct dr_buf *b, const char *key, int64_t ms)
{
    char t[DR_TIME_TEXT];
    dr_format_time(ms, t);
    if (ms)
        show_text(b, key, t);
    else
        dr_buf_printf(b, "\"%s\":null,", key);
}

void show_list(size_t count, size_t most, void (*one)(const void *arg, size_t i, struct dr_buf *b),
               const void *arg)
{
    struct dr_buf b;
    dr_buf_init(&b, (count + 1) * most);
    dr_buf_str(&b, "[");
    for (size_t i = 0; i < count; i++) {
        dr_buf_str(&b, i ? ",\n " : "\n ");
        one(arg, i, &b);
    }
    dr_buf_str(&b, count ? "\n]\n" : "]\n");
    (void)fputs((const char *)b.data, stdout);
    dr_buf_fini(&b);
}
