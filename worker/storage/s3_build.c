/* S3 requests: a table of pairs for query and headers, signed, then moved into the request. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/storage/s3_internal.h"
#include "worker/storage/sigv4.h"

enum { PAIRS = 12, XML_MAX = 8 << 20, LISTING_MAX = 8 << 20, ANSWER_MAX = 64 << 10 };

struct draft {
    struct sigv4_pair query[PAIRS], headers[PAIRS];
    size_t query_count, header_count;
    char path[SIGV4_PATH_MAX + 1], prefix[S3_KEY_MAX + 1];
    char sum64[45], sum_hex[65], range[64], number[16], max[16];
    char marker_key[S3_KEY_MAX + 1], marker_id[S3_UPLOAD_ID_MAX + 1];
    const char *method;
    const unsigned char *sha256; /* of what is sent */
    unsigned char own_sha256[32];
};

static void query(struct draft *d, const char *name, const char *value)
{
    d->query[d->query_count++] = (struct sigv4_pair){name, value};
}

static void header(struct draft *d, const char *name, const char *value)
{
    d->headers[d->header_count++] = (struct sigv4_pair){name, value};
}

static void payload_sum(const struct storage_call *c, struct draft *d, struct storage_request *out)
{
    d->sha256 = c->payload.sha256;
    s3_base64(c->payload.sha256, d->sum64);
    header(d, "x-amz-checksum-sha256", d->sum64);
    out->payload = true;
}

static void metadata(const struct storage_call *c, struct draft *d)
{
    dr_hex(c->sha256, sizeof c->sha256, d->sum_hex);
    header(d, S3_META_SHA256, d->sum_hex);
    if (c->label && *c->label)
        header(d, S3_META_LABEL, c->label);
    header(d, "content-type", "application/octet-stream");
}

static void escape(struct dr_buf *b, const char *s)
{
    for (; *s; s++)
        if (strchr("<>&\"'", *s) || (unsigned char)*s < 0x20)
            dr_buf_printf(b, "&#%u;", (unsigned char)*s);
        else
            dr_buf_add(b, s, 1);
}

static enum dr_rc complete_body(const struct storage_call *c, struct draft *d, struct dr_buf *b,
                                struct dr_err *err)
{
    if (c->part_count == 0 || c->part_count > S3_PARTS_MAX)
        return dr_fail(err, DR_E_BUG, "%zu parts", c->part_count);
    dr_buf_str(b, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (size_t i = 0; i < c->part_count; i++) {
        char sum[45];
        s3_base64(c->parts[i].sha256, sum);
        dr_buf_printf(b, "<Part><PartNumber>%u</PartNumber><ETag>", c->parts[i].number);
        escape(b, c->parts[i].etag);
        dr_buf_printf(b, "</ETag><ChecksumSHA256>%s</ChecksumSHA256></Part>", sum);
    }
    dr_buf_str(b, "</CompleteMultipartUpload>");
    if (b->failed)
        return dr_fail(err, DR_E_BUG, "%zu parts", c->part_count);
    sigv4_sha256(b->data, b->len, d->own_sha256);
    d->sha256 = d->own_sha256;
    header(d, "content-type", "application/xml");
    return DR_OK;
}

static enum dr_rc range(const struct storage_call *c, struct draft *d, struct dr_err *err)
{
    if (c->length) {
        if (c->offset > UINT64_MAX - c->length)
            return dr_fail(err, DR_E_BUG, "range");
        (void)snprintf(d->range, sizeof d->range, "bytes=%" PRIu64 "-%" PRIu64, c->offset,
                       c->offset + c->length - 1);
        header(d, "range", d->range);
    }
    if (c->etag && *c->etag)
        header(d, "if-match", c->etag);
    return DR_OK;
}

static void page_max(const struct storage_call *c, struct draft *d, const char *name)
{
    (void)snprintf(d->max, sizeof d->max, "%u", c->page_max ? c->page_max : 1000);
    query(d, name, d->max);
}

static enum dr_rc listing(const struct storage_call *c, struct draft *d, struct dr_err *err)
{
    query(d, "encoding-type", "url");
    query(d, "prefix", d->prefix);
    if (c->op == STORAGE_LIST) {
        query(d, "list-type", "2");
        page_max(c, d, "max-keys");
        if (c->after)
            query(d, "continuation-token", c->after);
        return DR_OK;
    }
    query(d, "uploads", "");
    page_max(c, d, "max-uploads");
    if (c->after) {
        if (!s3_marker_split(c->after, d->marker_key, sizeof d->marker_key, d->marker_id,
                             sizeof d->marker_id))
            return dr_fail(err, DR_E_BUG, "marker of uploads");
        query(d, "key-marker", d->marker_key);
        query(d, "upload-id-marker", d->marker_id);
    }
    return DR_OK;
}

static enum dr_rc upload_part(const struct storage_call *c, struct draft *d,
                              struct storage_request *out, struct dr_err *err)
{
    if (c->part_number < 1 || c->part_number > S3_PARTS_MAX)
        return dr_fail(err, DR_E_BUG, "part %u", c->part_number);
    (void)snprintf(d->number, sizeof d->number, "%u", c->part_number);
    query(d, "partNumber", d->number);
    payload_sum(c, d, out);
    return DR_OK;
}

static enum dr_rc operation(const struct storage_call *c, struct draft *d,
                            struct storage_request *out, struct dr_err *err)
{
    switch (c->op) {
    case STORAGE_PUT:
        d->method = "PUT";
        payload_sum(c, d, out);
        metadata(c, d);
        break;
    case STORAGE_BEGIN:
        d->method = "POST";
        query(d, "uploads", "");
        header(d, "x-amz-checksum-algorithm", "SHA256");
        metadata(c, d);
        break;
    case STORAGE_PART:
        d->method = "PUT";
        return upload_part(c, d, out, err);
    case STORAGE_COMPLETE:
        d->method = "POST";
        return complete_body(c, d, &out->before, err);
    case STORAGE_ABORT:
    case STORAGE_DELETE:
        d->method = "DELETE";
        break;
    case STORAGE_LIST_PARTS:
        d->method = "GET";
        page_max(c, d, "max-parts");
        if (c->after)
            query(d, "part-number-marker", c->after);
        out->answer_max = LISTING_MAX;
        break;
    case STORAGE_GET:
        d->method = "GET";
        out->body_to_caller = true;
        return range(c, d, err);
    case STORAGE_HEAD:
        d->method = "HEAD";
        break;
    case STORAGE_LIST:
    case STORAGE_LIST_UPLOADS:
        d->method = "GET";
        out->answer_max = LISTING_MAX;
        return listing(c, d, err);
    case STORAGE_AUTHORISE:
    default:
        return dr_fail(err, DR_E_BUG, "operation %d", (int)c->op);
    }
    return DR_OK;
}

static enum dr_rc path_of(const struct storage_call *c, const struct s3_place *place,
                          struct draft *d, struct dr_err *err)
{
    const char *prefix = c->target->prefix ? c->target->prefix : "", *key = c->key ? c->key : "";
    bool listing_op = c->op == STORAGE_LIST || c->op == STORAGE_LIST_UPLOADS;
    if (strlen(prefix) + strlen(key) > S3_KEY_MAX || (!listing_op && !*key))
        return dr_fail(err, DR_E_INVALID, "a key of %zu bytes", strlen(prefix) + strlen(key));
    (void)snprintf(d->prefix, sizeof d->prefix, "%s%s", prefix, key);
    (void)snprintf(d->path, sizeof d->path, "/%s%s%s",
                   place->bucket_in_path ? c->target->bucket : "", place->bucket_in_path ? "/" : "",
                   listing_op ? "" : d->prefix);
    return DR_OK;
}

static enum dr_rc sign(const struct storage_call *c, const struct s3_place *place,
                       const struct draft *d, struct storage_request *out, struct dr_err *err)
{
    const struct storage_target *t = c->target;
    struct sigv4_request r = {.method = d->method,
                              .host = place->host,
                              .path = d->path,
                              .query = d->query,
                              .headers = d->headers,
                              .query_count = d->query_count,
                              .header_count = d->header_count,
                              .sha256 = d->sha256,
                              .plain = place->plain};
    struct sigv4_key key = {&t->access_key, &t->secret_key, &t->session_token, place->region, "s3"};
    struct sigv4_signed s;
    enum dr_rc rc = sigv4_sign(&r, &key, c->now_unix_s, &s, err);
    if (!rc) {
        out->url =
            dr_xasprintf("%s://%s%s", place->plain ? "http" : "https", place->host, s.target);
        out->fields = s.fields;
        out->field_count = s.field_count;
        s.fields = NULL;
        s.field_count = 0;
    }
    sigv4_signed_fini(&s);
    return rc;
}

enum dr_rc s3_build(const struct storage_call *c, struct storage_request *out, struct dr_err *err)
{
    struct dr_err own = {0}, *e = err ? err : &own;
    struct draft *d = dr_xalloc(sizeof *d);
    struct s3_place place;
    memset(out, 0, sizeof *out);
    dr_buf_init(&out->before, XML_MAX);
    dr_buf_init(&out->after, 0);
    out->answer_max = ANSWER_MAX;
    sigv4_sha256("", 0, d->own_sha256);
    d->sha256 = d->own_sha256;
    enum dr_rc rc = s3_place(c->target, c->route, &place, e);
    if (!rc)
        rc = path_of(c, &place, d, e);
    if (!rc && c->op >= STORAGE_PART && c->op <= STORAGE_LIST_PARTS) {
        if (!c->upload_id || !*c->upload_id || strlen(c->upload_id) > S3_UPLOAD_ID_MAX)
            rc = dr_fail(e, DR_E_BUG, "no upload id");
        else
            query(d, "uploadId", c->upload_id);
    }
    if (!rc && c->create_only && (c->op == STORAGE_PUT || c->op == STORAGE_COMPLETE))
        header(d, "if-none-match", "*");
    if (!rc)
        rc = operation(c, d, out, e);
    if (!rc)
        rc = sign(c, &place, d, out, e);
    out->method = d->method;
    free(d);
    return rc;
}
