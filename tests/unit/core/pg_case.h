/* For tests against a private PostgreSQL: a loop, a pool, and cases that run in a fiber. Nothing is
 * asserted there: CHECK writes down, the case fails afterwards. */
#ifndef DR_TESTS_PG_CASE_H
#define DR_TESTS_PG_CASE_H

#include "tests/unit/cm.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "common/mem.h"
#include "tests/lib/pg_server.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/core/pg.h"
#include "worker/core/pool.h"

static struct pg_server server;
static struct loop *loop;
static struct pool *pool;
static int wrong;

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            wrong++;                                                                               \
            print_error("%s:%d: %s\n", __FILE__, __LINE__, #x);                                    \
        }                                                                                          \
    } while (0)

static int group_setup(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    return pg_server_start(&server);
}

static int group_teardown(void **state)
{
    (void)state;
    pg_server_stop(&server);
    return 0;
}

static int setup(void **state)
{
    struct dr_err err = {0};
    (void)state;
    wrong = 0;
    return loop_new(&loop, &err) || pool_new(loop, 3, &pool, &err) ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    pool_free(pool);
    loop_free(loop);
    fiber_cache_drop();
    return 0;
}

static void case_fiber(void *arg)
{
    (*(void (**)(void))arg)();
    loop_stop(loop);
}

static void in_fiber(void (*fn)(void))
{
    fiber_start(loop, case_fiber, &fn);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(wrong, 0);
}

static void socket_url(struct dr_pg_url *u)
{
    *u = (struct dr_pg_url){.user = "postgres", .dbname = "postgres", .sslmode = "prefer"};
    (void)snprintf(u->host, sizeof u->host, "%s", server.dir);
    (void)snprintf(u->port, sizeof u->port, "%d", server.port);
}

static void tcp_url(struct dr_pg_url *u, const char *host, int port, const char *password)
{
    socket_url(u);
    (void)snprintf(u->host, sizeof u->host, "%s", host);
    (void)snprintf(u->port, sizeof u->port, "%d", port);
    dr_secret_set(&u->password, password, strlen(password));
}

static struct pg_conn *connected_with(const struct pg_options *options)
{
    struct dr_pg_url u;
    struct dr_err err = {0};
    struct pg_conn *c = NULL;
    socket_url(&u);
    if (pg_connect(loop, pool, &u, options, NULL, &c, &err))
        CHECK(strcmp(err.msg, "connects") == 0); /* shows the message */
    return c;
}

static struct pg_conn *connected(void)
{
    return connected_with(NULL);
}

/* The one value of a query. */
static bool answers(struct pg_conn *c, const char *sql, const char *want)
{
    struct pg_rows *r = NULL;
    struct dr_err err = {0};
    enum dr_rc rc = pg_query(c, NULL, &r, &err, sql, NULL);
    const char *got = pg_rows_value(r, 0, 0);
    bool ok = !rc && got && strcmp(got, want) == 0;
    if (!ok)
        print_error("%s: %s%s\n", sql, rc ? err.msg : "", got ? got : "");
    pg_rows_free(r);
    return ok;
}

#define PG_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
