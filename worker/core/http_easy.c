/* Options, callbacks and verdicts of one transfer. Callbacks run inside libcurl: they only count,
 * copy and judge. */
#include "worker/core/http_internal.h"

#include <string.h>
#include <sys/socket.h>

#include "common/mem.h"

enum { HEADERS_MAX = 65536, CA_KEPT_S = 600 };

static bool succeeded(const struct http_easy *e)
{
    long status = 0;
    (void)curl_easy_getinfo(e->curl, CURLINFO_RESPONSE_CODE, &status);
    return status >= 200 && status <= 299;
}

/* What is announced as too long is not waited for. */
static bool announced_too_big(const struct http_easy *e)
{
    curl_off_t told = -1;
    (void)curl_easy_getinfo(e->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &told);
    return told > 0 && (uint64_t)told > e->into_max;
}

static bool keep(struct http_easy *e, const char *bytes, size_t len)
{
    struct http_response *r = e->response;
    if (!e->into || !succeeded(e)) {
        dr_buf_add(&r->body, bytes, len);
        return !r->body.failed;
    }
    if ((r->into_len == 0 && announced_too_big(e)) || len > e->into_max - r->into_len)
        return false;
    memcpy(e->into + r->into_len, bytes, len);
    r->into_len += len;
    return true;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    struct http_easy *e = arg;
    size_t len = size * count;
    e->received += len;
    e->too_big = e->response && len > 0 && !keep(e, bytes, len);
    return e->too_big ? 0 : len;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *arg)
{
    struct http_easy *e = arg;
    size_t len = size * count;
    e->header_bytes += len;
    e->too_big = e->too_big || e->header_bytes > HEADERS_MAX;
    if (e->too_big)
        return 0;
    if (e->response)
        http_head_line(&e->response->head, &e->head_open, e->received == 0, bytes, len);
    return len;
}

static size_t on_read(char *out, size_t size, size_t count, void *arg)
{
    struct http_easy *e = arg;
    size_t left = e->body_len - e->body_at, n = size * count < left ? size * count : left;
    if (n > 0)
        memcpy(out, e->body + e->body_at, n);
    e->body_at += n;
    return n;
}

/* libcurl asks for it when it sends on a kept connection that turns out to be dead, or is told
 * that nobody heeds its Expect. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct http_easy *e = arg;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > e->body_len)
        return CURL_SEEKFUNC_CANTSEEK;
    e->sent_before += e->body_at > (size_t)offset ? e->body_at - (size_t)offset : 0;
    e->body_at = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* The address here is the one that is connected to: a name that resolves anew cannot cheat. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct http_easy *e = arg;
    (void)purpose;
    if (e->public_only && !http_address_is_public(&a->addr)) {
        e->denied = true;
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static void put_callbacks(struct http_easy *e)
{
    CURL *c = e->curl;
    (void)curl_easy_setopt(c, CURLOPT_ERRORBUFFER, e->why);
    (void)curl_easy_setopt(c, CURLOPT_PRIVATE, e);
    (void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(c, CURLOPT_WRITEDATA, e);
    (void)curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(c, CURLOPT_HEADERDATA, e);
    (void)curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
    (void)curl_easy_setopt(c, CURLOPT_READDATA, e);
    (void)curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
    (void)curl_easy_setopt(c, CURLOPT_SEEKDATA, e);
    (void)curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    (void)curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, e);
}

enum dr_rc http_easy_init(struct http_easy *e, const char *url, const char *protocols,
                          const char *ca_file, uint64_t connect_ms, uint64_t deadline_ms,
                          struct dr_err *err)
{
    CURL *c = e->curl = curl_easy_init();
    e->fd = CURL_SOCKET_BAD;
    CURLcode rc = CURLE_OK;
    if (!c)
        return dr_fail(err, DR_E_NOMEM, "libcurl");
    put_callbacks(e);
    (void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    /* A name look-up that is given up is left to its thread: else removing the handle waits for it,
     * for as long as resolvers take. */
    (void)curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
    (void)curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
    (void)curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
    (void)curl_easy_setopt(c, CURLOPT_CA_CACHE_TIMEOUT, (long)CA_KEPT_S);
    (void)curl_easy_setopt(c, CURLOPT_HTTP_CONTENT_DECODING, 0L);
    (void)curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
    (void)curl_easy_setopt(c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    (void)curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
    (void)curl_easy_setopt(c, CURLOPT_USERAGENT, "drworker/" DR_VERSION);
    (void)curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS,
                           (long)(connect_ms ? connect_ms : HTTP_CONNECT_MS));
    (void)curl_easy_setopt(c, CURLOPT_TIMEOUT_MS,
                           (long)(deadline_ms ? deadline_ms : HTTP_DEADLINE_MS));
    const struct {
        CURLoption option;
        const char *value;
    } texts[] = {{CURLOPT_PROTOCOLS_STR, protocols},
                 {CURLOPT_PROXY, ""}, /* empty: the environment's does not count */
                 {CURLOPT_URL, url},
                 {CURLOPT_CAINFO, ca_file},
                 {CURLOPT_CAPATH, NULL}}; /* or the system's would be trusted as well */
    size_t n = sizeof texts / sizeof texts[0] - (ca_file ? 0 : 2);
    for (size_t i = 0; i < n && !rc; i++)
        rc = curl_easy_setopt(c, texts[i].option, texts[i].value);
    if (!rc)
        rc = curl_easy_setopt(c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    return rc ? dr_fail(err, DR_E_INVALID, "libcurl: %s", curl_easy_strerror(rc)) : DR_OK;
}

void http_easy_fini(struct http_easy *e)
{
    if (e->curl)
        curl_easy_cleanup(e->curl);
    for (struct curl_slist *l = e->list; l; l = l->next) /* there are tokens in them */
        dr_wipe(l->data, strlen(l->data));
    curl_slist_free_all(e->list);
}

enum dr_rc http_easy_line(struct http_easy *e, const char *line, struct dr_err *err)
{
    for (const unsigned char *p = (const unsigned char *)line; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            return dr_fail(err, DR_E_INVALID, "a control character in a header or address");
    struct curl_slist *more = curl_slist_append(e->list, line);
    if (!more)
        return dr_fail(err, DR_E_NOMEM, "libcurl");
    e->list = more;
    return DR_OK;
}

void http_easy_body(struct http_easy *e, const void *bytes, size_t len)
{
    e->body = bytes;
    e->body_len = len;
}

uint64_t http_easy_sent(const struct http_easy *e)
{
    curl_off_t now = 0;
    (void)curl_easy_getinfo(e->curl, CURLINFO_SIZE_UPLOAD_T, &now);
    return e->sent_before + (now > 0 ? (uint64_t)now : 0);
}

static enum dr_rc fail_as(const struct http_easy *e, CURLcode code, enum dr_rc rc,
                          const char *reason, struct dr_err *err)
{
    (void)dr_fail(err, rc, "%s", e->why[0] ? e->why : curl_easy_strerror(code));
    return reason ? dr_err_reason(err, reason) : rc;
}

/* libcurl's words differ from version to version. Numbers: X509_V_ERR_* of OpenSSL; none of them
 * remains when the chain was good and the name was not. */
static enum dr_rc fail_certificate(const struct http_easy *e, CURLcode code, struct dr_err *err)
{
    long verdict = 0;
    const char *what = "it cannot be trusted";
    (void)curl_easy_getinfo(e->curl, CURLINFO_SSL_VERIFYRESULT, &verdict);
    if (code == CURLE_SSL_CACERT_BADFILE)
        what = "those to trust cannot be read";
    else if (verdict == 9)
        what = "it is not valid yet";
    else if (verdict == 10)
        what = "it has expired";
    else if (verdict >= 18 && verdict <= 21)
        what = "it is of another authority";
    else if (verdict <= 1 || verdict == 62)
        what = "it is for another host";
    (void)fail_as(e, code, DR_E_AUTH, "certificate", err);
    return dr_wrap(err, "certificate: %s", what);
}

/* Which peer said it cannot be told from the code alone: HTTP/0.9 and an unknown scheme share one.
 */
static bool was_connected(const struct http_easy *e)
{
    const char *ip = NULL;
    return curl_easy_getinfo(e->curl, CURLINFO_PRIMARY_IP, &ip) == CURLE_OK && ip && ip[0];
}

static enum dr_rc fail_connect(const struct http_easy *e, CURLcode code, struct dr_err *err)
{
    if (!e->denied)
        return fail_as(e, code, DR_E_UNREACHABLE, NULL, err);
    (void)dr_fail(err, DR_E_REFUSED, "its address is not a public one");
    return dr_err_reason(err, "private-address");
}

enum dr_rc http_easy_judge(const struct http_easy *e, CURLcode code, struct dr_err *err)
{
    if (e->too_big)
        return dr_fail(err, DR_E_TOO_BIG, "the answer is longer than is allowed");
    switch (code) {
    case CURLE_OK:
        return DR_OK;
    case CURLE_OPERATION_TIMEDOUT:
        return fail_as(e, code, DR_E_TIMEOUT, NULL, err);
    case CURLE_COULDNT_CONNECT:
        return fail_connect(e, code, err);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        return fail_as(e, code, DR_E_UNREACHABLE, NULL, err);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return fail_certificate(e, code, err);
    case CURLE_USE_SSL_FAILED:
        return fail_as(e, code, DR_E_AUTH, "starttls", err);
    case CURLE_LOGIN_DENIED:
        return fail_as(e, code, DR_E_AUTH, "login", err);
    case CURLE_OUT_OF_MEMORY:
        return fail_as(e, code, DR_E_NOMEM, NULL, err);
    case CURLE_URL_MALFORMAT:
        return dr_fail(err, DR_E_INVALID, "not a URL");
    case CURLE_UNSUPPORTED_PROTOCOL:
        return was_connected(e) ? fail_as(e, code, DR_E_PROTOCOL, NULL, err)
                                : dr_fail(err, DR_E_INVALID, "not an allowed kind of URL");
    default:
        return fail_as(e, code, DR_E_PROTOCOL, NULL, err);
    }
}
