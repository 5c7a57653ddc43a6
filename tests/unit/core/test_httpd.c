/* worker/core/httpd: addresses, heads of requests, replies; and clients that come and go. */
#include "tests/unit/cm.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "worker/core/httpd_internal.h"
#include "worker/core/loop.h"

static void case_addresses(void **state)
{
    static const char *const bad[] = {
        "",         "9464",  "127.0.0.1",   "127.0.0.1:",  "127.0.0.1:65536",
        "host:1",   "[::1]", "[::1]:",      "[::1:1",      "[127.0.0.1]:1",
        "::1:9464", "unix:", "unix:a.s",    "127.0.0.1:a", "1.2.3.4.5:1",
        "on",       "OFF",   "127.0.0.1:-1"};
    struct httpd_address a;
    struct dr_err err = {0};
    (void)state;
    assert_int_equal(httpd_parse("off", &a, &err), DR_OK);
    assert_true(a.off);
    assert_int_equal(httpd_parse("127.0.0.1:9464", &a, &err), DR_OK);
    assert_int_equal(a.at.ss_family, AF_INET);
    assert_int_equal(ntohs(((struct sockaddr_in *)&a.at)->sin_port), 9464);
    assert_int_equal(httpd_parse("[::1]:0", &a, &err), DR_OK);
    assert_int_equal(a.at.ss_family, AF_INET6);
    assert_int_equal(httpd_parse("unix:/run/drworker/http.sock", &a, &err), DR_OK);
    assert_string_equal(((struct sockaddr_un *)&a.at)->sun_path, "/run/drworker/http.sock");
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        dr_err_clear(&err);
        assert_int_equal(httpd_parse(bad[i], &a, &err), DR_E_CONFIG);
        assert_string_equal(err.field, "DR_HTTP_LISTEN");
    }
}

static unsigned head(const char *text, struct httpd_request *q)
{
    return httpd_read_head(text, strlen(text), q);
}

static void case_heads(void **state)
{
    struct httpd_request q;
    (void)state;
    assert_int_equal(head("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", &q), 200);
    assert_string_equal(q.path, "/metrics");
    assert_false(q.head);
    assert_int_equal(head("HEAD /a?b=/c HTTP/1.0\n\n", &q), 200);
    assert_string_equal(q.path, "/a");
    assert_true(q.head);
    assert_int_equal(head("GET HTTP://x:1/p HTTP/1.1\r\n\r\n", &q), 200);
    assert_string_equal(q.path, "/p");
    assert_int_equal(head("GET / HTTP/1.1\r\ncontent-LENGTH: 00\r\n\r\n", &q), 200);
    assert_int_equal(head("GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", &q), 413);
    assert_int_equal(head("GET / HTTP/1.1\r\nContent-Length: -\r\n\r\n", &q), 413);
    assert_int_equal(head("GET / HTTP/1.1\r\ntransfer-encoding: x\r\n\r\n", &q), 413);
    assert_int_equal(head("POST / HTTP/1.1\r\n\r\n", &q), 405);
    assert_int_equal(head("GETS / HTTP/1.1\r\n\r\n", &q), 405);
    assert_int_equal(head("GET / HTTP/3.0\r\n\r\n", &q), 505);
    assert_int_equal(head("GET / HTTP/1.1x\r\n\r\n", &q), 400);
    assert_int_equal(head("GET  HTTP/1.1\r\n\r\n", &q), 400);
    assert_int_equal(head(" / HTTP/1.1\r\n\r\n", &q), 400);
    assert_int_equal(head("GET * HTTP/1.1\r\n\r\n", &q), 400);
    assert_int_equal(head("GET http://host HTTP/1.1\r\n\r\n", &q), 404);
    assert_int_equal(head("\r\n\r\n", &q), 400);
}

/* No prefix, and no byte changed, may be read beyond its end: address and undefined watch. */
static void case_heads_cut_anywhere(void **state)
{
    static const char text[] = "GET http://h/metrics?q HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    struct httpd_request q;
    (void)state;
    for (size_t len = 0; len < sizeof text; len++) {
        char *copy = malloc(len ? len : 1);
        assert_non_null(copy);
        memcpy(copy, text, len);
        (void)httpd_read_head(copy, len, &q);
        for (size_t i = 0; i < len; i++) {
            copy[i] ^= 0x20;
            (void)httpd_read_head(copy, len, &q);
            copy[i] ^= 0x20;
        }
        free(copy);
    }
}

static void case_replies(void **state)
{
    struct httpd_reply r = {.status = 405, .content_type = "text/plain"};
    struct dr_buf out;
    (void)state;
    dr_buf_init(&out, 4096);
    dr_buf_init(&r.body, 64);
    dr_buf_str(&r.body, "no\n");
    httpd_write(&out, &r, false, 784111777000);
    assert_string_equal(
        (char *)out.data,
        "HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        "Content-Type: text/plain\r\nContent-Length: 3\r\nCache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\nAllow: GET, HEAD\r\n"
        "Connection: close\r\n\r\nno\n");
    dr_buf_reset(&out);
    r.status = 200;
    httpd_write(&out, &r, true, 0);
    assert_non_null(strstr((char *)out.data, "Content-Length: 3\r\n"));
    assert_null(strstr((char *)out.data, "no\n"));
    dr_buf_fini(&out);
    dr_buf_fini(&r.body);
}

static void say(void *arg, struct httpd_reply *r)
{
    ++*(unsigned *)arg;
    dr_buf_str(&r->body, "here\n");
}

static void stop(void *arg)
{
    loop_stop(arg);
}

/* A client that has gone before it is answered, and a server that goes before its clients. */
static void case_come_and_go(void **state)
{
    static const struct httpd_route routes[] = {{"/x", say}, {NULL, NULL}};
    struct httpd_address a;
    struct dr_err err = {0};
    struct loop *l;
    struct httpd *h;
    unsigned calls = 0;
    char where[80], answer[512] = "";
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    (void)state;
    assert_int_equal(loop_new(&l, &err), DR_OK);
    assert_int_equal(httpd_parse("127.0.0.1:0", &a, &err), DR_OK);
    assert_int_equal(httpd_new(l, &a, routes, &calls, &h, &err), DR_OK);
    httpd_where(h, where, sizeof where);
    to.sin_port = htons((uint16_t)strtoul(strrchr(where, ':') + 1, NULL, 10));
    assert_int_equal(httpd_parse(where, &a, &err), DR_OK);
    struct httpd *twice = NULL;
    assert_int_equal(httpd_new(l, &a, routes, &calls, &twice, &err), DR_E_IO);
    int fds[3];
    for (size_t i = 0; i < CM_COUNT(fds); i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&to, sizeof to), 0);
        assert_int_equal(write(fds[i], "GET /x HTTP/1.1\r\n", 17), 17);
    }
    assert_int_equal(write(fds[0], "\r\n", 2), 2);
    (void)close(fds[1]);
    struct loop_timer *t = loop_timer_new(l, stop, l);
    loop_timer_arm(t, 50);
    assert_int_equal(loop_run(l), 0);
    assert_true(read(fds[0], answer, sizeof answer - 1) > 0);
    assert_non_null(strstr(answer, "\r\n\r\nhere\n"));
    assert_int_equal(calls, 1);
    httpd_free(h);
    loop_timer_free(t);
    loop_free(l); /* libevent closes what was freed when the loop turns or goes */
    assert_int_equal(read(fds[2], answer, 1), 0);
    (void)close(fds[0]);
    (void)close(fds[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_addresses),          cmocka_unit_test(case_heads),
        cmocka_unit_test(case_heads_cut_anywhere), cmocka_unit_test(case_replies),
        cmocka_unit_test(case_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
