/* Requests by libcurl: HTTP on the loop (one multi handle, a fiber waits), mail by a thread of the
 * pool. Loop thread only. Chain and host name are checked always; no redirect is followed, no
 * proxy, netrc or cookie of the environment counts; every socket is CLOEXEC.
 *
 * Errors of both: UNREACHABLE no connection, or it was lost; TIMEOUT; PROTOCOL the peer answered
 * nonsense; AUTH it is not who it should be (reason certificate, starttls) or does not let us in
 * (login); TOO_BIG over a bound; REFUSED its address is not public (reason private-address);
 * INVALID the request; the token's kind when cancelled. Messages name host and port at the most. */
#ifndef DR_WORKER_CORE_HTTP_H
#define DR_WORKER_CORE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/core/cancel.h"

struct http;
struct loop;
struct pool;
struct sockaddr;

/* Starts libcurl, for mail too. CONFIG when it lacks what is needed: HTTPS, SMTPS, a resolver that
 * does not block. */
enum dr_rc http_new(struct loop *l, struct http **out, struct dr_err *err) DR_MUST_CHECK;
void http_free(struct http *h); /* no request may be under way; NULL is allowed */

struct http_request { /* borrowed until the call returns */
    const char *url;
    const char *method;         /* NULL: GET. GET, POST or PUT */
    const char *const *headers; /* "Name: value", NULL-ended, without CR or LF; or NULL */
    const void *body;           /* of POST and PUT; its length is always told */
    size_t body_len;
    const char *ca_file;       /* in place of the system's; NULL: the system's */
    bool plain;                /* http:// too */
    bool public_only;          /* judged by the address that is connected to */
    size_t response_max_bytes; /* of the body; 0: 64 KiB. Headers: 64 KiB */
    uint64_t connect_ms;       /* 0: 10 s */
    uint64_t deadline_ms;      /* of the whole; 0: 60 s */
};

struct http_response {
    unsigned status;
    uint64_t retry_after_s; /* 0: not told. At most 6 h */
    struct dr_buf body;     /* the caller calls http_response_fini, also after an error */
};
void http_response_fini(struct http_response *r);

/* In a fiber: returns exactly once, when the response is there (whatever its status), or an error.
 * A request that was cancelled, or ran out of time, may have reached the peer all the same. */
enum dr_rc http_perform(struct http *h, const struct http_request *r, struct cancel *cancel,
                        struct http_response *out, struct dr_err *err) DR_MUST_CHECK;

struct http_mail {         /* borrowed until the call returns */
    const char *url;       /* smtps://host, or smtp://host, which must offer STARTTLS */
    const char *user;      /* NULL or empty: no login */
    const char *password;  /* may be NULL */
    const char *from;      /* bare addresses, as http_mail_address allows */
    const char *const *to; /* NULL-ended, at least one; all must be accepted */
    const void *message;   /* headers and body, lines ended by CR LF */
    size_t message_len;
    const char *ca_file;
    uint64_t deadline_ms; /* 0: 60 s */
};
/* The same for a mail: DR_OK once the server has taken it for all. It holds a thread of the pool:
 * libcurl waits for the answer to QUIT inside its disconnect. Cancelled within a second. */
enum dr_rc http_mail_send(struct pool *p, const struct http_mail *m, struct cancel *cancel,
                          struct dr_err *err) DR_MUST_CHECK;
/* Printable ASCII with one @ and something on both sides, nothing that a header or a command would
 * read as more than an address; at most 254 bytes. */
bool http_mail_address(const char *text, size_t len);

/* False for loopback, private, link-local, shared, multicast, reserved and documentation ranges,
 * the metadata services in them and beside them, IPv4 inside IPv6 judged by the IPv4; and for
 * anything that is no internet address. */
bool http_address_is_public(const struct sockaddr *a);

#endif
