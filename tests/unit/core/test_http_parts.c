/* worker/core/http with what object storage sends and gets: parts from memory and into it, headers
 * of answers, libcurl's own second tries; and answers that must not pass for success. */
#include "tests/unit/cm.h"

#include "tests/unit/core/http_case.h"
#include "worker/core/http_internal.h"

enum { MIB = 1 << 20, PART = 3 * MIB + 17 };

static unsigned char part[PART], back[PART + 1];

static uint64_t sum_on(uint64_t sum, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ p[i]) * 0x100000001b3u;
    return sum;
}

static uint64_t sum_of(const void *bytes, size_t len)
{
    return sum_on(0xcbf29ce484222325u, bytes, len);
}

/* The body, as far as it comes: its sum. */
static uint64_t take_body(struct heard *h, size_t most)
{
    static _Thread_local unsigned char bytes[65536];
    size_t want = h->told < most ? h->told : most, len = h->len - h->head_len;
    uint64_t sum = sum_of(h->text + h->head_len, len);
    while (len < want) {
        size_t ask = want - len < sizeof bytes ? want - len : sizeof bytes;
        ssize_t n = recv(h->fd, bytes, ask, 0);
        if (n <= 0)
            return 0;
        sum = sum_on(sum, bytes, (size_t)n);
        len += (size_t)n;
    }
    return sum;
}

static bool expects(const struct heard *h)
{
    return strstr(h->text, "\r\nExpect: 100-continue\r\n");
}

/* Takes it all; answers with its sum as ETag, and the head that came as body. */
static bool sink(struct heard *h)
{
    char answer[8192];
    if (strcmp(h->path, "/raw/mute") != 0 && expects(h))
        (void)say(h->fd, "HTTP/1.1 100 Continue\r\nX-Early: yes\r\n\r\n");
    uint64_t sum = take_body(h, SIZE_MAX);
    (void)snprintf(answer, sizeof answer,
                   "HTTP/1.1 200 OK\r\nETag: \"%016llx\"\r\nContent-Length: %zu\r\n\r\n%.*s",
                   (unsigned long long)sum, h->head_len, (int)h->head_len, h->text);
    return say(h->fd, answer);
}

static bool send_all(int fd, const unsigned char *p, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        p += n, len -= (size_t)n;
    }
    return true;
}

/* Range: bytes=a-b, of a part. */
static bool range(struct heard *h)
{
    char head[256];
    const char *asked = strstr(h->text, "\r\nRange: bytes=");
    char *end = NULL;
    unsigned long a = asked ? strtoul(asked + 15, &end, 10) : 0,
                  b = asked ? strtoul(end + 1, NULL, 10) : PART - 1;
    (void)snprintf(head, sizeof head,
                   "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %lu-%lu/%u\r\n"
                   "Content-Length: %lu\r\n\r\n",
                   a, b, PART, b - a + 1);
    return say(h->fd, head) && send_all(h->fd, part + a, b - a + 1);
}

static bool refuse(struct heard *h)
{
    if (strcmp(h->path, "/raw/no") == 0) { /* it has asked; nothing of the body is wanted */
        (void)say(h->fd, "HTTP/1.1 503 Slow Down\r\nRetry-After: 3\r\nContent-Length: 4\r\n"
                         "Connection: close\r\n\r\nslow");
        until_gone(h->fd);
        return false;
    }
    if (strcmp(h->path, "/raw/417") == 0 && expects(h))
        return say(h->fd, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
    if (strcmp(h->path, "/raw/early") == 0) { /* 200, before the body has come */
        (void)take_body(h, 65536);
        (void)say(h->fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        (void)shutdown(h->fd, SHUT_WR);
        until_gone(h->fd);
        return false;
    }
    if (strcmp(h->path, "/raw/dies") == 0 && h->nth > 1) { /* it was kept, and now it is gone */
        (void)take_body(h, SIZE_MAX);
        return false;
    }
    return sink(h);
}

static const struct {
    const char *path, *answer;
} texts[] = {
    {"/raw/head", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nx-amz-version-id: v7\r\n\r\n"},
    {"/raw/delete", "HTTP/1.1 204 No Content\r\n\r\n"},
    {"/raw/later", "HTTP/1.1 429 Later\r\nDate: Tue, 01 Jan 2019 00:00:00 GMT\r\nRetry-After: Tue, "
                   "01 Jan 2019 00:01:30 GMT\r\nContent-Length: 0\r\n\r\n"},
    {"/raw/next-year", "HTTP/1.1 503 Later\r\nDate: Tue, 01 Jan 2019 00:00:00 GMT\r\nRetry-After: "
                       "Wed, 01 Jan 2020 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"},
    {"/raw/never", "HTTP/1.1 503 Later\r\nDate: yesterday\r\nRetry-After: "
                   "999999999999999999999999\r\nContent-Length: 0\r\n\r\n"},
    {"/raw/past", "HTTP/1.1 503 Later\r\nRetry-After: Tue, 01 Jan 2019 00:00:00 GMT\r\n"
                  "Content-Length: 0\r\n\r\n"},
    {"/raw/redirect", "HTTP/1.1 307 Elsewhere\r\nLocation: https://bucket.elsewhere.example/key\r\n"
                      "x-amz-bucket-region: eu-west-1\r\nContent-Length: 4\r\n\r\nover"},
    {"/raw/headers", "HTTP/1.1 200 OK\r\nETag:   \"a b\"  \r\nX-Empty:\r\nx-TWICE: one\r\n"
                     "X-Twice: two\r\nX-Amz-Meta-Dr: a:b\r\nContent-Length: 0\r\n\r\n"},
    {"/raw/missing", "HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\n<Error/>"},
    {"/raw/gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n\x1f\x8b"
                  "abc"},
    {"/raw/chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: etag\r\n\r\n4\r\nab"
                    "cd\r\n1\r\ne\r\n0\r\nETag: late\r\n\r\n"},
};
static const struct bad {
    const char *path, *answer;
    enum dr_rc rc;
} bad_texts[] = {
    /* a body for memory of 16 bytes */
    {"/raw/short", "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n0123456789", DR_E_UNREACHABLE},
    {"/raw/unended", "HTTP/1.1 200 OK\r\n\r\n0123456789", DR_E_PROTOCOL},
    {"/raw/unended-empty", "HTTP/1.1 200 OK\r\n\r\n", DR_E_PROTOCOL},
    {"/raw/cut-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n012345",
     DR_E_UNREACHABLE},
    {"/raw/no-last-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
     DR_E_UNREACHABLE},
    {"/raw/announced", "HTTP/1.1 206 OK\r\nContent-Length: 17\r\n\r\n0123456789abcdefg",
     DR_E_TOO_BIG},
    {"/raw/more",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n"
     "1\r\ng\r\n0\r\n\r\n",
     DR_E_TOO_BIG},
    {"/raw/head-cut", "HTTP/1.1 200 OK\r\nContent-Le", DR_E_UNREACHABLE},
};

static bool raw(struct heard *h)
{
    for (size_t i = 0; i < CM_COUNT(texts); i++)
        if (strcmp(h->path, texts[i].path) == 0)
            return say(h->fd, texts[i].answer);
    for (size_t i = 0; i < CM_COUNT(bad_texts); i++)
        if (strcmp(h->path, bad_texts[i].path) == 0) {
            (void)say(h->fd, bad_texts[i].answer);
            return false;
        }
    return strcmp(h->path, "/raw/range") == 0 ? range(h) : refuse(h);
}

static bool came_whole(const struct seen *s, const void *bytes, size_t len)
{
    char etag[32];
    const char *told = http_header(&s->out, "etag");
    (void)snprintf(etag, sizeof etag, "\"%016llx\"", (unsigned long long)sum_of(bytes, len));
    return s->rc == DR_OK && s->out.status == 200 && told && strcmp(told, etag) == 0;
}

static void put_part(struct seen *s)
{
    s->r.method = "PUT";
    s->r.body = part;
    s->r.body_len = PART;
    fetch(s);
}

static void parts_go_out_whole_and_their_length_is_told(void **state)
{
    (void)state;
    struct seen asked = {.path = "/raw/sink"}, at_once = {.path = "/raw/sink"};
    put_part(&asked);
    assert_true(came_whole(&asked, part, PART));
    assert_non_null(strstr(BODY(asked), "\r\nExpect: 100-continue\r\n"));
    assert_non_null(strstr(BODY(asked), "\r\nContent-Length: 3145745\r\n"));
    assert_null(strstr(BODY(asked), "Transfer-Encoding"));
    assert_null(strstr(BODY(asked), "Accept-Encoding"));
    assert_null(http_header(&asked.out, "x-early")); /* that was the 100 */
    assert_int_equal(asked.out.sent_bytes, PART);
    assert_int_equal(asked.out.received_bytes, strlen(BODY(asked)));
    at_once.r.no_expect = true;
    put_part(&at_once);
    assert_true(came_whole(&at_once, part, PART));
    assert_null(strstr(BODY(at_once), "Expect"));
    assert_int_equal(server.connections, 1);
    http_response_fini(&asked.out);
    http_response_fini(&at_once.out);
}

static void a_server_that_never_says_continue_gets_it_all_the_same(void **state)
{
    (void)state;
    struct seen s = {.path = "/raw/mute"};
    put_part(&s);
    assert_true(came_whole(&s, part, PART));
    http_response_fini(&s.out);
}

static void a_server_that_says_no_first_is_spared_the_body(void **state)
{
    (void)state;
    struct seen s = {.path = "/raw/no"};
    put_part(&s);
    assert_int_equal(s.rc, DR_OK);
    assert_int_equal(s.out.status, 503);
    assert_int_equal(s.out.retry_after_s, 3);
    assert_string_equal(BODY(s), "slow");
    assert_int_equal(s.out.sent_bytes, 0);
    http_response_fini(&s.out);
}

static void what_libcurl_sends_again_begins_anew_and_is_counted(void **state)
{
    (void)state;
    struct seen no_expect = {.path = "/raw/417"};
    put_part(&no_expect);
    assert_true(came_whole(&no_expect, part, PART));
    http_response_fini(&no_expect.out);

    struct seen dead = {.path = "/raw/dies"};
    assert_int_equal(server.connections, 1);
    put_part(&dead);
    assert_true(came_whole(&dead, part, PART));
    assert_int_equal(dead.out.sent_bytes, 2 * (uint64_t)PART);
    assert_int_equal(server.connections, 2);
    http_response_fini(&dead.out);
}

static void a_success_before_the_body_was_sent_is_none(void **state)
{
    (void)state;
    struct seen s = {.path = "/raw/early", .r = {.no_expect = true}};
    put_part(&s);
    assert_true(s.rc == DR_E_PROTOCOL || s.rc == DR_E_UNREACHABLE);
    http_response_fini(&s.out);
}

static void bodies_without_a_byte(void **state)
{
    static const char *const methods[] = {"POST", "PUT"};
    static const char *const headers[] = {"X-Amz-Meta-None:", "X-Amz-Meta-Blank: ", "X-A: b", NULL};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(methods); i++) {
        struct seen s = {.path = "/raw/sink", .r = {.method = methods[i], .headers = headers}};
        fetch(&s);
        assert_true(came_whole(&s, "", 0));
        assert_non_null(strstr(BODY(s), "\r\nContent-Length: 0\r\n"));
        assert_null(strstr(BODY(s), "Content-Type")); /* it would stick to the object */
        assert_non_null(strstr(BODY(s), "\r\nX-Amz-Meta-None:\r\n"));
        assert_non_null(strstr(BODY(s), "\r\nX-Amz-Meta-Blank:\r\n"));
        http_response_fini(&s.out);
    }
    struct seen typed = {
        .path = "/raw/sink",
        .r = {.method = "POST", .headers = (const char *const[]){"content-type: text/xml", NULL}}};
    fetch(&typed);
    assert_non_null(strstr(BODY(typed), "\r\ncontent-type: text/xml\r\n"));
    http_response_fini(&typed.out);
}

static void head_and_delete_have_no_body(void **state)
{
    (void)state;
    struct seen head = {.path = "/raw/head", .r = {.method = "HEAD"}};
    fetch(&head);
    assert_int_equal(head.rc, DR_OK);
    assert_string_equal(http_header(&head.out, "Content-Length"), "12345");
    assert_string_equal(http_header(&head.out, "x-amz-version-id"), "v7");
    assert_int_equal(head.out.body.len, 0);
    http_response_fini(&head.out);
    struct seen delete = {.path = "/raw/delete", .r = {.method = "DELETE"}};
    fetch(&delete);
    assert_int_equal(delete.rc, DR_OK);
    assert_int_equal(delete.out.status, 204);
    http_response_fini(&delete.out);
    assert_int_equal(server.connections, 1);
    struct seen bodied = {.path = "/ok", .r = {.method = "DELETE", .body = "x", .body_len = 1}};
    fetch(&bodied);
    assert_int_equal(bodied.rc, DR_E_BUG);
    http_response_fini(&bodied.out);
}

static void ranges_come_into_memory(void **state)
{
    uint64_t first, last, total;
    (void)state;
    struct seen s = {.path = "/raw/range",
                     .r = {.headers = (const char *const[]){"Range: bytes=100-3000099", NULL},
                           .into = back,
                           .into_max = 3000000}};
    back[3000000] = 0x5a;
    fetch(&s);
    assert_int_equal(s.rc, DR_OK);
    assert_int_equal(s.out.status, 206);
    assert_int_equal(s.out.into_len, 3000000);
    assert_int_equal(s.out.received_bytes, 3000000);
    assert_memory_equal(back, part + 100, 3000000);
    assert_int_equal(back[3000000], 0x5a);
    assert_int_equal(s.out.body.len, 0);
    assert_true(http_content_range(&s.out, &first, &last, &total));
    assert_int_equal(first, 100);
    assert_int_equal(last, 3000099);
    assert_int_equal(total, PART);
    http_response_fini(&s.out);

    /* The whole in place of a range is not waited for. */
    struct seen more = {.path = "/raw/range", .r = {.into = back, .into_max = 1000}};
    fetch(&more);
    assert_int_equal(more.rc, DR_E_TOO_BIG);
    assert_int_equal(more.out.into_len, 0);
    assert_true(more.out.received_bytes < MIB);
    http_response_fini(&more.out);
}

static void what_is_no_body_for_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < CM_COUNT(bad_texts); i++) {
        unsigned char into[17] = {[16] = 0x5a};
        struct seen s = {.path = bad_texts[i].path, .r = {.into = into, .into_max = 16}};
        fetch(&s);
        if (s.rc != bad_texts[i].rc)
            fail_msg("%s: %s: %s", s.path, dr_rc_name(s.rc), s.err.msg);
        assert_int_equal(into[16], 0x5a);
        assert_true(s.out.into_len <= 16);
        http_response_fini(&s.out);
    }
}

static void bodies_as_they_are(void **state)
{
    unsigned char into[16];
    (void)state;
    struct seen missing = {.path = "/raw/missing", .r = {.into = into, .into_max = 4}};
    fetch(&missing); /* an error's body does not go into the part */
    assert_int_equal(missing.rc, DR_OK);
    assert_int_equal(missing.out.status, 404);
    assert_int_equal(missing.out.into_len, 0);
    assert_string_equal(BODY(missing), "<Error/>");
    http_response_fini(&missing.out);
    struct seen gzip = {.path = "/raw/gzip", .r = {.into = into, .into_max = sizeof into}};
    fetch(&gzip);
    assert_int_equal(gzip.rc, DR_OK);
    assert_int_equal(gzip.out.into_len, 5);
    assert_memory_equal(into,
                        "\x1f\x8b"
                        "abc",
                        5);
    http_response_fini(&gzip.out);
    struct seen chunks = {.path = "/raw/chunks", .r = {.into = into, .into_max = sizeof into}};
    fetch(&chunks);
    assert_int_equal(chunks.rc, DR_OK);
    assert_int_equal(chunks.out.into_len, 5);
    assert_memory_equal(into, "abcde", 5);
    assert_null(http_header(&chunks.out, "etag"));
    assert_string_equal(http_header(&chunks.out, "trailer"), "etag");
    http_response_fini(&chunks.out);
}

static void headers_are_a_table(void **state)
{
    static const char *const names[] = {"etag",    "x-empty",       "x-twice",
                                        "x-twice", "x-amz-meta-dr", "content-length"};
    const char *name, *value;
    size_t at = 0;
    uint64_t n;
    (void)state;
    struct seen s = {.path = "/raw/headers"};
    fetch(&s);
    assert_int_equal(s.rc, DR_OK);
    assert_string_equal(http_header(&s.out, "etag"), "\"a b\"");
    assert_string_equal(http_header(&s.out, "ETAG"), "\"a b\"");
    assert_string_equal(http_header(&s.out, "x-empty"), "");
    assert_string_equal(http_header(&s.out, "x-twice"), "one");
    assert_string_equal(http_header(&s.out, "x-amz-meta-dr"), "a:b");
    assert_null(http_header(&s.out, "\"a b\"")); /* a value is no name */
    assert_false(http_content_range(&s.out, &n, &n, &n));
    for (size_t i = 0; i < CM_COUNT(names); i++) {
        assert_true(http_header_next(&s.out, &at, &name, &value));
        assert_string_equal(name, names[i]);
    }
    assert_string_equal(value, "0");
    assert_false(http_header_next(&s.out, &at, &name, &value));
    http_response_fini(&s.out);
    struct seen redirect = {.path = "/raw/redirect"};
    fetch(&redirect);
    assert_int_equal(redirect.rc, DR_OK);
    assert_int_equal(redirect.out.status, 307);
    assert_string_equal(http_header(&redirect.out, "location"),
                        "https://bucket.elsewhere.example/key");
    assert_string_equal(http_header(&redirect.out, "x-amz-bucket-region"), "eu-west-1");
    http_response_fini(&redirect.out);
}

static void times_by_the_servers_clock(void **state)
{
    static const struct {
        const char *path;
        int64_t date;
        uint64_t after;
    } cases[] = {{"/raw/later", 1546300800, 90},
                 {"/raw/next-year", 1546300800, 21600},
                 {"/raw/never", 0, 21600},
                 {"/raw/past", 0, 0}};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct seen s = {.path = cases[i].path};
        fetch(&s);
        assert_int_equal(s.rc, DR_OK);
        assert_int_equal(s.out.date_unix, cases[i].date);
        assert_int_equal(s.out.retry_after_s, cases[i].after);
        http_response_fini(&s.out);
    }
}

static void lines_of_a_head(void **state)
{
    static const char *const lines[] = {"HTTP/1.1 100 Continue\r\n",
                                        "X-Early: yes\r\n",
                                        "\r\n",
                                        "HTTP/1.1 200 OK\r\n",
                                        "A: one\r\n",
                                        " two\r\n",
                                        "\tthree\r\n",
                                        "no colon\r\n",
                                        ": no name\r\n",
                                        "B C: d\r\n",
                                        "E\r\n",
                                        "F:\n",
                                        "G",
                                        "\r\n",
                                        "X-Late: yes\r\n"};
    static const char table[] = "a\0one two three\0f\0";
    struct dr_buf head;
    bool open = false;
    (void)state;
    dr_buf_init(&head, 1000);
    http_head_line(&head, &open, true, " folded into nothing\r\n", 22);
    for (size_t i = 0; i < CM_COUNT(lines); i++)
        http_head_line(&head, &open, true, lines[i], strlen(lines[i]));
    http_head_line(&head, &open, false, "HTTP/1.1 200 OK\r\n", 17); /* a trailer */
    http_head_line(&head, &open, false, "X-Later: yes\r\n", 14);
    assert_false(open);
    assert_int_equal(head.len, sizeof table);
    assert_memory_equal(head.data, table, sizeof table);
    http_head_line(&head, &open, true, "HTTP/1.1 200 OK\r\n", 17);
    http_head_line(&head, &open, true, "A: b\0c\r\n", 9);
    assert_int_equal(head.len, 0);
    dr_buf_fini(&head);
}

static void which_content_ranges_are_read(void **state)
{
    static const struct {
        const char *text;
        bool good;
    } cases[] = {{"bytes 0-0/1", true},
                 {"Bytes 5-9/18446744073709551615", true},
                 {"bytes 0-0/*", false},
                 {"bytes */10", false},
                 {"bytes 5-4/10", false},
                 {"bytes 0-10/10", false},
                 {"bytes 0-1/2 ", true}, /* blanks around a value are none of it */
                 {"bytes 0-1/2,3", false},
                 {"bytes -1/2", false},
                 {"bytes 0-1", false},
                 {"bytes  0-1/2", false},
                 {"bytes 0-1/18446744073709551616", false},
                 {"lines 0-1/2", false},
                 {"", false}};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct http_response r = {.status = 206};
        uint64_t a, b, c;
        char line[128];
        bool open = true;
        dr_buf_init(&r.head, 1000);
        (void)snprintf(line, sizeof line, "Content-Range: %s\r\n", cases[i].text);
        http_head_line(&r.head, &open, true, line, strlen(line));
        if (http_content_range(&r, &a, &b, &c) != cases[i].good)
            fail_msg("%s", cases[i].text);
        http_response_fini(&r);
    }
}

static int fill(void **state)
{
    (void)state;
    server_raw = raw;
    for (size_t i = 0; i < PART; i++)
        part[i] = (unsigned char)(i * 31 + (i >> 11));
    return 0;
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(parts_go_out_whole_and_their_length_is_told),
        CASE(a_server_that_never_says_continue_gets_it_all_the_same),
        CASE(a_server_that_says_no_first_is_spared_the_body),
        CASE(what_libcurl_sends_again_begins_anew_and_is_counted),
        CASE(a_success_before_the_body_was_sent_is_none),
        CASE(bodies_without_a_byte),
        CASE(head_and_delete_have_no_body),
        CASE(ranges_come_into_memory),
        CASE(what_is_no_body_for_memory),
        CASE(bodies_as_they_are),
        CASE(headers_are_a_table),
        CASE(times_by_the_servers_clock),
        cmocka_unit_test(lines_of_a_head),
        cmocka_unit_test(which_content_ranges_are_read),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
