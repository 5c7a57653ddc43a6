/* worker/core/pg: COPY to a sink, and what PostgreSQL's tools are given. */
#include "tests/unit/core/pg_case.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <unistd.h>

#include "worker/core/proc.h"

#define ROWS                                                                                       \
    "SELECT i, md5(i::text), repeat(chr(97 + i % 26), i % 90), "                                   \
    "CASE WHEN i % 7 = 0 THEN NULL ELSE E'caf\\u00e9\\t\\n' END FROM generate_series(1, 300000) i"
enum { ROW_COUNT = 300000, MIB = 1 << 20 };

struct sink {
    uint64_t hash, rows, bytes;
    unsigned calls, small, torn; /* batches under 256 KiB; that end within a row */
    _Atomic int inside;
    unsigned together; /* two calls at once */
    size_t heap_before, heap_most;
    long nap_us;
    unsigned fail_at; /* the call that fails; 0: none */
    unsigned fire_at; /* the call after which somebody does something */
    _Atomic bool reached;
};

static uint64_t fnv(uint64_t hash, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

static size_t heap(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static enum dr_rc take(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    struct sink *s = arg;
    const char *text = bytes;
    const struct timespec nap = {.tv_nsec = s->nap_us * 1000};
    s->together += atomic_fetch_add(&s->inside, 1) != 0;
    if (!s->calls++)
        s->heap_before = heap();
    s->hash = fnv(s->hash, bytes, len);
    s->bytes += len;
    for (size_t i = 0; i < len; i++)
        s->rows += text[i] == '\n';
    s->torn += !len || text[len - 1] != '\n';
    s->small += len < 256 * 1024;
    if (s->nap_us)
        (void)nanosleep(&nap, NULL);
    if (heap() > s->heap_most)
        s->heap_most = heap();
    if (s->fire_at == s->calls)
        atomic_store(&s->reached, true);
    (void)atomic_fetch_sub(&s->inside, 1);
    return s->fail_at == s->calls ? dr_fail(err, DR_E_NO_SPACE, "disk full") : DR_OK;
}

static void psql_env_case(const char *sql, int out, struct dr_err *err)
{
    struct dr_pg_url u;
    struct pg_child_env *e = NULL;
    char path[300];
    (void)snprintf(path, sizeof path, "%s/psql", server.bin);
    tcp_url(&u, "127.0.0.1", server.port, PG_SERVER_PASSWORD);
    CHECK(pg_child_env_new(&u, NULL, "-c DateStyle=ISO", &e, err) == DR_OK);
    struct proc_spec spec = {.argv = (const char *const[]){path, "-XAtqc", sql, NULL},
                             .env = (const char *const *)e->env,
                             .keep_fds = e->keep_fds,
                             .stdout_fd = out};
    CHECK(proc_run(loop, &spec, NULL, NULL, err) == DR_OK);
    pg_child_env_free(e);
    dr_pg_url_free(&u);
}

/* Another program's opinion of the same rows. */
static uint64_t hash_by_psql(void)
{
    struct dr_err err = {0};
    uint64_t hash = 0;
    char bytes[65536];
    ssize_t n;
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd > 2);
    psql_env_case("COPY (" ROWS ") TO STDOUT", fd, &err);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    while ((n = read(fd, bytes, sizeof bytes)) > 0)
        hash = fnv(hash, bytes, (size_t)n);
    (void)close(fd);
    return hash;
}

static void slow_sink_case(void)
{
    struct pg_conn *c = connected();
    struct dr_err err = {0};
    struct sink s = {.nap_us = 3000};
    CHECK(pg_copy_out(c, NULL, "COPY (" ROWS ") TO STDOUT", take, &s, &err) == DR_OK);
    CHECK(s.rows == ROW_COUNT && s.bytes > 20 * MIB);
    CHECK(s.together == 0 && s.torn == 0 && s.small <= 1);
    CHECK(s.heap_most < s.heap_before + 3 * MIB);
    CHECK(s.hash == hash_by_psql());
    CHECK(pg_alive(c) && answers(c, "SELECT 1", "1"));
    CHECK(pg_copy_out(c, NULL, "COPY (SELECT 1 WHERE false) TO STDOUT", take, &s, &err) == DR_OK);
    CHECK(s.rows == ROW_COUNT);
    pg_close(c);
}

static void slow_sink_bounds_the_memory(void **state)
{
    (void)state;
    in_fiber(slow_sink_case);
}

static void big_row_case(void)
{
    struct pg_conn *c = connected();
    struct sink s = {.nap_us = 0};
    CHECK(pg_copy_out(c, NULL,
                      "COPY (SELECT repeat('x', 3000000) FROM generate_series(1, 3)) "
                      "TO STDOUT",
                      take, &s, NULL) == DR_OK);
    CHECK(s.rows == 3 && s.bytes == 9000003 && s.torn == 0);
    pg_close(c);
}

static void rows_larger_than_a_batch(void **state)
{
    (void)state;
    in_fiber(big_row_case);
}

static void sink_error_case(void)
{
    struct pg_conn *c = connected();
    struct dr_err err = {0};
    struct sink s = {.fail_at = 2};
    CHECK(pg_copy_out(c, NULL, "COPY (" ROWS ") TO STDOUT", take, &s, &err) == DR_E_NO_SPACE);
    CHECK(strcmp(err.msg, "disk full") == 0);
    CHECK(s.calls == 2);
    CHECK(pg_alive(c) && answers(c, "SELECT 1", "1"));
    struct sink last = {.fail_at = 1}; /* all has been read when it fails */
    CHECK(pg_copy_out(c, NULL, "COPY (SELECT 1) TO STDOUT", take, &last, NULL) == DR_E_NO_SPACE);
    CHECK(pg_alive(c) && answers(c, "SELECT 2", "2"));
    pg_close(c);
}

static void a_failing_sink_ends_the_copy(void **state)
{
    (void)state;
    in_fiber(sink_error_case);
}

static void statement_error_case(void)
{
    struct pg_conn *c = connected();
    struct dr_err err = {0};
    struct sink s = {.nap_us = 0};
    CHECK(pg_copy_out(c, NULL,
                      "COPY (SELECT 1 / (200000 - i), repeat('x', 30) FROM "
                      "generate_series(1, 300000) i) TO STDOUT",
                      take, &s, &err) == DR_E_SQL);
    CHECK(strcmp(err.reason, "22012") == 0 && s.calls > 0);
    CHECK(answers(c, "SELECT 1", "1"));
    dr_err_clear(&err);
    CHECK(pg_copy_out(c, NULL, "COPY nowhere TO STDOUT", take, &s, &err) == DR_E_SQL);
    CHECK(strcmp(err.reason, "42P01") == 0);
    CHECK(answers(c, "SELECT 2", "2"));
    CHECK(pg_copy_out(c, NULL, "SELECT 1", take, &s, NULL) == DR_E_BUG);
    CHECK(answers(c, "SELECT 3", "3"));
    CHECK(pg_copy_out(c, NULL, "COPY (SELECT 1) TO STDOUT; SELECT 1", take, &s, NULL) == DR_E_BUG);
    CHECK(answers(c, "SELECT 4", "4"));
    CHECK(pg_query(c, NULL, NULL, NULL, "CREATE TEMP TABLE t (a int)", NULL) == DR_OK);
    CHECK(pg_copy_out(c, NULL, "COPY t FROM STDIN", take, &s, NULL) == DR_E_BUG);
    CHECK(!pg_alive(c)); /* it would wait for rows for ever */
    pg_close(c);
}

static void statements_that_fail_or_are_no_copy(void **state)
{
    (void)state;
    in_fiber(statement_error_case);
}

struct watcher {
    struct sink *sink;
    struct cancel cancel;
    const char *pid; /* killed instead, when given */
};

static void watcher_fiber(void *arg)
{
    struct watcher *w = arg;
    while (!atomic_load(&w->sink->reached))
        (void)fiber_sleep(1, NULL);
    if (w->pid)
        CHECK(kill((pid_t)strtol(w->pid, NULL, 10), SIGKILL) == 0);
    else
        cancel_fire(&w->cancel, DR_E_CANCELLED, "user");
}

static void stopped_case(void)
{
    struct pg_conn *c = connected();
    struct dr_err err = {0};
    struct sink s = {.fire_at = 3, .nap_us = 1000};
    struct watcher w = {.sink = &s};
    cancel_init(&w.cancel, loop);
    fiber_start(loop, watcher_fiber, &w);
    CHECK(pg_copy_out(c, &w.cancel,
                      "COPY (SELECT generate_series(1, 100000000), repeat('x', 99)) TO STDOUT",
                      take, &s, &err) == DR_E_CANCELLED);
    CHECK(strcmp(err.msg, "user") == 0 && s.inside == 0);
    CHECK(pg_alive(c) && answers(c, "SELECT 1", "1"));
    cancel_fini(&w.cancel);

    dr_err_clear(&err);
    pg_statement_ms(c, 1500);
    struct sink t = {.nap_us = 0}; /* the deadline counts silence, not the whole COPY */
    CHECK(pg_copy_out(c, NULL,
                      "COPY (SELECT pg_sleep(0.1), repeat('x', 70000) FROM "
                      "generate_series(1, 16)) TO STDOUT",
                      take, &t, &err) == DR_OK);
    CHECK(t.rows == 16);
    pg_statement_ms(c, 30);
    CHECK(pg_copy_out(c, NULL, "COPY (SELECT pg_sleep(3600)) TO STDOUT", take, &t, &err) ==
          DR_E_TIMEOUT);
    CHECK(strcmp(err.msg, "statement took too long") == 0);
    CHECK(pg_alive(c) && answers(c, "SELECT 2", "2"));
    pg_close(c);
}

static void cancel_and_silence(void **state)
{
    (void)state;
    in_fiber(stopped_case);
}

static void killed_case(void)
{
    struct pg_conn *c = connected();
    struct pg_rows *r = NULL;
    struct dr_err err = {0};
    struct sink s = {.fire_at = 3, .nap_us = 1000};
    struct watcher w = {.sink = &s};
    CHECK(pg_query(c, NULL, &r, NULL, "SELECT pg_backend_pid()", NULL) == DR_OK);
    w.pid = pg_rows_value(r, 0, 0);
    fiber_start(loop, watcher_fiber, &w);
    CHECK(pg_copy_out(c, NULL,
                      "COPY (SELECT generate_series(1, 100000000), repeat('x', 99)) TO STDOUT",
                      take, &s, &err) == DR_E_UNREACHABLE);
    CHECK(!pg_alive(c) && s.inside == 0 && s.torn == 0);
    pg_rows_free(r);
    pg_close(c);
}

static void server_killed_in_a_copy(void **state)
{
    (void)state;
    in_fiber(killed_case);
}

static void quoting_case(void)
{
    static const char *const texts[] = {
        "plain", "it's", "a\"b", "back\\slash'\\", "", "caf\xc3\xa9", "$1; DROP TABLE x --"};
    struct pg_conn *c = connected();
    for (size_t i = 0; i < CM_COUNT(texts); i++) {
        char *literal = pg_quote_literal(texts[i]), *ident = pg_quote_ident(texts[i]);
        char *sql = dr_xasprintf("SELECT %s", literal);
        char *as = dr_xasprintf("SELECT string_agg(column_name, '') FROM (SELECT key FROM "
                                "json_each_text((SELECT row_to_json(t) FROM (SELECT 1 AS %s) t))) "
                                "x(column_name)",
                                ident);
        CHECK(answers(c, sql, texts[i]));
        CHECK(!texts[i][0] || answers(c, as, texts[i]));
        free(literal);
        free(ident);
        free(sql);
        free(as);
    }
    pg_close(c);
}

static void quotes_round_trip(void **state)
{
    (void)state;
    in_fiber(quoting_case);
}

static void child_case(void)
{
    struct dr_pg_url u;
    struct pg_child_env *e = NULL;
    struct dr_err err = {0};
    char got[128] = "";
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    psql_env_case("SELECT current_user || current_database() || current_setting('DateStyle')", fd,
                  &err);
    CHECK(pread(fd, got, sizeof got - 1, 0) > 0);
    CHECK(strcmp(got, "postgrespostgresISO, MDY\n") == 0);
    (void)close(fd);

    tcp_url(&u, "db.example", 6000, "p:a\\ss");
    (void)snprintf(u.options, sizeof u.options, "-c a=b");
    CHECK(pg_child_env_new(&u, "shop", "-c TimeZone=UTC", &e, &err) == DR_OK);
    static const char *const want[] = {"LC_ALL=C",
                                       "PGHOST=db.example",
                                       "PGPORT=6000",
                                       "PGUSER=postgres",
                                       "PGDATABASE=shop",
                                       "PGSSLMODE=prefer",
                                       "PGAPPNAME=drworker",
                                       "PGOPTIONS=-c a=b -c TimeZone=UTC",
                                       "PGCONNECT_TIMEOUT=10"};
    for (size_t i = 0; i < CM_COUNT(want); i++) {
        unsigned n = 0;
        while (e->env[n] && strcmp(e->env[n], want[i]) != 0)
            n++;
        CHECK(e->env[n]);
    }
    for (unsigned n = 0; e->env[n]; n++)
        CHECK(!strstr(e->env[n], "p:a"));
    memset(got, 0, sizeof got);
    CHECK(pread(e->keep_fds[0], got, sizeof got - 1, 0) > 0);
    CHECK(strcmp(got, "*:*:*:*:p\\:a\\\\ss\n") == 0);
    pg_child_env_free(e);
    dr_pg_url_free(&u);
}

static void tools_get_the_password_in_a_memfd(void **state)
{
    (void)state;
    in_fiber(child_case);
}

static void tool_case(void)
{
    struct pg_conn *c = connected();
    struct dr_err err = {0};
    char path[4096], want[300];
    unsigned major = (unsigned)pg_server_version(c) / 10000;
    pg_close(c);
    (void)snprintf(want, sizeof want, "%s/pg_dump", server.bin);
    CHECK(pg_tool_path(loop, NULL, NULL, major, "pg_dump", path, &err) == DR_OK);
    CHECK(strcmp(path, want) == 0);
    CHECK(pg_tool_path(loop, NULL, server.bin, major, "pg_dump", path, &err) == DR_OK);
    CHECK(pg_tool_path(loop, NULL, server.bin, 9, "pg_dump", path, &err) == DR_E_PREFLIGHT);
    CHECK(strstr(err.msg, "no pg_dump of PostgreSQL 9 in ") && strstr(err.msg, " is of "));
    dr_err_clear(&err);
    CHECK(pg_tool_path(loop, NULL, "/nowhere", major, "pg_dump", path, &err) == DR_E_PREFLIGHT);
    char *old = dr_xstrdup(getenv("PATH"));
    char *with = dr_xasprintf("/nowhere:relative::%s:%s", server.dir, old);
    char *script = dr_xasprintf("%s/pg_tool", server.dir);
    int fd = open(script, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    static const char text[] = "#!/bin/sh\necho 'pg_tool (PostgreSQL) 77beta1'\n";
    CHECK(write(fd, text, sizeof text - 1) == sizeof text - 1 && close(fd) == 0);
    CHECK(setenv("PATH", with, 1) == 0);
    CHECK(pg_tool_path(loop, NULL, "", 77, "pg_tool", path, &err) == DR_OK);
    CHECK(strcmp(path, script) == 0);
    CHECK(setenv("PATH", old, 1) == 0);
    free(old);
    free(with);
    free(script);
}

static void tools_of_the_servers_major(void **state)
{
    (void)state;
    in_fiber(tool_case);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PG_TEST(slow_sink_bounds_the_memory),
        PG_TEST(rows_larger_than_a_batch),
        PG_TEST(a_failing_sink_ends_the_copy),
        PG_TEST(statements_that_fail_or_are_no_copy),
        PG_TEST(cancel_and_silence),
        PG_TEST(quotes_round_trip),
        PG_TEST(tools_get_the_password_in_a_memfd),
        PG_TEST(tools_of_the_servers_major),
        PG_TEST(server_killed_in_a_copy),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
