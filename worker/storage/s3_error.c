/* Errors of S3 as classes: by the code of the document, else by the status. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/storage/s3_internal.h"
#include "worker/storage/xml.h"

enum { SKEW_S = 15 * 60 };

struct error {
    char code[64], message[160], region[64], endpoint[256];
};

static const struct {
    const char *code;
    enum storage_class class;
} codes[] = {
    {"AccessDenied", STORAGE_AUTH}, /* READ_ONLY for what writes: see below */
    {"AllAccessDisabled", STORAGE_AUTH},
    {"AccountProblem", STORAGE_AUTH},
    {"InvalidAccessKeyId", STORAGE_AUTH},
    {"InvalidToken", STORAGE_AUTH},
    {"NotSignedUp", STORAGE_AUTH},
    {"SignatureDoesNotMatch", STORAGE_AUTH},
    {"XAdminUserNotFound", STORAGE_AUTH}, /* versitygw */
    {"ExpiredToken", STORAGE_EXPIRED},
    {"TokenRefreshRequired", STORAGE_EXPIRED},
    {"RequestTimeTooSkewed", STORAGE_SKEW},
    {"RequestExpired", STORAGE_SKEW},
    {"NoSuchBucket", STORAGE_NO_BUCKET},
    {"NoSuchKey", STORAGE_NO_KEY},
    {"NoSuchUpload", STORAGE_NO_UPLOAD},
    {"InvalidPart", STORAGE_NO_UPLOAD}, /* it has other parts than we know of */
    {"InvalidPartOrder", STORAGE_NO_UPLOAD},
    {"PreconditionFailed", STORAGE_CHANGED}, /* EXISTS for what creates: see below */
    {"ConditionalRequestConflict", STORAGE_TRANSIENT},
    {"OperationAborted", STORAGE_TRANSIENT},
    {"InternalError", STORAGE_TRANSIENT},
    {"RequestTimeout", STORAGE_TRANSIENT},
    {"SlowDown", STORAGE_THROTTLED},
    {"SlowDownRead", STORAGE_THROTTLED}, /* MinIO */
    {"SlowDownWrite", STORAGE_THROTTLED},
    {"ServiceUnavailable", STORAGE_THROTTLED},
    {"Throttling", STORAGE_THROTTLED},
    {"ThrottlingException", STORAGE_THROTTLED},
    {"RequestLimitExceeded", STORAGE_THROTTLED},
    {"TooManyRequests", STORAGE_THROTTLED},
    {"PermanentRedirect", STORAGE_REGION},
    {"TemporaryRedirect", STORAGE_REGION},
    {"Redirect", STORAGE_REGION},
    {"AuthorizationHeaderMalformed", STORAGE_REGION}, /* AUTH unless it names a region */
    {"IllegalLocationConstraintException", STORAGE_REGION},
    {"BadDigest", STORAGE_DAMAGED},
    {"InvalidDigest", STORAGE_DAMAGED},
    {"IncompleteBody", STORAGE_DAMAGED},
    {"XAmzContentSHA256Mismatch", STORAGE_DAMAGED},
    {"XAmzContentChecksumMismatch", STORAGE_DAMAGED}, /* MinIO */
    {"InvalidRange", STORAGE_INTEGRITY},              /* shorter than the catalog knows it */
    {"InvalidObjectState", STORAGE_PERMANENT},        /* in an archive tier */
    {"ObjectLocked", STORAGE_READ_ONLY},
    {"InvalidRetentionPeriod", STORAGE_READ_ONLY},
    {"QuotaExceeded", STORAGE_FULL},
    {"InsufficientStorage", STORAGE_FULL},
    {"XMinioStorageFull", STORAGE_FULL},
    {"XMinioAdminBucketQuotaExceeded", STORAGE_FULL},
};

static bool writes(enum storage_op op)
{
    return op <= STORAGE_ABORT || op == STORAGE_DELETE;
}

static bool creates(const struct storage_call *c)
{
    return c->create_only && (c->op == STORAGE_PUT || c->op == STORAGE_COMPLETE);
}

static enum storage_class by_code(const char *code, bool *known)
{
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (strcmp(code, codes[i].code) == 0) {
            *known = true;
            return codes[i].class;
        }
    *known = false;
    return STORAGE_PERMANENT;
}

/* No document, or a code that we do not know. A 404 that is not S3's says nothing of an object. */
static enum storage_class by_status(const struct storage_call *c, unsigned status, bool document)
{
    static const struct {
        unsigned status;
        enum storage_class class;
    } table[] = {
        {301, STORAGE_REGION},    {302, STORAGE_REGION},    {307, STORAGE_REGION},
        {308, STORAGE_REGION},    {401, STORAGE_AUTH},      {403, STORAGE_AUTH},
        {408, STORAGE_TRANSIENT}, {409, STORAGE_TRANSIENT}, {412, STORAGE_CHANGED},
        {416, STORAGE_INTEGRITY}, {425, STORAGE_TRANSIENT}, {429, STORAGE_THROTTLED},
        {501, STORAGE_PERMANENT}, {503, STORAGE_THROTTLED}, {507, STORAGE_FULL},
    };
    if (status == 404)
        return c->op == STORAGE_HEAD ? STORAGE_NO_KEY
               : document            ? STORAGE_PERMANENT
                                     : STORAGE_NONSENSE;
    if (status == 400 && c->op == STORAGE_HEAD && c->target->session_token.len)
        return STORAGE_EXPIRED; /* the reason has no room in an answer to HEAD */
    if (status == 405)
        return writes(c->op) ? STORAGE_READ_ONLY : STORAGE_PERMANENT;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].status == status)
            return table[i].class;
    if (status >= 500)
        return STORAGE_TRANSIENT;
    return status >= 400 && (document || c->op == STORAGE_HEAD) ? STORAGE_PERMANENT
                                                                : STORAGE_NONSENSE;
}

static void copy(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; *text && n + 1 < size; text++)
        out[n++] = *text >= ' ' && *text <= '~' ? *text : '?';
    out[n] = 0;
}

static bool on_error(void *arg, const char *path, const char *text)
{
    struct error *e = arg;
    if (strcmp(path, "Error/Code") == 0)
        copy(e->code, sizeof e->code, text);
    else if (strcmp(path, "Error/Message") == 0)
        copy(e->message, sizeof e->message, text);
    else if (strcmp(path, "Error/Region") == 0)
        copy(e->region, sizeof e->region, text);
    else if (strcmp(path, "Error/Endpoint") == 0)
        copy(e->endpoint, sizeof e->endpoint, text);
    return true;
}

static bool region_name(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n < 64 && s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-_")] == 0;
}

/* "https://host[:port]/path" -> host[:port] when it is of our scheme. */
static bool location_host(const char *url, const struct s3_place *from, char out[256])
{
    const char *scheme = from->plain ? "http://" : "https://";
    size_t len;
    if (!url || !dr_starts(url, scheme))
        return false;
    url += strlen(scheme);
    len = strcspn(url, "/?#");
    if (len == 0 || len >= 256)
        return false;
    memcpy(out, url, len);
    out[len] = 0;
    return true;
}

/* Where to go instead, as far as it is told, is new, and may be believed. */
static void learn(const struct storage_call *c, const struct storage_reply *r,
                  const struct error *e, struct storage_answer *out)
{
    struct s3_place from;
    char host[256] = "";
    const char *region = storage_reply_field(r, "x-amz-bucket-region");
    if (s3_place(c->target, c->route, &from, NULL))
        return;
    if (!region || !*region)
        region = e->region;
    if (region_name(region) && strcmp(region, from.region) != 0)
        (void)snprintf(out->region, sizeof out->region, "%s", region);
    if (!location_host(storage_reply_field(r, "location"), &from, host))
        copy(host, sizeof host, e->endpoint);
    if (host[0] && strcmp(host, from.host) != 0 && s3_redirect_allowed(&from, host))
        (void)snprintf(out->host, sizeof out->host, "%s", host);
}

static int64_t apart(int64_t a, int64_t b)
{
    return a > b ? a - b : b - a;
}

/* What the same code or status means for this operation. */
static enum storage_class refine(const struct storage_call *c, const struct storage_reply *r,
                                 const struct error *e, const struct storage_answer *a,
                                 enum storage_class class)
{
    bool denied = class == STORAGE_AUTH && strcmp(e->code, "AccessDenied") == 0;
    if (class == STORAGE_AUTH && r->date_unix_s && apart(r->date_unix_s, c->now_unix_s) > SKEW_S)
        return STORAGE_SKEW;
    if (denied && writes(c->op))
        return STORAGE_READ_ONLY;
    if (class == STORAGE_CHANGED && creates(c))
        return STORAGE_EXISTS;
    if (class == STORAGE_REGION && strcmp(e->code, "AuthorizationHeaderMalformed") == 0 &&
        !a->region[0])
        return STORAGE_AUTH;
    if (class == STORAGE_PERMANENT && r->status == 400 && c->op == STORAGE_HEAD && a->region[0])
        return STORAGE_REGION;
    return class;
}

enum storage_class s3_read_error(const struct storage_call *c, const struct storage_reply *r,
                                 struct storage_answer *out, struct dr_err *err)
{
    struct error e = {.code = ""};
    bool known = false;
    if (r->body_len && xml_read(r->body, r->body_len, on_error, &e, NULL) && r->status < 300)
        return storage_fail(err, STORAGE_NONSENSE, "HTTP %u with no document of S3", r->status);
    enum storage_class class = by_code(e.code, &known);
    if (!known)
        class = by_status(c, r->status, e.code[0] != 0);
    learn(c, r, &e, out);
    class = refine(c, r, &e, out, class);
    if (class != STORAGE_REGION)
        out->region[0] = out->host[0] = 0;
    const char *where = out->region[0] ? out->region : out->host;
    return storage_fail(err, class, "HTTP %u%s%s%s%s%s%s", r->status, e.code[0] ? " " : "", e.code,
                        e.message[0] ? ": " : "", e.message, *where ? ", it is at " : "", where);
}
