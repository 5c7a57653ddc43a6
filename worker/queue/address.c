/* Addresses. */
#include "worker/queue/address.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

void address_init(struct address *a, const struct dr_redis_url *u)
{
    memset(a, 0, sizeof *a);
    (void)snprintf(a->host, sizeof a->host, "%s", u->host);
    a->port = u->port;
}

bool address_unix(struct address *a, const struct dr_redis_url *u)
{
    if (u->kind != DR_REDIS_UNIX)
        return false;
    struct sockaddr_un *un = (struct sockaddr_un *)&a->at;
    memset(un, 0, sizeof *un);
    un->sun_family = AF_UNIX;
    (void)snprintf(un->sun_path, sizeof un->sun_path, "%s", u->path);
    a->len = sizeof *un;
    return true;
}

enum dr_rc address_lookup(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct address *a = item;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    char port[8];
    unsigned count = 0;
    (void)cancel;
    (void)snprintf(port, sizeof port, "%u", a->port);
    int rc = getaddrinfo(a->host, port, &hints, &list);
    if (rc != 0)
        return dr_fail(err, DR_E_UNREACHABLE, "Redis host %s: %s", a->host, gai_strerror(rc));
    for (const struct addrinfo *i = list; i; i = i->ai_next)
        count++;
    const struct addrinfo *pick = list;
    for (unsigned i = a->turn++ % count; i > 0; i--)
        pick = pick->ai_next;
    memcpy(&a->at, pick->ai_addr, pick->ai_addrlen);
    a->len = pick->ai_addrlen;
    freeaddrinfo(list);
    return DR_OK;
}
