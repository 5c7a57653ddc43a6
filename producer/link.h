/* A blocking Redis connection for the CLI: hiredis is the codec, the socket and TLS are ours. */
#ifndef DR_PRODUCER_LINK_H
#define DR_PRODUCER_LINK_H

#include <hiredis/hiredis.h>

#include "common/err.h"
#include "common/redis_url.h"

struct link;

/* Connects, AUTH, SELECT. UNREACHABLE with the reason. */
enum dr_rc link_open(const struct dr_redis_url *u, struct link **out,
                     struct dr_err *err) DR_MUST_CHECK;
void link_close(struct link *l);
/* The reply is the caller's. An error reply is REDIS with its text. wait_ms: how long it may take.
 */
enum dr_rc link_call(struct link *l, int wait_ms, redisReply **out, struct dr_err *err, int argc,
                     const char **argv, const size_t *len) DR_MUST_CHECK;
/* The same for text arguments, ended by NULL. */
enum dr_rc link_text(struct link *l, int wait_ms, redisReply **out, struct dr_err *err,
                     ...) DR_MUST_CHECK __attribute__((sentinel));

#endif
