/* worker/core/http: who stalls is left, who is slow is not; a cap holds; requests wait for their
 * place and are signed there; a cancel in the middle of some leaves the others alone. */
#include "tests/unit/cm.h"

#include <semaphore.h>

#include "tests/unit/core/http_case.h"

enum { PART = 8 << 20, STEP = 16384 };

static unsigned char part[PART], back[PART];
static sem_t halfway, let_go;
static _Atomic unsigned at_once, most_at_once;

static bool take(int fd, size_t len)
{
    static _Thread_local unsigned char bytes[STEP];
    while (len > 0) {
        ssize_t n = recv(fd, bytes, len < STEP ? len : STEP, 0);
        if (n <= 0)
            return false;
        len -= (size_t)n;
    }
    return true;
}

static bool give(int fd, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, part, len < PART ? len : PART, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        len -= (size_t)n;
    }
    return true;
}

static bool head(int fd, size_t len)
{
    char text[128];
    (void)snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);
    return say(fd, text);
}

/* One byte every 25 ms, for 2.5 s. */
static bool drip(int fd)
{
    bool more = head(fd, 100);
    for (int i = 0; i < 100 && more; i++) {
        (void)usleep(25000);
        more = give(fd, 1);
    }
    return more;
}

/* The same with a head that has no end. */
static bool drip_head(int fd)
{
    bool more = say(fd, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 100 && more; i++) {
        (void)usleep(20000);
        more = say(fd, "X-More: to come\r\n");
    }
    return false;
}

/* 16 KiB every 50 ms. */
static bool sip(int fd, size_t len)
{
    int bytes = 65536; /* or the buffer of this end would be the cup */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    for (size_t n; len > 0; len -= n) {
        n = len < STEP ? len : STEP;
        if (!take(fd, n))
            return false;
        (void)usleep(50000);
    }
    return true;
}

static bool brief(int fd)
{
    unsigned now = atomic_fetch_add(&at_once, 1) + 1, seen = atomic_load(&most_at_once);
    while (now > seen && !atomic_compare_exchange_weak(&most_at_once, &seen, now))
        continue;
    (void)usleep(5000);
    atomic_fetch_sub(&at_once, 1);
    return head(fd, 0);
}

static bool raw(struct heard *h)
{
    size_t left = h->told - (h->len - h->head_len);
    if (strcmp(h->path, "/raw/drip") == 0)
        return drip(h->fd);
    if (strcmp(h->path, "/raw/drip-head") == 0)
        return drip_head(h->fd);
    if (strcmp(h->path, "/raw/brief") == 0)
        return brief(h->fd);
    if (strcmp(h->path, "/raw/sink") == 0)
        return take(h->fd, left) && head(h->fd, 0);
    if (strcmp(h->path, "/raw/sips") == 0)
        return sip(h->fd, left) && head(h->fd, 0);
    if (strcmp(h->path, "/raw/bytes") == 0)
        return head(h->fd, PART) && give(h->fd, PART);
    if (strcmp(h->path, "/raw/some") == 0)
        return head(h->fd, 40000) && give(h->fd, 40000);
    if (strcmp(h->path, "/raw/deaf") == 0) { /* takes nothing: its window closes */
        (void)sem_wait(&let_go);
    } else if (strcmp(h->path, "/raw/half-in") == 0) {
        (void)take(h->fd, left / 2);
        (void)sem_post(&halfway);
        until_gone(h->fd);
    } else if (strcmp(h->path, "/raw/half-out") == 0) {
        (void)(head(h->fd, PART) && give(h->fd, PART / 2));
        (void)sem_post(&halfway);
        until_gone(h->fd);
    }
    return false;
}

#define UPLOAD(p)                                                                                  \
    {                                                                                              \
        .path = (p), .r = {                                                                        \
            .method = "PUT",                                                                       \
            .body = part,                                                                          \
            .body_len = PART,                                                                      \
            .plain = true,                                                                         \
            .no_expect = true                                                                      \
        }                                                                                          \
    }
#define DOWNLOAD(p)                                                                                \
    {                                                                                              \
        .path = (p), .r = {.into = back, .into_max = PART, .plain = true }                         \
    }

static void who_moves_too_little_is_left(void **state)
{
    (void)state;
    struct seen cases[] = {DOWNLOAD("/slow"), DOWNLOAD("/raw/drip"), DOWNLOAD("/raw/drip-head"),
                           UPLOAD("/raw/deaf")};
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct seen *s = &cases[i];
        s->r.stall_ms = 200;
        s->r.stall_bytes = i == 0 ? 0 : 1000;
        fetch(s);
        assert_int_equal(s->rc, DR_E_TIMEOUT);
        assert_string_equal(s->err.reason, "stalled");
        assert_true(s->out.sent_bytes < PART);
        http_response_fini(&s->out);
    }
}

/* With an upload libcurl is done long before the kernel, whose buffers hold the last MiB. */
static void who_is_slow_is_not(void **state)
{
    (void)state;
    struct seen s[] = {DOWNLOAD("/raw/drip"), UPLOAD("/raw/sips")};
    s[1].r.body_len = 3 << 19;
    for (size_t i = 0; i < 2; i++) {
        s[i].r.stall_ms = 2000;
        start(&s[i]);
    }
    assert_int_equal(loop_run(loop), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(s[i].rc, DR_OK);
        http_response_fini(&s[i].out);
    }
    assert_int_equal(s[0].out.into_len, 100);
}

static void a_cap_is_no_stall(void **state)
{
    (void)state;
    struct seen s = {.path = "/raw/some",
                     .r = {.into = back,
                           .into_max = 40000,
                           .max_bytes_s = 40000,
                           .stall_ms = 100,
                           .stall_bytes = 1000000}};
    fetch(&s);
    assert_int_equal(s.rc, DR_OK);
    assert_int_equal(s.out.into_len, 40000);
    http_response_fini(&s.out);
}

struct race { /* ends those that are late when the others have come in */
    struct seen *s;
    size_t first_late, count;
    struct cancel token;
};

static void race_fiber(void *arg)
{
    struct race *r = arg;
    for (size_t i = 0; i < r->first_late; i++)
        while (!r->s[i].returned)
            (void)fiber_sleep(1, NULL);
    cancel_fire(&r->token, DR_E_CANCELLED, "late");
}

static void run_race(struct race *r)
{
    cancel_init(&r->token, loop);
    for (size_t i = 0; i < r->count; i++) {
        if (i >= r->first_late)
            r->s[i].cancel = &r->token;
        start(&r->s[i]);
    }
    fiber_start(loop, race_fiber, r);
    assert_int_equal(loop_run(loop), 0);
    cancel_fini(&r->token);
}

static void a_cap_holds(void **state)
{
    (void)state;
    struct seen s[] = {UPLOAD("/raw/sink"), DOWNLOAD("/raw/bytes"), UPLOAD("/raw/sink"),
                       DOWNLOAD("/raw/bytes")};
    struct race race = {.s = s, .first_late = 2, .count = 4};
    s[2].r.max_bytes_s = s[3].r.max_bytes_s = 65536; /* 128 s */
    run_race(&race);
    assert_int_equal(s[0].rc, DR_OK);
    assert_int_equal(s[0].out.sent_bytes, PART);
    assert_int_equal(s[1].rc, DR_OK);
    assert_int_equal(s[1].out.received_bytes, PART);
    assert_int_equal(s[2].rc, DR_E_CANCELLED);
    assert_true(s[2].out.sent_bytes > 0 && s[2].out.sent_bytes < PART / 2);
    assert_int_equal(s[3].rc, DR_E_CANCELLED);
    assert_true(s[3].out.received_bytes > 0 && s[3].out.received_bytes < PART / 2);
    for (size_t i = 0; i < 4; i++)
        http_response_fini(&s[i].out);
}

static void cancel_halfway(void *arg)
{
    struct cancel *token = arg;
    for (int n = 0; n < 4;) {
        if (sem_trywait(&halfway) == 0)
            n++;
        else
            (void)fiber_sleep(1, NULL);
    }
    cancel_fire(token, DR_E_CANCELLED, "enough");
}

static void a_cancel_in_the_middle_leaves_the_others_alone(void **state)
{
    (void)state;
    struct seen s[] = {UPLOAD("/raw/half-in"), DOWNLOAD("/raw/half-out"), UPLOAD("/raw/sink"),
                       DOWNLOAD("/raw/bytes"), UPLOAD("/raw/half-in"),    DOWNLOAD("/raw/half-out"),
                       UPLOAD("/raw/sink"),    DOWNLOAD("/raw/bytes")};
    struct cancel token;
    cancel_init(&token, loop);
    for (size_t i = 0; i < 8; i++) {
        if (i % 4 < 2)
            s[i].cancel = &token;
        start(&s[i]);
    }
    fiber_start(loop, cancel_halfway, &token);
    assert_int_equal(loop_run(loop), 0);
    for (size_t i = 0; i < 8; i++) {
        uint64_t moved = s[i].out.sent_bytes + s[i].out.received_bytes;
        assert_int_equal(s[i].returned, 1);
        assert_int_equal(s[i].rc, i % 4 < 2 ? DR_E_CANCELLED : DR_OK);
        assert_true(i % 4 < 2 ? moved > 0 && moved < PART + (i % 2 == 0) : moved == PART);
        http_response_fini(&s[i].out);
    }
    cancel_fini(&token);
}

/* Who was signed, in order. */
static struct {
    struct seen *order[64];
    unsigned count;
} signs;

static enum dr_rc sign(void *arg, struct http_request *r, struct dr_err *err)
{
    static const char *const headers[] = {"X-Test: yes", NULL};
    struct seen *s = arg;
    signs.order[signs.count++] = s;
    r->headers = headers;
    if (s->path && strcmp(s->path, "/unsigned") == 0)
        return dr_fail(err, DR_E_KEY, "no key");
    return DR_OK;
}

static void sign_when_placed(struct seen *s)
{
    s->r.plain = true;
    s->r.sign = sign;
    s->r.sign_arg = s;
    start(s);
}

static void requests_wait_for_their_place_in_order(void **state)
{
    struct seen s[30];
    (void)state;
    http_limit(http, 3);
    for (size_t i = 0; i < CM_COUNT(s); i++) {
        s[i] = (struct seen){.path = "/raw/brief"};
        sign_when_placed(&s[i]);
    }
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(signs.count, CM_COUNT(s));
    for (size_t i = 0; i < CM_COUNT(s); i++) {
        assert_int_equal(s[i].rc, DR_OK);
        assert_ptr_equal(signs.order[i], &s[i]);
        http_response_fini(&s[i].out);
    }
    assert_int_equal(most_at_once, 3);
    assert_int_equal(server.connections, 3);
}

static void what_the_signature_sets_is_sent(void **state)
{
    (void)state;
    http_limit(http, 1);
    struct seen no_key = {.path = "/unsigned"}, after = {.path = "/ok"};
    sign_when_placed(&no_key);
    sign_when_placed(&after);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(no_key.rc, DR_E_KEY); /* and its place went on */
    assert_int_equal(after.rc, DR_OK);
    assert_string_equal(BODY(after), "GET  x");
    assert_int_equal(server.requests, 1);
    http_response_fini(&no_key.out);
    http_response_fini(&after.out);
}

struct queue {
    struct seen s[4];
    struct cancel holds, waits;
};

static void shorten_queue(void *arg)
{
    struct queue *q = arg;
    while (atomic_load(&server.requests) < 1)
        (void)fiber_sleep(1, NULL);
    cancel_fire(&q->waits, DR_E_CANCELLED, "no longer");
    cancel_fire(&q->holds, DR_E_CANCELLED, "enough"); /* its place is handed out in the same turn */
}

static void who_is_cancelled_in_the_queue_sends_nothing(void **state)
{
    struct queue q = {.s = {{.path = "/slow", .cancel = &q.holds},
                            {.path = "/ok", .cancel = &q.waits},
                            {.path = "/ok"},
                            {.path = "/ok", .cancel = &q.waits}}};
    (void)state;
    cancel_init(&q.holds, loop);
    cancel_init(&q.waits, loop);
    http_limit(http, 1);
    for (size_t i = 0; i < 4; i++)
        sign_when_placed(&q.s[i]);
    fiber_start(loop, shorten_queue, &q);
    assert_int_equal(loop_run(loop), 0);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(q.s[i].rc, i == 2 ? DR_OK : DR_E_CANCELLED);
        http_response_fini(&q.s[i].out);
    }
    assert_int_equal(signs.count, 2);
    assert_int_equal(server.requests, 2);
    cancel_fini(&q.holds);
    cancel_fini(&q.waits);
}

static void raise_limit(void *arg)
{
    struct queue *q = arg;
    while (atomic_load(&server.requests) < 1)
        (void)fiber_sleep(1, NULL);
    http_limit(http, 2);
    while (!q->s[1].returned || !q->s[2].returned)
        (void)fiber_sleep(1, NULL);
    cancel_fire(&q->holds, DR_E_CANCELLED, "enough");
}

static void a_raised_limit_lets_them_go(void **state)
{
    struct queue q = {
        .s = {{.path = "/slow", .cancel = &q.holds}, {.path = "/ok"}, {.path = "/ok"}}};
    (void)state;
    cancel_init(&q.holds, loop);
    http_limit(http, 1);
    for (size_t i = 0; i < 3; i++)
        sign_when_placed(&q.s[i]);
    fiber_start(loop, raise_limit, &q);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(q.s[1].rc, DR_OK);
    assert_int_equal(q.s[2].rc, DR_OK);
    for (size_t i = 0; i < 3; i++)
        http_response_fini(&q.s[i].out);
    cancel_fini(&q.holds);
}

static int begin(void **state)
{
    server_raw = raw;
    signs.count = 0;
    (void)sem_init(&halfway, 0, 0);
    (void)sem_init(&let_go, 0, 0);
    return setup(state);
}

static int end(void **state)
{
    (void)sem_post(&let_go);
    return teardown(state);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        CASE(who_moves_too_little_is_left),
        CASE(who_is_slow_is_not),
        CASE(a_cap_is_no_stall),
        CASE(a_cap_holds),
        CASE(a_cancel_in_the_middle_leaves_the_others_alone),
        CASE(requests_wait_for_their_place_in_order),
        CASE(what_the_signature_sets_is_sent),
        CASE(who_is_cancelled_in_the_queue_sends_nothing),
        CASE(a_raised_limit_lets_them_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
