/* worker/core/http against a server of its own: answers of every kind, bounds, cancel, deadline; a
 * name look-up that hangs holds up nobody; which addresses are public. Mail, which needs TLS, is
 * tested by tests/integration/test_alerts.py. */
#include "tests/unit/cm.h"

#include <dirent.h>
#include <dlfcn.h>
#include <netdb.h>
#include <semaphore.h>

#include "tests/unit/core/http_case.h"

/* libcurl's threads come here: the name that hangs is let go by the test. */
static sem_t asked, let_go, left;

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (name && strcmp(name, "hangs.test") == 0) {
        (void)sem_post(&asked);
        (void)sem_wait(&let_go);
        (void)sem_post(&left);
        return EAI_AGAIN;
    }
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(name, service, hints, out);
}

static void answers_of_every_kind(void **state)
{
    (void)state;
    struct seen get = {.path = "/ok"};
    fetch(&get);
    assert_int_equal(get.rc, DR_OK);
    assert_int_equal(get.out.status, 200);
    assert_string_equal(BODY(get), "GET ");
    http_response_fini(&get.out);

    struct seen post = {.path = "/ok",
                        .r = {.method = "POST",
                              .headers = (const char *const[]){"X-Test: yes", NULL},
                              .body = "some body",
                              .body_len = 9}};
    fetch(&post);
    assert_int_equal(post.rc, DR_OK);
    assert_string_equal(BODY(post), "POST some body x");
    http_response_fini(&post.out);

    struct seen put = {.path = "/ok", .r = {.method = "PUT", .body = "part", .body_len = 4}};
    fetch(&put);
    assert_string_equal(BODY(put), "PUT part");
    http_response_fini(&put.out);
    assert_int_equal(server.connections, 1); /* it was kept */

    struct seen later = {.path = "/later"};
    fetch(&later);
    assert_int_equal(later.rc, DR_OK);
    assert_int_equal(later.out.status, 503);
    assert_int_equal(later.out.retry_after_s, 7);
    http_response_fini(&later.out);

    struct seen redirect = {.path = "/redirect"};
    fetch(&redirect);
    assert_int_equal(redirect.rc, DR_OK);
    assert_int_equal(redirect.out.status, 302); /* and nobody went there */
    assert_int_equal(server.requests, 5);
    http_response_fini(&redirect.out);
}

static void what_is_no_answer(void **state)
{
    static const struct {
        const char *path;
        enum dr_rc rc;
    } cases[] = {{"/cut", DR_E_UNREACHABLE},
                 {"/garbage", DR_E_PROTOCOL},
                 {"/nothing", DR_E_UNREACHABLE},
                 {"/huge", DR_E_TOO_BIG},
                 {"/headers", DR_E_TOO_BIG}};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct seen s = {.path = cases[i].path, .r = {.response_max_bytes = 100000}};
        fetch(&s);
        assert_int_equal(s.rc, cases[i].rc);
        assert_true(s.out.body.len <= 100000);
        assert_true(s.err.msg[0] != 0);
        http_response_fini(&s.out);
    }
}

static void requests_that_are_refused(void **state)
{
    (void)state;
    struct seen line = {.path = "/ok",
                        .r = {.headers = (const char *const[]){"A: b\r\nC: d", NULL}}};
    fetch(&line);
    assert_int_equal(line.rc, DR_E_INVALID);
    struct seen file = {.url = "file:///etc/passwd"};
    fetch(&file);
    assert_int_equal(file.rc, DR_E_INVALID);
    struct seen bad = {.url = "http://[::1"};
    fetch(&bad);
    assert_int_equal(bad.rc, DR_E_INVALID);
    struct seen plain = {.path = "/ok"};
    start(&plain); /* without .plain */
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(plain.rc, DR_E_INVALID);
    assert_int_equal(server.connections, 0);
}

static void a_private_address_is_refused_where_it_is_connected_to(void **state)
{
    char url[64];
    (void)state;
    const char *const hosts[] = {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0"};
    for (size_t i = 0; i < CM_COUNT(hosts); i++) {
        struct seen s = {.url = url, .r = {.public_only = true}};
        (void)snprintf(url, sizeof url, "http://%s:%u/ok", hosts[i], server.port);
        fetch(&s);
        assert_int_equal(s.rc, DR_E_REFUSED);
        assert_string_equal(s.err.reason, "private-address");
        http_response_fini(&s.out);
    }
    assert_int_equal(server.connections, 0);
    struct seen kept = {.path = "/ok"}; /* a kept connection does not lend its rules */
    fetch(&kept);
    http_response_fini(&kept.out);
    struct seen again = {.path = "/ok", .r = {.public_only = true}};
    fetch(&again);
    assert_int_equal(again.rc, DR_E_REFUSED);
    assert_int_equal(server.requests, 1);
    http_response_fini(&again.out);
}

static void nobody_listens(void **state)
{
    char url[64];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC,
                    0); /* bound, never listening: the port is ours */
    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u/", ntohs(a.sin_port));
    struct seen s = {.url = url};
    fetch(&s);
    assert_int_equal(s.rc, DR_E_UNREACHABLE);
    http_response_fini(&s.out);
    (void)close(fd);
}

/* A queue of connections that nobody takes out of is full after two: the next knock is not heard.
 */
static void nobody_hears_the_knock(void **state)
{
    char url[64];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), knocks[4];
    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    for (size_t i = 0; i < CM_COUNT(knocks); i++) {
        knocks[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(knocks[i], (struct sockaddr *)&a, sizeof a);
    }
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u/", ntohs(a.sin_port));
    struct seen s = {.url = url, .r = {.connect_ms = 100}};
    fetch(&s);
    assert_int_equal(s.rc, DR_E_TIMEOUT);
    assert_int_equal(s.out.status, 0);
    http_response_fini(&s.out);
    for (size_t i = 0; i < CM_COUNT(knocks); i++)
        (void)close(knocks[i]);
    (void)close(fd);
}

static void the_deadline_ends_it(void **state)
{
    (void)state;
    struct seen s = {.path = "/slow", .r = {.deadline_ms = 50}};
    fetch(&s);
    assert_int_equal(s.rc, DR_E_TIMEOUT);
    http_response_fini(&s.out);
}

static int open_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n;
}

struct canceller {
    struct cancel token;
    unsigned requests; /* that the server must have seen before */
};

static void cancel_fiber(void *arg)
{
    struct canceller *c = arg;
    while (atomic_load(&server.requests) < c->requests)
        (void)fiber_sleep(1, NULL);
    cancel_fire(&c->token, DR_E_CANCELLED, "enough");
}

static void a_cancel_ends_all_that_wait(void **state)
{
    struct canceller c = {.requests = 3};
    struct seen s[3] = {{.path = "/slow"}, {.path = "/slow"}, {.path = "/slow"}};
    (void)state;
    int before = open_fds();
    cancel_init(&c.token, loop);
    for (size_t i = 0; i < 3; i++) {
        s[i].r.plain = true;
        s[i].cancel = &c.token;
        start(&s[i]);
    }
    fiber_start(loop, cancel_fiber, &c);
    assert_int_equal(loop_run(loop), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(s[i].returned, 1);
        assert_int_equal(s[i].rc, DR_E_CANCELLED);
        assert_string_equal(s[i].err.msg, "enough");
        http_response_fini(&s[i].out);
    }
    struct seen late = {.path = "/ok", .cancel = &c.token}; /* a fired token: nothing is sent */
    fetch(&late);
    assert_int_equal(late.rc, DR_E_CANCELLED);
    assert_int_equal(server.requests, 3);
    cancel_fini(&c.token);
    server_stop(); /* the other ends are closed, too */
    assert_int_equal(open_fds(), before - 1);
    assert_int_equal(server_start(), 0);
}

static void cancel_when_asked(void *arg)
{
    struct canceller *c = arg;
    while (sem_trywait(&asked) != 0)
        (void)fiber_sleep(1, NULL);
    cancel_fire(&c->token, DR_E_CANCELLED, "enough");
}

static void a_name_that_hangs_holds_up_nobody(void **state)
{
    struct canceller c = {0};
    struct seen hung = {.url = "http://hangs.test/", .r = {.plain = true}, .cancel = &c.token};
    struct seen beside = {.path = "/ok", .r = {.plain = true}};
    (void)state;
    cancel_init(&c.token, loop);
    start(&hung);
    start(&beside);
    fiber_start(loop, cancel_when_asked, &c);
    assert_int_equal(loop_run(loop), 0); /* the look-up has not returned */
    assert_int_equal(hung.rc, DR_E_CANCELLED);
    assert_int_equal(beside.rc, DR_OK);
    http_response_fini(&hung.out);
    http_response_fini(&beside.out);
    cancel_fini(&c.token);
    assert_int_equal(sem_post(&let_go), 0);
    assert_int_equal(sem_wait(&left), 0);
}

static bool public_address(const char *text)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
        return http_address_is_public((const struct sockaddr *)&in);
    assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
    return http_address_is_public((const struct sockaddr *)&in6);
}

static void which_addresses_are_public(void **state)
{
    static const char *const open[] = {
        "1.1.1.1",         "8.8.8.8",        "9.255.255.255",   "11.0.0.0",
        "100.63.255.255",  "100.128.0.0",    "126.255.255.255", "128.0.0.0",
        "169.253.255.255", "169.255.0.0",    "172.15.255.255",  "172.32.0.0",
        "192.167.255.255", "192.169.0.0",    "223.255.255.255", "168.63.129.15",
        "2606:4700::1",    "2a00:1450::1",   "2001:200::1",     "64:ff9b::808:808",
        "::ffff:8.8.8.8",  "2002:808:808::1"};
    static const char *const closed[] = {"0.0.0.0",
                                         "0.1.2.3",
                                         "10.0.0.1",
                                         "10.255.255.255",
                                         "100.64.0.1",
                                         "100.100.100.200",
                                         "127.0.0.1",
                                         "127.255.255.255",
                                         "168.63.129.16",
                                         "169.254.169.254",
                                         "172.16.0.1",
                                         "172.31.255.255",
                                         "192.0.0.192",
                                         "192.168.1.1",
                                         "198.18.0.1",
                                         "203.0.113.9",
                                         "224.0.0.1",
                                         "240.0.0.1",
                                         "255.255.255.255",
                                         "::",
                                         "::1",
                                         "::127.0.0.1",
                                         "::ffff:10.0.0.1",
                                         "64:ff9b::7f00:1",
                                         "64:ff9b:1::1",
                                         "fc00::1",
                                         "fd00:ec2::254",
                                         "fe80::1",
                                         "fec0::1",
                                         "ff02::1",
                                         "2001::1",
                                         "2001:db8::1",
                                         "2002:7f00:1::1",
                                         "2002:a9fe:a9fe::",
                                         "3fff::1"};
    struct sockaddr local = {.sa_family = AF_UNIX};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(open); i++)
        if (!public_address(open[i]))
            fail_msg("%s is public", open[i]);
    for (size_t i = 0; i < CM_COUNT(closed); i++)
        if (public_address(closed[i]))
            fail_msg("%s is not public", closed[i]);
    assert_false(http_address_is_public(&local));
}

static void which_texts_are_mail_addresses(void **state)
{
    static const char *const good[] = {"a@b", "ops+dr@example.org", "o'neil@x-y.example"};
    static const char *const bad[] = {"",      "a",           "@b",      "a@",        "a@b@c",
                                      "a b@c", "a@b\r\nDATA", "a@b>",    "<a@b>",     "a@b,c@d",
                                      "-a@b",  "a@b\x7f",     "\"a\"@b", "\xc3\xa4@b"};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(good); i++)
        assert_true(http_mail_address(good[i], strlen(good[i])));
    for (size_t i = 0; i < CM_COUNT(bad); i++)
        assert_false(http_mail_address(bad[i], strlen(bad[i])));
    assert_false(http_mail_address("a@b\0c", 5));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(answers_of_every_kind),
        CASE(what_is_no_answer),
        CASE(requests_that_are_refused),
        CASE(a_private_address_is_refused_where_it_is_connected_to),
        CASE(nobody_listens),
        CASE(nobody_hears_the_knock),
        CASE(the_deadline_ends_it),
        CASE(a_cancel_ends_all_that_wait),
        CASE(a_name_that_hangs_holds_up_nobody),
        cmocka_unit_test(which_addresses_are_public),
        cmocka_unit_test(which_texts_are_mail_addresses),
    };
    (void)sem_init(&asked, 0, 0);
    (void)sem_init(&let_go, 0, 0);
    (void)sem_init(&left, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
