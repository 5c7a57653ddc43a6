/* The crew: order outside whatever the threads do, the first error of the stream wins, cancel,
 * and that it can be left in any state. Steps are delayed by spinning, not by sleeping. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "tests/unit/cm.h"
#include "worker/pipe/crew.h"

enum { SEGMENTS = 6, NEVER = 1 << 30 };

struct item {
    unsigned number, worked;
};

struct stream {
    struct item items[SEGMENTS];
    void *pointers[SEGMENTS];
    unsigned filled, drained, total;
    unsigned bad_fill, bad_work, bad_drain; /* segment that fails */
    _Atomic unsigned in_turn;               /* fill and drain: one at a time each */
    unsigned seed;
};

static void spin(unsigned number)
{
    for (unsigned i = 0; i < number * 7919 % 13; i++)
        (void)sched_yield();
}

static enum dr_rc fill(void *arg, void *segment, bool *last, struct dr_err *err)
{
    struct stream *s = arg;
    struct item *it = segment;
    assert_int_equal(atomic_fetch_add(&s->in_turn, 1), 0);
    spin(s->filled + s->seed);
    it->number = s->filled++;
    it->worked = 0;
    *last = s->filled == s->total;
    atomic_fetch_sub(&s->in_turn, 1);
    return it->number == s->bad_fill ? dr_fail(err, DR_E_IO, "fill %u", it->number) : DR_OK;
}

static enum dr_rc work(void *arg, unsigned worker, void *segment, struct dr_err *err)
{
    struct stream *s = arg;
    struct item *it = segment;
    assert_true(worker < CREW_THREADS_MAX);
    spin(it->number * 3 + s->seed);
    it->worked++;
    return it->number == s->bad_work ? dr_fail(err, DR_E_INTEGRITY, "work %u", it->number) : DR_OK;
}

static enum dr_rc drain(void *arg, void *segment, struct dr_err *err)
{
    struct stream *s = arg;
    const struct item *it = segment;
    assert_int_equal(atomic_fetch_add(&s->in_turn, 1), 0);
    spin(it->number + s->seed);
    assert_int_equal(it->number, s->drained);
    assert_int_equal(it->worked, 1);
    s->drained++;
    atomic_fetch_sub(&s->in_turn, 1);
    return it->number == s->bad_drain ? dr_fail(err, DR_E_NO_SPACE, "drain %u", it->number) : DR_OK;
}

static void set_up(struct stream *s, struct crew_spec *spec, unsigned threads, unsigned total)
{
    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < SEGMENTS; i++)
        s->pointers[i] = &s->items[i];
    s->total = total;
    s->bad_fill = s->bad_work = s->bad_drain = NEVER;
    *spec = (struct crew_spec){.threads = threads,
                               .segments = s->pointers,
                               .count = threads ? SEGMENTS : 1,
                               .work = work,
                               .arg = s};
}

/* Submits up to s->total segments; the crew's answer. */
static enum dr_rc write_stream(struct stream *s, struct crew *c, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; !rc && i < s->total; i++) {
        void *segment = NULL;
        rc = crew_room(c, &segment, err);
        if (rc)
            return rc;
        struct item *it = segment;
        it->number = i;
        it->worked = 0;
        rc = crew_submit(c, err);
    }
    return rc ? rc : crew_flush(c, err);
}

static enum dr_rc read_stream(struct crew *c, unsigned *count, struct dr_err *err)
{
    void *segment = NULL;
    enum dr_rc rc;
    *count = 0;
    while (!(rc = crew_take(c, &segment, err)) && segment) {
        const struct item *it = segment;
        assert_int_equal(it->number, *count);
        assert_int_equal(it->worked, 1);
        ++*count;
    }
    return rc;
}

static void test_order(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= 4; threads++)
        for (unsigned total = 1; total < 60; total += 13) {
            struct stream s;
            struct crew_spec spec;
            struct crew *c = NULL;
            unsigned count = 0;
            set_up(&s, &spec, threads, total);
            s.seed = threads + total;
            spec.drain = drain;
            assert_int_equal(crew_new(&spec, &c, NULL), DR_OK);
            assert_int_equal(write_stream(&s, c, NULL), DR_OK);
            assert_int_equal(s.drained, total);
            crew_free(c);
            set_up(&s, &spec, threads, total);
            spec.fill = fill;
            assert_int_equal(crew_new(&spec, &c, NULL), DR_OK);
            assert_int_equal(read_stream(c, &count, NULL), DR_OK);
            assert_int_equal(count, total);
            crew_free(c);
        }
}

/* Whatever fails first in the stream's order comes out, after everything before it. */
static void test_first_error_of_the_stream(void **state)
{
    static const struct {
        unsigned fill, work, comes;
        const char *msg;
    } cases[] = {{NEVER, 7, 7, "work 7"}, {9, 7, 7, "work 7"},     {7, 9, 7, "fill 7"},
                 {0, NEVER, 0, "fill 0"}, {NEVER, 0, 0, "work 0"}, {10, 9, 9, "work 9"}};
    (void)state;
    for (unsigned threads = 0; threads <= 4; threads++)
        for (size_t i = 0; i < CM_COUNT(cases) * 5; i++) {
            struct stream s;
            struct crew_spec spec;
            struct crew *c = NULL;
            struct dr_err err = {0};
            unsigned count = 0;
            size_t n = i % CM_COUNT(cases);
            set_up(&s, &spec, threads, 40);
            s.seed = (unsigned)i;
            s.bad_fill = cases[n].fill;
            s.bad_work = cases[n].work;
            spec.fill = fill;
            assert_int_equal(crew_new(&spec, &c, NULL), DR_OK);
            assert_true(read_stream(c, &count, &err) != DR_OK);
            assert_int_equal(count, cases[n].comes);
            assert_string_equal(err.msg, cases[n].msg);
            dr_err_clear(&err);
            assert_true(read_stream(c, &count, &err) != DR_OK); /* it stays */
            assert_string_equal(err.msg, cases[n].msg);
            crew_free(c);
        }
}

static void test_writer_errors(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= 4; threads++)
        for (unsigned bad = 0; bad < 40; bad += 13) {
            struct stream s;
            struct crew_spec spec;
            struct crew *c = NULL;
            struct dr_err err = {0};
            set_up(&s, &spec, threads, 40);
            s.bad_drain = bad;
            spec.drain = drain;
            assert_int_equal(crew_new(&spec, &c, NULL), DR_OK);
            assert_int_equal(write_stream(&s, c, &err), DR_E_NO_SPACE);
            assert_int_equal(s.drained, bad + 1);
            dr_err_clear(&err);
            assert_int_equal(crew_flush(c, &err), DR_E_NO_SPACE);
            crew_free(c);
            set_up(&s, &spec, threads, 40);
            s.bad_work = bad;
            spec.drain = drain;
            assert_int_equal(crew_new(&spec, &c, NULL), DR_OK);
            dr_err_clear(&err);
            assert_int_equal(write_stream(&s, c, &err), DR_E_INTEGRITY);
            assert_int_equal(s.drained, bad);
            crew_free(c);
        }
}

static void test_cancel(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= 2; threads++) {
        struct cancel cancel;
        struct stream s;
        struct crew_spec spec;
        struct crew *c = NULL;
        struct dr_err err = {0};
        void *segment = NULL;
        cancel_init(&cancel, NULL);
        set_up(&s, &spec, threads, NEVER);
        spec.fill = fill;
        spec.cancel = &cancel;
        assert_int_equal(crew_new(&spec, &c, NULL), DR_OK);
        assert_int_equal(crew_take(c, &segment, NULL), DR_OK);
        cancel_fire(&cancel, DR_E_CANCELLED, "the test says so");
        while (crew_take(c, &segment, &err) == DR_OK)
            assert_non_null(segment);
        assert_int_equal(err.rc, DR_E_CANCELLED);
        assert_string_equal(err.msg, "the test says so");
        crew_free(c);
        cancel_fini(&cancel);
    }
}

/* Fired when all steps are taken already: the next call still says so. */
static void test_cancel_when_all_is_done(void **state)
{
    (void)state;
    for (unsigned threads = 0; threads <= 2; threads++) {
        struct cancel cancel;
        struct stream s;
        struct crew_spec spec;
        struct crew *c = NULL;
        cancel_init(&cancel, NULL);
        set_up(&s, &spec, threads, 3);
        spec.drain = drain;
        spec.cancel = &cancel;
        assert_int_equal(crew_new(&spec, &c, NULL), DR_OK);
        assert_int_equal(write_stream(&s, c, NULL), DR_OK);
        cancel_fire(&cancel, DR_E_TIMEOUT, "too late");
        assert_int_equal(crew_flush(c, NULL), DR_E_TIMEOUT);
        assert_int_equal(crew_flush(c, NULL), DR_E_TIMEOUT);
        crew_free(c);
        cancel_fini(&cancel);
    }
}

/* Left at once, with segments in every state. */
static void test_free_anywhere(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        struct stream s;
        struct crew_spec spec;
        struct crew *c = NULL;
        void *segment = NULL;
        set_up(&s, &spec, i % 4, NEVER);
        s.seed = i;
        spec.fill = fill;
        assert_int_equal(crew_new(&spec, &c, NULL), DR_OK);
        for (unsigned j = 0; j < i % 5; j++)
            assert_int_equal(crew_take(c, &segment, NULL), DR_OK);
        crew_free(c);
        set_up(&s, &spec, i % 4, NEVER);
        spec.drain = drain;
        assert_int_equal(crew_new(&spec, &c, NULL), DR_OK);
        for (unsigned j = 0; j < i % 9; j++) {
            assert_int_equal(crew_room(c, &segment, NULL), DR_OK);
            *(struct item *)segment = (struct item){.number = j};
            assert_int_equal(crew_submit(c, NULL), DR_OK);
        }
        crew_free(c);
    }
    crew_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order),
                                       cmocka_unit_test(test_first_error_of_the_stream),
                                       cmocka_unit_test(test_writer_errors),
                                       cmocka_unit_test(test_cancel),
                                       cmocka_unit_test(test_cancel_when_all_is_done),
                                       cmocka_unit_test(test_free_anywhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
