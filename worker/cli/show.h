/* Lists as commands print them: a table for people, an array of objects for programs. */
#ifndef DR_WORKER_CLI_SHOW_H
#define DR_WORKER_CLI_SHOW_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

enum { SHOW_COLUMNS = 12 };

/* Cells in the order of reading; a column is as wide as its widest cell. */
struct show_table {
    unsigned columns;
    size_t count;
    char **cells; /* owned */
};
void show_begin(struct show_table *t, const char *const *heads, unsigned columns);
void show_cell(struct show_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "2026-01-02 03:04"; 0: none. */
void show_cell_time(struct show_table *t, int64_t ms, const char *none);
void show_end(struct show_table *t); /* prints it and frees the cells */

/* Members of an object, each with its comma; a time of 0 is null. */
void show_text(struct dr_buf *b, const char *key, const char *value);
void show_time(struct dr_buf *b, const char *key, int64_t ms);
/* one(arg, i, b) appends the i-th object, at most most bytes. */
void show_list(size_t count, size_t most, void (*one)(const void *arg, size_t i, struct dr_buf *b),
               const void *arg);

#endif
