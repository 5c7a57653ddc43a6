/* One request as the test's server hears it. */
#ifndef DR_TESTS_HTTP_HEARD_H
#define DR_TESTS_HTTP_HEARD_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct heard {
    int fd;
    unsigned nth; /* on its connection, from 1 */
    char path[64], text[4096];
    size_t len, head_len; /* of text: the head, and what came of the body with it */
    unsigned long told;   /* Content-Length */
};

static bool say(int fd, const char *text)
{
    return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

/* The request up to its last byte, or below /raw/ to that of its head; false: the peer has gone. */
static bool hear(struct heard *h)
{
    size_t whole = 0, max = sizeof h->text - 1;
    for (h->len = 0; h->len < max && (whole == 0 || h->len < whole);) {
        ssize_t n = recv(h->fd, h->text + h->len, max - h->len, 0);
        if (n <= 0)
            return false;
        h->len += (size_t)n;
        h->text[h->len] = 0;
        const char *end = strstr(h->text, "\r\n\r\n"), *told = strstr(h->text, "Content-Length: ");
        if (!end)
            continue;
        h->head_len = (size_t)(end + 4 - h->text);
        h->told = told && told < end ? strtoul(told + 16, NULL, 10) : 0;
        const char *p = strchr(h->text, ' ') + 1;
        (void)snprintf(h->path, sizeof h->path, "%.*s", (int)strcspn(p, " "), p);
        whole = h->head_len + (strncmp(h->path, "/raw/", 5) == 0 ? 0 : h->told);
    }
    return true;
}

static void until_gone(int fd)
{
    static _Thread_local char bytes[65536];
    while (recv(fd, bytes, sizeof bytes, 0) > 0)
        continue;
}

#endif
