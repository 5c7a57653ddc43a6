/* What the backup says the restored database has to be: gathered from the index while it is
 * proven, and from the SQL of the dump's table of contents. Owner: struct db. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/mem.h"
#include "worker/core/pool.h"
#include "worker/core/proc.h"
#include "worker/recovery/db_internal.h"

enum {
    TABLES_MAX = 200000,
    COLUMNS_TEXT_MAX = 1 << 20,
    SCHEMA_SQL_MAX = 256 << 20,
    NAMES_MAX = 10000
};

static char *copy(struct pipe_bytes b)
{
    return dr_xstrndup(b.data ? (const char *)b.data : "", b.len);
}

static char *copy_or_null(struct pipe_bytes b)
{
    return b.data ? copy(b) : NULL;
}

static char *column_list(const struct pipe_table *t)
{
    struct dr_buf b;
    dr_buf_init(&b, COLUMNS_TEXT_MAX);
    for (unsigned i = 0; i < t->column_count; i++) {
        char *name = copy(t->columns[i]), *quoted = pg_quote_ident(name);
        dr_buf_str(&b, i ? ", " : "(");
        dr_buf_str(&b, quoted);
        free(quoted);
        free(name);
    }
    if (t->column_count)
        dr_buf_str(&b, ")");
    char *text = b.failed ? NULL : dr_buf_take(&b);
    dr_buf_fini(&b);
    return text ? text : dr_xstrdup("");
}

static enum dr_rc add_table(struct db_expected *e, const struct pipe_table *t, struct dr_err *err)
{
    if (e->table_count == TABLES_MAX)
        return dr_fail(err, DR_E_TOO_BIG, "over %d tables", (int)TABLES_MAX);
    if (e->table_count == e->table_cap) {
        e->table_cap = e->table_cap ? e->table_cap * 2 : 64;
        e->tables = dr_xrealloc(e->tables, e->table_cap * sizeof *e->tables);
    }
    struct db_table *to = &e->tables[e->table_count++];
    *to = (struct db_table){.schema = copy(t->schema),
                            .name = copy(t->name),
                            .columns = column_list(t),
                            .has_rows = t->has_rows,
                            .has_digest = t->has_digest,
                            .rows = t->rows};
    memcpy(to->digest, t->digest, sizeof to->digest);
    return DR_OK;
}

static enum dr_rc add_sequence(struct db_expected *e, const struct pipe_sequence *q,
                               struct dr_err *err)
{
    if (e->sequence_count == TABLES_MAX)
        return dr_fail(err, DR_E_TOO_BIG, "over %d sequences", (int)TABLES_MAX);
    if (e->sequence_count == e->sequence_cap) {
        e->sequence_cap = e->sequence_cap ? e->sequence_cap * 2 : 64;
        e->sequences = dr_xrealloc(e->sequences, e->sequence_cap * sizeof *e->sequences);
    }
    e->sequences[e->sequence_count++] = (struct db_sequence){
        .schema = copy(q->schema), .name = copy(q->name), .last = q->last, .called = q->called};
    return DR_OK;
}

static void set_properties(struct db_expected *e, const struct index_properties *p)
{
    if (e->has_properties)
        return;
    e->has_properties = true;
    e->owner = copy_or_null(p->owner);
    e->tablespace = copy_or_null(p->tablespace);
    e->encoding = copy_or_null(p->encoding);
    e->provider = copy_or_null(p->provider);
    e->collate = copy_or_null(p->collate);
    e->ctype = copy_or_null(p->ctype);
    e->locale = copy_or_null(p->locale);
    e->comment = copy_or_null(p->comment);
    e->lc_monetary = copy_or_null(p->lc_monetary);
    e->connlimit = p->connlimit;
    e->has_acl = p->has_acl;
    e->acl = dr_xarray(p->acl_count + 1, sizeof *e->acl);
    for (unsigned i = 0; i < p->acl_count; i++)
        e->acl[e->acl_count++] = copy(p->acl[i]);
    e->settings = dr_xarray(p->setting_count + 1, sizeof *e->settings);
    for (unsigned i = 0; i < p->setting_count; i++)
        e->settings[e->setting_count++] = (struct db_setting){.role = copy(p->settings[i].role),
                                                              .value = copy(p->settings[i].value)};
}

enum dr_rc db_expect_record(void *arg, const char *object, const struct index_record *rec,
                            struct dr_err *err)
{
    struct db_expected *e = &((struct db *)arg)->expected;
    (void)object;
    switch (rec->type) {
    case INDEX_TABLE:
        return add_table(e, &rec->table, err);
    case INDEX_SEQUENCE:
        return add_sequence(e, &rec->sequence, err);
    case INDEX_BLOBS:
        e->has_blobs = true;
        e->blob_count = rec->blobs.count;
        e->blob_bytes = rec->blobs.bytes;
        e->blobs_digest = rec->blobs.has_digest;
        memcpy(e->blob_digest, rec->blobs.digest, sizeof e->blob_digest);
        return DR_OK;
    case INDEX_PROPERTIES:
        set_properties(e, &rec->properties);
        return DR_OK;
    default:
        return DR_OK;
    }
}

/* ---- roles and extensions of the dump ---- */

static void add_name(char ***list, size_t *count, size_t *cap, char *name)
{
    for (size_t i = 0; i < *count; i++)
        if (strcmp((*list)[i], name) == 0) {
            free(name);
            return;
        }
    if (*count >= NAMES_MAX) {
        free(name);
        return;
    }
    if (*count == *cap) {
        *cap = *cap ? *cap * 2 : 16;
        *list = dr_xrealloc(*list, *cap * sizeof **list);
    }
    (*list)[(*count)++] = name;
}

static void add_role(struct db_names *n, char *name)
{
    if (!name[0] || strcmp(name, "-") == 0 || strcmp(name, "PUBLIC") == 0) {
        free(name);
        return;
    }
    add_name(&n->roles, &n->role_count, &n->role_cap, name);
}

/* An identifier as pg_dump writes it: bare, or in quotes with "" for a quote. */
static char *read_ident(const char *p)
{
    struct dr_buf b;
    dr_buf_init(&b, 256);
    if (*p == '"') {
        for (p++; *p && !(*p == '"' && p[1] != '"'); p++) {
            if (*p == '"')
                p++;
            dr_buf_add(&b, p, 1);
        }
    } else {
        dr_buf_add(&b, p, strcspn(p, " ;,\n"));
    }
    char *name = b.len && !b.failed ? dr_buf_take(&b) : dr_xstrdup("");
    dr_buf_fini(&b);
    return name;
}

static void role_after(struct db_names *n, const char *line, const char *word)
{
    const char *at = NULL;
    for (const char *p = strstr(line, word); p; p = strstr(p + 1, word))
        at = p; /* the last: object names stand before it */
    if (at)
        add_role(n, read_ident(at + strlen(word)));
}

/* `-- Name: x; Type: T; Schema: s; Owner: o`, as pg_restore heads every entry of its SQL. */
static bool read_head(struct db_names *n, const char *line, char type[64])
{
    const char *kind = strstr(line, "; Type: "), *owner = strstr(line, "; Owner: ");
    if (strncmp(line, "-- Name: ", 9) != 0 || !kind || !owner)
        return false;
    size_t len = strcspn(kind + 8, ";");
    (void)snprintf(type, 64, "%.*s", (int)(len < 63 ? len : 63), kind + 8);
    const char *end = strstr(owner + 9, "; Tablespace: ");
    add_role(n, end ? dr_xstrndup(owner + 9, (size_t)(end - owner - 9)) : dr_xstrdup(owner + 9));
    if (strcmp(type, "EXTENSION") == 0)
        add_name(&n->extensions, &n->extension_count, &n->extension_cap,
                 dr_xstrndup(line + 9, (size_t)(kind - line - 9)));
    return true;
}

void db_expect_sql(struct db_names *n, char *sql)
{
    char type[64] = "", *save = NULL;
    for (char *line = strtok_r(sql, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        size_t len = strlen(line);
        if (read_head(n, line, type))
            continue;
        if (strstr(type, "CONSTRAINT") && len > 11 && strcmp(line + len - 11, " NOT VALID;") == 0)
            n->not_valid++;
        if (!strstr(type, "ACL"))
            continue;
        if (strncmp(line, "GRANT ", 6) == 0 || strncmp(line, "ALTER DEFAULT PRIVILEGES ", 25) == 0)
            role_after(n, line, " TO ");
        if (strncmp(line, "REVOKE ", 7) == 0 || strncmp(line, "ALTER DEFAULT PRIVILEGES ", 25) == 0)
            role_after(n, line, " FROM ");
        if (strncmp(line, "ALTER DEFAULT PRIVILEGES FOR ROLE ", 34) == 0)
            add_role(n, read_ident(line + 34));
    }
}

struct feeding {
    struct backup_handle *backup;
    int fd;
};

/* Until pg_restore has what it wants: the table of contents lies in front. */
static enum dr_rc feed(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct feeding *f = item;
    struct object_reader *reader = NULL;
    const struct prove_options o = {.cancel = cancel};
    const void *bytes;
    size_t len = 1;
    enum dr_rc rc = object_reader_open(f->backup, "database", &o, &reader, err);
    while (!rc && len > 0) {
        rc = object_reader_read(reader, &bytes, &len, err);
        for (size_t sent = 0; !rc && sent < len;) {
            ssize_t n = write(f->fd, (const char *)bytes + sent, len - sent);
            if (n < 0) {
                len = 0; /* it reads no more */
                break;
            }
            sent += (size_t)n;
        }
    }
    object_reader_close(reader);
    (void)close(f->fd);
    return rc;
}

enum dr_rc db_expect_names(struct recovery *r, struct dr_err *err)
{
    struct db *d = db_of(r);
    char tool[4096];
    unsigned major = (unsigned)pg_server_version(d->lock) / 10000;
    struct proc *child = NULL;
    struct proc_result result = {0};
    if (pg_tool_path(r->env->loop, recovery_cancel(r), dr_config_str(r->env->config, "PG_BIN_DIR"),
                     major, "pg_restore", tool, err))
        return err->rc;
    const char *const argv[] = {tool, "--schema-only", "--file=-", NULL};
    const struct proc_spec spec = {.argv = argv,
                                   .pipe_stdin = true,
                                   .capture_max_bytes = SCHEMA_SQL_MAX,
                                   .deadline_ms = 600000,
                                   .name = "pg_restore --schema-only"};
    if (proc_start(r->env->loop, &spec, &child, err))
        return err->rc;
    struct feeding f = {.backup = r->backup, .fd = proc_take_stdin(child)};
    struct dr_err read_err = {0};
    enum dr_rc fed = pool_run_long(r->env->pool, feed, &f, recovery_cancel(r), &read_err);
    if (fed)
        proc_stop(child);
    enum dr_rc rc = proc_wait(child, recovery_cancel(r), &result, err);
    if (fed) {
        *err = read_err;
        rc = fed;
    }
    if (!rc && result.out.data)
        db_expect_sql(&d->names, (char *)result.out.data);
    dr_buf_fini(&result.out);
    return rc;
}

void db_expect_fini(struct db *d)
{
    struct db_expected *e = &d->expected;
    for (size_t i = 0; i < e->table_count; i++) {
        free(e->tables[i].schema);
        free(e->tables[i].name);
        free(e->tables[i].columns);
    }
    for (size_t i = 0; i < e->sequence_count; i++) {
        free(e->sequences[i].schema);
        free(e->sequences[i].name);
    }
    for (unsigned i = 0; i < e->acl_count; i++)
        free(e->acl[i]);
    for (unsigned i = 0; i < e->setting_count; i++) {
        free(e->settings[i].role);
        free(e->settings[i].value);
    }
    char *texts[] = {e->owner, e->tablespace, e->encoding, e->provider,   e->collate,
                     e->ctype, e->locale,     e->comment,  e->lc_monetary};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    free(e->tables);
    free(e->sequences);
    free(e->acl);
    free(e->settings);
    for (size_t i = 0; i < d->names.role_count; i++)
        free(d->names.roles[i]);
    for (size_t i = 0; i < d->names.extension_count; i++)
        free(d->names.extensions[i]);
    free(d->names.roles);
    free(d->names.extensions);
}
