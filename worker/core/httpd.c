/* The server's sockets and connections. See httpd.h. */
#include "worker/core/httpd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

#include "common/clock.h"
#include "common/mem.h"
#include "worker/core/httpd_internal.h"
#include "worker/core/loop.h"

enum { BACKLOG = 128, REPLY_MAX = 16 << 20, GOODBYE_MS = 1000, AGAIN_MS = 100 };

struct connection {
    struct connection *next, **prev;
    struct httpd *httpd;
    struct bufferevent *bev;
    struct loop_timer *deadline;
    bool answered, said; /* the reply is queued; it has left */
};

struct httpd {
    struct loop *loop;
    const struct httpd_route *routes;
    void *arg;
    struct httpd_address at;
    struct evconnlistener *listener;
    struct loop_timer *again; /* descriptors had run out: accept once more */
    struct connection *connections;
    unsigned count;
    dev_t dev; /* of our socket file */
    ino_t ino;
};

static void drop(struct connection *c)
{
    struct httpd *h = c->httpd;
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    loop_timer_free(c->deadline);
    bufferevent_free(c->bev); /* closes the socket */
    free(c);
    if (h->count-- == HTTPD_CONNECTIONS && h->listener)
        (void)evconnlistener_enable(h->listener);
}

static void on_deadline(void *arg)
{
    drop(arg);
}

static void answer(struct connection *c, unsigned status, const struct httpd_request *q)
{
    const struct httpd *h = c->httpd;
    struct httpd_reply r = {.status = status, .content_type = "text/plain; charset=utf-8"};
    const struct httpd_route *route = h->routes;
    struct dr_buf out;
    dr_buf_init(&r.body, REPLY_MAX);
    dr_buf_init(&out, REPLY_MAX + HTTPD_HEADER_MAX);
    while (status == 200 && route->path && strcmp(route->path, q->path) != 0)
        route++;
    if (status == 200 && route->path)
        route->fn(h->arg, &r);
    else if (status == 200)
        r.status = 404;
    if (r.body.failed) {
        dr_buf_reset(&r.body);
        r.status = 500;
    }
    if (r.status != 200 && !r.body.len)
        dr_buf_printf(&r.body, "%u\n", r.status);
    httpd_write(&out, &r, q->head, dr_wall_ms());
    c->answered = true;
    (void)bufferevent_write(c->bev, out.data, out.len);
    dr_buf_fini(&r.body);
    dr_buf_fini(&out);
}

/* Length of the head with its empty line; 0: it is not all there. */
static size_t head_length(const char *p, size_t len)
{
    for (size_t i = 0; i + 1 < len; i++)
        if (p[i] == '\n' &&
            (p[i + 1] == '\n' || (i + 2 < len && p[i + 1] == '\r' && p[i + 2] == '\n')))
            return i + (p[i + 1] == '\n' ? 2 : 3);
    return 0;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct connection *c = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    struct httpd_request q = {0};
    if (c->answered) { /* what comes behind the request is nothing to us */
        (void)evbuffer_drain(in, evbuffer_get_length(in));
        return;
    }
    size_t len = evbuffer_get_length(in), head;
    const char *p = (const char *)evbuffer_pullup(in, (ev_ssize_t)len);
    if (p && (head = head_length(p, len)) && head <= HTTPD_HEADER_MAX)
        answer(c, httpd_read_head(p, head, &q), &q);
    else if (!p || head || len > HTTPD_HEADER_MAX)
        answer(c, 431, &q);
    else
        return;
    (void)evbuffer_drain(in, len);
}

/* All of the reply is in the kernel. A close with unread input would be a reset that may overtake
 * it: say that nothing more comes, then wait a moment for the peer to be through. */
static void on_written(struct bufferevent *bev, void *arg)
{
    struct connection *c = arg;
    if (!c->answered || c->said || evbuffer_get_length(bufferevent_get_output(bev)) > 0)
        return;
    c->said = true;
    (void)shutdown(bufferevent_getfd(bev), SHUT_WR);
    loop_timer_arm(c->deadline, GOODBYE_MS);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct connection *c = arg;
    /* A client may close its half and still read what it asked for. */
    if ((what & BEV_EVENT_EOF) && c->answered && !c->said) {
        (void)bufferevent_disable(bev, EV_READ);
        return;
    }
    drop(c);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len,
                      void *arg)
{
    struct httpd *h = arg;
    struct bufferevent *bev = bufferevent_socket_new(loop_base(h->loop), fd, BEV_OPT_CLOSE_ON_FREE);
    (void)sa;
    (void)len;
    if (!bev) {
        (void)close(fd);
        return;
    }
    struct connection *c = dr_xalloc(sizeof *c);
    c->httpd = h;
    c->bev = bev;
    c->next = h->connections;
    c->prev = &h->connections;
    if (c->next)
        c->next->prev = &c->next;
    h->connections = c;
    c->deadline = loop_timer_new(h->loop, on_deadline, c);
    loop_timer_arm(c->deadline, HTTPD_DEADLINE_MS);
    bufferevent_setcb(bev, on_read, on_written, on_event, c);
    bufferevent_setwatermark(bev, EV_READ, 0, HTTPD_HEADER_MAX + 1);
    (void)bufferevent_enable(bev, EV_READ | EV_WRITE);
    if (++h->count == HTTPD_CONNECTIONS)
        (void)evconnlistener_disable(l);
}

static void on_again(void *arg)
{
    const struct httpd *h = arg;
    if (h->count < HTTPD_CONNECTIONS)
        (void)evconnlistener_enable(h->listener);
}

/* No descriptors: the backlog stays readable, and trying at once would turn the loop for ever. */
static void on_accept_error(struct evconnlistener *l, void *arg)
{
    struct httpd *h = arg;
    (void)evconnlistener_disable(l);
    loop_timer_arm(h->again, AGAIN_MS);
}

/* A socket file whose listener died is in the way of the next one. */
static void remove_stale(const struct httpd_address *at)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&at->at;
    struct stat st;
    int fd = lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode)
                 ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)
                 : -1;
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)un, at->len) != 0 && errno == ECONNREFUSED)
        (void)unlink(un->sun_path);
    (void)close(fd);
}

static enum dr_rc listen_there(struct httpd *h, int *fd, struct dr_err *err)
{
    const struct sockaddr *sa = (const struct sockaddr *)&h->at.at;
    const struct sockaddr_un *un = (const struct sockaddr_un *)sa;
    const int on = 1;
    struct stat st;
    *fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return dr_fail_errno(err, DR_E_IO, "socket");
    if (sa->sa_family == AF_UNIX)
        remove_stale(&h->at);
    else
        (void)setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (sa->sa_family == AF_INET6)
        (void)setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(*fd, sa, h->at.len) != 0)
        return dr_fail_errno(err, DR_E_IO, "bind");
    if (sa->sa_family == AF_UNIX && lstat(un->sun_path, &st) == 0) {
        h->dev = st.st_dev;
        h->ino = st.st_ino;
        if (chmod(un->sun_path, 0660) != 0)
            return dr_fail_errno(err, DR_E_IO, "chmod");
    }
    if (sa->sa_family != AF_UNIX) {
        h->at.len = sizeof h->at.at;
        if (getsockname(*fd, (struct sockaddr *)&h->at.at, &h->at.len) != 0)
            return dr_fail_errno(err, DR_E_IO, "getsockname");
    }
    return DR_OK;
}

enum dr_rc httpd_new(struct loop *l, const struct httpd_address *at,
                     const struct httpd_route *routes, void *arg, struct httpd **out,
                     struct dr_err *err)
{
    struct httpd *h = dr_xalloc(sizeof *h);
    int fd = -1;
    *h = (struct httpd){.loop = l, .routes = routes, .arg = arg, .at = *at};
    h->again = loop_timer_new(l, on_again, h);
    if (!listen_there(h, &fd, err)) {
        h->listener = evconnlistener_new(
            loop_base(l), on_accept, h, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, BACKLOG, fd);
        if (h->listener) {
            evconnlistener_set_error_cb(h->listener, on_accept_error);
            *out = h;
            return DR_OK;
        }
        (void)dr_fail_errno(err, DR_E_IO, "listen");
    }
    if (fd >= 0)
        (void)close(fd);
    httpd_free(h);
    return err->rc;
}

void httpd_free(struct httpd *h)
{
    struct stat st;
    if (!h)
        return;
    const struct sockaddr_un *un = (const struct sockaddr_un *)&h->at.at;
    if (h->listener)
        evconnlistener_free(h->listener);
    h->listener = NULL;
    while (h->connections)
        drop(h->connections);
    if (h->ino && lstat(un->sun_path, &st) == 0 && st.st_dev == h->dev && st.st_ino == h->ino)
        (void)unlink(un->sun_path);
    loop_timer_free(h->again);
    free(h);
}

void httpd_where(const struct httpd *h, char *out, size_t size)
{
    const struct sockaddr *sa = (const struct sockaddr *)&h->at.at;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)sa;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)sa;
    char text[INET6_ADDRSTRLEN] = "?";
    if (sa->sa_family == AF_UNIX) {
        (void)snprintf(out, size, "unix:%s", ((const struct sockaddr_un *)sa)->sun_path);
    } else if (sa->sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        (void)snprintf(out, size, "[%s]:%u", text, ntohs(v6->sin6_port));
    } else {
        (void)inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        (void)snprintf(out, size, "%s:%u", text, ntohs(v4->sin_port));
    }
}
