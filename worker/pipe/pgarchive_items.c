/* What the table of contents of a dump said, and what its data summed up to. Owns the items and
 * their names; both together stay below PGARCHIVE_MEMORY_MAX. */
#include "worker/pipe/pgarchive_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/pipe/copy_stmt.h"

enum { NAME_HEAD = 6 };

void pgarchive_items_init(struct items *t)
{
    memset(t, 0, sizeof *t);
    dr_buf_init(&t->names, PGARCHIVE_MEMORY_MAX);
}

void pgarchive_items_fini(struct items *t)
{
    free(t->list);
    free(t->by_id);
    free(t->tables);
    dr_buf_fini(&t->names);
    memset(t, 0, sizeof *t);
}

static bool is(const struct dr_buf *b, const char *text)
{
    return b->len == strlen(text) && memcmp(b->data, text, b->len) == 0;
}

static size_t memory(const struct items *t)
{
    return t->count * (sizeof *t->list + sizeof *t->by_id) + t->table_count * sizeof *t->tables +
           t->names.len;
}

static void put_u16(struct dr_buf *b, size_t v)
{
    unsigned char bytes[2];
    dr_put_u16be(bytes, (uint16_t)v);
    dr_buf_add(b, bytes, sizeof bytes);
}

static void put_names(struct items *t, const struct toc_entry *e, const struct pipe_bytes *columns,
                      unsigned count)
{
    put_u16(&t->names, e->schema.len);
    put_u16(&t->names, e->tag.len);
    put_u16(&t->names, count);
    for (unsigned i = 0; i < count; i++)
        put_u16(&t->names, columns[i].len);
    dr_buf_add(&t->names, e->schema.data, e->schema.len);
    dr_buf_add(&t->names, e->tag.data, e->tag.len);
    for (unsigned i = 0; i < count; i++)
        dr_buf_add(&t->names, columns[i].data, columns[i].len);
}

static bool is_name(const struct dr_buf *b, const struct pipe_bytes *name)
{
    return b->len == name->len && memcmp(b->data, name->data, b->len) == 0;
}

/* A statement that names another table loads a partition through its root, which may put rows into
 * other partitions: nothing can be said of this one then. */
static void put_table(struct items *t, struct item *i, const struct toc_entry *e)
{
    struct dr_buf text;
    struct pipe_bytes schema, table, *columns = NULL;
    unsigned count = 0;

    i->is_copy = e->has_copy;
    dr_buf_init(&text, PGARCHIVE_COPY_MAX);
    if (e->has_copy) {
        columns = dr_xarray(COLUMNS_MAX, sizeof *columns);
        i->columns_known = copy_stmt_parse((const char *)e->copy.data, e->copy.len, &text, &schema,
                                           &table, columns, COLUMNS_MAX, &count);
    }
    if (i->columns_known && (!is_name(&e->schema, &schema) || !is_name(&e->tag, &table)))
        i->is_copy = i->columns_known = false;
    for (unsigned k = 0; i->columns_known && k < count; k++)
        i->columns_known = columns[k].len <= UINT16_MAX;
    put_names(t, e, columns, i->columns_known ? count : 0);
    free(columns);
    dr_buf_fini(&text);
}

/* SELECT pg_catalog.setval('schema.name', -5, true); */
static const char *put_sequence(struct items *t, struct item *i, const struct toc_entry *e)
{
    static const char unknown[] = "the value of a sequence is written in a form not known here";
    char text[64], *comma;
    const char *p = (const char *)e->defn.data, *quote;
    size_t len = e->defn.len, left;
    int64_t last;

    if (len && p[len - 1] == '\n')
        len--;
    quote = len ? memrchr(p, '\'', len) : NULL;
    left = quote ? len - (size_t)(quote + 1 - p) : 0;
    if (!quote || !dr_starts(p, "SELECT pg_catalog.setval(") || left >= sizeof text || left < 4 ||
        memcmp(quote + 1, ", ", 2))
        return unknown;
    memcpy(text, quote + 3, left - 2);
    text[left - 2] = 0;
    comma = strstr(text, ", ");
    if (!comma)
        return unknown;
    *comma = 0;
    if (strcmp(comma + 2, "true);") && strcmp(comma + 2, "false);"))
        return unknown;
    i->called = comma[2] == 't';
    if (!dr_parse_i64(text, INT64_MIN, INT64_MAX, &last))
        return unknown;
    i->rows = (uint64_t)last;
    put_names(t, e, NULL, 0);
    return NULL;
}

static void remember_table(struct items *t, uint32_t dump_id)
{
    if (t->table_count == t->table_room) {
        t->table_room = t->table_room ? 2 * t->table_room : 256;
        t->tables = dr_xrealloc(t->tables, t->table_room * sizeof *t->tables);
    }
    t->tables[t->table_count++] = dump_id;
}

static enum item_kind kind_of(const struct toc_entry *e)
{
    if (is(&e->desc, "TABLE DATA"))
        return ITEM_TABLE;
    if (is(&e->desc, "MATERIALIZED VIEW DATA"))
        return ITEM_VIEW;
    if (is(&e->desc, "SEQUENCE SET"))
        return ITEM_SEQUENCE;
    return is(&e->desc, "BLOBS") ? ITEM_BLOBS : ITEM_OTHER;
}

const char *pgarchive_items_add(struct items *t, const struct toc_entry *e)
{
    struct item *i,
        item = {
            .kind = kind_of(e), .dump_id = e->dump_id, .entry_at = e->at, .has_data = e->has_data};
    const char *why = NULL;

    if (is(&e->desc, "TABLE") || is(&e->desc, "FOREIGN TABLE"))
        remember_table(t, e->dump_id);
    if (item.kind != ITEM_OTHER || item.has_data) {
        if (e->tag.len >= PGARCHIVE_NAME_KEEP || e->schema.len >= PGARCHIVE_NAME_KEEP)
            return "a name of 1,024 bytes or more";
        item.names = t->names.len;
        item.dep_count = e->dep_count;
        memcpy(item.deps, e->deps, sizeof item.deps);
        if (item.kind == ITEM_TABLE)
            put_table(t, &item, e);
        else if (item.kind == ITEM_SEQUENCE)
            why = put_sequence(t, &item, e);
        else
            put_names(t, e, NULL, 0);
        if (t->count == t->room) {
            t->room = t->room ? 2 * t->room : 64;
            t->list = dr_xrealloc(t->list, t->room * sizeof *t->list);
        }
        i = &t->list[t->count++];
        *i = item;
    }
    if (!why && (t->names.failed || memory(t) > PGARCHIVE_MEMORY_MAX))
        why = "more tables and names than this version keeps";
    return why;
}

static int by_id(const void *a, const void *b)
{
    uint32_t x = (*(struct item *const *)a)->dump_id, y = (*(struct item *const *)b)->dump_id;
    return (x > y) - (x < y);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

const char *pgarchive_items_seal(struct items *t)
{
    t->by_id = dr_xarray(t->count + 1, sizeof(struct item *));
    for (size_t i = 0; i < t->count; i++)
        t->by_id[i] = &t->list[i];
    qsort(t->by_id, t->count, sizeof(struct item *), by_id);
    for (size_t i = 1; i < t->count; i++)
        if (t->by_id[i]->dump_id == t->by_id[i - 1]->dump_id)
            return "two entries with one number";
    if (t->table_count)
        qsort(t->tables, t->table_count, sizeof *t->tables, by_number);
    for (size_t i = 0; i < t->count; i++)
        for (unsigned k = 0; k < t->list[i].dep_count && t->table_count; k++)
            if (bsearch(&t->list[i].deps[k], t->tables, t->table_count, sizeof *t->tables,
                        by_number))
                t->list[i].own = true;
    return NULL;
}

struct item *pgarchive_items_find(const struct items *t, uint32_t dump_id)
{
    struct item key = {.dump_id = dump_id}, *p = &key, **found;

    found = bsearch(&p, t->by_id, t->count, sizeof(struct item *), by_id);
    return found ? *found : NULL;
}

const struct item *pgarchive_items_missing(const struct items *t)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->list[i].has_data && !t->list[i].done)
            return &t->list[i];
    return NULL;
}

/* Schema, name, columns of an item; views into names. */
static unsigned names_of(const struct items *t, const struct item *i, struct pipe_bytes *schema,
                         struct pipe_bytes *name, struct pipe_bytes *columns)
{
    const unsigned char *head = t->names.data + i->names, *p;
    unsigned count = dr_get_u16be(head + 4);

    schema->len = dr_get_u16be(head);
    name->len = dr_get_u16be(head + 2);
    p = head + NAME_HEAD + 2 * (size_t)count;
    schema->data = p;
    name->data = p + schema->len;
    p = name->data + name->len;
    for (unsigned k = 0; columns && k < count; k++) {
        columns[k].len = dr_get_u16be(head + NAME_HEAD + 2 * (size_t)k);
        columns[k].data = p;
        p += columns[k].len;
    }
    return count;
}

void pgarchive_items_name(const struct items *t, const struct item *i, char *out, size_t size)
{
    struct pipe_bytes schema, name;

    names_of(t, i, &schema, &name, NULL);
    (void)snprintf(out, size, "%.*s.%.*s", (int)schema.len, (const char *)schema.data,
                   (int)name.len, (const char *)name.data);
    for (; *out; out++)
        if ((unsigned char)*out < ' ' || (unsigned char)*out > '~')
            *out = '?';
}

static enum dr_rc report_table(const struct items *t, const struct item *i,
                               struct pipe_bytes *columns, const struct pgarchive_events *on,
                               struct dr_err *err)
{
    struct pipe_table r = {.columns = columns};

    r.column_count = names_of(t, i, &r.schema, &r.name, columns);
    r.has_rows = i->kind == ITEM_TABLE && (i->is_copy || !i->has_data);
    r.rows = r.has_rows ? i->rows : 0;
    r.has_digest = r.has_rows && i->own && (i->columns_known || !i->has_data);
    if (r.has_digest)
        memcpy(r.digest, i->digest, sizeof r.digest);
    return on->table ? on->table(on->arg, &r, err) : DR_OK;
}

enum dr_rc pgarchive_items_report(const struct items *t, const struct pgarchive_events *on,
                                  struct pgarchive_sums *sums, struct dr_err *err)
{
    struct pipe_bytes *columns = dr_xarray(COLUMNS_MAX, sizeof *columns);
    enum dr_rc rc = DR_OK;

    for (size_t k = 0; k < t->count && !rc; k++) {
        const struct item *i = &t->list[k];
        if (i->kind == ITEM_TABLE || i->kind == ITEM_VIEW) {
            sums->tables++;
            sums->rows += i->kind == ITEM_TABLE ? i->rows : 0;
            rc = report_table(t, i, columns, on, err);
        } else if (i->kind == ITEM_SEQUENCE) {
            struct pipe_sequence q = {.last = (int64_t)i->rows, .called = i->called};
            names_of(t, i, &q.schema, &q.name, NULL);
            sums->sequences++;
            rc = on->sequence ? on->sequence(on->arg, &q, err) : DR_OK;
        }
    }
    free(columns);
    return rc;
}
