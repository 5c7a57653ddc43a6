/* worker/core/fault, as a test build has it. The list is read once a process: each case is a child
 * of its own, and its exit code is what it saw. */
#include "tests/unit/cm.h"

#undef DR_FAULTS
#define DR_FAULTS 1
#include "worker/core/fault.c"

#include <sys/resource.h>
#include <sys/wait.h>

#include "worker/core/loop.h"

static int status_of(const char *list, int (*fn)(void))
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        const struct rlimit none = {0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)!freopen("/dev/null", "w", stderr);
        if (list ? setenv("DR_FAULT", list, 1) : unsetenv("DR_FAULT"))
            _exit(99);
        _exit(fn());
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    if (WIFSTOPPED(status)) {
        (void)kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    }
    return status;
}

static enum dr_rc at(const char *point)
{
    struct dr_err err = {0};
    return fault_point(point, &err);
}

/* Which of five visits fails, as bits. */
static int five(void)
{
    int bits = 0;
    for (int i = 0; i < 5; i++)
        bits |= (at("swap.intent") == DR_E_IO) << i;
    return bits | (at("swap.done") != DR_OK) << 5;
}

static void fails_once_and_the_nth_time(void **state)
{
    (void)state;
    assert_int_equal(WEXITSTATUS(status_of(NULL, five)), 0);
    assert_int_equal(WEXITSTATUS(status_of("", five)), 0);
    assert_int_equal(WEXITSTATUS(status_of("other:fail", five)), 0);
    assert_int_equal(WEXITSTATUS(status_of("swap.intent:fail", five)), 1);
    assert_int_equal(WEXITSTATUS(status_of("swap.intent:3:fail", five)), 4);
    assert_int_equal(WEXITSTATUS(status_of("a:kill,swap.intent:5:fail,swap.done:fail", five)), 48);
    assert_int_equal(WEXITSTATUS(status_of("swap.intent:fail,swap.intent:2:fail", five)), 3);
}

static void kills_and_stops(void **state)
{
    (void)state;
    int status = status_of("swap.intent:2:kill", five);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    status = status_of("swap.intent:stop", five);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(WSTOPSIG(status), SIGSTOP);
}

static void a_list_that_cannot_be_read_aborts(void **state)
{
    (void)state;
    static const char *const bad[] = {"x",        "x:nothing", ":fail",      "x:fail:3",
                                      "x:0:fail", "x:-1:fail", "x:2:3:fail", "x:sleep:1s",
                                      "x:fail,",  "x:2"};
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        int status = status_of(bad[i], five);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
            fail_msg("%s", bad[i]);
    }
}

static struct loop *loop;
static char order[3];
static int seen;

static void sleeper(void *arg)
{
    (void)arg;
    (void)at("slow");
    order[seen++] = 's';
    loop_stop(loop);
}

static void other(void *arg)
{
    (void)arg;
    order[seen++] = 'o';
}

static int in_loop(void)
{
    if (loop_new(&loop, NULL))
        return 99;
    fiber_start(loop, sleeper, NULL);
    fiber_start(loop, other, NULL);
    (void)loop_run(loop);
    return strcmp(order, "os") == 0 ? 1 : 2; /* the others went on meanwhile */
}

static int in_thread(void)
{
    return at("slow") == DR_OK ? 1 : 2;
}

static void sleeps_in_a_fiber_and_in_a_thread(void **state)
{
    (void)state;
    assert_int_equal(WEXITSTATUS(status_of("slow:sleep:20", in_loop)), 1);
    assert_int_equal(WEXITSTATUS(status_of("slow:1:sleep:20", in_thread)), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fails_once_and_the_nth_time),
        cmocka_unit_test(kills_and_stops),
        cmocka_unit_test(a_list_that_cannot_be_read_aborts),
        cmocka_unit_test(sleeps_in_a_fiber_and_in_a_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
