/* SHA-256 of a stream beside its writer: large pieces are hashed by a thread of the hasher's own
 * while the caller writes the same bytes, so that a restore takes as long as the slower of the two.
 * One caller; blocking, for pool threads. */
#ifndef DR_WORKER_PIPE_HASHER_H
#define DR_WORKER_PIPE_HASHER_H

#include <stddef.h>

#include "common/err.h"

enum { HASHER_BYTES = 32, HASHER_BESIDE = 128 << 10 /* smaller pieces are hashed in the call */ };

struct hasher;
enum dr_rc hasher_new(struct hasher **out, struct dr_err *err) DR_MUST_CHECK;
void hasher_free(struct hasher *h); /* NULL is allowed */

enum dr_rc hasher_begin(struct hasher *h, struct dr_err *err) DR_MUST_CHECK;
/* The bytes are borrowed until hasher_wait, whatever either of them returns. */
enum dr_rc hasher_add(struct hasher *h, const void *bytes, size_t len,
                      struct dr_err *err) DR_MUST_CHECK;
enum dr_rc hasher_wait(struct hasher *h, struct dr_err *err) DR_MUST_CHECK;
/* After hasher_wait. */
enum dr_rc hasher_end(struct hasher *h, unsigned char out[HASHER_BYTES],
                      struct dr_err *err) DR_MUST_CHECK;

#endif
