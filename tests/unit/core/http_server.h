/* A server of the test's own: one thread a connection, the path says how it behaves. */
#ifndef DR_TESTS_HTTP_SERVER_H
#define DR_TESTS_HTTP_SERVER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SERVED_MAX = 64 };

static struct {
    int fd;
    unsigned port;
    pthread_t thread, served[SERVED_MAX];
    unsigned count;
    _Atomic unsigned connections, requests;
} server;

static bool say(int fd, const char *text)
{
    return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

/* The request up to its last byte; its length, 0: the peer has gone. */
static size_t hear(int fd, char *text, size_t max)
{
    size_t len = 0, whole = 0;
    while (len < max - 1 && (whole == 0 || len < whole)) {
        ssize_t n = recv(fd, text + len, max - 1 - len, 0);
        if (n <= 0)
            return 0;
        len += (size_t)n;
        text[len] = 0;
        const char *end = strstr(text, "\r\n\r\n"), *told = strstr(text, "Content-Length: ");
        if (end)
            whole =
                (size_t)(end + 4 - text) + (told && told < end ? strtoul(told + 16, NULL, 10) : 0);
    }
    return len;
}

static void until_gone(int fd)
{
    char byte;
    while (recv(fd, &byte, 1, 0) > 0)
        continue;
}

/* true: the connection is kept */
static bool behave(int fd, const char *path, const char *request)
{
    char answer[4096];
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
    else if (strcmp(path, "/cut") == 0)
        (void)say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.");
    else if (strcmp(path, "/garbage") == 0)
        (void)say(fd, "\x16\x03 this is no HTTP\r\n\r\n");
    else if (strcmp(path, "/huge") == 0) {
        (void)say(fd, "HTTP/1.1 200 OK\r\n\r\n");
        while (say(fd, "0123456789abcdef0123456789abcdef"))
            continue;
    } else if (strcmp(path, "/headers") == 0) {
        (void)say(fd, "HTTP/1.1 200 OK\r\n");
        while (say(fd, "X-More: 0123456789abcdef0123456789abcdef\r\n"))
            continue;
    } else if (strcmp(path, "/redirect") == 0)
        (void)say(fd, "HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n");
    else if (strcmp(path, "/later") == 0)
        (void)say(fd, "HTTP/1.1 503 Later\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    return false;
}

static void *serve_one(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char request[4096], path[64] = "";
    do {
        if (hear(fd, request, sizeof request) == 0)
            break;
        atomic_fetch_add(&server.requests, 1);
        const char *p = strchr(request, ' ') + 1;
        (void)snprintf(path, sizeof path, "%.*s", (int)strcspn(p, " "), p);
    } while (behave(fd, path, request));
    (void)close(fd);
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
