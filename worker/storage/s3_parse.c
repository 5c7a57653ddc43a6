/* S3 replies: first whether the status is one of success, then what the operation asks for. What is
 * not a whole answer of S3 is never a success, and never an absence. */
#include <string.h>

#include "common/str.h"
#include "worker/storage/s3_internal.h"

/* The value when it is printable ASCII and fits, quotes included. */
static bool text_field(const struct storage_reply *r, const char *name, char *out, size_t size)
{
    const char *v = storage_reply_field(r, name);
    size_t len = v ? strlen(v) : 0;
    if (len == 0 || len >= size)
        return false;
    for (size_t i = 0; i < len; i++)
        if (v[i] < ' ' || v[i] > '~')
            return false;
    memcpy(out, v, len + 1);
    return true;
}

static void common_fields(const struct storage_reply *r, struct storage_answer *out)
{
    const char *sum = storage_reply_field(r, S3_META_SHA256);
    out->has_sha256 = sum && strlen(sum) == 64 && dr_unhex(sum, 64, out->sha256, 32);
    (void)text_field(r, S3_META_LABEL, out->label, sizeof out->label);
    (void)text_field(r, "etag", out->etag, sizeof out->etag);
    (void)text_field(r, "x-amz-version-id", out->version_id, sizeof out->version_id);
}

static enum storage_class nonsense(struct dr_err *err, unsigned status, const char *what)
{
    return storage_fail(err, STORAGE_NONSENSE, "HTTP %u %s", status, what);
}

/* The store told which bytes it took: they must be ours. */
static enum storage_class taken(const struct storage_call *c, const struct storage_reply *r,
                                struct storage_answer *out, struct dr_err *err)
{
    const char *told = storage_reply_field(r, "x-amz-checksum-sha256");
    unsigned char sum[32];
    if (r->status != 200)
        return nonsense(err, r->status, "to an upload");
    if (!out->etag[0])
        return nonsense(err, r->status, "without ETag");
    if (told && s3_unbase64(told, sum) && memcmp(sum, c->payload.sha256, sizeof sum) != 0)
        return storage_fail(err, STORAGE_INTEGRITY, "the store confirms another checksum");
    return STORAGE_OK;
}

/* "bytes 0-99/1000" -> total; false unless it is the range that was asked for. */
static bool right_range(const struct storage_call *c, const char *value, uint64_t *total)
{
    char first[24], last[24];
    const char *dash, *slash;
    uint64_t from, to;
    if (!value || !dr_starts(value, "bytes "))
        return false;
    value += 6;
    dash = strchr(value, '-');
    slash = dash ? strchr(dash, '/') : NULL;
    if (!slash || (size_t)(dash - value) >= sizeof first || (size_t)(slash - dash) > sizeof last)
        return false;
    memcpy(first, value, (size_t)(dash - value));
    first[dash - value] = 0;
    memcpy(last, dash + 1, (size_t)(slash - dash - 1));
    last[slash - dash - 1] = 0;
    return dr_parse_u64(first, 0, UINT64_MAX, &from) && dr_parse_u64(last, 0, UINT64_MAX, &to) &&
           dr_parse_u64(slash + 1, 1, UINT64_MAX, total) && from == c->offset && to < *total &&
           to - from == c->length - 1;
}

static enum storage_class got(const struct storage_call *c, const struct storage_reply *r,
                              struct storage_answer *out, struct dr_err *err)
{
    const char *length = storage_reply_field(r, "content-length");
    uint64_t n = 0;
    bool told = length && dr_parse_u64(length, 0, INT64_MAX, &n);
    if (r->status == 206) {
        out->has_size =
            c->length && right_range(c, storage_reply_field(r, "content-range"), &out->size);
        return out->has_size ? STORAGE_OK : nonsense(err, r->status, "with another range");
    }
    if (r->status != 200 || !told)
        return nonsense(err, r->status, told ? "to a download" : "without length");
    if (c->length && (c->offset || n != c->length))
        return nonsense(err, r->status, "with all of it to a range");
    out->size = n;
    out->has_size = true;
    return STORAGE_OK;
}

static enum storage_class seen(const struct storage_reply *r, struct storage_answer *out,
                               struct dr_err *err)
{
    const char *length = storage_reply_field(r, "content-length");
    if (r->status != 200 || !length || !dr_parse_u64(length, 0, INT64_MAX, &out->size))
        return nonsense(err, r->status, "without length");
    out->has_size = true;
    return STORAGE_OK;
}

static enum storage_class gone(const struct storage_reply *r, struct dr_err *err)
{
    if (r->status != 204 && r->status != 200)
        return nonsense(err, r->status, "to a deletion");
    return STORAGE_OK;
}

static enum storage_class success(const struct storage_call *c, const struct storage_reply *r,
                                  struct storage_answer *out, struct dr_err *err)
{
    bool with_body = c->op == STORAGE_BEGIN || c->op == STORAGE_COMPLETE ||
                     c->op == STORAGE_LIST_PARTS || c->op == STORAGE_LIST ||
                     c->op == STORAGE_LIST_UPLOADS;
    if (with_body && r->status != 200)
        return nonsense(err, r->status, "where a document was due");
    switch (c->op) {
    case STORAGE_PUT:
    case STORAGE_PART:
        return taken(c, r, out, err);
    case STORAGE_BEGIN:
        return s3_read_begin(r, out, err);
    case STORAGE_COMPLETE:
        return s3_read_complete(c, r, out, err);
    case STORAGE_LIST_PARTS:
        return s3_read_parts(c, r, out, err);
    case STORAGE_GET:
        return got(c, r, out, err);
    case STORAGE_HEAD:
        return seen(r, out, err);
    case STORAGE_LIST:
    case STORAGE_LIST_UPLOADS:
        return s3_read_page(c, r, out, err);
    case STORAGE_ABORT:
    case STORAGE_DELETE:
        return gone(r, err);
    case STORAGE_AUTHORISE:
    default:
        return storage_fail(err, STORAGE_PERMANENT, "operation %d", (int)c->op);
    }
}

enum storage_class s3_parse(const struct storage_call *c, const struct storage_reply *r,
                            struct storage_answer *out, struct dr_err *err)
{
    memset(out, 0, sizeof *out);
    out->status = r->status;
    out->date_unix_s = r->date_unix_s;
    out->retry_after_s = r->retry_after_s;
    if (r->status >= 200 && r->status < 300) {
        common_fields(r, out);
        return success(c, r, out, err);
    }
    struct dr_err why = {0};
    enum storage_class class = s3_read_error(c, r, out, &why);
    if ((c->op == STORAGE_ABORT && class == STORAGE_NO_UPLOAD) ||
        (c->op == STORAGE_DELETE && class == STORAGE_NO_KEY))
        return STORAGE_OK;
    return storage_fail(err, class, "%s", why.msg);
}
