/* The audit log's chain, and its witnesses in the catalog. */
#include "worker/backup/audit.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/crypto.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/disk.h"
#include "worker/backup/lock.h"
#include "worker/backup/store_internal.h"
#include "worker/backup/strict.h"
#include "worker/core/fault.h"

enum { LOCK_WAIT_MS = 5000 }; /* a stopped writer must not hold up every job for long */

static const unsigned char zeros[32];

struct catalog_log audit_log(int store_dirfd)
{
    return (struct catalog_log){store_dirfd, "audit", KEYRING_AUDIT};
}

static enum dr_rc lock_audit(struct store *s, enum lock_kind kind, int *lock, struct dr_err *err)
{
    return lock_take(s->dirfd, "audit/lock", kind, LOCK_WAIT_MS, lock, err);
}

static enum dr_rc make_folders(struct store *s, struct dr_err *err)
{
    static const char *const folders[] = {"audit", "audit/log"};
    bool created = false, any = false;
    enum dr_rc rc = DR_OK;
    for (size_t i = 0; !rc && i < 2; i++) {
        rc = disk_mkdir(s->dirfd, folders[i], &created, err);
        any |= !rc && created;
    }
    if (!rc && any && !(rc = disk_sync(s->dirfd, s->path, err)))
        rc = disk_sync_dir(s->dirfd, "audit", err);
    return rc;
}

/* ---- witnesses: records `audit` of the catalog ---- */

struct witness {
    uint64_t seq;
    unsigned char sha256[32];
};
struct witnesses {
    struct witness *at;
    size_t count, cap, met;
};

static bool read_witness(const char *data_json, struct witness *out)
{
    json_t *v = strict_parse(data_json, strlen(data_json), NULL);
    bool ok = v && strict_uint(v, "seq", 1, STRICT_INT_MAX, &out->seq) &&
              strict_hex(v, "sha256", out->sha256, sizeof out->sha256);
    json_decref(v);
    return ok;
}

static enum dr_rc note_witness(void *arg, const struct catalog_record *r, struct dr_err *err)
{
    struct witnesses *w = arg;
    struct witness one;
    (void)err;
    if (strcmp(r->type, "audit") != 0 || !read_witness(r->data_json, &one))
        return DR_OK;
    if (w->count == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 16;
        w->at = dr_xrealloc(w->at, w->cap * sizeof *w->at);
    }
    w->at[w->count++] = one;
    return DR_OK;
}

static int by_seq(const void *a, const void *b)
{
    const struct witness *x = a, *y = b;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static enum dr_rc find_witnesses(struct store *s, struct witnesses *out, struct dr_err *err)
{
    const struct catalog_log log = catalog_log(s->dirfd);
    struct catalog_head head;
    if (!disk_exists(s->dirfd, "catalog/head.json"))
        return DR_OK;
    enum dr_rc rc = catalog_read_head(&log, s->keys, &head, err);
    if (!rc)
        rc = catalog_replay(&log, &head, 1, zeros, note_witness, out, NULL, err);
    if (!rc && out->count)
        qsort(out->at, out->count, sizeof *out->at, by_seq);
    return rc ? dr_wrap(err, "the catalog, which witnesses the audit log") : DR_OK;
}

static enum dr_rc contradicts(struct dr_err *err, uint64_t seq, const char *what)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "audit: the catalog witnessed record %llu, %s",
                  (unsigned long long)seq, what);
    return dr_err_reason(err, "audit-witness");
}

static enum dr_rc witness(struct store *s, const struct catalog_head *head, struct dr_err *err)
{
    char data[128], sha[65];
    dr_hex(head->sha256, 32, sha);
    (void)snprintf(data, sizeof data, "{\"seq\":%llu,\"sha256\":\"%s\"}",
                   (unsigned long long)head->seq, sha);
    return store_append(s, "audit", "", data, err);
}

/* ---- appending ---- */

/* Only a log that never had a record begins anew: one whose head was removed still has its lines,
 * and one that was removed whole has its witness. */
static enum dr_rc begin(struct store *s, const struct catalog_log *log, struct catalog_head *head,
                        struct dr_err *err)
{
    struct witnesses w = {0};
    bool ahead = false;
    if (disk_exists(s->dirfd, "audit/head.json"))
        return catalog_read_head(log, s->keys, head, err);
    memset(head, 0, sizeof *head);
    enum dr_rc rc = find_witnesses(s, &w, err);
    if (!rc && w.count)
        rc = contradicts(err, w.at[0].seq, "but audit/head.json is missing");
    if (!rc)
        rc = catalog_replay(log, head, 1, zeros, NULL, NULL, &ahead, err);
    free(w.at);
    return rc;
}

static enum dr_rc append_locked(struct store *s, const char *type, const char *data_json,
                                struct catalog_head *head, struct dr_err *err)
{
    const struct catalog_log log = audit_log(s->dirfd);
    enum dr_rc rc = begin(s, &log, head, err);
    if (!rc)
        rc = catalog_cut(&log, head, err);
    return rc ? rc : catalog_append(&log, s->keys, head, type, "", dr_wall_ms(), data_json, err);
}

enum dr_rc audit_append(struct store *s, const char *type, const char *data_json,
                        struct dr_err *err)
{
    struct catalog_head head = {0};
    int lock = -1;
    enum dr_rc rc = make_folders(s, err);
    if (!rc)
        rc = lock_audit(s, LOCK_ALONE_MAKE, &lock, err);
    if (!rc)
        rc = append_locked(s, type, data_json, &head, err);
    lock_drop(&lock);
    if (!rc)
        rc = fault_point("audit.witness", err);
    if (!rc && (head.seq == 1 || head.seq % AUDIT_WITNESS_EVERY == 0))
        rc = witness(s, &head, err);
    return rc ? dr_wrap(err, "audit log") : DR_OK;
}

enum dr_rc audit_changed(struct store *s, const char *action, const char *subject,
                         const char *reason, struct dr_err *err)
{
    const struct passwd *user = getpwuid(getuid()); /* a command has one thread */
    char actor[96];
    struct dr_buf b;
    dr_buf_init(&b, AUDIT_DATA_MAX);
    if (user)
        (void)snprintf(actor, sizeof actor, "cli/%.80s", user->pw_name);
    else
        (void)snprintf(actor, sizeof actor, "cli/%u", (unsigned)getuid());
    dr_buf_str(&b, "{\"actor\":");
    dr_buf_json(&b, actor, strlen(actor));
    dr_buf_str(&b, ",\"action\":");
    dr_buf_json(&b, action, strlen(action));
    dr_buf_str(&b, ",\"subject\":");
    dr_buf_json(&b, subject, strlen(subject));
    dr_buf_str(&b, ",\"reason\":");
    dr_buf_json(&b, reason, strlen(reason));
    dr_buf_str(&b, "}");
    enum dr_rc rc = b.failed ? dr_fail(err, DR_E_INVALID, "audit: %s: too long", action)
                             : audit_append(s, "changed", (const char *)b.data, err);
    dr_buf_fini(&b);
    return rc;
}

/* ---- verifying ---- */

struct verifying {
    struct witnesses w;
    catalog_fn *fn;
    void *arg;
};

static enum dr_rc check_record(void *arg, const struct catalog_record *r, struct dr_err *err)
{
    struct verifying *v = arg;
    for (; v->w.met < v->w.count && v->w.at[v->w.met].seq == r->seq; v->w.met++)
        if (CRYPTO_memcmp(v->w.at[v->w.met].sha256, r->sha256, 32) != 0)
            return contradicts(err, r->seq, "and it was another one");
    return v->fn ? v->fn(v->arg, r, err) : DR_OK;
}

static enum dr_rc verify_locked(struct store *s, struct verifying *v, struct audit_state *out,
                                struct dr_err *err)
{
    const struct catalog_log log = audit_log(s->dirfd);
    struct catalog_head head = {0};
    enum dr_rc rc = find_witnesses(s, &v->w, err);
    out->witnessed = v->w.count ? v->w.at[v->w.count - 1].seq : 0;
    if (!rc && !disk_exists(s->dirfd, "audit/head.json") && !v->w.count)
        rc = catalog_replay(&log, &head, 1, zeros, NULL, NULL, &out->ahead, err);
    else if (!rc && !(rc = catalog_read_head(&log, s->keys, &head, err)))
        rc = catalog_replay(&log, &head, 1, zeros, check_record, v, &out->ahead, err);
    if (rc)
        return rc;
    out->records = head.seq;
    out->generation = head.generation;
    memcpy(out->sha256, head.sha256, 32);
    if (v->w.met < v->w.count)
        return contradicts(err, v->w.at[v->w.met].seq, "but the log ends before it");
    return DR_OK;
}

enum dr_rc audit_verify(struct store *s, catalog_fn *fn, void *arg, struct audit_state *out,
                        struct dr_err *err)
{
    struct verifying v = {.fn = fn, .arg = arg};
    int lock = -1;
    enum dr_rc rc = DR_OK;
    memset(out, 0, sizeof *out);
    if (disk_exists(s->dirfd, "audit/lock"))
        rc = lock_audit(s, LOCK_SHARED, &lock, err);
    if (!rc)
        rc = verify_locked(s, &v, out, err);
    lock_drop(&lock);
    free(v.w.at);
    return rc;
}
