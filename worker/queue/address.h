/* Where a connection goes: a socket address, looked up in a pool thread (getaddrinfo blocks). */
#ifndef DR_WORKER_QUEUE_ADDRESS_H
#define DR_WORKER_QUEUE_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#include "common/err.h"
#include "common/redis_url.h"

struct cancel;

struct address {
    char host[256];
    uint16_t port;
    unsigned turn; /* which of several addresses comes next */
    struct sockaddr_storage at;
    socklen_t len;
};

void address_init(struct address *a, const struct dr_redis_url *u);
/* Fills `at` for a unix socket; false: it is a name to look up. */
bool address_unix(struct address *a, const struct dr_redis_url *u);
/* A pool_fn over struct address: the next address of the name, in turn. */
enum dr_rc address_lookup(void *item, struct cancel *cancel, struct dr_err *err);

#endif
