/* Canonical request, string to sign, signature. A table of pairs on the stack, bounded text in
 * buffers; what holds a secret is wiped. */
#include "worker/storage/sigv4.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/str.h"

enum { TEXT_MAX = 64 << 10, OWN_HEADERS = 4, MAC = 32, SCOPE_MAX = 256 };

struct pair { /* canonical, owned; order: of the caller, for headers of one name */
    char *name, *value;
    size_t order;
};

struct pairs {
    struct pair at[SIGV4_PAIRS_MAX + OWN_HEADERS];
    size_t count;
};

static void pairs_fini(struct pairs *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free(p->at[i].name);
        if (p->at[i].value)
            dr_wipe(p->at[i].value, strlen(p->at[i].value)); /* may be the session token */
        free(p->at[i].value);
    }
    p->count = 0;
}

static void wipe_buf(struct dr_buf *b)
{
    if (b->data)
        dr_wipe(b->data, b->cap);
    dr_buf_fini(b);
}

void sigv4_encode(struct dr_buf *b, const char *s, bool keep_slash)
{
    static const char digits[] = "0123456789ABCDEF";
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        char escaped[3] = {'%', digits[c >> 4], digits[c & 15]};
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (letter || (c >= '0' && c <= '9') || strchr("-._~", c) || (keep_slash && c == '/'))
            dr_buf_add(b, s, 1);
        else
            dr_buf_add(b, escaped, 3);
    }
}

void sigv4_sha256(const void *bytes, size_t len, unsigned char out[32])
{
    if (EVP_Digest(bytes ? bytes : "", len, out, NULL, EVP_sha256(), NULL) != 1)
        OPENSSL_die("digest", __FILE__, __LINE__);
}

static void mac(const void *key, size_t key_len, const void *text, size_t len,
                unsigned char out[MAC])
{
    if (!HMAC(EVP_sha256(), key, (int)key_len, text, len, out, NULL))
        OPENSSL_die("hmac", __FILE__, __LINE__);
}

static char *encoded(const char *s)
{
    struct dr_buf b;
    dr_buf_init(&b, TEXT_MAX);
    dr_buf_str(&b, "");
    sigv4_encode(&b, s, false);
    return b.failed ? (dr_buf_fini(&b), NULL) : dr_buf_take(&b);
}

static int by_query(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    int d = strcmp(x->name, y->name);
    return d ? d : strcmp(x->value, y->value);
}

static int by_header(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    int d = strcmp(x->name, y->name);
    return d ? d : (x->order > y->order) - (x->order < y->order);
}

static enum dr_rc put_target(const struct sigv4_request *r, struct dr_buf *canonical,
                             struct dr_buf *target, struct dr_err *err)
{
    struct pairs q = {.count = 0};
    enum dr_rc rc = DR_OK;
    if (r->path[0] != '/' || strlen(r->path) > SIGV4_PATH_MAX || r->query_count > SIGV4_PAIRS_MAX)
        return dr_fail(err, DR_E_BUG, "signer: path or query");
    sigv4_encode(target, r->path, true);
    for (size_t i = 0; i < r->query_count; i++) {
        struct pair *p = &q.at[q.count++];
        p->name = encoded(r->query[i].name);
        p->value = encoded(r->query[i].value);
        if (!p->name || !p->value)
            rc = dr_fail(err, DR_E_BUG, "signer: query too long");
    }
    if (!rc) {
        qsort(q.at, q.count, sizeof q.at[0], by_query);
        dr_buf_add(canonical, target->data, target->len);
        dr_buf_str(canonical, "\n");
        for (size_t i = 0; i < q.count; i++) {
            dr_buf_str(target, i ? "&" : "?");
            dr_buf_printf(target, "%s=%s", q.at[i].name, q.at[i].value);
            dr_buf_printf(canonical, "%s%s=%s", i ? "&" : "", q.at[i].name, q.at[i].value);
        }
        dr_buf_str(canonical, "\n");
    }
    pairs_fini(&q);
    return rc;
}

/* Blanks around it go, runs of them become one. false: nothing is left, or it would break a line.
 */
static bool fold(const char *s, char *out)
{
    char *to = out;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
        if (c != ' ' && c != '\t')
            *to++ = (char)c;
        else if (to > out && to[-1] != ' ')
            *to++ = ' ';
    }
    while (to > out && to[-1] == ' ')
        to--;
    *to = 0;
    return to > out;
}

static enum dr_rc put_header(struct pairs *h, const char *name, const char *value, size_t value_len,
                             struct dr_err *err)
{
    struct pair *p = &h->at[h->count];
    char *given = dr_xstrndup(value, value_len);
    p->order = h->count++;
    p->name = dr_xstrdup(name);
    p->value = dr_xalloc(value_len + 1);
    bool good = *name && fold(given, p->value) && strlen(given) == value_len;
    dr_wipe(given, value_len);
    free(given);
    for (char *c = p->name; *c; c++) {
        *c = (char)tolower((unsigned char)*c);
        good = good && ((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-');
    }
    return good ? DR_OK : dr_fail(err, DR_E_BUG, "signer: header %.32s", name);
}

static bool own_name(const char *name)
{
    static const char *const own[] = {"host", "x-amz-date", "x-amz-content-sha256",
                                      "x-amz-security-token", "authorization"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strcasecmp(name, own[i]) == 0)
            return true;
    return false;
}

static enum dr_rc gather(const struct sigv4_request *r, const struct sigv4_key *key,
                         const char *date, const char *payload, struct pairs *h, struct dr_err *err)
{
    if (r->header_count > SIGV4_PAIRS_MAX)
        return dr_fail(err, DR_E_BUG, "signer: %zu headers", r->header_count);
    enum dr_rc rc = put_header(h, "host", r->host, strlen(r->host), err);
    if (!rc)
        rc = put_header(h, "x-amz-date", date, strlen(date), err);
    if (!rc && !r->not_s3)
        rc = put_header(h, "x-amz-content-sha256", payload, strlen(payload), err);
    if (!rc && key->session && key->session->len)
        rc = put_header(h, "x-amz-security-token", (const char *)key->session->bytes,
                        key->session->len, err);
    for (size_t i = 0; !rc && i < r->header_count; i++) {
        const struct sigv4_pair *p = &r->headers[i];
        if (own_name(p->name))
            rc = dr_fail(err, DR_E_BUG, "signer: %s is its own", p->name);
        else
            rc = put_header(h, p->name, p->value, strlen(p->value), err);
    }
    qsort(h->at, h->count, sizeof h->at[0], by_header);
    return rc;
}

static void put_headers(const struct pairs *h, struct dr_buf *canonical, struct dr_buf *names)
{
    for (size_t i = 0; i < h->count; i++) {
        bool again = i && strcmp(h->at[i].name, h->at[i - 1].name) == 0;
        if (again) {
            dr_buf_printf(canonical, ",%s", h->at[i].value);
            continue;
        }
        dr_buf_printf(canonical, "%s%s:%s", i ? "\n" : "", h->at[i].name, h->at[i].value);
        dr_buf_printf(names, "%s%s", i ? ";" : "", h->at[i].name);
    }
    dr_buf_str(canonical, "\n\n");
}

static void signature(const struct sigv4_key *key, const char *day, const struct dr_buf *to_sign,
                      char hex[2 * MAC + 1])
{
    unsigned char k[MAC], sum[MAC];
    size_t len = key->secret->len + 4;
    unsigned char *first = dr_xalloc(len);
    memcpy(first, "AWS4", 4);
    memcpy(first + 4, key->secret->bytes, key->secret->len);
    mac(first, len, day, 8, k);
    mac(k, MAC, key->region, strlen(key->region), k);
    mac(k, MAC, key->service, strlen(key->service), k);
    mac(k, MAC, "aws4_request", 12, k);
    mac(k, MAC, to_sign->data, to_sign->len, sum);
    dr_hex(sum, MAC, hex);
    dr_wipe(first, len);
    free(first);
    dr_wipe(k, sizeof k);
}

static void put_fields(const struct pairs *h, const char *authorization, struct sigv4_signed *out)
{
    out->fields = dr_xarray(h->count + 2, sizeof *out->fields);
    for (size_t i = 0; i < h->count; i++)
        out->fields[out->field_count++] = dr_xasprintf("%s: %s", h->at[i].name, h->at[i].value);
    out->fields[out->field_count++] = dr_xasprintf("Authorization: %s", authorization);
}

/* canonical -> to_sign -> signature -> fields */
static enum dr_rc conclude(const struct pairs *h, const struct sigv4_key *key, const char *date,
                           const char *names, struct sigv4_signed *out, struct dr_err *err)
{
    char scope[SCOPE_MAX], hex[2 * MAC + 1];
    unsigned char sum[MAC];
    struct dr_buf line;
    int n =
        snprintf(scope, sizeof scope, "%.8s/%s/%s/aws4_request", date, key->region, key->service);
    if (n < 0 || (size_t)n >= sizeof scope || out->canonical.failed)
        return dr_fail(err, DR_E_BUG, "signer: request too long");
    sigv4_sha256(out->canonical.data, out->canonical.len, sum);
    dr_hex(sum, sizeof sum, hex);
    dr_buf_printf(&out->to_sign, "AWS4-HMAC-SHA256\n%s\n%s\n%s", date, scope, hex);
    signature(key, date, &out->to_sign, hex);
    dr_buf_init(&line, TEXT_MAX);
    dr_buf_printf(&line, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
                  (const char *)key->access->bytes, scope, names, hex);
    if (!line.failed)
        put_fields(h, (const char *)line.data, out);
    dr_buf_fini(&line);
    return out->fields ? DR_OK : dr_fail(err, DR_E_BUG, "signer: request too long");
}

static bool printable(const struct dr_secret *s)
{
    for (size_t i = 0; i < s->len; i++)
        if (s->bytes[i] <= ' ' || s->bytes[i] > '~')
            return false;
    return true;
}

enum dr_rc sigv4_sign(const struct sigv4_request *r, const struct sigv4_key *key,
                      int64_t now_unix_s, struct sigv4_signed *out, struct dr_err *err)
{
    char date[20], payload[2 * MAC + 1] = "UNSIGNED-PAYLOAD";
    time_t now = (time_t)now_unix_s;
    struct tm tm;
    struct pairs h = {.count = 0};
    struct dr_buf target, names;
    memset(out, 0, sizeof *out);
    dr_buf_init(&out->canonical, TEXT_MAX);
    dr_buf_init(&out->to_sign, TEXT_MAX);
    if (!r->sha256 && r->plain)
        return dr_fail(err, DR_E_REFUSED, "an unsigned payload goes over https only");
    if (!gmtime_r(&now, &tm) || strftime(date, sizeof date, "%Y%m%dT%H%M%SZ", &tm) != 16)
        return dr_fail(err, DR_E_BUG, "signer: time %lld", (long long)now_unix_s);
    if (!key->access->len || !key->secret->len || !printable(key->access))
        return dr_fail(err, DR_E_BUG, "signer: no key");
    if (r->sha256)
        dr_hex(r->sha256, MAC, payload);
    dr_buf_init(&target, TEXT_MAX);
    dr_buf_init(&names, TEXT_MAX);
    dr_buf_printf(&out->canonical, "%s\n", r->method);
    enum dr_rc rc = put_target(r, &out->canonical, &target, err);
    if (!rc)
        rc = gather(r, key, date, payload, &h, err);
    if (!rc) {
        put_headers(&h, &out->canonical, &names);
        dr_buf_printf(&out->canonical, "%s\n%s", (const char *)names.data, payload);
        rc = conclude(&h, key, date, (const char *)names.data, out, err);
    }
    if (!rc && target.failed)
        rc = dr_fail(err, DR_E_BUG, "signer: request too long");
    if (!rc)
        out->target = dr_buf_take(&target);
    dr_buf_fini(&target);
    dr_buf_fini(&names);
    pairs_fini(&h);
    return rc;
}

void sigv4_signed_fini(struct sigv4_signed *s)
{
    for (size_t i = 0; i < s->field_count; i++) {
        dr_wipe(s->fields[i], strlen(s->fields[i]));
        free(s->fields[i]);
    }
    free(s->fields);
    free(s->target);
    wipe_buf(&s->canonical);
    wipe_buf(&s->to_sign);
    memset(s, 0, sizeof *s);
}
