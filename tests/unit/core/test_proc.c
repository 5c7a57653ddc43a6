/* worker/core/proc: children of every kind. All tests run twice, the second time under a filter
 * that forbids pidfd_open and close_range, as container runtimes do. This program is its own
 * child: `test_proc child MODE` does what a test needs. */
#include "tests/unit/cm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/unit/core/proc_modes.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/core/proc.h"

static struct loop *loop;
static char self[4096];

static int setup(void **state)
{
    struct dr_err err = {0};
    (void)state;
    return loop_new(&loop, &err) == DR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    fiber_cache_drop();
    return 0;
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

/* One child, run in a fiber; what was seen is judged outside of it. */
struct seen {
    struct proc_spec spec;
    struct cancel *cancel;
    struct proc_result r;
    struct dr_err err;
    enum dr_rc rc;
};

static void run_fiber(void *arg)
{
    struct seen *s = arg;
    s->rc = proc_run(loop, &s->spec, s->cancel, &s->r, &s->err);
    loop_stop(loop);
}

static void run(struct seen *s)
{
    fiber_start(loop, run_fiber, s);
    assert_int_equal(loop_run(loop), 0);
}

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define MODE(...) ARGV(self, "child", __VA_ARGS__)

static void exit_codes_and_output(void **state)
{
    (void)state;
    struct seen s = {.spec = {.argv = ARGV("/bin/echo", "a", "b"), .capture_max_bytes = 100}};
    run(&s);
    assert_int_equal(s.rc, DR_OK);
    assert_int_equal(s.r.exit_code, 0);
    assert_string_equal((char *)s.r.out.data, "a b\n");
    dr_buf_fini(&s.r.out);

    struct seen t = {.spec = {.argv = ARGV("/bin/sh", "-c", "echo why >&2; exit 3")}};
    run(&t);
    assert_int_equal(t.rc, DR_E_TOOL);
    assert_int_equal(t.err.detail, 3);
    assert_int_equal(t.r.exit_code, 3);
    assert_string_equal(t.err.msg, "sh: exit code 3: why");

    struct seen u = {.spec = {.argv = ARGV("/bin/sh", "-c", "kill -9 $$"), .name = "x"}};
    run(&u);
    assert_int_equal(u.rc, DR_E_TOOL);
    assert_int_equal(u.r.term_signal, SIGKILL);
    assert_int_equal(u.r.exit_code, -1);
    assert_int_equal(u.err.detail, 128 + SIGKILL);
    assert_string_equal(u.err.msg, "x: died of signal 9 (Killed)");
}

static void exec_failures(void **state)
{
    (void)state;
    struct seen s = {.spec = {.argv = ARGV("/nowhere/pg_dump")}};
    run(&s);
    assert_int_equal(s.rc, DR_E_TOOL);
    assert_int_equal(s.err.detail, ENOENT);
    assert_string_equal(s.err.reason, "exec");
    assert_string_equal(s.err.msg, "pg_dump: cannot be run: No such file or directory");
    assert_int_equal(s.r.exit_code, -1);
    struct seen t = {.spec = {.argv = ARGV("/etc/passwd")}};
    run(&t);
    assert_int_equal(t.rc, DR_E_TOOL);
    assert_int_equal(t.err.detail, EACCES);
    struct seen u = {.spec = {.argv = ARGV("/bin/true"), .keep_fds = (const int[]){999, -1}}};
    run(&u);
    assert_int_equal(u.rc, DR_E_BUG);
}

static void much_stderr_keeps_the_last_words(void **state)
{
    (void)state;
    struct seen s = {.spec = {.argv = MODE("stderr")}};
    run(&s);
    assert_int_equal(s.rc, DR_E_TOOL);
    assert_int_equal(s.r.exit_code, 5);
    size_t n = strlen(s.r.last_words);
    assert_true(n > 300 && n < sizeof s.r.last_words);
    assert_memory_equal(s.r.last_words, "line ", 5); /* begins with a whole line */
    assert_non_null(strstr(s.r.last_words, "line 99998 | line 99999 | caf\xc3\xa9 ? end"));
}

static void output_over_the_cap(void **state)
{
    (void)state;
    struct seen s = {.spec = {.argv = ARGV("/usr/bin/yes"), .capture_max_bytes = 10000}};
    run(&s);
    assert_int_equal(s.rc, DR_E_TOO_BIG);
    assert_int_equal(s.r.term_signal, SIGTERM);
    assert_int_equal(s.r.out.len, 0);
}

static void environment_is_exactly_as_given(void **state)
{
    (void)state;
    struct seen s = {.spec = {.argv = MODE("env"), .capture_max_bytes = 10000}};
    s.spec.env = ARGV("A=1", "B=two words", "LC_ALL=C");
    run(&s);
    assert_int_equal(s.rc, DR_OK);
    assert_string_equal((char *)s.r.out.data, "A=1\nB=two words\nLC_ALL=C\n");
    dr_buf_fini(&s.r.out);

    assert_int_equal(setenv("CANARY_PASSWORD", "canary", 1), 0);
    assert_int_equal(setenv("TZ", "Europe/Berlin", 1), 0);
    struct seen t = {.spec = {.argv = MODE("env"), .capture_max_bytes = 10000}};
    run(&t);
    assert_int_equal(t.rc, DR_OK);
    assert_null(strstr((char *)t.r.out.data, "canary"));
    assert_non_null(strstr((char *)t.r.out.data, "LANG=C.UTF-8\nTZ=Europe/Berlin\n"));
    dr_buf_fini(&t.r.out);
    (void)unsetenv("CANARY_PASSWORD");
    (void)unsetenv("TZ");
}

static void only_listed_descriptors_are_inherited(void **state)
{
    char want[64];
    (void)state;
    int loose = open("/dev/null", O_RDONLY); /* a library forgot CLOEXEC */
    int high = fcntl(loose, F_DUPFD, 700), kept = fcntl(loose, F_DUPFD_CLOEXEC, 20);
    assert_true(loose > 2 && high >= 700 && kept >= 20);
    struct seen s = {.spec = {.argv = MODE("fds"), .capture_max_bytes = 1000}};
    s.spec.keep_fds = (const int[]){kept, -1};
    run(&s);
    assert_int_equal(s.rc, DR_OK);
    (void)snprintf(want, sizeof want, "0 1 2 %d\n", kept);
    assert_string_equal((char *)s.r.out.data, want);
    dr_buf_fini(&s.r.out);
    assert_int_equal(fcntl(kept, F_GETFD), FD_CLOEXEC);
    (void)close(loose);
    (void)close(high);
    (void)close(kept);
}

static void secret_in_a_memfd(void **state)
{
    struct dr_err err = {0};
    struct stat st;
    char path[64];
    (void)state;
    int fd = proc_memfd("secret", "pass:word\n", 10, &err);
    assert_true(fd > 2);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct seen s = {.spec = {.argv = ARGV("/bin/cat", path, path), .capture_max_bytes = 100}};
    s.spec.keep_fds = (const int[]){fd, -1};
    run(&s);
    assert_int_equal(s.rc, DR_OK);
    assert_string_equal((char *)s.r.out.data, "pass:word\npass:word\n");
    dr_buf_fini(&s.r.out);
    struct seen t = {.spec = {.argv = ARGV("/bin/cat", path), .capture_max_bytes = 100}};
    run(&t);
    assert_int_equal(t.rc, DR_E_TOOL); /* not listed, not inherited */
    (void)close(fd);
}

static void signals_are_default_in_the_child(void **state)
{
    sigset_t block;
    (void)state;
    (void)sigemptyset(&block);
    (void)sigaddset(&block, SIGUSR1);
    (void)sigprocmask(SIG_BLOCK, &block, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    struct seen s = {.spec = {.argv = ARGV("/bin/grep", "^Sig[BI]", "/proc/self/status"),
                              .capture_max_bytes = 1000}};
    run(&s);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)sigprocmask(SIG_UNBLOCK, &block, NULL);
    assert_int_equal(s.rc, DR_OK);
    assert_string_equal((char *)s.r.out.data, "SigBlk:\t0000000000000000\n"
                                              "SigIgn:\t0000000000000000\n");
    dr_buf_fini(&s.r.out);
}

/* A pipe whose write end the test holds: a child that reads fd lives until the test lets go. */
static void leash(int fd[2])
{
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    int high = fcntl(fd[0], F_DUPFD_CLOEXEC, 30);
    (void)close(fd[0]);
    fd[0] = high;
}

static void grandchild_does_not_hang_the_wait(void **state)
{
    int fd[2];
    char number[16];
    (void)state;
    leash(fd);
    (void)snprintf(number, sizeof number, "%d", fd[0]);
    struct seen s = {.spec = {.argv = MODE("leave", number), .capture_max_bytes = 100}};
    s.spec.keep_fds = (const int[]){fd[0], -1};
    run(&s);
    assert_int_equal(s.rc, DR_OK);
    assert_string_equal((char *)s.r.out.data, "hello\n");
    dr_buf_fini(&s.r.out);
    (void)close(fd[0]);
    assert_int_equal(fcntl(fd[1], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(write(fd[1], "x", 1), 1); /* it reads still: nobody killed it */
    (void)close(fd[1]);
}

static void release(void *arg)
{
    (void)fiber_sleep(30, NULL);
    (void)close(*(int *)arg);
}

static void streams_end_before_the_child(void **state)
{
    int fd[2];
    char number[16];
    (void)state;
    leash(fd);
    (void)snprintf(number, sizeof number, "%d", fd[0]);
    struct seen s = {.spec = {.argv = MODE("silent", number), .capture_max_bytes = 100}};
    s.spec.keep_fds = (const int[]){fd[0], -1};
    fiber_start(loop, release, &fd[1]);
    run(&s);
    assert_int_equal(s.rc, DR_E_TOOL);
    assert_int_equal(s.r.exit_code, 7);
    (void)close(fd[0]);
}

/* Waits in a fiber until the child has said something on the pipe we took. */
static void until_ready(int fd)
{
    char c;
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    while (read(fd, &c, 1) < 0 && errno == EAGAIN)
        (void)fiber_sleep(2, NULL);
}

struct stubborn {
    struct seen s;
    bool by_token;
    bool group_dead; /* nobody holds the pipe any more */
    struct cancel token;
};

static void stubborn_fiber(void *arg)
{
    struct stubborn *b = arg;
    struct proc *p;
    char rest[64];
    ssize_t n;
    b->s.rc = proc_start(loop, &b->s.spec, &p, &b->s.err);
    if (!b->s.rc) {
        int fd = proc_take_stdout(p);
        until_ready(fd);
        if (b->by_token)
            cancel_fire(&b->token, DR_E_CANCELLED, "user");
        else
            proc_stop(p);
        b->s.rc = proc_wait(p, &b->token, &b->s.r, &b->s.err);
        while ((n = read(fd, rest, sizeof rest)) > 0 || (n < 0 && errno == EAGAIN))
            (void)fiber_sleep(1, NULL);
        b->group_dead = n == 0;
        (void)close(fd);
    }
    loop_stop(loop);
}

static void term_ignored_then_the_group_is_killed(void **state)
{
    (void)state;
    struct stubborn b = {.s.spec = {.argv = MODE("stubborn"), .pipe_stdout = true, .grace_ms = 30}};
    cancel_init(&b.token, loop);
    fiber_start(loop, stubborn_fiber, &b);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(b.s.rc, DR_E_CANCELLED);
    assert_int_equal(b.s.r.term_signal, SIGKILL);
    assert_true(b.group_dead);
    cancel_fini(&b.token);
}

static void cancel_ends_the_child(void **state)
{
    (void)state;
    struct stubborn b = {.by_token = true,
                         .s.spec = {.argv = ARGV("/bin/sh", "-c", "echo r; exec sleep 60"),
                                    .pipe_stdout = true,
                                    .pipe_stdin = true}};
    cancel_init(&b.token, loop);
    fiber_start(loop, stubborn_fiber, &b);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(b.s.rc, DR_E_CANCELLED);
    assert_int_equal(b.s.r.term_signal, SIGTERM);
    assert_string_equal(b.s.err.msg, "sh: user");
    assert_true(b.group_dead);

    struct seen s = {.spec = {.argv = ARGV("/bin/true")}, .cancel = &b.token};
    run(&s); /* already fired */
    assert_int_equal(s.rc, DR_E_CANCELLED);
    cancel_fini(&b.token);
}

static void busy_fiber(void *arg)
{
    struct stubborn *b = arg;
    struct proc *p;
    char c;
    b->s.rc = proc_start(loop, &b->s.spec, &p, &b->s.err);
    if (!b->s.rc) {
        int fd = proc_take_stdout(p);
        until_ready(fd);
        cancel_fire(&b->token, DR_E_CANCELLED, "user");
        ssize_t n;
        while ((n = read(fd, &c, 1)) != 0 && (n > 0 || errno == EAGAIN))
            (void)fiber_sleep(1, NULL);
        b->group_dead = n == 0;
        (void)close(fd);
        b->s.rc = proc_wait(p, NULL, &b->s.r, &b->s.err);
    }
    loop_stop(loop);
}

/* Who works on a child's output sees its end, though nobody waits for the child yet. */
static void cancel_ends_it_before_anybody_waits(void **state)
{
    (void)state;
    struct stubborn b = {.s.spec = {.argv = MODE("stubborn"), .pipe_stdout = true, .grace_ms = 20}};
    cancel_init(&b.token, loop);
    b.s.spec.cancel = &b.token;
    fiber_start(loop, busy_fiber, &b);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(b.s.rc, DR_E_CANCELLED);
    assert_true(b.group_dead);
    assert_int_equal(b.s.r.term_signal, SIGKILL);
    struct seen s = {.spec = {.argv = ARGV("/bin/true"), .cancel = &b.token}};
    run(&s); /* has fired: not started */
    assert_int_equal(s.rc, DR_E_CANCELLED);
    assert_int_equal(s.r.ms, 0);
    cancel_fini(&b.token);
}

static void deadline_ends_the_child(void **state)
{
    (void)state;
    struct seen s = {.spec = {.argv = MODE("pause"), .deadline_ms = 30}};
    run(&s);
    assert_int_equal(s.rc, DR_E_TIMEOUT);
    assert_true(s.r.term_signal == SIGTERM || s.r.term_signal == SIGKILL);
}

static void lent_and_piped_streams(void **state)
{
    (void)state;
    char name[] = "/tmp/test_proc.XXXXXX";
    int in = mkstemp(name), out = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char got[16] = "";
    assert_true(in > 2 && out > 2);
    (void)unlink(name);
    assert_int_equal(pwrite(in, "lent", 4, 0), 4);
    struct seen s = {.spec = {.argv = ARGV("/bin/cat"), .stdin_fd = in, .stdout_fd = out}};
    run(&s);
    assert_int_equal(s.rc, DR_OK);
    assert_int_equal(pread(out, got, sizeof got - 1, 0), 4);
    assert_string_equal(got, "lent");
    assert_int_equal(fcntl(in, F_GETFD) >= 0, 1); /* still ours */
    (void)close(in);
    (void)close(out);
    struct seen t = {.spec = {.argv = ARGV("/bin/cat"), .stdin_fd = -1, .capture_max_bytes = 9}};
    run(&t); /* /dev/null */
    assert_int_equal(t.rc, DR_OK);
    assert_int_equal(t.r.out.len, 0);
    dr_buf_fini(&t.r.out);
    struct seen u = {.spec = {.argv = ARGV("/bin/cat"), .pipe_stdin = true}};
    run(&u); /* our end was not taken: closed by the wait */
    assert_int_equal(u.rc, DR_OK);
}

static enum dr_rc one_of_many(void *arg, struct dr_err *err)
{
    struct proc_result r;
    struct proc_spec spec = {.argv = ARGV("/bin/echo", "x"), .capture_max_bytes = 10};
    enum dr_rc rc = proc_run(loop, &spec, NULL, &r, err);
    *(int *)arg += !rc && r.out.len == 2;
    dr_buf_fini(&r.out);
    return rc;
}

struct many {
    int good;
    enum dr_rc rc;
    struct dr_err err;
};

static void many_fiber(void *arg)
{
    struct many *m = arg;
    struct fiber_group g;
    fiber_group_init(&g, loop, 16, NULL);
    for (int i = 0; i < 200; i++)
        fiber_group_go(&g, one_of_many, &m->good);
    m->rc = fiber_group_wait(&g, &m->err);
    loop_stop(loop);
}

static void two_hundred_children_leave_nothing(void **state)
{
    struct many m = {0};
    (void)state;
    int before = open_fds();
    fiber_start(loop, many_fiber, &m);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(m.rc, DR_OK);
    assert_int_equal(m.good, 200);
    assert_int_equal(open_fds(), before);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void dies_fiber(void *arg)
{
    struct proc *p;
    struct seen *s = arg;
    if (proc_start(loop, &s->spec, &p, &s->err) == DR_OK)
        until_ready(proc_take_stdout(p));
    (void)kill(getpid(), SIGKILL);
}

static void children_die_with_us(void **state)
{
    int fd[2], status;
    char c;
    (void)state;
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    int kept = fcntl(fd[1], F_DUPFD_CLOEXEC, 30);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct seen s = {.spec = {.argv = MODE("stubborn-alone"), .pipe_stdout = true}};
        s.spec.keep_fds = (const int[]){kept, -1};
        setup(NULL); /* a loop of our own: epoll is shared with the parent otherwise */
        fiber_start(loop, dies_fiber, &s);
        (void)loop_run(loop);
        _exit(1);
    }
    (void)close(fd[1]);
    (void)close(kept);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_equal(read(fd[0], &c, 1), 0); /* the end: nobody holds it */
    (void)close(fd[0]);
}

static int forbid(void **state)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = CM_COUNT(filter), .filter = filter};
    (void)state;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return -1;
    return syscall(SYS_pidfd_open, getpid(), 0) == -1 && errno == EPERM ? 0 : -1;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "child") == 0)
        return proc_mode(argc, argv);
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        TEST(exit_codes_and_output),
        TEST(exec_failures),
        TEST(much_stderr_keeps_the_last_words),
        TEST(output_over_the_cap),
        TEST(environment_is_exactly_as_given),
        TEST(only_listed_descriptors_are_inherited),
        TEST(secret_in_a_memfd),
        TEST(signals_are_default_in_the_child),
        TEST(grandchild_does_not_hang_the_wait),
        TEST(streams_end_before_the_child),
        TEST(term_ignored_then_the_group_is_killed),
        TEST(cancel_ends_the_child),
        TEST(cancel_ends_it_before_anybody_waits),
        TEST(deadline_ends_the_child),
        TEST(lent_and_piped_streams),
        TEST(two_hundred_children_leave_nothing),
        TEST(children_die_with_us),
    };
    int failed = cmocka_run_group_tests_name("proc", tests, NULL, NULL);
    return failed + cmocka_run_group_tests_name("proc, filtered", tests, forbid, NULL);
}
