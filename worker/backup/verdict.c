/* See verdict.h. */
#include "worker/backup/verdict.h"

#include <errno.h>
#include <string.h>

#include "common/buf.h"
#include "worker/backup/disk.h"
#include "worker/backup/names.h"
#include "worker/backup/store.h"
#include "worker/backup/trash.h"

enum { RECORD_MAX = 1024 };

/* Errors of this process or of the whole machine, not of what was read. */
static bool is_of_the_host(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOLCK ||
           error == EAGAIN;
}

static enum dr_rc count_backup(void *arg, const char *name, struct dr_err *err)
{
    (void)err;
    *(size_t *)arg += names_is_backup_id(name);
    return DR_OK;
}

enum dr_rc verdict_store_answers(struct store *s, bool lone, struct dr_err *err)
{
    struct catalog_head head;
    size_t there = 0;
    if (store_head_now(s, &head, err))
        return dr_wrap(err, "catalog");
    if (disk_each(store_dirfd(s), "backups", count_backup, &there, err))
        return err->rc;
    return there || lone ? DR_OK
                         : dr_fail(err, DR_E_IO, "backups/ is empty: is its volume mounted?");
}

static bool is_absent(const struct dr_err *found)
{
    return found->rc == DR_E_NOT_FOUND || found->rc == DR_E_LOCKED ||
           strcmp(found->reason, "missing-file") == 0;
}

enum verdict verdict_of(struct store *s, const char *backup_id, bool lone, struct dr_err *found)
{
    struct dr_err why = {0};
    bool gone = false;
    if (is_absent(found) && store_given_up(s, backup_id, &gone, &why))
        goto none;
    if (gone)
        return VERDICT_GONE;
    if (found->rc == DR_E_INTEGRITY || found->rc == DR_E_KEY)
        return VERDICT_BAD;
    if (found->rc != DR_E_NOT_FOUND && (found->rc != DR_E_IO || is_of_the_host(found->detail)))
        return VERDICT_NONE;
    if (verdict_store_answers(s, lone, &why))
        goto none;
    (void)dr_err_reason(found, found->rc == DR_E_NOT_FOUND ? "missing-file" : "io");
    found->rc = DR_E_INTEGRITY;
    return VERDICT_BAD;
none:
    *found = why;
    return VERDICT_NONE;
}

const char *verdict_object(const char *backup_id, const struct prove_sums *sums)
{
    return sums->bad[0] ? sums->bad : backup_id;
}

enum dr_rc verdict_record(struct store *s, const struct verdict_record *v, struct dr_err *err)
{
    struct dr_buf b;
    enum dr_rc found = v->found->rc;
    dr_buf_init(&b, RECORD_MAX);
    dr_buf_printf(&b, "{\"bytes\":%llu,\"ok\":%s,\"by\":\"%s\"",
                  (unsigned long long)v->sums->stored_bytes, found ? "false" : "true", v->by);
    if (found)
        dr_buf_printf(&b, ",\"class\":\"%s\",\"object\":\"%s\"",
                      v->found->reason[0] ? v->found->reason : dr_rc_name(found),
                      verdict_object(v->backup_id, v->sums));
    else
        dr_buf_printf(&b, ",\"unreadable\":%llu", (unsigned long long)v->sums->unreadable);
    dr_buf_str(&b, ",\"whole\":[");
    for (unsigned i = 0; v->m && i < v->sums->objects; i++)
        dr_buf_printf(&b, "%s\"%s\"", i ? "," : "", v->m->objects[i].name);
    dr_buf_str(&b, "]}");
    enum dr_rc rc = store_append(s, "verified", v->backup_id, (const char *)b.data, err);
    dr_buf_fini(&b);
    return rc;
}
