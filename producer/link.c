/* Blocking connection. */
#include "producer/link.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/wire/tls.h"

enum { CONNECT_MS = 5000, ARGS_MAX = 16 };

struct link {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl;
    redisReader *reader;
};

static int connect_one(const struct sockaddr *a, socklen_t len)
{
    const struct timeval tv = {.tv_sec = CONNECT_MS / 1000};
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv); /* bounds connect too */
    if (connect(fd, a, len) == 0)
        return fd;
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return -1;
}

static enum dr_rc connect_unix(struct link *l, const struct dr_redis_url *u, struct dr_err *err)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    (void)snprintf(un.sun_path, sizeof un.sun_path, "%s", u->path);
    l->fd = connect_one((const struct sockaddr *)&un, sizeof un);
    return l->fd < 0 ? dr_fail_errno(err, DR_E_UNREACHABLE, "Redis at %s", u->path) : DR_OK;
}

static enum dr_rc connect_tcp(struct link *l, const struct dr_redis_url *u, struct dr_err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    char port[8];
    (void)snprintf(port, sizeof port, "%u", u->port);
    int rc = getaddrinfo(u->host, port, &hints, &list);
    if (rc != 0)
        return dr_fail(err, DR_E_UNREACHABLE, "Redis host %s: %s", u->host, gai_strerror(rc));
    for (const struct addrinfo *i = list; i && l->fd < 0; i = i->ai_next)
        l->fd = connect_one(i->ai_addr, i->ai_addrlen);
    if (l->fd < 0)
        (void)dr_fail_errno(err, DR_E_UNREACHABLE, "Redis at %s:%u", u->host, u->port);
    freeaddrinfo(list);
    return l->fd < 0 ? DR_E_UNREACHABLE : DR_OK;
}

static enum dr_rc start_tls(struct link *l, const struct dr_redis_url *u, struct dr_err *err)
{
    if (dr_tls_new(l->ctx, u, &l->ssl, err))
        return err->rc;
    if (SSL_set_fd(l->ssl, l->fd) != 1 || SSL_connect(l->ssl) != 1)
        return dr_tls_explain(l->ssl, 0, err);
    return DR_OK;
}

static enum dr_rc greet(struct link *l, const struct dr_redis_url *u, struct dr_err *err)
{
    redisReply *r = NULL;
    char db[12];
    if (u->password.len) {
        const char *password = (const char *)u->password.bytes;
        const char *second = u->user[0] ? u->user : password;
        if (link_text(l, CONNECT_MS, &r, err, "AUTH", second, u->user[0] ? password : NULL, NULL))
            return dr_wrap(err, "Redis");
        freeReplyObject(r);
        r = NULL;
    }
    (void)snprintf(db, sizeof db, "%u", u->db);
    if (link_text(l, CONNECT_MS, &r, err, "SELECT", db, NULL))
        return dr_wrap(err, "Redis");
    freeReplyObject(r);
    return DR_OK;
}

enum dr_rc link_open(const struct dr_redis_url *u, struct link **out, struct dr_err *err)
{
    struct link *l = dr_xalloc(sizeof *l);
    l->fd = -1;
    l->reader = redisReaderCreate();
    enum dr_rc rc = u->kind == DR_REDIS_TLS ? dr_tls_context_new(u, &l->ctx, err) : DR_OK;
    if (!rc)
        rc = u->kind == DR_REDIS_UNIX ? connect_unix(l, u, err) : connect_tcp(l, u, err);
    if (!rc && u->kind == DR_REDIS_TLS)
        rc = start_tls(l, u, err);
    if (!rc)
        rc = greet(l, u, err);
    if (rc) {
        link_close(l);
        err->rc = err->rc == DR_E_REDIS ? DR_E_UNREACHABLE : err->rc;
        return err->rc;
    }
    *out = l;
    return DR_OK;
}

void link_close(struct link *l)
{
    if (!l)
        return;
    SSL_free(l->ssl);
    dr_tls_context_free(l->ctx);
    if (l->fd >= 0)
        (void)close(l->fd);
    if (l->reader)
        redisReaderFree(l->reader);
    free(l);
}

static enum dr_rc write_all(struct link *l, const char *p, size_t len, struct dr_err *err)
{
    while (len > 0) {
        size_t part = len > 1 << 20 ? 1 << 20 : len;
        ssize_t n = l->ssl ? SSL_write(l->ssl, p, (int)part) : send(l->fd, p, part, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR && !l->ssl)
            continue;
        if (n <= 0)
            return dr_fail_errno(err, DR_E_UNREACHABLE, "Redis connection");
        p += n;
        len -= (size_t)n;
    }
    return DR_OK;
}

static enum dr_rc read_more(struct link *l, int64_t until_ms, struct dr_err *err)
{
    char buffer[16384];
    if (!l->ssl || SSL_pending(l->ssl) == 0) {
        struct pollfd p = {.fd = l->fd, .events = POLLIN};
        int64_t left = until_ms - dr_clock_ms();
        int rc = poll(&p, 1, left > 0 ? (int)left : 0);
        if (rc < 0 && errno == EINTR)
            return dr_fail(err, DR_E_CANCELLED, "interrupted");
        if (rc <= 0)
            return dr_fail(err, DR_E_UNREACHABLE, "Redis: no reply within its time");
    }
    ssize_t n =
        l->ssl ? SSL_read(l->ssl, buffer, sizeof buffer) : recv(l->fd, buffer, sizeof buffer, 0);
    if (n <= 0)
        return dr_fail(err, DR_E_UNREACHABLE, "Redis closed the connection");
    return redisReaderFeed(l->reader, buffer, (size_t)n) == REDIS_OK
               ? DR_OK
               : dr_fail(err, DR_E_NOMEM, "reply buffer");
}

enum dr_rc link_call(struct link *l, int wait_ms, redisReply **out, struct dr_err *err, int argc,
                     const char **argv, const size_t *len)
{
    char *text = NULL;
    void *reply = NULL;
    int64_t until = dr_clock_ms() + wait_ms;
    long long n = redisFormatCommandArgv(&text, argc, argv, len);
    if (n < 0)
        return dr_fail(err, DR_E_NOMEM, "command");
    enum dr_rc rc = write_all(l, text, (size_t)n, err);
    redisFreeCommand(text);
    while (!rc && !reply) {
        if (redisReaderGetReply(l->reader, &reply) != REDIS_OK)
            return dr_fail(err, DR_E_PROTOCOL, "Redis: reply cannot be parsed");
        if (!reply)
            rc = read_more(l, until, err);
    }
    redisReply *r = reply;
    if (!rc && r->type == REDIS_REPLY_ERROR) {
        rc = dr_fail(err, DR_E_REDIS, "%.200s", r->str);
        (void)dr_err_reason(err, strncmp(r->str, "NOSCRIPT", 8) == 0 ? "NOSCRIPT" : "error");
    }
    if (rc)
        freeReplyObject(r);
    else
        *out = r;
    return rc;
}

enum dr_rc link_text(struct link *l, int wait_ms, redisReply **out, struct dr_err *err, ...)
{
    const char *argv[ARGS_MAX];
    size_t len[ARGS_MAX];
    int argc = 0;
    va_list ap;
    va_start(ap, err);
    for (const char *a = va_arg(ap, const char *); a && argc < ARGS_MAX;
         a = va_arg(ap, const char *)) {
        argv[argc] = a;
        len[argc++] = strlen(a);
    }
    va_end(ap);
    return link_call(l, wait_ms, out, err, argc, argv, len);
}
