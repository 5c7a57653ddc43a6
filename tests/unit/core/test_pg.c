/* worker/core/pg: connections, statements, deadlines and cancels against a real server. */
#include "tests/unit/core/pg_case.h"

#include <fcntl.h>
#include <unistd.h>

static enum dr_rc try_connect(const struct dr_pg_url *u, uint64_t ms, struct cancel *cancel,
                              struct dr_err *err)
{
    const struct pg_options o = {.connect_ms = ms};
    struct pg_conn *c = NULL;
    enum dr_rc rc = pg_connect(loop, pool, u, &o, cancel, &c, err);
    if (c)
        CHECK(answers(c, "SELECT 1", "1"));
    pg_close(c);
    return rc;
}

static void connect_case(void)
{
    struct dr_pg_url u;
    struct dr_err err = {0};
    socket_url(&u);
    CHECK(try_connect(&u, 0, NULL, &err) == DR_OK);
    tcp_url(&u, "127.0.0.1", server.port, PG_SERVER_PASSWORD);
    CHECK(try_connect(&u, 0, NULL, &err) == DR_OK);
    dr_pg_url_free(&u);
    tcp_url(&u, "localhost", server.port, PG_SERVER_PASSWORD);
    CHECK(try_connect(&u, 0, NULL, &err) == DR_OK);
    dr_pg_url_free(&u);

    tcp_url(&u, "127.0.0.1", server.port, "canary");
    CHECK(try_connect(&u, 0, NULL, &err) == DR_E_UNREACHABLE);
    CHECK(strstr(err.msg, "password authentication failed"));
    CHECK(strstr(err.msg, "database postgres on 127.0.0.1 port "));
    CHECK(!strstr(err.msg, "canary") && !strchr(err.msg, '\n'));
    dr_pg_url_free(&u);

    dr_err_clear(&err);
    socket_url(&u);
    (void)snprintf(u.dbname, sizeof u.dbname, "nowhere");
    CHECK(try_connect(&u, 0, NULL, &err) == DR_E_UNREACHABLE);
    CHECK(strstr(err.msg, "\"nowhere\" does not exist"));
}

static void connects_by_socket_and_tcp(void **state)
{
    (void)state;
    in_fiber(connect_case);
}

/* A socket that takes no connection (backlog < 0: not even listening), or takes and is silent. */
static int mute_socket(int *port, bool listening)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    CHECK(!listening || listen(fd, 4) == 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static void fire_soon(void *arg)
{
    (void)fiber_sleep(20, NULL);
    cancel_fire(arg, DR_E_CANCELLED, "user");
}

static void unreachable_case(void)
{
    struct dr_pg_url u;
    struct dr_err err = {0};
    struct cancel cancel;
    int port, fd = mute_socket(&port, false);
    tcp_url(&u, "127.0.0.1", port, "x");
    CHECK(try_connect(&u, 0, NULL, &err) == DR_E_UNREACHABLE);
    CHECK(strstr(err.msg, "Connection refused"));
    dr_pg_url_free(&u);
    (void)close(fd);

    dr_err_clear(&err);
    tcp_url(&u, "no-such-host.invalid", 5432, "x");
    CHECK(try_connect(&u, 1000, NULL, &err) == DR_E_UNREACHABLE);
    dr_pg_url_free(&u);

    dr_err_clear(&err);
    fd = mute_socket(&port, true);
    tcp_url(&u, "127.0.0.1", port, "x");
    CHECK(try_connect(&u, 50, NULL, &err) == DR_E_UNREACHABLE);
    CHECK(strstr(err.msg, "no answer in time"));
    dr_err_clear(&err);
    cancel_init(&cancel, loop);
    fiber_start(loop, fire_soon, &cancel);
    CHECK(try_connect(&u, 60000, &cancel, &err) == DR_E_CANCELLED);
    CHECK(try_connect(&u, 60000, &cancel, NULL) == DR_E_CANCELLED);
    cancel_fini(&cancel);
    dr_pg_url_free(&u);
    (void)close(fd);
}

static int open_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void many_case(void)
{
    struct dr_pg_url good, bad;
    tcp_url(&good, "127.0.0.1", server.port, PG_SERVER_PASSWORD);
    tcp_url(&bad, "127.0.0.1", server.port, "wrong");
    CHECK(try_connect(&good, 0, NULL, NULL) == DR_OK);
    int before = open_fds();
    for (int i = 0; i < 10; i++) {
        CHECK(try_connect(&good, 0, NULL, NULL) == DR_OK);
        CHECK(try_connect(&bad, 0, NULL, NULL) == DR_E_UNREACHABLE);
    }
    CHECK(open_fds() == before);
    dr_pg_url_free(&good);
    dr_pg_url_free(&bad);
}

static void connections_leave_nothing(void **state)
{
    (void)state;
    in_fiber(many_case);
}

static void tls_case(void)
{
    struct dr_pg_url u;
    struct dr_err err = {0};
    struct pg_conn *c = NULL;
    tcp_url(&u, "localhost", server.port, PG_SERVER_PASSWORD);
    (void)snprintf(u.sslmode, sizeof u.sslmode, "verify-full");
    (void)snprintf(u.sslrootcert, sizeof u.sslrootcert, "%s/server.crt", server.dir);
    CHECK(pg_connect(loop, pool, &u, NULL, NULL, &c, &err) == DR_OK);
    CHECK(answers(c, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "t"));
    CHECK(answers(c, "SELECT length(string_agg(md5(i::text), '')) FROM generate_series(1, 9999) i",
                  "319968"));
    pg_close(c);
    /* the same server under a name that its certificate does not have */
    (void)snprintf(u.host, sizeof u.host, "127.0.0.1");
    CHECK(pg_connect(loop, pool, &u, NULL, NULL, &c, &err) == DR_E_UNREACHABLE);
    CHECK(strstr(err.msg, "does not match host name \"127.0.0.1\""));
    dr_pg_url_free(&u);
}

static void tls_checks_the_name(void **state)
{
    (void)state;
    in_fiber(tls_case);
}

static void unreachable_servers(void **state)
{
    (void)state;
    in_fiber(unreachable_case);
}

static void query_case(void)
{
    struct pg_conn *c = connected();
    struct pg_rows *r = NULL;
    struct dr_err err = {0};
    const char *const params[] = {"caf\xc3\xa9", pg_null, "it's", NULL};
    CHECK(pg_server_version(c) >= 130000);
    CHECK(pg_query(c, NULL, &r, &err, "SELECT $1::text, $2::int, $3::text, NULL, ''", params) ==
          DR_OK);
    CHECK(pg_rows_count(r) == 1 && pg_rows_columns(r) == 5);
    CHECK(strcmp(pg_rows_value(r, 0, 0), "caf\xc3\xa9") == 0);
    CHECK(!pg_rows_value(r, 0, 1) && !pg_rows_value(r, 0, 3));
    CHECK(strcmp(pg_rows_value(r, 0, 2), "it's") == 0);
    CHECK(strcmp(pg_rows_value(r, 0, 4), "") == 0);
    CHECK(!pg_rows_value(r, 1, 0) && !pg_rows_value(r, 0, 5));
    pg_rows_free(r);
    CHECK(answers(c,
                  "CREATE TEMP TABLE t (a int); INSERT INTO t VALUES (1), (2); "
                  "SELECT sum(a) FROM t",
                  "3"));
    CHECK(pg_query(c, NULL, &r, &err, "SELECT generate_series(1, 100000)", NULL) == DR_OK);
    CHECK(pg_rows_count(r) == 100000);
    CHECK(strcmp(pg_rows_value(r, 99999, 0), "100000") == 0);
    pg_rows_free(r);
    CHECK(pg_query(c, NULL, &r, &err, "", NULL) == DR_OK);
    CHECK(pg_rows_count(r) == 0);
    pg_rows_free(r);
    CHECK(answers(c, "SHOW client_encoding", "UTF8"));
    CHECK(answers(c, "SHOW application_name", "drworker"));
    pg_close(c);
    c = connected_with(&(struct pg_options){.options = "-c TimeZone=Asia/Tokyo -c work_mem=5MB",
                                            .application_name = "me",
                                            .dbname = "template1"});
    CHECK(answers(c,
                  "SELECT current_setting('TimeZone') || current_setting('work_mem') || "
                  "current_setting('application_name') || current_database()",
                  "Asia/Tokyo5MBmetemplate1"));
    pg_close(c);
}

static void queries(void **state)
{
    (void)state;
    in_fiber(query_case);
}

static void error_case(void)
{
    struct pg_conn *c = connected();
    struct pg_rows *r = NULL;
    struct dr_err err = {0};
    CHECK(pg_query(c, NULL, &r, &err, "SELECT 1/0", NULL) == DR_E_SQL);
    CHECK(!r && strcmp(err.reason, "22012") == 0);
    CHECK(strcmp(err.msg, "division by zero") == 0);
    const char *many[70] = {"0"};
    for (int i = 0; i < 69; i++)
        many[i] = "0";
    CHECK(pg_query(c, NULL, NULL, NULL, "SELECT $1", many) == DR_E_BUG);
    dr_err_clear(&err);
    CHECK(pg_query(c, NULL, NULL, &err, "SELECT 1; SELECT 1/0; SELECT 2", NULL) == DR_E_SQL);
    dr_err_clear(&err);
    CHECK(pg_query(c, NULL, NULL, &err, "DO $$BEGIN RAISE EXCEPTION E'first\\nsecond'; END$$",
                   NULL) == DR_E_SQL);
    CHECK(strcmp(err.msg, "first") == 0 && strcmp(err.reason, "P0001") == 0);
    dr_err_clear(&err);
    CHECK(pg_query(c, NULL, NULL, NULL, "nonsense", NULL) == DR_E_SQL);
    CHECK(pg_alive(c) && answers(c, "SELECT 2", "2"));
    CHECK(pg_query(c, NULL, NULL, &err, "COPY (SELECT 1) TO STDOUT", NULL) == DR_E_BUG);
    CHECK(pg_alive(c) && answers(c, "SELECT 3", "3"));
    CHECK(pg_query(c, NULL, NULL, NULL, "CREATE TEMP TABLE t (a int)", NULL) == DR_OK);
    CHECK(pg_query(c, NULL, NULL, NULL, "COPY t FROM STDIN", NULL) == DR_E_BUG);
    CHECK(!pg_alive(c));
    CHECK(pg_query(c, NULL, NULL, NULL, "SELECT 1", NULL) == DR_E_UNREACHABLE);
    pg_close(c);
}

static void errors_have_a_state_and_leave_it_usable(void **state)
{
    (void)state;
    in_fiber(error_case);
}

static void cancel_case(void)
{
    struct pg_conn *c = connected();
    struct dr_err err = {0};
    struct cancel cancel;
    cancel_init(&cancel, loop);
    fiber_start(loop, fire_soon, &cancel);
    CHECK(pg_query(c, &cancel, NULL, &err, "SELECT pg_sleep(3600)", NULL) == DR_E_CANCELLED);
    CHECK(strcmp(err.msg, "user") == 0);
    CHECK(pg_alive(c) && answers(c, "SELECT 1", "1"));
    CHECK(pg_query(c, &cancel, NULL, NULL, "SELECT 1", NULL) == DR_E_CANCELLED); /* not sent */
    cancel_fini(&cancel);

    pg_statement_ms(c, 40);
    dr_err_clear(&err);
    CHECK(pg_query(c, NULL, NULL, &err, "SELECT pg_sleep(3600)", NULL) == DR_E_TIMEOUT);
    CHECK(strstr(err.msg, "took too long"));
    pg_statement_ms(c, 0);
    CHECK(pg_alive(c) && answers(c, "SELECT 2", "2"));
    pg_close(c);
}

static void cancel_and_deadline(void **state)
{
    (void)state;
    in_fiber(cancel_case);
}

struct racer {
    struct cancel cancel;
    unsigned turns;
    bool over;
};

static void racer_fiber(void *arg)
{
    struct racer *r = arg;
    while (r->turns--) {
        fiber_wake(fiber_self());
        fiber_suspend();
    }
    cancel_fire(&r->cancel, DR_E_CANCELLED, "race");
    r->over = true;
}

/* A cancel at any moment never hits the statement after the one it was meant for. */
static void race_case(void)
{
    struct pg_conn *c = connected();
    for (unsigned i = 0; i < 60; i++) {
        struct racer r = {.turns = i * 3};
        cancel_init(&r.cancel, loop);
        fiber_start(loop, racer_fiber, &r);
        enum dr_rc rc = pg_query(c, &r.cancel, NULL, NULL, "SELECT pg_sleep(0.0005)", NULL);
        CHECK(rc == DR_OK || rc == DR_E_CANCELLED);
        CHECK(answers(c, "SELECT count(*) FROM pg_class, pg_class b WHERE false", "0"));
        while (!r.over)
            (void)fiber_sleep(1, NULL);
        cancel_fini(&r.cancel);
    }
    pg_close(c);
}

static void a_late_cancel_hits_nothing(void **state)
{
    (void)state;
    in_fiber(race_case);
}

/* The postmaster is stopped: it takes connections by its backlog, but no cancel gets through. */
static void no_cancel_case(void)
{
    struct pg_conn *c = connected_with(&(struct pg_options){.statement_ms = 30, .cancel_ms = 50});
    struct dr_err err = {0};
    CHECK(kill(server.pid, SIGSTOP) == 0);
    CHECK(pg_query(c, NULL, NULL, &err, "SELECT pg_sleep(3600)", NULL) == DR_E_TIMEOUT);
    CHECK(!pg_alive(c));
    CHECK(kill(server.pid, SIGCONT) == 0);
    pg_close(c);
    c = connected();
    CHECK(answers(c, "SELECT 1", "1"));
    CHECK(pg_query(c, NULL, NULL, NULL,
                   "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE "
                   "'%3600)' AND pid <> pg_backend_pid()",
                   NULL) == DR_OK);
    pg_close(c);
}

static void a_cancel_that_does_not_arrive_hangs_up(void **state)
{
    (void)state;
    in_fiber(no_cancel_case);
}

static void lock_case(void)
{
    struct pg_conn *a = connected_with(&(struct pg_options){.lock_session = true});
    struct pg_conn *b = connected();
    struct pg_rows *r = NULL;
    struct dr_err err = {0};
    char pid[16];
    CHECK(answers(a, "SELECT pg_try_advisory_lock(42)", "t"));
    CHECK(answers(b, "SELECT pg_try_advisory_lock(42)", "f"));
    CHECK(pg_query(a, NULL, &r, NULL, "SELECT pg_backend_pid()", NULL) == DR_OK);
    (void)snprintf(pid, sizeof pid, "%s", pg_rows_value(r, 0, 0));
    pg_rows_free(r);
    CHECK(pg_alive(a));
    CHECK(pg_query(b, NULL, NULL, NULL, "SELECT pg_terminate_backend($1::int, 5000)",
                   (const char *const[]){pid, NULL}) == DR_OK);
    while (pg_alive(a))
        (void)fiber_sleep(1, NULL);
    CHECK(pg_query(a, NULL, NULL, &err, "SELECT 1", NULL) == DR_E_UNREACHABLE);
    CHECK(answers(b, "SELECT pg_try_advisory_lock(42)", "t"));
    pg_close(a);

    struct dr_pg_url u;
    tcp_url(&u, "127.0.0.1", server.port, PG_SERVER_PASSWORD);
    CHECK(pg_connect(loop, pool, &u, &(struct pg_options){.lock_session = true}, NULL, &a, &err) ==
          DR_OK);
    CHECK(answers(a,
                  "SELECT concat_ws(' ', current_setting('tcp_keepalives_idle'), "
                  "current_setting('tcp_keepalives_interval'), "
                  "current_setting('tcp_keepalives_count'), "
                  "current_setting('tcp_user_timeout'))",
                  "5 5 3 15000"));
    dr_pg_url_free(&u);
    pg_close(a);
    pg_close(b);
}

static void a_lost_lock_is_noticed(void **state)
{
    (void)state;
    in_fiber(lock_case);
}

struct killer {
    struct pg_conn *by; /* pg_terminate_backend; NULL: SIGKILL */
    char pid[16];
    bool over;
};

static void killer_fiber(void *arg)
{
    struct killer *k = arg;
    (void)fiber_sleep(20, NULL);
    if (k->by)
        CHECK(pg_query(k->by, NULL, NULL, NULL, "SELECT pg_terminate_backend($1::int)",
                       (const char *const[]){k->pid, NULL}) == DR_OK);
    else
        CHECK(kill((pid_t)strtol(k->pid, NULL, 10), SIGKILL) == 0);
    k->over = true;
}

static void backend_pid(struct pg_conn *c, char pid[16])
{
    struct pg_rows *r = NULL;
    CHECK(pg_query(c, NULL, &r, NULL, "SELECT pg_backend_pid()", NULL) == DR_OK);
    (void)snprintf(pid, 16, "%s", pg_rows_value(r, 0, 0));
    pg_rows_free(r);
}

static void killed_case(void)
{
    struct killer k = {.by = connected()};
    struct dr_err err = {0};
    struct pg_conn *c = connected();
    backend_pid(c, k.pid);
    fiber_start(loop, killer_fiber, &k);
    CHECK(pg_query(c, NULL, NULL, &err, "SELECT pg_sleep(3600)", NULL) == DR_E_UNREACHABLE);
    CHECK(strcmp(err.reason, "57P01") == 0);
    CHECK(strstr(err.msg, "terminating connection"));
    CHECK(!pg_alive(c));
    pg_close(c);
    while (!k.over)
        (void)fiber_sleep(1, NULL);
    pg_close(k.by);

    k.by = NULL;
    dr_err_clear(&err);
    c = connected();
    backend_pid(c, k.pid);
    fiber_start(loop, killer_fiber, &k);
    CHECK(pg_query(c, NULL, NULL, &err, "SELECT pg_sleep(3600)", NULL) == DR_E_UNREACHABLE);
    CHECK(strstr(err.msg, "database postgres on ") == err.msg);
    CHECK(!pg_alive(c));
    pg_close(c);
    struct dr_pg_url u; /* the server throws everybody out and recovers */
    bool back = false;
    socket_url(&u);
    while (!back) {
        (void)fiber_sleep(20, NULL);
        c = NULL;
        back = pg_connect(loop, pool, &u, NULL, NULL, &c, NULL) == DR_OK &&
               pg_query(c, NULL, NULL, NULL, "SELECT 1", NULL) == DR_OK;
        pg_close(c);
    }
}

static void server_killed_in_a_statement(void **state)
{
    (void)state;
    in_fiber(killed_case);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PG_TEST(connects_by_socket_and_tcp),
        PG_TEST(connections_leave_nothing),
        PG_TEST(tls_checks_the_name),
        PG_TEST(unreachable_servers),
        PG_TEST(queries),
        PG_TEST(errors_have_a_state_and_leave_it_usable),
        PG_TEST(cancel_and_deadline),
        PG_TEST(a_late_cancel_hits_nothing),
        PG_TEST(a_cancel_that_does_not_arrive_hangs_up),
        PG_TEST(a_lost_lock_is_noticed),
        PG_TEST(server_killed_in_a_statement),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
