/* Reading the catalog: the signed head, then the chain up to it. */
#include "worker/backup/catalog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/catalog_internal.h"
#include "worker/backup/disk.h"
#include "worker/backup/keyring.h"
#include "worker/backup/names.h"
#include "worker/backup/strict.h"

enum dr_rc catalog_refuse(const struct catalog_log *log, const char *class, const char *what,
                          uint64_t seq, struct dr_err *err)
{
    char reason[32];
    (void)snprintf(reason, sizeof reason, "%s-%s", log->folder, class);
    (void)dr_fail(err, DR_E_INTEGRITY, "%s: %s (record %llu)", log->folder, what,
                  (unsigned long long)seq);
    return dr_err_reason(err, reason);
}

struct catalog_log catalog_log(int store_dirfd)
{
    return (struct catalog_log){store_dirfd, "catalog", KEYRING_CATALOG};
}

void catalog_log_name(uint64_t seq, char out[24])
{
    (void)snprintf(out, 24, "%06llu.jsonl",
                   (unsigned long long)((seq - 1) / CATALOG_FILE_RECORDS + 1));
}

void catalog_head_message(uint64_t seq, const unsigned char sha256[32],
                          unsigned char out[CATALOG_MESSAGE])
{
    dr_put_u64be(out, seq);
    memcpy(out + 8, sha256, 32);
}

/* Exactly the bytes a writer makes: there is one form. */
static bool parse_head(const struct dr_buf *b, struct catalog_head *out, unsigned char sig[64])
{
    char again[CATALOG_HEAD_MAX], sha[65], sig_hex[129];
    json_t *v = strict_parse(b->data, b->len, NULL);
    bool ok = v && strict_uint(v, "seq", 1, STRICT_INT_MAX, &out->seq) &&
              strict_hex(v, "sha256", out->sha256, 32) && strict_hex(v, "sig", sig, 64);
    json_decref(v);
    if (!ok)
        return false;
    dr_hex(out->sha256, 32, sha);
    dr_hex(sig, 64, sig_hex);
    int n = snprintf(again, sizeof again, CATALOG_HEAD_FORM, (unsigned long long)out->seq, sha,
                     sig_hex);
    return n > 0 && (size_t)n == b->len && memcmp(again, b->data, b->len) == 0;
}

enum dr_rc catalog_read_head(const struct catalog_log *log, const struct keyring *keys,
                             struct catalog_head *out, struct dr_err *err)
{
    unsigned char sig[64], message[CATALOG_MESSAGE];
    struct dr_err why = {0};
    struct dr_buf b;
    dr_buf_init(&b, CATALOG_HEAD_MAX);
    char path[48];
    (void)snprintf(path, sizeof path, "%s/head.json", log->folder);
    enum dr_rc rc = disk_read(log->dirfd, path, &b, &why);
    if (rc == DR_E_NOT_FOUND) {
        (void)dr_fail(err, rc = DR_E_INTEGRITY, "%s is missing", path);
        (void)dr_err_reason(err, "head-missing");
    } else if (rc && rc != DR_E_TOO_BIG) {
        rc = dr_fail(err, rc, "%s", why.msg);
    } else if (rc || b.len == 0 || !parse_head(&b, out, sig)) {
        (void)dr_fail(err, rc = DR_E_INTEGRITY, "%s is malformed", path);
        (void)dr_err_reason(err, "head-form");
    } else {
        catalog_head_message(out->seq, out->sha256, message);
        out->generation = keyring_verify_any(keys, log->signer, message, sizeof message, sig);
        if (!out->generation) {
            (void)dr_fail(err, rc = DR_E_INTEGRITY, "%s: no key of this keyring signed it", path);
            (void)dr_err_reason(err, "head-sig");
        }
    }
    dr_buf_fini(&b);
    return rc;
}

static bool read_data(const json_t *data, struct catalog_record *r)
{
    const json_t *ok = json_object_get(data, "ok");
    const char *kind = json_string_value(json_object_get(data, "kind"));
    r->has_manifest_sha256 = strict_hex(data, "manifest_sha256", r->manifest_sha256, 32);
    if (json_object_get(data, "verified_at") &&
        !strict_time(data, "verified_at", &r->verified_at_ms))
        return false;
    r->has_ok = json_is_boolean(ok);
    r->ok = json_is_true(ok);
    r->has_unreadable = strict_uint(data, "unreadable", 0, STRICT_INT_MAX, &r->unreadable);
    r->differs = kind && strcmp(kind, dr_rc_name(DR_E_INTEGRITY)) == 0;
    return strcmp(r->type, "added") != 0 || r->has_manifest_sha256;
}

bool catalog_read_line(const char *line, size_t len, struct catalog_record *out, char **data,
                       char why[CATALOG_WHY])
{
    const char *id;
    json_t *v, *d;
    (void)snprintf(why, CATALOG_WHY, "a field is missing or not such a value");
    v = strict_parse(line, len, why);
    d = json_object_get(v, "data");
    memset(out, 0, sizeof *out);
    bool ok = v && strict_uint(v, "seq", 1, STRICT_INT_MAX, &out->seq) &&
              strict_hex(v, "prev", out->prev, 32) &&
              strict_copy(v, "type", out->type, sizeof out->type) &&
              strict_text(v, "backup_id", 0, sizeof out->backup_id - 1, &id) &&
              (!id[0] || names_is_backup_id(id)) && strict_time(v, "at", &out->at_ms) &&
              json_is_object(d) && read_data(d, out);
    if (ok) {
        (void)snprintf(out->backup_id, sizeof out->backup_id, "%s", id);
        (void)SHA256((const unsigned char *)line, len, out->sha256);
        *data = json_dumps(d, JSON_COMPACT);
        out->data_json = *data;
        ok = *data != NULL;
    }
    json_decref(v);
    return ok;
}

enum dr_rc catalog_parse(const char *line, size_t len, struct catalog_record *out, char **data,
                         struct dr_err *err)
{
    char why[CATALOG_WHY];
    if (catalog_read_line(line, len, out, data, why))
        return DR_OK;
    (void)dr_fail(err, DR_E_INTEGRITY, "a record is malformed: %s", why);
    return dr_err_reason(err, "catalog-form");
}

enum dr_rc catalog_lines_open(struct catalog_lines *l, uint64_t seq, struct dr_err *err)
{
    char name[24], path[48];
    if (l->fd >= 0)
        (void)close(l->fd);
    catalog_log_name(seq, name);
    (void)snprintf(path, sizeof path, "%s/log/%s", l->log->folder, name);
    l->fd = openat(l->log->dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    l->at = l->have = 0;
    l->ended = l->fd < 0;
    if (l->fd < 0 && errno != ENOENT)
        return dr_fail_errno(err, DR_E_IO, "open %s", path);
    return DR_OK;
}

enum dr_rc catalog_lines_next(struct catalog_lines *l, const char **line, size_t *len,
                              struct dr_err *err)
{
    for (;;) {
        const char *begin = l->piece + l->at, *nl = memchr(begin, '\n', l->have - l->at);
        if (nl) {
            *line = begin;
            *len = (size_t)(nl - begin) + 1;
            l->at += *len;
            return DR_OK;
        }
        *line = NULL;
        *len = l->have - l->at;
        if (l->ended || *len == CATALOG_LINE_MAX)
            return DR_OK;
        memmove(l->piece, begin, *len);
        l->at = 0;
        l->have = *len;
        ssize_t n = read(l->fd, l->piece + l->have, CATALOG_LINE_MAX - l->have);
        if (n < 0 && errno != EINTR)
            return dr_fail_errno(err, DR_E_IO, "read %s/log", l->log->folder);
        l->ended = n == 0;
        l->have += n > 0 ? (size_t)n : 0;
    }
}

enum dr_rc catalog_mismatch(const struct catalog_log *log, uint64_t seq, struct dr_err *err)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "%s: record %llu is not the head's", log->folder,
                  (unsigned long long)seq);
    return dr_err_reason(err, "head-mismatch");
}

static enum dr_rc replay_one(struct catalog_lines *l, uint64_t seq, unsigned char prev[32],
                             catalog_fn *fn, void *arg, struct dr_err *err)
{
    struct catalog_record r;
    char *data = NULL, why[CATALOG_WHY];
    const char *line;
    size_t len;
    enum dr_rc rc = catalog_lines_next(l, &line, &len, err);
    if (rc)
        return rc;
    if (!line)
        return len ? catalog_refuse(l->log, "form", "a line without its end", seq, err)
                   : catalog_refuse(l->log, "short", "it ends before its head", seq, err);
    if (!catalog_read_line(line, len - 1, &r, &data, why))
        return catalog_refuse(l->log, "form", why, seq, err);
    if (r.seq != seq || CRYPTO_memcmp(r.prev, prev, 32) != 0)
        rc = catalog_refuse(l->log, "chain", "a record does not follow from the one before it", seq,
                            err);
    else
        rc = fn ? fn(arg, &r, err) : DR_OK;
    memcpy(prev, r.sha256, 32);
    free(data);
    return rc;
}

/* Anything behind the head: in its file, or a file after it. */
static enum dr_rc look_ahead(struct catalog_lines *l, uint64_t seq, bool *ahead, struct dr_err *err)
{
    const char *line;
    size_t len;
    bool next_file = seq % CATALOG_FILE_RECORDS == 0;
    enum dr_rc rc = catalog_lines_next(l, &line, &len, err);
    *ahead = !rc && len > 0;
    if (rc || *ahead)
        return rc;
    if (!(rc = catalog_lines_open(l, seq + (next_file ? 1 : CATALOG_FILE_RECORDS), err)))
        *ahead = l->fd >= 0;
    return rc;
}

enum dr_rc catalog_replay(const struct catalog_log *log, const struct catalog_head *head,
                          uint64_t from, const unsigned char prev[32], catalog_fn *fn, void *arg,
                          bool *ahead, struct dr_err *err)
{
    struct catalog_lines l = {
        .log = log, .fd = -1, .ended = true, .piece = dr_xalloc(CATALOG_LINE_MAX)};
    uint64_t first = from ? (from - 1) / CATALOG_FILE_RECORDS * CATALOG_FILE_RECORDS + 1 : 1;
    unsigned char last[32];
    const char *line;
    size_t len;
    enum dr_rc rc = DR_OK;
    memcpy(last, prev, 32);
    for (uint64_t seq = first; !rc && seq <= head->seq; seq++) {
        if (seq % CATALOG_FILE_RECORDS == 1 && (rc = catalog_lines_open(&l, seq, err)))
            break;
        if (seq < from)
            rc = catalog_lines_next(&l, &line, &len, err); /* read before: its hash is prev */
        else
            rc = replay_one(&l, seq, last, fn, arg, err);
    }
    if (!rc && CRYPTO_memcmp(last, head->sha256, 32) != 0)
        rc = catalog_mismatch(log, head->seq, err);
    if (!rc && ahead)
        rc = look_ahead(&l, head->seq, ahead, err);
    if (l.fd >= 0)
        (void)close(l.fd);
    free(l.piece);
    return rc;
}
