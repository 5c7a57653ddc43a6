/* Shared by http.c (the loop), http_easy.c (options, callbacks, verdicts), http_mail.c. Not for
 * other folders. */
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
    struct http_response *response; /* NULL: what comes is counted only */
    size_t header_bytes;
    bool public_only, denied, too_big;
    char why[CURL_ERROR_SIZE];
};

enum { HTTP_CONNECT_MS = 10000, HTTP_DEADLINE_MS = 60000, HTTP_ANSWER_MAX = 65536 };

/* What all transfers have in common. */
enum dr_rc http_easy_init(struct http_easy *e, const char *url, const char *protocols,
                          const char *ca_file, uint64_t connect_ms, uint64_t deadline_ms,
                          struct dr_err *err) DR_MUST_CHECK;
void http_easy_fini(struct http_easy *e);
/* Adds to e->list; INVALID for a line with a control character. */
enum dr_rc http_easy_line(struct http_easy *e, const char *line, struct dr_err *err) DR_MUST_CHECK;
void http_easy_body(struct http_easy *e, const void *bytes, size_t len);
enum dr_rc http_easy_judge(const struct http_easy *e, CURLcode code, struct dr_err *err);

#endif
