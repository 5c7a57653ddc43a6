/* What open journals hold. */
#include "worker/recovery/held.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/backup/names.h"
#include "worker/recovery/journal.h"

static bool add(struct held *h, const char *id)
{
    if (!id || !names_is_backup_id(id))
        return false;
    h->ids = dr_xrealloc(h->ids, (h->count + 1) * sizeof *h->ids);
    (void)snprintf(h->ids[h->count++], sizeof *h->ids, "%s", id);
    return true;
}

static const char *text(const json_t *data, const char *key)
{
    return json_string_value(json_object_get(data, key));
}

/* Every backup that any record names. A run that has chosen none by now chooses when its message
 * comes again: nothing of its kind may vanish in between. */
static void read_one(const struct journal *j, struct held *h)
{
    bool chosen = false;
    for (size_t i = 0; i < journal_count(j); i++) {
        const json_t *data = journal_at(j, i)->data;
        chosen = add(h, text(data, "backup")) || chosen;
        (void)add(h, text(data, "emergency"));
    }
    const json_t *open = journal_last(j, "run-open", NULL);
    const char *procedure = text(open, "procedure");
    if (chosen || !open)
        return;
    bool database = procedure && strcmp(procedure, "database_recovery") == 0;
    bool files = procedure && strcmp(procedure, "file_system_recovery") == 0;
    h->database = h->database || !files;
    h->files = h->files || !database;
    h->all = h->all || !(database || files);
}

enum dr_rc held_read(int store_dirfd, struct held *out, struct dr_err *err)
{
    char **runs = NULL;
    memset(out, 0, sizeof *out);
    enum dr_rc rc = journal_list_open(store_dirfd, &runs, err);
    for (char **run = runs; !rc && run && *run; run++) {
        struct journal *j = NULL;
        struct dr_err why = {0};
        rc = journal_peek(store_dirfd, *run, &j, &why);
        if (!rc && !journal_is_closed(j))
            read_one(j, out);
        else if (rc == DR_E_NOT_FOUND) /* removed since */
            rc = DR_OK;
        else if (rc)
            rc = dr_fail(err, rc, "which backup an open recovery needs is not known: %s", why.msg);
        journal_free(j);
    }
    journal_list_free(runs);
    if (rc)
        held_free(out);
    return rc;
}

/* <time>-<kind>-<letters> */
static bool is_kind(const char *backup_id, const char *kind)
{
    const char *at = strchr(backup_id, '-');
    size_t len = strlen(kind);
    return at && strncmp(at + 1, kind, len) == 0 && at[1 + len] == '-';
}

bool held_names(const struct held *h, const char *backup_id)
{
    if (h->all)
        return true;
    if ((h->database && (is_kind(backup_id, "database") || is_kind(backup_id, "full"))) ||
        (h->files && (is_kind(backup_id, "files") || is_kind(backup_id, "full"))))
        return true;
    for (size_t i = 0; i < h->count; i++)
        if (strcmp(h->ids[i], backup_id) == 0)
            return true;
    return false;
}

void held_free(struct held *h)
{
    free(h->ids);
    memset(h, 0, sizeof *h);
}
