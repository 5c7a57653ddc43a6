/* AWS Signature Version 4 in a header, as S3 wants it: the path is encoded once and not normalised,
 * the payload's hash is always told. What goes over the wire is built from the same strings that
 * are signed. Pure, any thread. Source: AWS General Reference, Signature Version 4; S3 API
 * Reference, Authenticating Requests (Authorization Header). */
#ifndef DR_WORKER_STORAGE_SIGV4_H
#define DR_WORKER_STORAGE_SIGV4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"

enum { SIGV4_PAIRS_MAX = 32, SIGV4_PATH_MAX = 4096 };

struct sigv4_pair {
    const char *name, *value; /* raw bytes, encoded here */
};

struct sigv4_request { /* borrowed until the call returns */
    const char *method;
    const char *host; /* as the Host header has it: with the port, unless it is the scheme's own */
    const char *path; /* raw, begins with a slash */
    const struct sigv4_pair *query;
    const struct sigv4_pair *headers; /* besides those of the signer; repeated ones are folded */
    size_t query_count, header_count;
    const unsigned char *sha256; /* of the payload; NULL: UNSIGNED-PAYLOAD, over https only */
    bool plain;                  /* http:// */
    bool not_s3;                 /* no x-amz-content-sha256: other services, published vectors */
};

struct sigv4_key { /* borrowed */
    const struct dr_secret *access, *secret;
    const struct dr_secret *session; /* NULL or empty: none */
    const char *region, *service;
};

struct sigv4_signed {
    char *target;  /* "/path?query" */
    char **fields; /* "name: value", all that are signed and Authorization; NULL-ended */
    size_t field_count;
    struct dr_buf canonical, to_sign; /* for tests, and for the search of a mismatch */
};

/* BUG: a request that cannot be signed (control characters in a header, an empty value, a name of
 * the signer's own, no slash, too much of anything). REFUSED: an unsigned payload over http. */
enum dr_rc sigv4_sign(const struct sigv4_request *r, const struct sigv4_key *key,
                      int64_t now_unix_s, struct sigv4_signed *out,
                      struct dr_err *err) DR_MUST_CHECK;
void sigv4_signed_fini(struct sigv4_signed *s); /* wipes; also after an error */

/* Every byte but letters, digits and -._~ as %XX; keep_slash leaves '/' too. */
void sigv4_encode(struct dr_buf *b, const char *s, bool keep_slash);

void sigv4_sha256(const void *bytes, size_t len, unsigned char out[32]);

#endif
