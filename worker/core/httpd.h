/* A small HTTP server for measuring and probing: GET and HEAD of fixed paths, one request a
 * connection. On the loop thread, on bufferevents: libevent's evhttp has no limit of connections
 * and no deadline of a whole exchange, and reads bodies, trailers and chunks that nobody needs
 * here.
 *
 * Bounded: 64 connections (the rest waits in the backlog), 8 KiB of header, no body, 5 s from
 * accept to the last byte, whoever is slow. Nothing of what a client sends is echoed or logged. */
#ifndef DR_WORKER_CORE_HTTPD_H
#define DR_WORKER_CORE_HTTPD_H

#include <stdbool.h>
#include <sys/socket.h>

#include "common/buf.h"
#include "common/err.h"

struct loop;
struct httpd;

enum { HTTPD_CONNECTIONS = 64, HTTPD_HEADER_MAX = 8192, HTTPD_DEADLINE_MS = 5000 };

struct httpd_address {
    bool off;
    struct sockaddr_storage at;
    socklen_t len;
};
/* ADDRESS:PORT, [ADDRESS]:PORT (numeric; port 0: the kernel's choice), unix:/PATH or off; CONFIG.
 */
enum dr_rc httpd_parse(const char *text, struct httpd_address *out,
                       struct dr_err *err) DR_MUST_CHECK;

struct httpd_reply {
    unsigned status;          /* 200 unless the handler says otherwise */
    const char *content_type; /* text/plain unless the handler says otherwise; static */
    struct dr_buf body;       /* the handler appends */
};
struct httpd_route {
    const char *path;                                 /* NULL ends the table */
    void (*fn)(void *arg, struct httpd_reply *reply); /* must not wait */
};

/* Listens. IO when that is not possible: the address is taken, or not ours. routes and arg are
 * borrowed. A socket file that nobody listens on is replaced; it gets mode 0660. */
enum dr_rc httpd_new(struct loop *l, const struct httpd_address *at,
                     const struct httpd_route *routes, void *arg, struct httpd **out,
                     struct dr_err *err) DR_MUST_CHECK;
/* Closes everything, removes its socket file; NULL is allowed. */
void httpd_free(struct httpd *h);
/* "127.0.0.1:9464", "[::1]:9464" or "unix:/path": where it listens really. */
void httpd_where(const struct httpd *h, char *out, size_t size);

#endif
