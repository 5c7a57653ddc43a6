/* libcurl's multi interface on libevent. Its callbacks only note sockets and the timer; handles are
 * added and removed outside of them. */
#include "worker/core/http_internal.h"

#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <event2/event.h>

#include "common/mem.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"

enum { WATCHDOG_MS = 1000, KEPT_CONNECTIONS = 8 };

struct http {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer *timer, *watchdog;
    unsigned limit, live, running;       /* requests that have a place; that libcurl has */
    struct transfer *queue, **queue_end; /* those that wait for one */
};

struct transfer {
    struct http_easy easy; /* the first member: CURLOPT_PRIVATE points to it */
    struct http *http;
    struct transfer *next; /* in the queue */
    struct fiber *fiber;
    struct cancel_hook hook;
    struct loop_timer *window;
    uint64_t stall_ms, stall_bytes, moved;
    CURLcode code;
    bool placed, over, added; /* the fiber is awake; libcurl has the handle */
    bool stalled;
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
    struct http_easy *e = NULL;
    short events = EV_PERSIST;
    if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, &e) == CURLE_OK && e)
        e->fd = fd;
    if (watched)
        event_free(watched);
    if (what == CURL_POLL_REMOVE)
        return 0;
    if (what & CURL_POLL_IN)
        events |= EV_READ;
    if (what & CURL_POLL_OUT)
        events |= EV_WRITE;
    struct event *watch = event_new(loop_base(h->loop), fd, events, on_ready, h);
    if (!watch || event_add(watch, NULL) != 0) {
        if (watch)
            event_free(watch);
        watch = NULL;
    }
    (void)curl_multi_assign(h->multi, fd, watch);
    return watch ? 0 : -1;
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
    if (h->running == 0)
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
    h->queue_end = &h->queue;
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
    dr_buf_fini(&r->head);
}

static bool has_place(const struct http *h)
{
    return !h->limit || h->live < h->limit;
}

static void hand_out(struct http *h)
{
    while (h->queue && has_place(h)) {
        struct transfer *t = h->queue;
        if (!(h->queue = t->next))
            h->queue_end = &h->queue;
        if (t->over) /* cancelled, and not yet awake */
            continue;
        h->live++;
        t->placed = true;
        finish(t);
    }
}

static void leave_queue(struct http *h, struct transfer *t)
{
    struct transfer **p = &h->queue;
    while (*p && *p != t)
        p = &(*p)->next;
    if (!*p)
        return;
    if (!(*p = t->next))
        h->queue_end = p;
}

/* false: cancelled. Who comes when others wait goes behind them. */
static bool take_place(struct transfer *t, struct cancel *cancel)
{
    struct http *h = t->http;
    if (cancel_fired(cancel))
        return false;
    if (has_place(h) && !h->queue) {
        h->live++;
        t->placed = true;
        return true;
    }
    *h->queue_end = t;
    h->queue_end = &t->next;
    if (cancel)
        cancel_hook_add(cancel, &t->hook, on_cancel, t);
    fiber_suspend();
    cancel_hook_remove(&t->hook);
    leave_queue(h, t);
    t->over = false;
    return t->placed && !cancel_fired(cancel);
}

static void give_place(struct transfer *t)
{
    if (!t->placed)
        return;
    t->http->live--;
    hand_out(t->http);
}

void http_limit(struct http *h, unsigned transfers)
{
    h->limit = transfers;
    (void)curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS,
                            (long)(transfers ? transfers : KEPT_CONNECTIONS));
    hand_out(h);
}

/* What libcurl gave the kernel, and the kernel has not got rid of, has not moved: buffers grow to
 * some MiB, with a slow line they would hide that it is dead, or look dead while they empty. */
static uint64_t moved(const struct http_easy *e)
{
    int queued = 0;
    uint64_t sent = http_easy_sent(e);
    if (e->fd == CURL_SOCKET_BAD || ioctl(e->fd, SIOCOUTQ, &queued) != 0 || queued < 0)
        queued = 0;
    return e->received + (sent > (uint64_t)queued ? sent - (uint64_t)queued : 0);
}

static void on_window(void *arg)
{
    struct transfer *t = arg;
    uint64_t now = moved(&t->easy);
    if (now < t->moved + t->stall_bytes) {
        t->stalled = true;
        finish(t);
        return;
    }
    t->moved = now;
    loop_timer_arm(t->window, t->stall_ms);
}

static void watch_for_stall(struct transfer *t, const struct http_request *r)
{
    if (!r->stall_ms)
        return;
    t->stall_ms = r->stall_ms;
    t->stall_bytes = r->stall_bytes ? r->stall_bytes : 1;
    uint64_t
        most; /* thousandths, in a window; half of it will do, less what libcurl moves at once */
    if (r->max_bytes_s && !__builtin_mul_overflow(r->max_bytes_s, r->stall_ms, &most)) {
        most = most / 2000 > HTTP_STEP_BYTES ? most / 2000 - HTTP_STEP_BYTES : 0;
        if (t->stall_bytes > most)
            t->stall_bytes = most;
    }
    t->window = loop_timer_new(t->http->loop, on_window, t);
    loop_timer_arm(t->window, t->stall_ms);
}
static void wait_for(struct transfer *t, struct cancel *cancel)
{
    struct http *h = t->http;
    if (h->running++ == 0)
        loop_timer_arm(h->watchdog, WATCHDOG_MS);
    if (cancel)
        cancel_hook_add(cancel, &t->hook, on_cancel, t);
    fiber_suspend();
    cancel_hook_remove(&t->hook);
    loop_timer_free(t->window);
    if (--h->running == 0)
        loop_timer_stop(h->watchdog);
    if (t->added) /* cancelled or stalled: what is under way ends here */
        (void)curl_multi_remove_handle(h->multi, t->easy.curl);
}

static void read_numbers(struct http_easy *e, struct http_response *out)
{
    long status = 0;
    (void)curl_easy_getinfo(e->curl, CURLINFO_RESPONSE_CODE, &status);
    out->status = (unsigned)status;
    out->sent_bytes = http_easy_sent(e);
    out->received_bytes = e->received;
    http_head_read(out);
}

static enum dr_rc judge(struct transfer *t, struct cancel *cancel, struct dr_err *err)
{
    if (t->added && !t->stalled)
        return dr_fail(err, cancel_fired(cancel), "%s", cancel_reason(cancel));
    if (t->added) {
        (void)dr_fail(err, DR_E_TIMEOUT, "less than %llu bytes in %llu ms",
                      (unsigned long long)t->stall_bytes, (unsigned long long)t->stall_ms);
        return dr_err_reason(err, "stalled");
    }
    if (http_easy_judge(&t->easy, t->code, err))
        return err->rc;
    return http_request_judge(&t->easy, err);
}

static enum dr_rc perform(struct transfer *t, const struct http_request *r, struct cancel *cancel,
                          struct dr_err *err)
{
    struct http_request q = *r;
    if (!take_place(t, cancel))
        return dr_fail(err, cancel_fired(cancel), "%s", cancel_reason(cancel));
    if (q.sign) {
        enum dr_rc rc = q.sign(q.sign_arg, &q, err);
        if (rc)
            return rc;
    }
    if (http_request_put(&t->easy, &q, err))
        return err->rc;
    if (curl_multi_add_handle(t->http->multi, t->easy.curl) != CURLM_OK)
        return dr_fail(err, DR_E_NOMEM, "libcurl");
    t->added = true;
    watch_for_stall(t, &q);
    wait_for(t, cancel);
    read_numbers(&t->easy, t->easy.response);
    return judge(t, cancel, err);
}

enum dr_rc http_perform(struct http *h, const struct http_request *r, struct cancel *cancel,
                        struct http_response *out, struct dr_err *err)
{
    struct dr_err own = {0};
    struct transfer t = {.http = h, .fiber = fiber_self(), .easy.response = out};
    memset(out, 0, sizeof *out);
    dr_buf_init(&out->body, r->response_max_bytes ? r->response_max_bytes : HTTP_ANSWER_MAX);
    dr_buf_init(&out->head, HTTP_ANSWER_MAX);
    enum dr_rc rc = perform(&t, r, cancel, err ? err : &own);
    http_easy_fini(&t.easy);
    give_place(&t);
    return rc;
}
