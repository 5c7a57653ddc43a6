/* One request as libcurl wants it, and whether its answer may be believed. Loop thread. */
#include "worker/core/http_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/mem.h"

enum {
    KEPT_S = 60,
    EXPECT_ABOVE_BYTES = 1 << 20,
    EXPECT_MS = 1000,
    RECEIVE_MAX = 65536, /* libcurl reads a hundred of them before it lets the loop go on */
    SEND_MAX = 262144
};

static enum dr_rc put_method(struct http_easy *e, const struct http_request *r, struct dr_err *err)
{
    CURL *c = e->curl;
    const char *method = r->method ? r->method : "GET";
    curl_off_t len = (curl_off_t)r->body_len;
    bool bodied = false;
    if (strcmp(method, "GET") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
    } else if (strcmp(method, "HEAD") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
    } else if (strcmp(method, "DELETE") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
        (void)curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, "DELETE");
    } else if (strcmp(method, "POST") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_POST, 1L);
        (void)curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, len);
        bodied = true;
    } else if (strcmp(method, "PUT") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
        (void)curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, len);
        bodied = true;
    } else {
        return dr_fail(err, DR_E_BUG, "method %s", method);
    }
    if (r->body_len > 0 && !bodied)
        return dr_fail(err, DR_E_BUG, "method %s with a body", method);
    http_easy_body(e, r->body, r->body_len);
    return DR_OK;
}

static bool names(const char *line, const char *name)
{
    size_t n = strlen(name);
    return strncasecmp(line, name, n) == 0 && (line[n] == ':' || line[n] == ' ');
}

/* For libcurl `Name:` means that it is not to be sent, `Name;` that it is empty. */
static enum dr_rc put_header(struct http_easy *e, const char *line, struct dr_err *err)
{
    const char *colon = strchr(line, ':');
    if (!colon || colon[1 + strspn(colon + 1, " ")])
        return http_easy_line(e, line, err);
    char *empty = dr_xstrdup(line);
    empty[colon - line] = ';';
    empty[colon - line + 1] = 0;
    enum dr_rc rc = http_easy_line(e, empty, err);
    free(empty);
    return rc;
}

static enum dr_rc put_headers(struct http_easy *e, const struct http_request *r, struct dr_err *err)
{
    /* libcurl asks by itself: above 1 MiB all its versions do, and take a 417 for what it is, which
     * they do not if the line is ours. */
    bool expects = r->body_len > EXPECT_ABOVE_BYTES && !r->no_expect, typed = false;
    if (!expects && http_easy_line(e, "Expect:", err))
        return err->rc;
    for (const char *const *h = r->headers; h && *h; h++) {
        typed = typed || names(*h, "Content-Type");
        if (put_header(e, *h, err))
            return err->rc;
    }
    /* libcurl would call any POST a form, and a store would keep that as the object's type. */
    if (!typed && http_easy_line(e, "Content-Type:", err))
        return err->rc;
    (void)curl_easy_setopt(e->curl, CURLOPT_EXPECT_100_TIMEOUT_MS, (long)EXPECT_MS);
    (void)curl_easy_setopt(e->curl, CURLOPT_HTTPHEADER, e->list);
    return DR_OK;
}

static long within(uint64_t n, long min, long max)
{
    return n < (uint64_t)min ? min : n > (uint64_t)max ? max : (long)n;
}

/* A full buffer goes out before libcurl looks at the cap: a large one would come in bursts. */
static void put_pace(struct http_easy *e, const struct http_request *r)
{
    uint64_t step = r->max_bytes_s ? r->max_bytes_s / 4 : UINT64_MAX;
    if (r->max_bytes_s) {
        curl_off_t cap = r->max_bytes_s < INT64_MAX ? (curl_off_t)r->max_bytes_s : INT64_MAX;
        (void)curl_easy_setopt(e->curl, CURLOPT_MAX_SEND_SPEED_LARGE, cap);
        (void)curl_easy_setopt(e->curl, CURLOPT_MAX_RECV_SPEED_LARGE, cap);
    }
    if (r->body_len > SEND_MAX)
        (void)curl_easy_setopt(e->curl, CURLOPT_UPLOAD_BUFFERSIZE,
                               within(step, HTTP_STEP_BYTES, SEND_MAX));
    if (r->into_max > RECEIVE_MAX)
        (void)curl_easy_setopt(e->curl, CURLOPT_BUFFERSIZE,
                               within(step, HTTP_STEP_BYTES, RECEIVE_MAX));
}

enum dr_rc http_request_put(struct http_easy *e, const struct http_request *r, struct dr_err *err)
{
    if (http_easy_init(e, r->url, r->plain ? "https,http" : "https", r->ca_file, r->connect_ms,
                       r->deadline_ms, err) ||
        put_method(e, r, err) || put_headers(e, r, err))
        return err->rc;
    put_pace(e, r);
    e->into = r->into;
    e->into_max = r->into_max;
    (void)curl_easy_setopt(e->curl, CURLOPT_MAXAGE_CONN, (long)KEPT_S);
    if (r->public_only) { /* a kept connection was judged by another request's rules */
        (void)curl_easy_setopt(e->curl, CURLOPT_FRESH_CONNECT, 1L);
        (void)curl_easy_setopt(e->curl, CURLOPT_FORBID_REUSE, 1L);
        e->public_only = true;
    }
    return DR_OK;
}

static bool end_is_told(const struct http_easy *e)
{
    const struct http_response *r = e->response;
    const char *coding = http_header(r, "transfer-encoding");
    curl_off_t told = -1;
    (void)curl_easy_getinfo(e->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &told);
    return told >= 0 || r->status == 204 || (coding && strcasecmp(coding, "chunked") == 0);
}

enum dr_rc http_request_judge(const struct http_easy *e, struct dr_err *err)
{
    unsigned status = e->response->status;
    if (e->head_open) /* libcurl takes the end of the connection for the end of a head as well */
        return dr_fail(err, DR_E_UNREACHABLE, "lost in the middle of the answer's head");
    if (status < 200 || status > 299)
        return DR_OK;
    if (http_easy_sent(e) - e->sent_before < e->body_len)
        return dr_fail(err, DR_E_PROTOCOL, "answered %u before it had the whole request", status);
    if (e->into && !end_is_told(e))
        return dr_fail(err, DR_E_PROTOCOL, "answered %u, and not how long its body is", status);
    return DR_OK;
}
