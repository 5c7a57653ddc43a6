/* A server of the test's own: one thread a connection, the path says how it behaves. Below /raw/
 * the program that includes it does, with a request whose body may not have been read yet. */
#ifndef DR_TESTS_HTTP_SERVER_H
#define DR_TESTS_HTTP_SERVER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "tests/unit/core/http_heard.h"

enum { SERVED_MAX = 64 };

static struct {
    int fd;
    unsigned port;
    pthread_t thread, served[SERVED_MAX];
    unsigned count;
    _Atomic unsigned connections, requests;
} server;
static bool (*server_raw)(struct heard *h); /* as behave; NULL: there is nothing below /raw/ */
static bool (*server_connection)(int fd);   /* in place of hear and behave; returns false */

static const struct {
    const char *path, *first, *more; /* as long as somebody takes it */
} said[] = {
    {"/cut", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.", NULL},
    {"/garbage", "\x16\x03 this is no HTTP\r\n\r\n", NULL},
    {"/huge", "HTTP/1.1 200 OK\r\n\r\n", "0123456789abcdef0123456789abcdef"},
    {"/headers", "HTTP/1.1 200 OK\r\n", "X-More: 0123456789abcdef0123456789abcdef\r\n"},
    {"/redirect", "HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n", NULL},
    {"/later", "HTTP/1.1 503 Later\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", NULL},
};

/* true: the connection is kept */
static bool behave(struct heard *h)
{
    int fd = h->fd;
    const char *path = h->path, *request = h->text;
    char answer[4096];
    if (strncmp(path, "/raw/", 5) == 0)
        return server_raw && server_raw(h);
    const char *body = strstr(request, "\r\n\r\n") + 4;
    if (strcmp(path, "/ok") == 0) {
        char text[2048];
        (void)snprintf(text, sizeof text, "%.*s %s%s", (int)strcspn(request, " "), request, body,
                       strstr(request, "\r\nX-Test: yes\r\n") ? " x" : "");
        (void)snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
                       strlen(text), text);
        return say(fd, answer);
    }
    if (strcmp(path, "/slow") == 0)
        until_gone(fd);
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++)
        if (strcmp(path, said[i].path) == 0 && say(fd, said[i].first))
            while (said[i].more && say(fd, said[i].more))
                continue;
    return false;
}

static void *serve_one(void *arg)
{
    struct heard h = {.fd = (int)(intptr_t)arg};
    do {
        if (server_connection ? !server_connection(h.fd) : !hear(&h))
            break;
        h.nth++;
        atomic_fetch_add(&server.requests, 1);
    } while (behave(&h));
    (void)close(h.fd);
    return NULL;
}

static void *serve(void *arg)
{
    int fd;
    (void)arg;
    while (server.count < SERVED_MAX && (fd = accept(server.fd, NULL, NULL)) >= 0) {
        atomic_fetch_add(&server.connections, 1);
        if (pthread_create(&server.served[server.count], NULL, serve_one, (void *)(intptr_t)fd))
            abort();
        server.count++;
    }
    return NULL;
}

static int server_start(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    memset(&server, 0, sizeof server);
    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server.fd, (struct sockaddr *)&a, sizeof a) || listen(server.fd, 16) ||
        getsockname(server.fd, (struct sockaddr *)&a, &len))
        return -1;
    server.port = ntohs(a.sin_port);
    return pthread_create(&server.thread, NULL, serve, NULL);
}

static void server_stop(void) /* every client has hung up */
{
    (void)shutdown(server.fd, SHUT_RDWR);
    (void)pthread_join(server.thread, NULL);
    for (unsigned i = 0; i < server.count; i++)
        (void)pthread_join(server.served[i], NULL);
    (void)close(server.fd);
}

#endif
