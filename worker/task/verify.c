/* verify: decrypts and re-hashes every byte of backups and compares them with index, manifest and
 * catalog. Least recently proven first; what fails is recorded and does not stop the rest. No proof
 * shall be older than DR_VERIFY_MAX_AGE_DAYS: what the budget leaves behind that is told. A backup
 * that cannot be read is a finding as well, or it would stay first in line for ever; a store that
 * cannot be read is an error, which says nothing of any backup. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/args.h"
#include "worker/backup/container.h"
#include "worker/backup/handle.h"
#include "worker/backup/prove.h"
#include "worker/backup/store.h"
#include "worker/backup/verdict.h"
#include "worker/core/pool.h"
#include "worker/job/job.h"
#include "worker/task/tasks.h"

enum { DAY_MS = 86400000 };

struct checked {
    char backup_id[64];
    uint64_t bytes; /* stored, read */
    bool gone;      /* given up while we went through the list */
    enum dr_rc rc;
    char reason[32], object[80], message[256];
};

struct verify {
    char backup_id[64]; /* "": all */
    uint64_t budget;    /* stored bytes; 0: no limit */
    struct store_entry *entries;
    size_t count;
    size_t expected; /* backups that are not given up, whatever was asked for */
    struct checked *checked;
    size_t looked, done, bad; /* looked: of entries; done: of them proven or found bad */
    uint64_t bytes;
    unsigned unrecorded;
    size_t overdue;     /* left with an older proof than promised */
    const char *oldest; /* of those that were left; NULL: none was */
    int64_t oldest_ms, promised_ms;
};

static enum dr_rc decode(const struct dr_args *args, void *state, struct dr_err *err)
{
    struct verify *v = state;
    const char *id = dr_args_str(args, "backup_id");
    if (id && dr_args_bool(args, "all"))
        return dr_fail(err, DR_E_INVALID, "a.backup_id and a.all exclude each other");
    (void)snprintf(v->backup_id, sizeof v->backup_id, "%s", id ? id : "");
    v->budget = dr_args_has(args, "budget_bytes") ? dr_args_u64(args, "budget_bytes") : 0;
    return DR_OK;
}

static struct store *store_of(struct job *j, struct dr_err *err)
{
    struct store *s = job_services(j)->store;
    if (!s)
        (void)dr_fail(err, DR_E_CONFIG, "BACKUP_DIRECTORY is not set on this worker");
    return s;
}

/* What no record knows keeps no proof: it comes last, or it would be first for ever. */
static int least_proven(const void *a, const void *b)
{
    const struct store_entry *x = a, *y = b;
    if (x->recorded != y->recorded)
        return x->recorded ? -1 : 1;
    if (x->verified_at_ms != y->verified_at_ms)
        return x->verified_at_ms < y->verified_at_ms ? -1 : 1;
    return strcmp(x->backup_id, y->backup_id);
}

struct listing {
    struct verify *v;
    struct store *store;
};

static enum dr_rc list(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct listing *l = item;
    struct verify *v = l->v;
    size_t kept = 0;
    (void)cancel;
    if (store_audit(l->store, &v->unrecorded, err))
        return dr_wrap(err, "catalog");
    if (store_list(l->store, &v->entries, &v->count, err))
        return err->rc;
    for (size_t i = 0; i < v->count; i++)
        v->expected += !v->entries[i].tombstoned_at_ms;
    for (size_t i = 0; i < v->count; i++)
        if (v->backup_id[0] ? strcmp(v->entries[i].backup_id, v->backup_id) == 0
                            : !v->entries[i].tombstoned_at_ms)
            v->entries[kept++] = v->entries[i];
    v->count = kept;
    qsort(v->entries, kept, sizeof *v->entries, least_proven);
    v->checked = dr_xarray(kept + 1, sizeof *v->checked);
    if (!kept && v->backup_id[0]) {
        (void)dr_fail(err, DR_E_INVALID, "there is no backup %s: `drworker backups` lists them",
                      v->backup_id);
        return dr_err_field(err, "a.backup_id", v->backup_id, strlen(v->backup_id));
    }
    return DR_OK;
}

static enum dr_rc look(struct job *j, struct dr_err *err)
{
    struct listing l = {job_state(j), store_of(j, err)};
    return l.store ? pool_run(job_services(j)->pool, list, &l, job_cancel_token(j), err) : err->rc;
}

struct checking {
    struct store *store;
    struct checked *c;
    _Atomic uint64_t *progress;
    bool lone;  /* the store has no other */
    bool named; /* by the order: even when it is given up, it is to be looked at */
};

/* found: what the proof ended in, or nothing. */
static enum dr_rc keep(struct checking *k, const struct manifest *m, const struct prove_sums *sums,
                       const struct dr_err *found, struct dr_err *err)
{
    struct checked *c = k->c;
    const struct verdict_record v = {
        .backup_id = c->backup_id, .by = "verify", .m = m, .sums = sums, .found = found};
    c->rc = found->rc;
    c->bytes = sums->stored_bytes;
    (void)snprintf(c->reason, sizeof c->reason, "%s",
                   found->reason[0] ? found->reason
                   : found->rc      ? dr_rc_name(found->rc)
                                    : "");
    (void)snprintf(c->object, sizeof c->object, "%s", verdict_object(c->backup_id, sums));
    (void)snprintf(c->message, sizeof c->message, "%s", found->msg);
    return verdict_record(k->store, &v, err);
}

/* A backup that is not what it says is a finding; only what keeps us from looking is an error. */
static enum dr_rc check(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct checking *k = item;
    struct backup_handle *h = NULL;
    struct prove_sums sums = {0};
    struct dr_err found = {0};
    const struct prove_options o = {
        .cancel = cancel, .progress = k->progress, .threads = container_threads()};
    enum verdict is = VERDICT_BAD;
    enum dr_rc rc = handle_open(k->store, k->c->backup_id, &h, &found);
    if (!rc)
        rc = prove_backup(h, &o, &sums, &found);
    if (rc)
        is = verdict_of(k->store, k->c->backup_id, k->lone, &found);
    else if (handle_recorded(h, &found) && strcmp(found.reason, "catalog-manifest") != 0)
        is = VERDICT_NONE; /* it is the catalog that cannot be read */
    if (is == VERDICT_GONE && k->named)
        is = found.rc == DR_E_INTEGRITY ? VERDICT_BAD : VERDICT_NONE;
    k->c->gone = is == VERDICT_GONE;
    rc = DR_OK;
    if (is == VERDICT_NONE) {
        *err = found;
        rc = found.rc;
    } else if (!k->c->gone) {
        rc = keep(k, h ? handle_manifest(h) : NULL, &sums, &found, err);
    }
    handle_close(h);
    return rc;
}

/* The list is in the order of proofs: what was left begins behind the last one looked at. */
static void count_overdue(struct job *j, struct verify *v)
{
    v->promised_ms = dr_config_int(job_services(j)->config, "DR_VERIFY_MAX_AGE_DAYS") * DAY_MS;
    for (size_t i = v->looked; i < v->count && v->entries[i].recorded; i++)
        v->overdue += dr_wall_ms() - v->entries[i].verified_at_ms > v->promised_ms;
    if (v->looked < v->count && v->entries[v->looked].recorded) {
        v->oldest = v->entries[v->looked].backup_id;
        v->oldest_ms = v->entries[v->looked].verified_at_ms;
    }
}

static enum dr_rc prove(struct job *j, struct dr_err *err)
{
    struct verify *v = job_state(j);
    uint64_t total = 0, spent = 0;
    for (size_t i = 0; i < v->count; i++)
        total += v->entries[i].plain_bytes;
    job_progress_total(j, total);
    for (size_t i = 0; i < v->count; i++) {
        struct checked *c = &v->checked[v->done];
        struct checking k = {.store = job_services(j)->store,
                             .c = c,
                             .progress = job_progress_counter(j),
                             .lone = v->expected < 2,
                             .named = v->backup_id[0] != 0};
        if (v->budget && i && spent + v->entries[i].stored_bytes > v->budget)
            break;
        spent += v->entries[i].stored_bytes;
        (void)snprintf(c->backup_id, sizeof c->backup_id, "%s", v->entries[i].backup_id);
        job_message(j, "%s", c->backup_id);
        if (pool_run_long(job_services(j)->pool, check, &k, job_cancel_token(j), err))
            return dr_wrap(err, "%s", c->backup_id);
        v->looked++;
        if (c->gone)
            continue;
        v->done++;
        v->bytes += c->bytes;
        v->bad += c->rc != DR_OK;
        if (c->rc)
            dr_log(DR_LOG_ERROR, "verify.bad", "backup", c->backup_id, "object", c->object, "class",
                   c->reason, "what", c->message, NULL);
    }
    count_overdue(j, v);
    return DR_OK;
}

static enum dr_rc judge(struct job *j, struct dr_err *err)
{
    const struct verify *v = job_state(j);
    for (size_t i = 0; i < v->done; i++)
        if (v->checked[i].rc) {
            const struct checked *c = &v->checked[i];
            (void)dr_fail(err, c->rc, "%zu of %zu backups are damaged or unreadable; first %s: %s",
                          v->bad, v->done, c->object, c->message);
            return dr_err_reason(err, c->reason);
        }
    job_summary(j, "%zu backup%s proven, %llu bytes read", v->done, v->done == 1 ? "" : "s",
                (unsigned long long)v->bytes);
    if (v->overdue) {
        job_mark_partial(j);
        job_summary(
            j,
            "%zu backup%s proven, %llu bytes read; the proof of %zu more is older than %lld "
            "days (DR_VERIFY_MAX_AGE_DAYS): the budget is too small",
            v->done, v->done == 1 ? "" : "s", (unsigned long long)v->bytes, v->overdue,
            (long long)(v->promised_ms / DAY_MS));
    }
    return DR_OK;
}

static unsigned result(struct job *j, struct dr_buf *map)
{
    const struct verify *v = job_state(j);
    dr_pack_text(map, "checked");
    dr_pack_array(map, v->done);
    for (size_t i = 0; i < v->done; i++)
        dr_pack_text(map, v->checked[i].backup_id);
    dr_pack_text(map, "bytes");
    dr_pack_uint(map, v->bytes);
    dr_pack_text(map, "bad");
    dr_pack_array(map, v->bad);
    for (size_t i = 0; i < v->done; i++) {
        const struct checked *c = &v->checked[i];
        if (!c->rc)
            continue;
        dr_pack_map(map, 4);
        dr_pack_pair(map, "backup_id", c->backup_id);
        dr_pack_pair(map, "object", c->object);
        dr_pack_pair(map, "class", c->reason);
        dr_pack_pair(map, "message", c->message);
    }
    char at[DR_TIME_TEXT];
    dr_format_time(v->oldest_ms, at);
    dr_pack_text(map, "overdue");
    dr_pack_uint(map, v->overdue);
    dr_pack_text(map, "oldest_proof");
    dr_pack_map(map, v->oldest ? 2 : 0);
    if (v->oldest) {
        dr_pack_pair(map, "backup_id", v->oldest);
        dr_pack_pair(map, "at", v->oldest_ms ? at : "");
    }
    return 5;
}

static void fini(void *state)
{
    struct verify *v = state;
    free(v->entries);
    free(v->checked);
}

static const struct job_step steps[] = {
    {"catalog", 2, 0, look, NULL},
    {"prove", 97, 0, prove, NULL},
    {"judge", 1, 0, judge, NULL},
    {0},
};

const struct job_task task_verify = {
    .type = "verify",
    .flags = TASK_HEAVY,
    .default_slots = 1,
    .state_bytes = sizeof(struct verify),
    .decode = decode,
    .steps = steps,
    .result = result,
    .fini = fini,
};
