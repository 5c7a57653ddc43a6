/* Shared by httpd.c (sockets, connections) and httpd_text.c (what is said on them). */
#ifndef DR_WORKER_CORE_HTTPD_INTERNAL_H
#define DR_WORKER_CORE_HTTPD_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "worker/core/httpd.h"

struct httpd_request {
    char path[128];
    bool head;
};
/* head: the bytes up to and with the empty line. 200, or the status it is refused with. */
unsigned httpd_read_head(const char *head, size_t len, struct httpd_request *out);
/* Status line, headers and, unless head_only, body. */
void httpd_write(struct dr_buf *out, const struct httpd_reply *r, bool head_only, int64_t now_ms);

#endif
