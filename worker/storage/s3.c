/* The aws_s3 row: its limits, what its settings must be, and where a call goes. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/str.h"
#include "worker/storage/s3_internal.h"

static bool given(const char *s)
{
    return s && *s;
}

static bool all_of(const char *s, const char *allowed)
{
    return s[strspn(s, allowed)] == 0;
}

#define LOWER  "abcdefghijklmnopqrstuvwxyz"
#define UPPER  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static enum dr_rc wrong(struct dr_err *err, const char *field, const char *value, const char *why)
{
    (void)dr_fail(err, DR_E_CONFIG, "%s: %s", field, why);
    (void)dr_err_field(err, field, value ? value : "", value ? strlen(value) : 0);
    return DR_E_CONFIG;
}

/* host or host:port; out without the port, lower case. */
static bool host_alone(const char *s, char out[S3_HOST_MAX])
{
    const char *end = *s == '[' ? strchr(s, ']') : strchr(s, ':');
    size_t len = !end ? strlen(s) : (size_t)(end - s) + (*s == '[');
    if (*s == '[' && !end)
        return false;
    if (len == 0 || len >= S3_HOST_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        out[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] + 32) : s[i];
    out[len] = 0;
    const char *allowed = *s == '[' ? "[]:.abcdef" DIGITS : LOWER DIGITS ".-";
    uint64_t port;
    if (!all_of(out, allowed) || out[0] == '.' || out[0] == '-')
        return false;
    return s[len] == 0 || (s[len] == ':' && dr_parse_u64(s + len + 1, 1, 65535, &port));
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

static bool loopback(const char *host)
{
    char alone[S3_HOST_MAX];
    if (!host_alone(host, alone))
        return false;
    return strcmp(alone, "localhost") == 0 || ends_with(alone, ".localhost") ||
           strcmp(alone, "[::1]") == 0 || (dr_starts(alone, "127.") && all_of(alone, DIGITS "."));
}

/* "https://host[:port][/]" -> host[:port], without the scheme's own port. */
static bool read_endpoint(const char *s, char host[S3_HOST_MAX], bool *plain)
{
    char alone[S3_HOST_MAX];
    *plain = strncasecmp(s, "http://", 7) == 0;
    if (!*plain && strncasecmp(s, "https://", 8) != 0)
        return false;
    s += *plain ? 7 : 8;
    size_t len = strcspn(s, "/");
    if (len >= S3_HOST_MAX || (s[len] == '/' && s[len + 1]))
        return false;
    memcpy(host, s, len);
    host[len] = 0;
    if (!host_alone(host, alone))
        return false;
    const char *port = host + strlen(alone);
    if (strcmp(port, *plain ? ":80" : ":443") != 0)
        (void)strncat(alone, port, S3_HOST_MAX - 1 - strlen(alone));
    memcpy(host, alone, strlen(alone) + 1);
    return true;
}

static enum dr_rc put_region(const struct storage_target *t, const struct storage_route *route,
                             struct s3_place *out, struct dr_err *err)
{
    const char *region = given(t->region) ? t->region : "us-east-1";
    if (route && route->region[0])
        region = route->region;
    if (strlen(region) >= sizeof out->region || !all_of(region, LOWER UPPER DIGITS "-_."))
        return wrong(err, "region", region, "letters, digits, '-', '_' and '.'");
    memcpy(out->region, region, strlen(region) + 1);
    return DR_OK;
}

enum dr_rc s3_place(const struct storage_target *t, const struct storage_route *route,
                    struct s3_place *out, struct dr_err *err)
{
    char base[S3_HOST_MAX];
    memset(out, 0, sizeof *out);
    if (put_region(t, route, out, err))
        return err ? err->rc : DR_E_CONFIG;
    if (!given(t->endpoint))
        (void)snprintf(base, sizeof base, "s3.%s.amazonaws.com%s", out->region,
                       dr_starts(out->region, "cn-") ? ".cn" : "");
    else if (!read_endpoint(t->endpoint, base, &out->plain))
        return wrong(err, "endpoint", t->endpoint, "https://host or https://host:port, no path");
    if (out->plain && !loopback(base))
        return wrong(err, "endpoint", t->endpoint, "http is for this machine only, use https");
    /* An address has no names below it; a dot in the bucket's does not match a certificate for
     * *.host. */
    out->bucket_in_path = t->path_style || base[0] == '[' || all_of(base, DIGITS ".:") ||
                          (!out->plain && strchr(t->bucket, '.'));
    if (route && route->host[0])
        (void)snprintf(out->host, sizeof out->host, "%s", route->host);
    else if (snprintf(out->host, sizeof out->host, "%s%s%s", out->bucket_in_path ? "" : t->bucket,
                      out->bucket_in_path ? "" : ".", base) >= (int)sizeof out->host)
        return wrong(err, "endpoint", t->endpoint, "too long");
    return DR_OK;
}

bool s3_redirect_allowed(const struct s3_place *from, const char *host)
{
    char here[S3_HOST_MAX], there[S3_HOST_MAX], below[S3_HOST_MAX + 1];
    if (!host_alone(from->host, here) || !host_alone(host, there))
        return false;
    (void)snprintf(below, sizeof below, ".%s", here);
    if (strcmp(here, there) == 0 || ends_with(there, below))
        return !from->plain || loopback(host);
    for (const char *const *s = (const char *const[]){".amazonaws.com", ".amazonaws.com.cn", NULL};
         *s; s++)
        if (ends_with(here, *s) && ends_with(there, *s))
            return !from->plain;
    return false;
}

static bool printable(const struct dr_secret *s)
{
    for (size_t i = 0; i < s->len; i++)
        if (s->bytes[i] <= ' ' || s->bytes[i] > '~')
            return false;
    return true;
}

static enum dr_rc check_prefix(const char *p, struct dr_err *err)
{
    if (!given(p))
        return DR_OK;
    if (strlen(p) > 512 || p[0] == '/' || p[strlen(p) - 1] != '/' || strstr(p, "//") ||
        !all_of(p, LOWER UPPER DIGITS "/-_.=+@"))
        return wrong(err, "prefix", p, "letters, digits and -_.=+@ between single slashes");
    for (const char *s = p; s; s = strchr(s, '/') ? strchr(s, '/') + 1 : NULL)
        if (dr_starts(s, "./") || dr_starts(s, "../"))
            return wrong(err, "prefix", p, "no . or .. in it");
    return DR_OK;
}

enum dr_rc s3_check(const struct storage_target *t, struct dr_err *err)
{
    struct dr_err own = {0}, *e = err ? err : &own;
    struct s3_place place;
    size_t len = t->bucket ? strlen(t->bucket) : 0;
    const char *allowed = t->path_style ? LOWER UPPER DIGITS ".-_" : LOWER DIGITS ".-";
    if (len < 3 || len > (t->path_style ? 255 : 63) || !all_of(t->bucket, allowed) ||
        strchr(".-", t->bucket[0]) || strstr(t->bucket, "..") || strchr(".-", t->bucket[len - 1]))
        return wrong(e, "bucket", t->bucket, "is no bucket's name");
    if (s3_place(t, NULL, &place, e) || check_prefix(t->prefix, e))
        return e->rc;
    if (!t->access_key.len || !printable(&t->access_key))
        return wrong(e, "access_key", NULL, t->access_key.len ? "unprintable" : "is not set");
    if (!t->secret_key.len || !printable(&t->secret_key))
        return wrong(e, "secret_key", NULL, t->secret_key.len ? "unprintable" : "is not set");
    if (!printable(&t->session_token))
        return wrong(e, "session_token", NULL, "unprintable");
    return DR_OK;
}

const struct storage_dialect storage_aws_s3 = {
    .provider = "aws_s3",
    .put_max = 5ULL << 30,
    .part_min = 5ULL << 20,
    .part_max = 5ULL << 30,
    .part_multiple = 1,
    .parts_max = S3_PARTS_MAX,
    .check = s3_check,
    .build = s3_build,
    .parse = s3_parse,
};
