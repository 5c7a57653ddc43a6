/* Documents of S3: begun and completed uploads, parts, pages of objects and uploads. A document
 * that ends early, repeats itself or leads nowhere is nonsense, not an empty answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/str.h"
#include "worker/storage/s3_internal.h"
#include "worker/storage/sigv4.h"
#include "worker/storage/xml.h"

enum { ENTRIES_MAX = 10000, KEY_ENCODED_MAX = 3 * S3_KEY_MAX };

void s3_base64(const unsigned char sha256[32], char out[45])
{
    (void)EVP_EncodeBlock((unsigned char *)out, sha256, 32);
}

bool s3_unbase64(const char *text, unsigned char sha256[32])
{
    unsigned char bytes[33];
    char again[45];
    if (strlen(text) != 44 || EVP_DecodeBlock(bytes, (const unsigned char *)text, 44) != 33)
        return false;
    s3_base64(bytes, again);
    memcpy(sha256, bytes, 32);
    return strcmp(again, text) == 0;
}

void s3_composite(const struct storage_part *parts, size_t count, char out[64])
{
    unsigned char sum[32], *all = dr_xarray(count, 32);
    char text[45];
    for (size_t i = 0; i < count; i++)
        memcpy(all + 32 * i, parts[i].sha256, 32);
    sigv4_sha256(all, 32 * count, sum);
    free(all);
    s3_base64(sum, text);
    (void)snprintf(out, 64, "%s-%zu", text, count);
}

void s3_marker_join(struct dr_buf *out, const char *key, const char *upload_id)
{
    sigv4_encode(out, key, true);
    dr_buf_str(out, " ");
    sigv4_encode(out, upload_id, true);
}

bool s3_marker_split(const char *marker, char *key, size_t key_size, char *upload_id,
                     size_t upload_size)
{
    const char *blank = strchr(marker, ' ');
    return blank && dr_percent_decode(marker, (size_t)(blank - marker), key, key_size) &&
           dr_percent_decode(blank + 1, strlen(blank + 1), upload_id, upload_size);
}

struct document {
    const struct storage_call *c;
    struct storage_answer *out;
    const char *root; /* its name and a slash: what is elsewhere is skipped */
    bool url, truncated, ended;
    char next_key[KEY_ENCODED_MAX + 1], next[S3_UPLOAD_ID_MAX + 1]; /* key, token or id */
    char checksum[64];
    struct storage_part part;
    char key[KEY_ENCODED_MAX + 1], upload_id[S3_UPLOAD_ID_MAX + 1];
    uint64_t size;
    int64_t at_unix_s;
};

static bool put(char *out, size_t size, const char *text)
{
    size_t len = strlen(text);
    if (len >= size)
        return false;
    memcpy(out, text, len + 1);
    return true;
}

/* encoding-type=url as S3 writes it: a form's, where a blank is '+'. */
static bool decode(const struct document *d, const char *text, char *out, size_t size)
{
    char plain[KEY_ENCODED_MAX + 1];
    if (!put(plain, sizeof plain, text))
        return false;
    if (!d->url)
        return put(out, size, text);
    for (char *p = plain; *p; p++)
        if (*p == '+')
            *p = ' ';
    return dr_percent_decode(plain, strlen(plain), out, size);
}

/* NULL-safe read of one document; its root must have come to its end. */
static enum storage_class read_document(const struct storage_reply *r, xml_fn *fn,
                                        struct document *d, struct dr_err *err)
{
    struct dr_err why = {0};
    if (xml_read(r->body, r->body_len, fn, d, &why))
        return storage_fail(err, STORAGE_NONSENSE, "HTTP %u, %s", r->status, why.msg);
    if (!d->ended)
        return storage_fail(err, STORAGE_NONSENSE, "HTTP %u with another document", r->status);
    return STORAGE_OK;
}

static const char *below(struct document *d, const char *path)
{
    size_t n = strlen(d->root);
    if (strcmp(path, d->root) == 0)
        d->ended = true;
    return strncmp(path, d->root, n) == 0 && path[n] == '/' ? path + n + 1 : "";
}

static bool on_begin(void *arg, const char *path, const char *text)
{
    struct document *d = arg;
    return strcmp(below(d, path), "UploadId") != 0 || put(d->upload_id, sizeof d->upload_id, text);
}

enum storage_class s3_read_begin(const struct storage_reply *r, struct storage_answer *out,
                                 struct dr_err *err)
{
    struct document *d = dr_xalloc(sizeof *d);
    d->root = "InitiateMultipartUploadResult";
    enum storage_class class = read_document(r, on_begin, d, err);
    if (class == STORAGE_OK && !d->upload_id[0])
        class = storage_fail(err, STORAGE_NONSENSE, "HTTP %u without upload id", r->status);
    if (class == STORAGE_OK)
        out->upload_id = dr_xstrdup(d->upload_id);
    free(d);
    return class;
}

static bool on_complete(void *arg, const char *path, const char *text)
{
    struct document *d = arg;
    const char *name = below(d, path);
    if (strcmp(name, "ETag") == 0)
        return put(d->out->etag, sizeof d->out->etag, text);
    if (strcmp(name, "ChecksumSHA256") == 0)
        return put(d->checksum, sizeof d->checksum, text);
    return true;
}

/* 200 came before the parts were joined: what the body says counts. */
enum storage_class s3_read_complete(const struct storage_call *c, const struct storage_reply *r,
                                    struct storage_answer *out, struct dr_err *err)
{
    struct document *d = dr_xalloc(sizeof *d);
    char want[64];
    d->root = "CompleteMultipartUploadResult";
    d->out = out;
    enum storage_class class = read_document(r, on_complete, d, NULL);
    if (class != STORAGE_OK) {
        class = s3_read_error(c, r, out, err);
    } else if (!out->etag[0]) {
        class = storage_fail(err, STORAGE_NONSENSE, "HTTP %u without ETag", r->status);
    } else if (d->checksum[0] && strchr(d->checksum, '-')) {
        s3_composite(c->parts, c->part_count, want);
        if (strcmp(d->checksum, want) != 0)
            class = storage_fail(err, STORAGE_INTEGRITY, "the store joined something else");
    }
    free(d);
    return class;
}

static bool end_part(struct document *d)
{
    struct storage_answer *a = d->out;
    struct storage_part *last = a->part_count ? &a->parts[a->part_count - 1] : NULL;
    if (d->part.number == 0 || !d->part.etag[0] || (last && last->number >= d->part.number) ||
        a->part_count == S3_PARTS_MAX)
        return false;
    a->parts = dr_xrealloc(a->parts, (a->part_count + 1) * sizeof *a->parts);
    a->parts[a->part_count++] = d->part;
    memset(&d->part, 0, sizeof d->part);
    return true;
}

static bool on_parts(void *arg, const char *path, const char *text)
{
    struct document *d = arg;
    const char *name = below(d, path);
    uint64_t n = 0;
    if (strcmp(name, "Part/PartNumber") == 0) {
        if (!dr_parse_u64(text, 1, S3_PARTS_MAX, &n))
            return false;
        d->part.number = (unsigned)n;
    } else if (strcmp(name, "Part/Size") == 0) {
        return dr_parse_u64(text, 0, INT64_MAX, &d->part.length);
    } else if (strcmp(name, "Part/ETag") == 0) {
        return put(d->part.etag, sizeof d->part.etag, text);
    } else if (strcmp(name, "Part/ChecksumSHA256") == 0) {
        d->part.has_sha256 = s3_unbase64(text, d->part.sha256);
    } else if (strcmp(name, "Part") == 0) {
        return end_part(d);
    } else if (strcmp(name, "IsTruncated") == 0) {
        return dr_parse_bool(text, &d->truncated);
    } else if (strcmp(name, "NextPartNumberMarker") == 0) {
        return put(d->next, sizeof d->next, text);
    }
    return true;
}

/* The next page must be another one than this. */
static enum storage_class put_next(const struct document *d, const char *next, struct dr_err *err)
{
    if (!d->truncated)
        return STORAGE_OK;
    if (!*next || (d->c->after && strcmp(next, d->c->after) == 0))
        return storage_fail(err, STORAGE_NONSENSE, "a listing that leads nowhere");
    d->out->next = dr_xstrdup(next);
    return STORAGE_OK;
}

enum storage_class s3_read_parts(const struct storage_call *c, const struct storage_reply *r,
                                 struct storage_answer *out, struct dr_err *err)
{
    struct document *d = dr_xalloc(sizeof *d);
    d->root = "ListPartsResult";
    d->out = out;
    d->c = c;
    enum storage_class class = read_document(r, on_parts, d, err);
    if (class == STORAGE_OK)
        class = put_next(d, d->next, err);
    free(d);
    return class;
}

static bool end_entry(struct document *d)
{
    struct storage_answer *a = d->out;
    if (!d->key[0] || a->entry_count == ENTRIES_MAX ||
        (d->c->op == STORAGE_LIST_UPLOADS && !d->upload_id[0]))
        return false;
    a->entries = dr_xrealloc(a->entries, (a->entry_count + 1) * sizeof *a->entries);
    a->entries[a->entry_count++] =
        (struct storage_entry){.key = dr_xstrdup(d->key),
                               .upload_id = d->upload_id[0] ? dr_xstrdup(d->upload_id) : NULL,
                               .size = d->size,
                               .at_unix_s = d->at_unix_s};
    d->key[0] = d->upload_id[0] = 0;
    d->size = 0;
    d->at_unix_s = 0;
    return true;
}

static void put_time(struct document *d, const char *text)
{
    int64_t ms;
    if (dr_parse_time(text, &ms))
        d->at_unix_s = ms / 1000;
}

static bool on_entry(struct document *d, const char *name, const char *text)
{
    if (strcmp(name, "Key") == 0)
        return put(d->key, sizeof d->key, text);
    if (strcmp(name, "UploadId") == 0)
        return put(d->upload_id, sizeof d->upload_id, text);
    if (strcmp(name, "Size") == 0)
        return dr_parse_u64(text, 0, INT64_MAX, &d->size);
    if (strcmp(name, "LastModified") == 0 || strcmp(name, "Initiated") == 0)
        put_time(d, text);
    return true;
}

static bool on_page(void *arg, const char *path, const char *text)
{
    struct document *d = arg;
    const char *name = below(d, path);
    const char *item = d->c->op == STORAGE_LIST ? "Contents" : "Upload";
    size_t n = strlen(item);
    if (strcmp(name, item) == 0)
        return end_entry(d);
    if (strncmp(name, item, n) == 0 && name[n] == '/')
        return on_entry(d, name + n + 1, text);
    if (strcmp(name, "EncodingType") == 0)
        d->url = strcmp(text, "url") == 0;
    if (strcmp(name, "IsTruncated") == 0)
        return dr_parse_bool(text, &d->truncated);
    if (strcmp(name, "NextKeyMarker") == 0)
        return put(d->next_key, sizeof d->next_key, text);
    if (strcmp(name, "NextContinuationToken") == 0 || strcmp(name, "NextUploadIdMarker") == 0)
        return put(d->next, sizeof d->next, text);
    return true;
}

static enum storage_class next_of_uploads(const struct document *d, struct dr_err *err)
{
    char key[S3_KEY_MAX + 1];
    struct dr_buf marker;
    dr_buf_init(&marker, KEY_ENCODED_MAX + 3 * S3_UPLOAD_ID_MAX + 1);
    if (decode(d, d->next_key, key, sizeof key) && key[0])
        s3_marker_join(&marker, key, d->next);
    enum storage_class class = put_next(d, marker.data ? (const char *)marker.data : "", err);
    dr_buf_fini(&marker);
    return class;
}

/* Whether keys are encoded may be told behind them. */
static enum storage_class decode_keys(const struct document *d, struct dr_err *err)
{
    const char *prefix = d->c->target->prefix ? d->c->target->prefix : "";
    char key[S3_KEY_MAX + 1];
    for (size_t i = 0; i < d->out->entry_count; i++) {
        struct storage_entry *e = &d->out->entries[i];
        if (!decode(d, e->key, key, sizeof key) || !dr_starts(key, prefix) ||
            !dr_starts(key + strlen(prefix), d->c->key ? d->c->key : ""))
            return storage_fail(err, STORAGE_NONSENSE, "a listing of something else");
        free(e->key);
        e->key = dr_xstrdup(key + strlen(prefix));
    }
    return STORAGE_OK;
}

enum storage_class s3_read_page(const struct storage_call *c, const struct storage_reply *r,
                                struct storage_answer *out, struct dr_err *err)
{
    struct document *d = dr_xalloc(sizeof *d);
    d->root = c->op == STORAGE_LIST ? "ListBucketResult" : "ListMultipartUploadsResult";
    d->out = out;
    d->c = c;
    enum storage_class class = read_document(r, on_page, d, err);
    if (class == STORAGE_OK)
        class = decode_keys(d, err);
    if (class == STORAGE_OK)
        class = c->op == STORAGE_LIST ? put_next(d, d->next, err) : next_of_uploads(d, err);
    free(d);
    return class;
}
