/* What the tests of worker/core/http share: a loop, libcurl, a server; requests in fibers. */
#ifndef DR_TESTS_HTTP_CASE_H
#define DR_TESTS_HTTP_CASE_H

#include <signal.h>

#include "tests/unit/core/http_server.h"
#include "worker/core/fiber.h"
#include "worker/core/http.h"
#include "worker/core/loop.h"

static struct loop *loop;
static struct http *http;

static int setup(void **state)
{
    struct dr_err err = {0};
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    return loop_new(&loop, &err) || http_new(loop, &http, &err) || server_start() ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    http_free(http);
    server_stop();
    loop_free(loop);
    fiber_cache_drop();
    return 0;
}

/* One request in a fiber; what was seen is judged outside of it. */
struct seen {
    const char *path, *url; /* path: of our server */
    struct http_request r;
    struct http_response out;
    struct cancel *cancel;
    struct dr_err err;
    enum dr_rc rc;
    unsigned returned;
};
static unsigned running;

static void fetch_fiber(void *arg)
{
    struct seen *s = arg;
    char url[128];
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u%s", server.port, s->path ? s->path : "/");
    s->r.url = s->url ? s->url : url;
    s->rc = http_perform(http, &s->r, s->cancel, &s->out, &s->err);
    s->returned++;
    if (--running == 0)
        loop_stop(loop);
}

static void start(struct seen *s)
{
    running++;
    fiber_start(loop, fetch_fiber, s);
}

static void fetch(struct seen *s)
{
    s->r.plain = true;
    start(s);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(s->returned, 1);
}

#define BODY(s) ((const char *)(s).out.body.data)

#endif
