/* The engine over a store that fails on request: the `file` row behind a script of refusals, lost
 * answers and delays. Over HTTP it is tested by tests/integration/test_engine.py. */
#include "tests/unit/cm.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/storage/engine.h"
#include "worker/storage/sigv4.h"

enum { SIZE = 1000, PART = 100, PARTS = 10 };

static struct loop *loop;
static struct pool *pool;
static struct engine *engine;
static struct storage_target target;
static struct storage_dialect flaky;
static char folder[64], source[96];
static unsigned char content[SIZE], sum[32];

/* What the store does to the nth call of an operation, from 1; count of them. */
static struct fault {
    enum storage_op op;
    unsigned from, count;
    enum storage_class class;
    bool done_all_the_same; /* the answer is lost */
    uint64_t retry_after_s;
    int64_t date_unix_s;
} faults[4];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned calls[STORAGE_AUTHORISE + 1], in_flight, most_in_flight;
static void (*on_call)(const struct storage_call *c);

static struct fault *fault_of(const struct storage_call *c)
{
    unsigned n = ++calls[c->op];
    for (size_t i = 0; i < CM_COUNT(faults); i++)
        if (faults[i].count && faults[i].op == c->op && n >= faults[i].from &&
            n < faults[i].from + faults[i].count)
            return &faults[i];
    return NULL;
}

static enum storage_class flaky_run(const struct storage_call *c, const void *payload, void *into,
                                    struct cancel *cancel, struct storage_answer *out,
                                    struct dr_err *err)
{
    const struct storage_dialect *real = storage_dialect_find("file");
    (void)pthread_mutex_lock(&lock);
    struct fault *f = fault_of(c);
    if (c->op == STORAGE_PART && ++in_flight > most_in_flight)
        most_in_flight = in_flight;
    (void)pthread_mutex_unlock(&lock);
    if (on_call)
        on_call(c);
    enum storage_class class = STORAGE_OK;
    memset(out, 0, sizeof *out);
    if (!f || f->done_all_the_same)
        class = real->local->run(c, payload, into, cancel, out, err);
    if (f) {
        storage_answer_fini(out);
        dr_err_clear(err);
        out->retry_after_s = f->retry_after_s;
        out->date_unix_s = f->date_unix_s;
        class = storage_fail(err, f->class, "as the test says");
    }
    (void)pthread_mutex_lock(&lock);
    in_flight -= c->op == STORAGE_PART;
    (void)pthread_mutex_unlock(&lock);
    return class;
}

static int setup(void **state)
{
    static const struct storage_local local = {flaky_run};
    struct dr_err err = {0};
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/dr-engine-XXXXXX");
    if (!mkdtemp(folder) || loop_new(&loop, &err) || pool_new(loop, 4, &pool, &err))
        return -1;
    (void)snprintf(source, sizeof source, "%s/.dr-source", folder);
    for (size_t i = 0; i < SIZE; i++)
        content[i] = (unsigned char)(i * 7 + i / 256);
    sigv4_sha256(content, SIZE, sum);
    FILE *f = fopen(source, "w");
    if (!f || fwrite(content, 1, SIZE, f) != SIZE || fclose(f))
        return -1;
    memset(faults, 0, sizeof faults);
    memset(calls, 0, sizeof calls);
    in_flight = most_in_flight = 0;
    on_call = NULL;
    flaky = *storage_dialect_find("file");
    flaky.local = &local;
    target = (struct storage_target){.provider = "file", .bucket = folder};
    struct engine_options o = {.loop = loop,
                               .pool = pool,
                               .dialect = &flaky,
                               .target = &target,
                               .whole_bytes = PART,
                               .part_bytes = PART,
                               .memory_bytes = 3 * PART,
                               .tries = 4,
                               .budget = 6,
                               .backoff_ms = 1,
                               .backoff_cap_ms = 2,
                               .slow_cap_ms = 2};
    return engine_new(&o, &engine, &err) ? -1 : 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    engine_free(engine);
    pool_free(pool);
    loop_free(loop);
    fiber_cache_drop();
    (void)snprintf(command, sizeof command, "rm -rf %s", folder); /* of ours, below /tmp */
    FILE *f = popen(command, "r");
    return f ? pclose(f) : -1;
}

/* One call in a fiber; judged outside of it. */
static struct job {
    enum { PUT, GET, HEAD, LIST, UPLOADS } what;
    struct engine_put put;
    struct engine_stored stored;
    struct cancel *cancel;
    char keys[256];
    enum dr_rc rc;
    struct dr_err err;
    unsigned begun, ended;
    char id[40];
    uint64_t part_bytes;
    uint64_t size;
    const unsigned char *want;
} job;

static enum dr_rc note_begun(void *arg, const char *id, uint64_t part_bytes, struct dr_err *err)
{
    struct job *j = arg;
    (void)err;
    j->begun++;
    j->part_bytes = part_bytes;
    (void)snprintf(j->id, sizeof j->id, "%s", id);
    return DR_OK;
}

static void note_ended(void *arg)
{
    ((struct job *)arg)->ended++;
}

static enum dr_rc note_key(void *arg, const struct storage_entry *e, struct dr_err *err)
{
    struct job *j = arg;
    size_t n = strlen(j->keys);
    (void)err;
    (void)snprintf(j->keys + n, sizeof j->keys - n, "%s ", e->key);
    return DR_OK;
}

static void run_job(void *arg)
{
    struct job *j = arg;
    struct storage_answer a = {0};
    char copy[128];
    int fd = open(source, O_RDONLY | O_CLOEXEC);
    j->put.fd = fd;
    switch (j->what) {
    case PUT:
        j->rc = engine_put(engine, &j->put, j->cancel, &j->stored, &j->err);
        break;
    case GET:
        (void)snprintf(copy, sizeof copy, "%s/.dr-copy", folder);
        int to = open(copy, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        j->rc = engine_get(engine, "a/b", to, j->size, j->want, j->cancel, &j->err);
        (void)close(to);
        break;
    case HEAD:
        j->rc = engine_head(engine, "a/b", j->cancel, &a, &j->err);
        storage_answer_fini(&a);
        break;
    case LIST:
        j->rc = engine_list(engine, "", j->cancel, note_key, j, &j->err);
        break;
    case UPLOADS:
    default:
        j->rc = engine_list_uploads(engine, "", j->cancel, note_key, j, &j->err);
        break;
    }
    (void)close(fd);
    loop_stop(loop);
}

static const struct engine_journal journal = {&job, note_begun, note_ended};

static void go(void)
{
    fiber_start(loop, run_job, &job);
    assert_int_equal(loop_run(loop), 0);
}

static void put(uint64_t size)
{
    job = (struct job){.what = PUT,
                       .put = {.key = "a/b",
                               .label = "store 1",
                               .size = size,
                               .sha256 = sum,
                               .create_only = true,
                               .journal = &journal}};
    if (size == SIZE)
        sigv4_sha256(content, SIZE, sum);
    else
        sigv4_sha256(content, size, sum);
}

static void get_back(uint64_t size)
{
    job = (struct job){.what = GET, .size = size, .want = sum};
    go();
    assert_int_equal(job.rc, DR_OK);
    char copy[128];
    unsigned char bytes[SIZE + 1];
    (void)snprintf(copy, sizeof copy, "%s/.dr-copy", folder);
    FILE *f = fopen(copy, "r");
    assert_non_null(f);
    assert_int_equal(fread(bytes, 1, sizeof bytes, f), size);
    (void)fclose(f);
    assert_memory_equal(bytes, content, size);
}

static void expect_uploads(const char *keys)
{
    job = (struct job){.what = UPLOADS};
    go();
    assert_int_equal(job.rc, DR_OK);
    assert_string_equal(job.keys, keys);
}

static void fails(enum storage_op op, unsigned from, unsigned count, enum storage_class class)
{
    faults[0] = (struct fault){.op = op, .from = from, .count = count, .class = class};
}

static void test_sizes(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, PART, PART + 1, 2 * PART, SIZE - 1, SIZE};
    for (size_t i = 0; i < CM_COUNT(sizes); i++) {
        put(sizes[i]);
        job.put.create_only = false;
        go();
        assert_int_equal(job.rc, DR_OK);
        assert_int_equal(job.begun, sizes[i] > PART);
        assert_int_equal(job.ended, job.begun);
        assert_int_equal(job.stored.parts, sizes[i] > PART ? (sizes[i] + PART - 1) / PART : 0);
        get_back(sizes[i]);
    }
    expect_uploads("");
    job = (struct job){.what = LIST};
    go();
    assert_string_equal(job.keys, "a/b ");
}

/* At once: what memory allows, the part that is read included. */
static void test_memory_bounds_the_parts(void **state)
{
    (void)state;
    put(SIZE);
    go();
    assert_int_equal(job.rc, DR_OK);
    assert_true(most_in_flight >= 1 && most_in_flight <= 2);
}

static void test_what_may_pass_is_repeated(void **state)
{
    (void)state;
    static const enum storage_op ops[] = {STORAGE_BEGIN, STORAGE_PART, STORAGE_COMPLETE};
    for (size_t i = 0; i < CM_COUNT(ops); i++) {
        memset(calls, 0, sizeof calls);
        fails(ops[i], 1, 3, i % 2 ? STORAGE_THROTTLED : STORAGE_TRANSIENT);
        put(SIZE);
        job.put.create_only = false;
        go();
        assert_int_equal(job.rc, DR_OK);
        assert_int_equal(calls[ops[i]], 3 + (ops[i] == STORAGE_PART ? PARTS : 1));
        get_back(SIZE);
        engine_refill(engine);
    }
}

static void test_tries_and_budget_end(void **state)
{
    (void)state;
    struct engine_numbers n;
    fails(STORAGE_HEAD, 1, 100, STORAGE_TRANSIENT);
    job = (struct job){.what = HEAD};
    go();
    assert_int_equal(job.rc, DR_E_UNREACHABLE);
    assert_string_equal(job.err.reason, "store-error");
    assert_int_equal(calls[STORAGE_HEAD], 4); /* tries */
    job = (struct job){.what = HEAD};
    go();
    job = (struct job){.what = HEAD}; /* 6 repeats are used up */
    go();
    assert_int_equal(calls[STORAGE_HEAD], 9);
    assert_non_null(strstr(job.err.msg, "no repeats left"));
    engine_look(engine, &n);
    assert_int_equal(n.repeats, 6);
    assert_int_equal(n.requests, 9);
    engine_refill(engine);
    job = (struct job){.what = HEAD};
    go();
    assert_int_equal(calls[STORAGE_HEAD], 13);
}

static void test_what_will_not_pass_is_not(void **state)
{
    (void)state;
    static const enum storage_class classes[] = {STORAGE_AUTH,      STORAGE_EXPIRED,
                                                 STORAGE_NO_BUCKET, STORAGE_REGION,
                                                 STORAGE_READ_ONLY, STORAGE_SKEW};
    for (size_t i = 0; i < CM_COUNT(classes); i++) {
        memset(calls, 0, sizeof calls);
        fails(STORAGE_PUT, 1, 100, classes[i]);
        put(PART);
        go();
        assert_int_equal(job.rc, storage_class_rc(classes[i]));
        assert_string_equal(job.err.reason, storage_class_text(classes[i]));
        assert_int_equal(calls[STORAGE_PUT], 1);
    }
}

static int64_t told_now;
static void note_now(const struct storage_call *c)
{
    told_now = c->now_unix_s;
}

/* The store's clock is learnt once, and counts from then on. */
static void test_a_skewed_clock_is_learnt(void **state)
{
    (void)state;
    put(PART);
    faults[0] = (struct fault){
        .op = STORAGE_PUT, .from = 1, .count = 1, .class = STORAGE_SKEW, .date_unix_s = 2000000000};
    on_call = note_now;
    go();
    assert_int_equal(job.rc, DR_OK);
    assert_int_equal(calls[STORAGE_PUT], 2);
    assert_true(told_now >= 2000000000 && told_now < 2000000100);
}

static void test_lost_answers(void **state)
{
    (void)state;
    static const struct {
        enum storage_op op;
        uint64_t size;
    } cases[] = {{STORAGE_PUT, PART}, {STORAGE_PART, SIZE}, {STORAGE_COMPLETE, SIZE}};
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        char path[128];
        memset(calls, 0, sizeof calls);
        fails(cases[i].op, 1, 1, STORAGE_TRANSIENT);
        faults[0].done_all_the_same = true;
        put(cases[i].size);
        go();
        assert_int_equal(job.rc, DR_OK);
        assert_int_equal(job.stored.already, cases[i].op != STORAGE_PART);
        assert_int_equal(job.ended, job.begun);
        get_back(cases[i].size);
        expect_uploads("");
        (void)snprintf(path, sizeof path, "%s/a/b", folder);
        assert_int_equal(unlink(path), 0);
    }
}

static void test_another_object_is_there(void **state)
{
    (void)state;
    put(SIZE - 1);
    go();
    assert_int_equal(job.rc, DR_OK);
    for (unsigned i = 0; i < 2; i++) {
        put(i ? SIZE : PART);
        go();
        assert_int_equal(job.rc, DR_E_EXISTS);
        assert_false(job.stored.already);
        assert_int_equal(job.ended, job.begun); /* and what was begun was aborted */
    }
    put(SIZE - 1); /* the very same */
    go();
    assert_int_equal(job.rc, DR_OK);
    assert_true(job.stored.already);
    get_back(SIZE - 1);
    expect_uploads("");
}

static void test_a_changed_file_is_never_completed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        put(i ? SIZE : PART);
        if (i == 2)
            job.put.size = SIZE + 50; /* shorter than it was */
        else
            sum[0] ^= 1;
        go();
        assert_int_equal(job.rc, DR_E_INTEGRITY);
        assert_string_equal(job.err.reason, "file-changed");
        assert_int_equal(job.ended, job.begun);
    }
    expect_uploads("");
    assert_int_equal(calls[STORAGE_PUT] + calls[STORAGE_COMPLETE], 0);
}

/* A failure that may pass leaves the journaled upload; the next one sends only what is missing. */
static void test_an_upload_is_gone_on_with(void **state)
{
    (void)state;
    char id[40];
    put(SIZE);
    fails(STORAGE_PART, 6, 100, STORAGE_TRANSIENT);
    go();
    assert_int_equal(job.rc, DR_E_UNREACHABLE);
    assert_true(job.begun == 1 && job.ended == 0);
    memcpy(id, job.id, sizeof id);
    expect_uploads("a/b ");
    memset(faults, 0, sizeof faults);
    memset(calls, 0, sizeof calls);
    engine_refill(engine);
    put(SIZE);
    job.put.resume_id = id;
    job.put.resume_part_bytes = PART;
    go();
    assert_int_equal(job.rc, DR_OK);
    assert_true(job.stored.resumed);
    assert_int_equal(job.stored.kept_parts, 5);
    assert_int_equal(calls[STORAGE_PART], PARTS - 5);
    assert_int_equal(calls[STORAGE_BEGIN], 0);
    assert_int_equal(job.ended, 1);
    get_back(SIZE);
    /* killed after the completion, before the journal knew: nothing is sent */
    memset(calls, 0, sizeof calls);
    put(SIZE);
    job.put.resume_id = id;
    job.put.resume_part_bytes = PART;
    go();
    assert_int_equal(job.rc, DR_OK);
    assert_true(job.stored.already);
    assert_int_equal(calls[STORAGE_PART] + calls[STORAGE_BEGIN], 0);
    assert_int_equal(job.ended, 1);
}

/* Ended by a rule of the bucket in the middle: begun anew, once. */
static void test_an_upload_that_is_gone(void **state)
{
    (void)state;
    put(SIZE);
    fails(STORAGE_PART, 5, 1, STORAGE_NO_UPLOAD);
    go();
    assert_int_equal(job.rc, DR_OK);
    assert_int_equal(calls[STORAGE_BEGIN], 2);
    assert_int_equal(job.begun, 2);
    get_back(SIZE);
    put(SIZE);
    job.put.create_only = false;
    memset(calls, 0, sizeof calls);
    fails(STORAGE_PART, 1, 100, STORAGE_NO_UPLOAD);
    go();
    assert_int_equal(job.rc, DR_E_NOT_FOUND);
    assert_string_equal(job.err.reason, "no-upload");
    assert_int_equal(calls[STORAGE_BEGIN], 2);
}

/* A refusal for good aborts what was begun; so does any failure where nobody keeps a journal. */
static void test_what_was_begun_is_aborted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        memset(calls, 0, sizeof calls);
        put(SIZE);
        fails(STORAGE_PART, 3, 100, i ? STORAGE_TRANSIENT : STORAGE_READ_ONLY);
        if (i)
            job.put.journal = NULL;
        go();
        assert_int_equal(job.rc, i ? DR_E_UNREACHABLE : DR_E_REFUSED);
        assert_int_equal(calls[STORAGE_ABORT], 1);
        assert_int_equal(job.ended, i ? 0 : 1);
        expect_uploads("");
    }
}

static void fire(void *arg)
{
    cancel_fire(arg, DR_E_CANCELLED, "the test says so");
}

static void test_cancel_during_a_pause(void **state)
{
    (void)state;
    struct cancel c;
    struct fault f = {.op = STORAGE_HEAD,
                      .from = 1,
                      .count = 100,
                      .class = STORAGE_THROTTLED,
                      .retry_after_s = 800};
    faults[0] = f;
    cancel_init(&c, loop);
    job = (struct job){.what = HEAD, .cancel = &c};
    struct loop_timer *t = loop_timer_new(loop, fire, &c);
    loop_timer_arm(t, 50);
    go();
    assert_int_equal(job.rc, DR_E_CANCELLED);
    assert_int_equal(calls[STORAGE_HEAD], 1); /* Retry-After was honoured */
    loop_timer_free(t);
    cancel_fini(&c);
}

static void test_downloads_that_are_not_right(void **state)
{
    (void)state;
    put(SIZE);
    go();
    assert_int_equal(job.rc, DR_OK);
    job = (struct job){.what = GET, .size = SIZE - 1, .want = sum};
    go();
    assert_int_equal(job.rc, DR_E_INTEGRITY);
    unsigned char other[32] = {0};
    job = (struct job){.what = GET, .size = SIZE, .want = other};
    go();
    assert_int_equal(job.rc, DR_E_INTEGRITY);
    assert_string_equal(job.err.reason, "integrity");
    fails(STORAGE_GET, calls[STORAGE_GET] + 4, 1, STORAGE_CHANGED);
    job = (struct job){.what = GET, .size = SIZE, .want = sum};
    go();
    assert_int_equal(job.rc, DR_E_INTEGRITY);
    assert_string_equal(job.err.reason, "changed");
    fails(STORAGE_GET, calls[STORAGE_GET] + 2, 3, STORAGE_TRANSIENT);
    get_back(SIZE);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_sizes),
        T(test_memory_bounds_the_parts),
        T(test_what_may_pass_is_repeated),
        T(test_tries_and_budget_end),
        T(test_what_will_not_pass_is_not),
        T(test_a_skewed_clock_is_learnt),
        T(test_lost_answers),
        T(test_another_object_is_there),
        T(test_a_changed_file_is_never_completed),
        T(test_an_upload_is_gone_on_with),
        T(test_an_upload_that_is_gone),
        T(test_what_was_begun_is_aborted),
        T(test_cancel_during_a_pause),
        T(test_downloads_that_are_not_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
