/* worker/core: fibers, sleeps, cancel, groups, pool. Nothing is asserted inside a fiber or a pool
 * thread: they write down what they saw. */
#include "tests/unit/cm.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"

static struct loop *loop;
static char trace[256];
static size_t traced;

static void note(char c)
{
    if (traced + 1 < sizeof trace)
        trace[traced++] = c;
    trace[traced] = 0;
}

static int setup(void **state)
{
    struct dr_err err = {0};
    (void)state;
    traced = 0;
    trace[0] = 0;
    return loop_new(&loop, &err) == DR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    loop_free(loop);
    fiber_cache_drop();
    return 0;
}

static void sleeper(void *arg)
{
    const char *name = arg;
    note(name[0]);
    (void)fiber_sleep((uint64_t)(name[1] - '0') * 20, NULL);
    note((char)(name[0] + 'A' - 'a'));
    if (name[2] == '!')
        loop_stop(loop);
}

static void fibers_run_in_order_and_interleave(void **state)
{
    (void)state;
    fiber_start(loop, sleeper, "a1 ");
    fiber_start(loop, sleeper, "b0 ");
    fiber_start(loop, sleeper, "c3!");
    assert_int_equal(loop_run(loop), 0);
    assert_string_equal(trace, "abcBAC");
    assert_null(fiber_self());
}

static struct fiber *parked;

static void parks(void *arg)
{
    (void)arg;
    parked = fiber_self();
    note('p');
    fiber_suspend();
    note('w');
    loop_stop(loop);
}

static void wakes(void *arg)
{
    (void)arg;
    note('k');
    fiber_wake(parked);
    note('n'); /* a wake is deferred: it never runs the other one at once */
}

static void wake_is_deferred(void **state)
{
    (void)state;
    fiber_start(loop, parks, NULL);
    fiber_start(loop, wakes, NULL);
    assert_int_equal(loop_run(loop), 0);
    assert_string_equal(trace, "pknw");
}

struct slept {
    struct cancel cancel;
    enum dr_rc rc;
};

static void sleeps_long(void *arg)
{
    struct slept *s = arg;
    s->rc = fiber_sleep(3600000, &s->cancel);
    loop_stop(loop);
}

static void fires(void *arg)
{
    struct slept *s = arg;
    cancel_fire(&s->cancel, DR_E_CANCELLED, "first");
    cancel_fire(&s->cancel, DR_E_STALE, "second");
}

static void cancel_ends_a_sleep(void **state)
{
    (void)state;
    struct slept s = {.rc = DR_OK};
    cancel_init(&s.cancel, loop);
    fiber_start(loop, sleeps_long, &s);
    fiber_start(loop, fires, &s);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(s.rc, DR_E_CANCELLED);
    assert_string_equal(cancel_reason(&s.cancel), "first");
    cancel_fini(&s.cancel);
}

static void deadline_fires_children(void **state)
{
    (void)state;
    struct cancel parent;
    struct slept s = {.rc = DR_OK};
    cancel_init(&parent, loop);
    cancel_init(&s.cancel, loop);
    cancel_link(&s.cancel, &parent);
    cancel_deadline(&parent, 10);
    fiber_start(loop, sleeps_long, &s);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(s.rc, DR_E_TIMEOUT);
    cancel_fini(&s.cancel);
    cancel_fini(&parent);
}

static unsigned now_running, most_running, ended_well;
static struct fiber_group group;

static enum dr_rc child(void *arg, struct dr_err *err)
{
    const char *what = arg;
    now_running++;
    if (now_running > most_running)
        most_running = now_running;
    enum dr_rc rc = fiber_sleep(*what == 'f' ? 5 : 20, &group.cancel);
    now_running--;
    if (*what == 'f')
        return dr_fail(err, DR_E_IO, "child failed");
    ended_well += rc == DR_OK;
    return rc;
}

static enum dr_rc group_rc;
static struct dr_err group_err;

static void runs_group(void *arg)
{
    const char *children = arg;
    fiber_group_init(&group, loop, 3, NULL);
    for (const char *c = children; *c; c++)
        fiber_group_go(&group, child, (void *)(uintptr_t)c);
    memset(&group_err, 0, sizeof group_err);
    group_rc = fiber_group_wait(&group, &group_err);
    loop_stop(loop);
}

static void groups_are_bounded(void **state)
{
    (void)state;
    now_running = most_running = ended_well = 0;
    fiber_start(loop, runs_group, "ooooooo");
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(group_rc, DR_OK);
    assert_int_equal(most_running, 3);
    assert_int_equal(ended_well, 7);
}

static void first_error_cancels_the_rest(void **state)
{
    (void)state;
    now_running = most_running = ended_well = 0;
    fiber_start(loop, runs_group, "foooooo");
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(group_rc, DR_E_IO);
    assert_string_equal(group_err.msg, "child failed");
    assert_int_equal(ended_well, 0);
    assert_int_equal(now_running, 0);
}

static struct pool *pool;
static _Atomic int in_threads;

static enum dr_rc adds(void *item, struct cancel *cancel, struct dr_err *err)
{
    (void)cancel;
    (void)err;
    atomic_fetch_add(&in_threads, *(int *)item);
    return DR_OK;
}

static enum dr_rc waits_for_token(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct timespec little = {.tv_nsec = 1000000};
    atomic_fetch_add(&in_threads, 1);
    while (!cancel_pending(cancel))
        (void)nanosleep(&little, NULL);
    *(int *)item = 1;
    return dr_fail(err, DR_E_CANCELLED, "saw the token");
}

static unsigned left;

static void one_item(void *arg)
{
    struct dr_err err = {0};
    if (pool_run(pool, adds, arg, NULL, &err))
        note('!');
    if (--left == 0)
        loop_stop(loop);
}

static void pool_runs_everything_once(void **state)
{
    (void)state;
    struct dr_err err = {0};
    int one = 1;
    atomic_store(&in_threads, 0);
    assert_int_equal(pool_new(loop, 4, &pool, &err), DR_OK);
    left = 500;
    for (int i = 0; i < 500; i++)
        fiber_start(loop, one_item, &one);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(atomic_load(&in_threads), 500);
    assert_string_equal(trace, "");
    pool_free(pool);
}

struct long_item {
    struct cancel cancel;
    int saw;
    enum dr_rc rc;
};

static void runs_long(void *arg)
{
    struct long_item *i = arg;
    struct dr_err err = {0};
    i->rc = pool_run_long(pool, waits_for_token, &i->saw, &i->cancel, &err);
    if (--left == 0)
        loop_stop(loop);
}

static void cancels_all(void *arg)
{
    struct long_item *items = arg;
    while (atomic_load(&in_threads) < 1)
        (void)fiber_sleep(1, NULL);
    int one = 1000;
    struct dr_err err = {0};
    /* All long threads are taken, the last one is kept for short calls. */
    if (pool_run(pool, adds, &one, NULL, &err))
        note('!');
    cancel_fire(&items[1].cancel, DR_E_CANCELLED, "queued");
    cancel_fire(&items[0].cancel, DR_E_CANCELLED, "running");
}

static void pool_cancels_queued_and_running(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct long_item items[2] = {0};
    atomic_store(&in_threads, 0);
    assert_int_equal(pool_new(loop, 2, &pool, &err), DR_OK);
    left = 2;
    for (int i = 0; i < 2; i++) {
        cancel_init(&items[i].cancel, loop);
        fiber_start(loop, runs_long, &items[i]);
    }
    fiber_start(loop, cancels_all, items);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(items[0].rc, DR_E_CANCELLED);
    assert_int_equal(items[1].rc, DR_E_CANCELLED);
    assert_int_equal(items[0].saw, 1);
    assert_int_equal(items[1].saw, 0); /* never ran */
    assert_int_equal(atomic_load(&in_threads), 1001);
    assert_string_equal(trace, "");
    for (int i = 0; i < 2; i++)
        cancel_fini(&items[i].cancel);
    pool_free(pool);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static enum dr_rc tenfold(void *item, struct cancel *cancel, struct dr_err *err)
{
    (void)cancel;
    (void)err;
    *(int *)item *= 10;
    return DR_OK;
}

static void adds_one(void *arg, enum dr_rc rc, const struct dr_err *err)
{
    (void)err;
    *(int *)arg += rc == DR_OK;
}

/* Who submits and goes leaves the freeing to `done`: it is called, also when the loop is not run
 * any more. */
static void pool_free_ends_what_was_submitted(void **state)
{
    struct dr_err err = {0};
    int numbers[20];
    (void)state;
    assert_int_equal(pool_new(loop, 2, &pool, &err), DR_OK);
    for (int i = 0; i < 20; i++) {
        numbers[i] = i;
        pool_submit(pool, tenfold, &numbers[i], adds_one, &numbers[i]);
    }
    pool_free(pool);
    for (int i = 0; i < 20; i++)
        assert_int_equal(numbers[i], i * 10 + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(fibers_run_in_order_and_interleave),
        CASE(wake_is_deferred),
        CASE(cancel_ends_a_sleep),
        CASE(deadline_fires_children),
        CASE(groups_are_bounded),
        CASE(first_error_cancels_the_rest),
        CASE(pool_runs_everything_once),
        CASE(pool_cancels_queued_and_running),
        CASE(pool_free_ends_what_was_submitted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
