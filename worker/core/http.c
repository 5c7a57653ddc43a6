/* libcurl's multi interface on libevent. Its callbacks only note sockets and the timer; handles are
 * added and removed outside of them. */
#include "worker/core/http_internal.h"

#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "common/mem.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"

enum { WATCHDOG_MS = 1000, KEPT_CONNECTIONS = 8, KEPT_S = 60, EXPECT_FROM_BYTES = 1 << 20 };

struct http {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer *timer, *watchdog;
    unsigned live;
};

struct transfer {
    struct http_easy easy; /* the first member: CURLOPT_PRIVATE points to it */
    struct http *http;
    struct fiber *fiber;
    struct cancel_hook hook;
    CURLcode code;
    bool over, added; /* the fiber is awake; libcurl has the handle */
};

static void finish(struct transfer *t)
{
    if (t->over)
        return;
    t->over = true;
    fiber_wake(t->fiber);
}

static void on_cancel(void *arg)
{
    finish(arg);
}

/* Transfers that have ended leave the multi here, never in one of its callbacks. */
static void reap(struct http *h)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(h->multi, &left))) {
        struct transfer *t = NULL;
        CURL *easy = m->easy_handle;
        CURLcode code = m->data.result; /* m is gone with the handle */
        if (m->msg != CURLMSG_DONE || curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t) != CURLE_OK)
            continue;
        (void)curl_multi_remove_handle(h->multi, easy);
        t->added = false;
        t->code = code;
        finish(t);
    }
}

static void act(struct http *h, curl_socket_t fd, int what)
{
    int running;
    (void)curl_multi_socket_action(h->multi, fd, what, &running);
    reap(h);
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    act(arg, fd, (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *watched)
{
    struct http *h = arg;
    short events = EV_PERSIST;
    (void)easy;
    if (watched)
        event_free(watched);
    if (what == CURL_POLL_REMOVE)
        return 0;
    if (what & CURL_POLL_IN)
        events |= EV_READ;
    if (what & CURL_POLL_OUT)
        events |= EV_WRITE;
    struct event *e = event_new(loop_base(h->loop), fd, events, on_ready, h);
    if (!e || event_add(e, NULL) != 0) {
        if (e)
            event_free(e);
        e = NULL;
    }
    (void)curl_multi_assign(h->multi, fd, e);
    return e ? 0 : -1;
}

static void on_due(void *arg)
{
    act(arg, CURL_SOCKET_TIMEOUT, 0);
}

/* 0 ms too goes by the loop: libcurl must not be entered from here. */
static int on_timer(CURLM *multi, long ms, void *arg)
{
    struct http *h = arg;
    (void)multi;
    if (ms < 0)
        loop_timer_stop(h->timer);
    else
        loop_timer_arm(h->timer, (uint64_t)ms);
    return 0;
}

/* Timers of libcurl before 8.11.1 get lost now and then. */
static void on_watchdog(void *arg)
{
    struct http *h = arg;
    if (h->live == 0)
        return;
    loop_timer_arm(h->watchdog, WATCHDOG_MS);
    act(h, CURL_SOCKET_TIMEOUT, 0);
}

static bool speaks(const curl_version_info_data *v, const char *protocol)
{
    for (const char *const *p = v->protocols; *p; p++)
        if (strcmp(*p, protocol) == 0)
            return true;
    return false;
}

static enum dr_rc start_library(struct dr_err *err)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return dr_fail(err, DR_E_NOMEM, "libcurl");
    const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);
    if (!(v->features & CURL_VERSION_ASYNCHDNS) || !speaks(v, "https") || !speaks(v, "smtps"))
        return dr_fail(err, DR_E_CONFIG,
                       "libcurl %s: lacks https, smtps or a resolver that does not block",
                       v->version);
    return DR_OK;
}

enum dr_rc http_new(struct loop *l, struct http **out, struct dr_err *err)
{
    struct http *h = dr_xalloc(sizeof *h);
    h->loop = l;
    if (start_library(err) || !(h->multi = curl_multi_init())) {
        http_free(h);
        return err && err->rc ? err->rc : dr_fail(err, DR_E_NOMEM, "libcurl");
    }
    h->timer = loop_timer_new(l, on_due, h);
    h->watchdog = loop_timer_new(l, on_watchdog, h);
    (void)curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    (void)curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    (void)curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    (void)curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    (void)curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)KEPT_CONNECTIONS);
    *out = h;
    return DR_OK;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    if (h->multi) /* it still calls on_socket and on_timer */
        (void)curl_multi_cleanup(h->multi);
    loop_timer_free(h->timer);
    loop_timer_free(h->watchdog);
    free(h);
}

void http_response_fini(struct http_response *r)
{
    dr_buf_fini(&r->body);
}

static enum dr_rc put_method(struct http_easy *e, const struct http_request *r, struct dr_err *err)
{
    CURL *c = e->curl;
    const char *method = r->method ? r->method : "GET";
    curl_off_t len = (curl_off_t)r->body_len;
    http_easy_body(e, r->body, r->body_len);
    if (strcmp(method, "GET") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
    } else if (strcmp(method, "POST") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_POST, 1L);
        (void)curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, len);
    } else if (strcmp(method, "PUT") == 0) {
        (void)curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
        (void)curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, len);
    } else {
        return dr_fail(err, DR_E_BUG, "method %s", method);
    }
    return DR_OK;
}

static enum dr_rc prepare(struct http_easy *e, const struct http_request *r, struct dr_err *err)
{
    if (http_easy_init(e, r->url, r->plain ? "https,http" : "https", r->ca_file, r->connect_ms,
                       r->deadline_ms, err) ||
        put_method(e, r, err))
        return err->rc;
    /* A server that never answers `Expect: 100-continue` would cost a second a request. */
    if (r->body_len < EXPECT_FROM_BYTES && http_easy_line(e, "Expect:", err))
        return err->rc;
    for (const char *const *h = r->headers; h && *h; h++)
        if (http_easy_line(e, *h, err))
            return err->rc;
    (void)curl_easy_setopt(e->curl, CURLOPT_HTTPHEADER, e->list);
    (void)curl_easy_setopt(e->curl, CURLOPT_MAXAGE_CONN, (long)KEPT_S);
    if (r->public_only) { /* a kept connection was judged by another request's rules */
        (void)curl_easy_setopt(e->curl, CURLOPT_FRESH_CONNECT, 1L);
        (void)curl_easy_setopt(e->curl, CURLOPT_FORBID_REUSE, 1L);
        e->public_only = true;
    }
    return DR_OK;
}

static void wait_for(struct transfer *t, struct cancel *cancel)
{
    struct http *h = t->http;
    if (h->live++ == 0)
        loop_timer_arm(h->watchdog, WATCHDOG_MS);
    if (cancel)
        cancel_hook_add(cancel, &t->hook, on_cancel, t);
    fiber_suspend();
    cancel_hook_remove(&t->hook);
    if (--h->live == 0)
        loop_timer_stop(h->watchdog);
    if (t->added) /* cancelled: what is under way ends here */
        (void)curl_multi_remove_handle(h->multi, t->easy.curl);
}

static void read_head(struct http_easy *e, struct http_response *out)
{
    long status = 0;
    curl_off_t after = 0;
    (void)curl_easy_getinfo(e->curl, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(e->curl, CURLINFO_RETRY_AFTER, &after);
    out->status = (unsigned)status;
    out->retry_after_s = after > 0 ? (uint64_t)after : 0;
}

enum dr_rc http_perform(struct http *h, const struct http_request *r, struct cancel *cancel,
                        struct http_response *out, struct dr_err *err)
{
    struct dr_err own = {0}, *e = err ? err : &own;
    struct transfer t = {.http = h, .fiber = fiber_self()};
    memset(out, 0, sizeof *out);
    dr_buf_init(&out->body, r->response_max_bytes ? r->response_max_bytes : HTTP_ANSWER_MAX);
    t.easy.response = out;
    enum dr_rc rc = cancel_fired(cancel);
    if (rc)
        return dr_fail(e, rc, "%s", cancel_reason(cancel));
    rc = prepare(&t.easy, r, e);
    if (!rc && curl_multi_add_handle(h->multi, t.easy.curl) != CURLM_OK)
        rc = dr_fail(e, DR_E_NOMEM, "libcurl");
    if (!rc) {
        t.added = true;
        wait_for(&t, cancel);
        rc = t.added ? dr_fail(e, cancel_fired(cancel), "%s", cancel_reason(cancel))
                     : http_easy_judge(&t.easy, t.code, e);
        if (!rc)
            read_head(&t.easy, out);
    }
    http_easy_fini(&t.easy);
    return rc;
}
