/* What workers say of themselves in common: hash `info`. Written at each connect and on change.
 * Loop thread. */
#ifndef DR_WORKER_QUEUE_TOLD_H
#define DR_WORKER_QUEUE_TOLD_H

#include <stddef.h>
#include <stdint.h>

struct queue;

/* A field, the same from every worker; copied. */
void queue_tell(struct queue *q, const char *field, const void *bytes, size_t len);
/* A field that is news, not a setting: written now and not again. In a fiber. */
enum dr_rc queue_tell_once(struct queue *q, const char *field, const void *bytes, size_t len,
                           struct dr_err *err) DR_MUST_CHECK;
/* The catalog's head, which Redis witnesses: there it only rises. seq 0: none. */
void queue_tell_head(struct queue *q, uint64_t seq, const char *sha256_hex);

#endif
