/* What is said on a fresh connection before anything else: AUTH, SELECT, CLIENT SETNAME, then the
 * checks: it is a master, and its memory policy evicts nothing. Pure: no I/O. */
#ifndef DR_WORKER_QUEUE_GREET_H
#define DR_WORKER_QUEUE_GREET_H

#include <hiredis/hiredis.h>

#include "common/err.h"
#include "common/redis_url.h"

enum greet_result { GREET_MORE, GREET_DONE, GREET_FAILED };

struct greet {
    const struct dr_redis_url *url;
    const char *name;
    int step;
    char db[12];
    int argc; /* the command to send now */
    const char *argv[4];
    size_t len[4];
};

void greet_begin(struct greet *g, const struct dr_redis_url *url, const char *name);
/* Judges the reply to the command and prepares the next one. */
enum greet_result greet_step(struct greet *g, const redisReply *reply, struct dr_err *err);

#endif
