/* Shared by http.c (the loop), http_request.c (what to send), http_easy.c (options, callbacks,
 * verdicts), http_answer.c (what an answer says), http_mail.c. Not for other folders. */
#ifndef DR_WORKER_CORE_HTTP_INTERNAL_H
#define DR_WORKER_CORE_HTTP_INTERNAL_H

#include <curl/curl.h>

#include "worker/core/http.h"

/* One transfer: lies on the stack of who waits for it. */
struct http_easy {
    CURL *curl;
    struct curl_slist *list; /* headers, or recipients */
    const unsigned char *body;
    size_t body_len, body_at;
    uint64_t sent_before;           /* by tries that libcurl has given up */
    struct http_response *response; /* NULL: what comes is counted only */
    unsigned char *into;            /* as in struct http_request */
    size_t into_max;
    uint64_t received;
    size_t header_bytes;
    curl_socket_t fd; /* the last one it was on; -1: none */
    bool head_open;   /* what comes are headers, no trailers */
    bool public_only, denied, too_big;
    char why[CURL_ERROR_SIZE];
};

enum {
    HTTP_CONNECT_MS = 10000,
    HTTP_DEADLINE_MS = 60000,
    HTTP_ANSWER_MAX = 65536,
    HTTP_STEP_BYTES = 16384
};

/* What all transfers have in common. */
enum dr_rc http_easy_init(struct http_easy *e, const char *url, const char *protocols,
                          const char *ca_file, uint64_t connect_ms, uint64_t deadline_ms,
                          struct dr_err *err) DR_MUST_CHECK;
void http_easy_fini(struct http_easy *e);
/* Adds to e->list; INVALID for a line with a control character. */
enum dr_rc http_easy_line(struct http_easy *e, const char *line, struct dr_err *err) DR_MUST_CHECK;
void http_easy_body(struct http_easy *e, const void *bytes, size_t len);
enum dr_rc http_easy_judge(const struct http_easy *e, CURLcode code, struct dr_err *err);
/* Bytes of its body that went out so far, all tries together. */
uint64_t http_easy_sent(const struct http_easy *e);

/* Url, method, headers, body, bounds of a request. */
enum dr_rc http_request_put(struct http_easy *e, const struct http_request *r,
                            struct dr_err *err) DR_MUST_CHECK;
/* An answer that libcurl is content with: was all sent that had to be, is its end sure? */
enum dr_rc http_request_judge(const struct http_easy *e, struct dr_err *err);

/* One line as it came, with its end. may_begin: no body was seen yet. */
void http_head_line(struct dr_buf *head, bool *open, bool may_begin, const char *line, size_t len);
void http_head_read(struct http_response *r); /* Date, Retry-After */

#endif
