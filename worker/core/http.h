/* Requests by libcurl: HTTP on the loop (one multi handle, a fiber waits), mail by a thread of the
 * pool. Loop thread only. Chain and host name are checked always; no redirect is followed (Location
 * is handed out), nothing is decoded, no proxy, netrc or cookie of the environment counts; every
 * socket is CLOEXEC.
 *
 * Errors of both: UNREACHABLE no connection, or it was lost, also in the middle of an answer;
 * TIMEOUT (reason stalled: by stall_ms); PROTOCOL the peer answered nonsense; AUTH it is not who it
 * should be (reason certificate, the message says whether host, authority or dates; starttls) or
 * does not let us in (login); TOO_BIG over a bound; REFUSED its address is not public (reason
 * private-address); INVALID the request; the token's kind when cancelled. Messages name host and
 * port at the most. */
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

/* At most so many requests at once; what is above waits for its place, in order. 0, as it begins:
 * no bound. A peer that hangs holds its places: a struct http for each peer that must not suffer.
 */
void http_limit(struct http *h, unsigned transfers);

/* Bodies lie in memory, both ways: libcurl's callbacks run on the loop, where no file may be read
 * or written. Who moves a file moves parts of some MiB, and fills and empties them in the pool,
 * where it hashes them as well. */
struct http_request { /* borrowed until the call returns */
    const char *url;
    const char *method;         /* NULL: GET. GET, HEAD, POST, PUT or DELETE */
    const char *const *headers; /* "Name: value", NULL-ended, without CR or LF; or NULL */
    const void *body;           /* of POST and PUT; its length is always told */
    size_t body_len;
    const char *ca_file;       /* in place of the system's; NULL: the system's */
    bool plain;                /* http:// too */
    bool public_only;          /* judged by the address that is connected to */
    void *into;                /* here goes the body of a 2xx, and its end must be told */
    size_t into_max;           /* more is TOO_BIG */
    size_t response_max_bytes; /* of any other body; 0: 64 KiB. Headers: 64 KiB */
    uint64_t connect_ms;       /* 0: 10 s */
    uint64_t deadline_ms;      /* of the whole, but the wait for a place; 0: 60 s */
    /* A window of stall_ms in which fewer than stall_bytes (0: 1) moved ends it. 0: not watched.
     * While the server thinks nothing moves, and what the kernel has not sent yet has not moved. */
    uint64_t stall_ms, stall_bytes;
    uint64_t max_bytes_s; /* cap, each way; 0: none. stall_bytes gives way to it */
    /* A body above 1 MiB waits up to a second for "100 Continue": a server that says no, or where
     * to go instead, says it before. true spares the round trip. */
    bool no_expect;
    /* Called when the request has its place, before it is sent: it may set url and headers. A
     * signature that was made before the wait could be too old. Must not suspend; or NULL. */
    enum dr_rc (*sign)(void *arg, struct http_request *r, struct dr_err *err);
    void *sign_arg;
};

struct http_response {      /* numbers also after an error, as far as it came */
    unsigned status;        /* 0: none was read */
    uint64_t retry_after_s; /* 0: not told. A date counts from the server's own. At most 6 h */
    int64_t date_unix;      /* the server's clock, by its Date; 0: not told */
    /* Of bodies. What libcurl sends again, on a kept connection that has died, counts again. */
    uint64_t sent_bytes, received_bytes;
    size_t into_len;
    struct dr_buf body; /* the caller calls http_response_fini, also after an error */
    struct dr_buf head; /* for http_header */
};
void http_response_fini(struct http_response *r);
/* The value of a header, in any case, without blanks around it; the first of several. NULL: there
 * is none. Trailers do not count. It lives as long as the response. */
const char *http_header(const struct http_response *r, const char *name);
/* Walks through all, in the order they came, names in lower case. *at is 0 at first; false: that
 * was the last one. */
bool http_header_next(const struct http_response *r, size_t *at, const char **name,
                      const char **value);
/* Content-Range of a 206: bytes first..last of total. false: none, or nonsense, total untold. */
bool http_content_range(const struct http_response *r, uint64_t *first, uint64_t *last,
                        uint64_t *total);

/* In a fiber: returns exactly once, when the whole response is there (whatever its status), or an
 * error. A 2xx before all of the body was sent is PROTOCOL; so is a body for `into` whose end is
 * told by nothing but the end of the connection. A request that was cancelled, or ran out of time,
 * may have reached the peer all the same. */
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
