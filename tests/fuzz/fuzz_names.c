/* fuzz: drpipe. Globs, COPY statements and mountinfo of any bytes; a statement that was read is
 * written so that it reads the same again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "worker/pipe/copy_stmt.h"
#include "worker/pipe/exclude.h"
#include "worker/pipe/mounts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { COLUMNS = 20 };

static void same(const struct pipe_bytes *a, const struct pipe_bytes *b)
{
    if (a->len != b->len || memcmp(a->data, b->data, a->len))
        abort();
}

static void quoted(struct dr_buf *out, const char *before, const struct pipe_bytes *name)
{
    dr_buf_str(out, before);
    dr_buf_str(out, "\"");
    for (size_t i = 0; i < name->len; i++) {
        if (name->data[i] == '"')
            dr_buf_str(out, "\"");
        dr_buf_add(out, name->data + i, 1);
    }
    dr_buf_str(out, "\"");
}

static void statement(const char *text, size_t len)
{
    struct pipe_bytes schema, table, columns[COLUMNS], schema2, table2, columns2[COLUMNS];
    struct dr_buf names, names2, out;
    unsigned count, count2;

    dr_buf_init(&names, 1 << 16);
    dr_buf_init(&names2, 1 << 16);
    dr_buf_init(&out, 1 << 18);
    if (copy_stmt_parse(text, len, &names, &schema, &table, columns, COLUMNS, &count)) {
        quoted(&out, "COPY ", &schema);
        quoted(&out, ".", &table);
        for (unsigned i = 0; i < count; i++)
            quoted(&out, i ? ", " : " (", &columns[i]);
        dr_buf_str(&out, count ? ") FROM stdin;" : "  FROM stdin;");
        if (!copy_stmt_parse((const char *)out.data, out.len, &names2, &schema2, &table2, columns2,
                             COLUMNS, &count2) ||
            count2 != count)
            abort();
        same(&schema, &schema2);
        same(&table, &table2);
        for (unsigned i = 0; i < count; i++)
            same(&columns[i], &columns2[i]);
    }
    dr_buf_fini(&names);
    dr_buf_fini(&names2);
    dr_buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *path;
    const char *globs[2] = {text, NULL};
    struct mounts *m = NULL;
    struct dr_err err = {0};

    if (!text || size > 4096) {
        free(text);
        return 0;
    }
    memcpy(text, data, size);
    text[size] = 0;
    statement(text, size);
    if (mounts_parse(text, size, &m, &err) == DR_OK)
        for (size_t i = 0; mounts_below(m, "/", i); i++)
            if (!mounts_has(m, mounts_below(m, "/", i)))
                abort();
    mounts_free(m);
    path = strchr(text, '\n'); /* glob, newline, path */
    if (path && path - text < 64) {
        *path++ = 0;
        (void)exclude_match(globs, path);
        (void)exclude_covers(globs, "", path);
    }
    free(text);
    return 0;
}
