/* The engine of containers: parallel and inline writers give the same stream, any range over
 * several containers, errors of disks and callbacks, cuts of every length. */
#include "tests/unit/backup/vectors.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "worker/backup/container_internal.h"

enum { MANY = 5 << 20, REFS_MAX = 4096, ROUNDS = KEYRING_ROUNDS_MIN };

static struct keyring *keys;

struct refs { /* chunks as they were written, then given back */
    struct container_ref all[REFS_MAX];
    size_t count, at;
    uint32_t container;
};

static int set_up(void **state)
{
    struct dr_secret pass = {0};
    (void)state;
    vec_secret("a passphrase of the tests", &pass);
    enum dr_rc rc = keyring_create("00112233445566778899aabbccddeeff", &pass, ROUNDS, &keys, NULL);
    dr_secret_free(&pass);
    return (int)rc;
}

static int tear_down(void **state)
{
    (void)state;
    keyring_free(keys);
    return 0;
}

static int memfile(void)
{
    int fd = memfd_create("container", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* Half noise, half rows; the same for the same seed. */
static unsigned char *stream(size_t len, unsigned seed)
{
    unsigned char *p = dr_xalloc(len + 64);
    uint64_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < len; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        p[i] = i / 50000 % 2 ? (unsigned char)(x >> 40) : (unsigned char)('0' + (i + seed) % 7);
    }
    return p;
}

static enum dr_rc remember(void *arg, const struct container_chunk *c, struct dr_err *err)
{
    struct refs *refs = arg;
    (void)err;
    assert_true(refs->count < REFS_MAX);
    struct container_ref *f = &refs->all[refs->count++];
    memcpy(f->name, c->name, sizeof f->name);
    f->container = refs->container;
    f->offset = c->offset;
    f->stored_len = c->stored_len;
    f->plain_len = c->plain_len;
    return DR_OK;
}

static enum dr_rc give_back(void *arg, struct container_ref *out, bool *end, struct dr_err *err)
{
    struct refs *refs = arg;
    (void)err;
    *end = refs->at == refs->count;
    if (!*end)
        *out = refs->all[refs->at++];
    return DR_OK;
}

static struct container_spec spec_for(int fd, unsigned level, unsigned threads)
{
    return (struct container_spec){.keys = keys,
                                   .backup_id = "20260102T030405Z-files-h2yvh6de",
                                   .series = "files:default",
                                   .level = level,
                                   .threads = threads,
                                   .fd = fd};
}

/* Written in pieces of odd lengths, by copy and by reserve in turns. */
static enum dr_rc write_stream(const struct container_spec *spec, const unsigned char *p,
                               size_t len, struct container_sums *sums, struct dr_err *err)
{
    struct container_writer *w = NULL;
    enum dr_rc rc = container_writer_new(spec, &w, err);
    for (size_t at = 0, turn = 1; !rc && at < len; turn++) {
        size_t n = turn * 7919 % 100003, have = 0;
        void *room = NULL;
        n = n < len - at ? n : len - at;
        if (turn % 2) {
            rc = container_write(w, p + at, n, err);
        } else if (!(rc = container_reserve(w, &room, &have, err))) {
            assert_true(have > 0);
            n = n < have ? n : have;
            memcpy(room, p + at, n);
            rc = container_commit(w, n, err);
        }
        at += n;
    }
    if (!rc)
        rc = container_finish(w, sums, err);
    container_writer_free(w);
    return rc;
}

static struct container *open_again(int fd)
{
    struct container *c = NULL;
    struct dr_err err = {0};
    if (container_open(dup(fd), keys, NULL, &c, &err))
        fail_msg("%s", err.msg);
    return c;
}

/* Reads and compares; want NULL: only the answer counts. */
static enum dr_rc read_stream(const struct container_reader_spec *spec, const unsigned char *want,
                              size_t len, struct container_sums *sums, struct dr_err *err)
{
    struct container_reader *r = NULL;
    const void *p = NULL;
    size_t n = 0, at = 0;
    enum dr_rc rc = container_reader_new(spec, &r, err);
    while (!rc && !(rc = container_read(r, &p, &n, err)) && n > 0) {
        assert_true(!want || (n <= len - at && memcmp(p, want + at, n) == 0));
        at += n;
    }
    if (!rc) {
        assert_true(!want || at == len);
        rc = container_read(r, &p, &n, err); /* the end stays the end */
        assert_int_equal(n, 0);
    }
    if (!rc && sums)
        rc = container_reader_sums(r, sums, err);
    container_reader_free(r);
    return rc;
}

static void check_size(size_t len, unsigned level)
{
    unsigned char *plain = stream(len, (unsigned)len);
    struct refs *refs = dr_xalloc(sizeof *refs);
    struct container_sums first, sums, back;
    for (unsigned threads = 0; threads <= 3; threads++) {
        int fd = memfile();
        struct container_spec spec = spec_for(fd, level, threads);
        _Atomic uint64_t progress = 0;
        spec.on_chunk = remember;
        spec.arg = refs;
        spec.progress = &progress;
        refs->count = 0;
        assert_int_equal(write_stream(&spec, plain, len, &sums, NULL), DR_OK);
        assert_int_equal(progress, len);
        if (threads == 0)
            first = sums;
        assert_memory_equal(sums.root, first.root, sizeof sums.root);
        assert_int_equal(sums.plain_bytes, len);
        assert_int_equal(sums.stored_bytes, first.stored_bytes);
        assert_int_equal(sums.chunks, (len + FRAME_CUT - 1) / FRAME_CUT);
        struct container *c = open_again(fd);
        for (unsigned i = 0; i < 8; i++) {
            const struct container_reader_spec how = {.containers = &c,
                                                      .count = 1,
                                                      .next = i & 1 ? give_back : NULL,
                                                      .arg = refs,
                                                      .whole = i & 2,
                                                      .threads = i & 4 ? 2 : 0};
            refs->at = 0;
            assert_int_equal(read_stream(&how, plain, len, &back, NULL), DR_OK);
            assert_memory_equal(back.root, sums.root, sizeof sums.root);
            if (how.whole)
                assert_memory_equal(back.sha256_payload, sums.sha256_payload, 32);
        }
        container_close(c);
        (void)close(fd);
    }
    free(refs);
    free(plain);
}

static void test_sizes(void **state)
{
    static const size_t sizes[] = {
        0,     1,      16383,   16384,   16385,   65535,   65536,    65537,
        98304, 131072, 1048575, 1048576, 1048577, 2097152, MANY - 1, 3 * 1048576 + 12345};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(sizes); i++)
        for (unsigned level = 0; level <= 1; level++)
            check_size(sizes[i], level);
}

/* A chain: chunks of three containers of both kinds, in any order, some of them twice. */
static void test_chain(void **state)
{
    static const unsigned levels[] = {1, 0, 9};
    struct refs *refs = dr_xalloc(sizeof *refs), *chain = dr_xalloc(sizeof *chain);
    struct container *containers[CM_COUNT(levels)];
    unsigned char *plain[CM_COUNT(levels)], *want = dr_xalloc(400 * FRAME_CUT);
    size_t len = 0;
    struct container_sums sums;
    (void)state;
    for (unsigned i = 0; i < CM_COUNT(levels); i++) {
        int fd = memfile();
        struct container_spec spec = spec_for(fd, levels[i], 0);
        spec.on_chunk = remember;
        spec.arg = refs;
        refs->container = i;
        plain[i] = stream(MANY / 2, i + 100);
        assert_int_equal(write_stream(&spec, plain[i], MANY / 2, &sums, NULL), DR_OK);
        containers[i] = open_again(fd);
        (void)close(fd);
    }
    for (unsigned i = 0; i < 300; i++) {
        size_t pick = i < 100 ? i % refs->count : i * 2654435761u % refs->count;
        const struct container_ref *f = &refs->all[pick];
        size_t at = pick % (refs->count / CM_COUNT(levels)) * FRAME_CUT;
        chain->all[chain->count++] = *f;
        memcpy(want + len, plain[f->container] + at, f->plain_len);
        len += f->plain_len;
    }
    for (unsigned threads = 0; threads <= 2; threads++) {
        const struct container_reader_spec how = {.containers = containers,
                                                  .count = CM_COUNT(levels),
                                                  .next = give_back,
                                                  .arg = chain,
                                                  .threads = threads};
        chain->at = 0;
        assert_int_equal(read_stream(&how, want, len, &sums, NULL), DR_OK);
        assert_int_equal(sums.chunks, 300);
    }
    for (unsigned i = 0; i < CM_COUNT(levels); i++) {
        container_close(containers[i]);
        free(plain[i]);
    }
    free(want);
    free(refs);
    free(chain);
}

/* What the references may not say. */
static void test_bad_references(void **state)
{
    static const char *const reasons[] = {"chunk-name",  "chunk-order", "chunk-order",
                                          "chunk-range", "chunk-range", "chunk-range",
                                          "chunk-range", "frame",       "frame"};
    struct refs *refs = dr_xalloc(sizeof *refs), good;
    unsigned char *plain = stream(MANY / 2, 9);
    struct container_sums sums;
    int fd = memfile();
    struct container_spec spec = spec_for(fd, 1, 0);
    (void)state;
    spec.on_chunk = remember;
    spec.arg = refs;
    assert_int_equal(write_stream(&spec, plain, MANY / 2, &sums, NULL), DR_OK);
    struct container *c = open_again(fd);
    good = *refs;
    for (unsigned i = 0; i < CM_COUNT(reasons) * 3; i++) {
        unsigned n = i % CM_COUNT(reasons);
        struct container_ref *f = &refs->all[n + 3];
        struct dr_err err = {0};
        *refs = good;
        if (n == 0)
            f->name[15] ^= 1;
        else if (n == 1)
            refs->count--; /* the last one is not named */
        else if (n == 2)
            refs->all[5] = refs->all[4];
        else if (n == 3)
            f->container = 1;
        else if (n == 4)
            f->offset = UINT64_MAX - 3;
        else if (n == 5)
            f->stored_len = FRAME_STORED_MAX + 1;
        else if (n == 6)
            f->plain_len = 0;
        else if (n == 7)
            f->plain_len--;
        else
            f->offset++, f->stored_len--;
        const struct container_reader_spec how = {.containers = &c,
                                                  .count = 1,
                                                  .next = give_back,
                                                  .arg = refs,
                                                  .whole = n == 1 || n == 2,
                                                  .threads = i / (unsigned)CM_COUNT(reasons)};
        assert_int_equal(read_stream(&how, NULL, 0, NULL, &err), DR_E_INTEGRITY);
        assert_string_equal(err.reason, reasons[n]);
    }
    container_close(c);
    (void)close(fd);
    free(plain);
    free(refs);
}

/* Every length short of the first chunk, and around every border of encrypted chunks. */
static void test_cuts(void **state)
{
    unsigned char *plain = stream(5 * AEAD_CHUNK + 77, 4);
    struct container_sums sums;
    int fd = memfile();
    struct container_spec spec = spec_for(fd, 0, 0);
    (void)state;
    assert_int_equal(write_stream(&spec, plain, 5 * AEAD_CHUNK + 77, &sums, NULL), DR_OK);
    unsigned char *file = dr_xalloc(sums.stored_bytes);
    assert_int_equal(pread(fd, file, sums.stored_bytes, 0), (ssize_t)sums.stored_bytes);
    for (uint64_t to = sums.stored_bytes; to-- > 0;) {
        uint64_t past = to < AT_CHUNKS ? 0 : (to - AT_CHUNKS) % AEAD_SEALED;
        struct container *c = NULL;
        struct dr_err err = {0};
        const char *want = to < CONTAINER_HEADER       ? "header-short"
                           : to < AT_CHUNKS + AEAD_TAG ? "payload-length"
                           : past == 0                 ? "truncated"
                           : past < AEAD_TAG           ? "payload-length"
                                                       : "chunk-tag";
        if (to > AT_CHUNKS + 20 && past > 20 && past < AEAD_SEALED - 3)
            continue;
        assert_int_equal(ftruncate(fd, (off_t)to), 0);
        enum dr_rc rc = container_open(dup(fd), keys, NULL, &c, &err);
        const struct container_reader_spec how = {.containers = &c, .count = 1};
        if (!rc)
            rc = read_stream(&how, NULL, 0, NULL, &err);
        assert_int_equal(rc, DR_E_INTEGRITY);
        assert_string_equal(err.reason, want);
        container_close(c);
    }
    (void)close(fd);
    free(file);
    free(plain);
}

/* Encrypted chunks exchanged, repeated, left out, of any two of them. */
static void test_chunks_moved(void **state)
{
    enum { CHUNKS = 6 };
    unsigned char *plain = stream(CHUNKS * AEAD_CHUNK, 5), *file;
    struct container_sums sums;
    int fd = memfile();
    struct container_spec spec = spec_for(fd, 0, 0);
    (void)state;
    assert_int_equal(write_stream(&spec, plain, CHUNKS * AEAD_CHUNK, &sums, NULL), DR_OK);
    file = dr_xalloc(sums.stored_bytes);
    assert_int_equal(pread(fd, file, sums.stored_bytes, 0), (ssize_t)sums.stored_bytes);
    for (unsigned i = 0; i < CHUNKS * CHUNKS; i++) {
        unsigned a = i / CHUNKS, b = i % CHUNKS;
        off_t at_a = AT_CHUNKS + (off_t)a * AEAD_SEALED, at_b = AT_CHUNKS + (off_t)b * AEAD_SEALED;
        struct container *c = NULL;
        struct dr_err err = {0};
        if (a == b)
            continue;
        assert_int_equal(pwrite(fd, file + at_b, AEAD_SEALED, at_a), AEAD_SEALED); /* twice there */
        if (a < b)
            assert_int_equal(pwrite(fd, file + at_a, AEAD_SEALED, at_b), AEAD_SEALED);
        c = open_again(fd);
        const struct container_reader_spec how = {.containers = &c, .count = 1, .threads = 2};
        assert_int_equal(read_stream(&how, NULL, 0, NULL, &err), DR_E_INTEGRITY);
        assert_string_equal(err.reason, "chunk-tag");
        container_close(c);
        assert_int_equal(pwrite(fd, file, sums.stored_bytes, 0), (ssize_t)sums.stored_bytes);
    }
    (void)close(fd);
    free(file);
    free(plain);
}

/* The disk is full somewhere in the middle, then in the last chunk. */
static void test_no_space(void **state)
{
    struct rlimit was, low;
    unsigned char *plain = stream(MANY, 6);
    struct container_sums sums;
    char path[] = "/tmp/dr-test-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    struct container_spec spec = spec_for(fd, 1, 0);
    (void)state;
    assert_true(fd >= 0);
    (void)unlink(path);
    assert_int_equal(write_stream(&spec, plain, MANY, &sums, NULL), DR_OK);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    for (unsigned i = 0; i < 9; i++) {
        static const uint64_t at[] = {100, 1000000, 0};
        struct dr_err err = {0};
        low = was;
        low.rlim_cur = at[i % 3] ? at[i % 3] : sums.stored_bytes - 1;
        spec.threads = i / 3;
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        enum dr_rc rc = write_stream(&spec, plain, MANY, &sums, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(rc, DR_E_IO);
        assert_int_equal(err.detail, EFBIG);
    }
    (void)close(fd);
    spec.fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    struct dr_err err = {0};
    assert_int_equal(write_stream(&spec, plain, MANY, &sums, &err), DR_E_NO_SPACE);
    (void)close(spec.fd);
    free(plain);
}

static enum dr_rc refuse_third(void *arg, const struct container_chunk *c, struct dr_err *err)
{
    (void)c;
    return ++*(unsigned *)arg == 3 ? dr_fail(err, DR_E_SQL, "the third one") : DR_OK;
}

static enum dr_rc fail_next(void *arg, struct container_ref *out, bool *end, struct dr_err *err)
{
    (void)arg;
    (void)out;
    (void)end;
    return dr_fail(err, DR_E_SQL, "no reference");
}

static void test_callbacks_fail(void **state)
{
    unsigned char *plain = stream(MANY, 7);
    struct container_sums sums;
    (void)state;
    for (unsigned threads = 0; threads <= 2; threads++) {
        int fd = memfile();
        struct container_spec spec = spec_for(fd, 1, threads);
        struct dr_err err = {0};
        unsigned count = 0;
        spec.on_chunk = refuse_third;
        spec.arg = &count;
        assert_int_equal(write_stream(&spec, plain, MANY, &sums, &err), DR_E_SQL);
        assert_string_equal(err.msg, "the third one");
        spec.on_chunk = NULL;
        assert_int_equal(write_stream(&spec, plain, MANY, &sums, NULL), DR_OK);
        struct container *c = open_again(fd);
        const struct container_reader_spec how = {
            .containers = &c, .count = 1, .next = fail_next, .threads = threads};
        dr_err_clear(&err);
        assert_int_equal(read_stream(&how, NULL, 0, NULL, &err), DR_E_SQL);
        container_close(c);
        (void)close(fd);
    }
    free(plain);
}

static void test_cancel(void **state)
{
    unsigned char *plain = stream(MANY, 8);
    struct container_sums sums;
    (void)state;
    for (unsigned threads = 0; threads <= 2; threads++) {
        int fd = memfile();
        struct container_spec spec = spec_for(fd, 1, threads);
        struct container_reader *r = NULL;
        struct cancel cancel;
        const void *p = NULL;
        size_t n = 1;
        assert_int_equal(write_stream(&spec, plain, MANY, &sums, NULL), DR_OK);
        cancel_init(&cancel, NULL);
        struct container *c = open_again(fd);
        const struct container_reader_spec how = {
            .containers = &c, .count = 1, .threads = threads, .cancel = &cancel};
        assert_int_equal(container_reader_new(&how, &r, NULL), DR_OK);
        assert_int_equal(container_read(r, &p, &n, NULL), DR_OK);
        cancel_fire(&cancel, DR_E_CANCELLED, "enough");
        enum dr_rc rc = DR_OK;
        while (!rc && n > 0) /* what was proven already may still come */
            rc = container_read(r, &p, &n, NULL);
        assert_int_equal(rc, DR_E_CANCELLED);
        container_reader_free(r);
        spec.cancel = &cancel;
        assert_int_equal(write_stream(&spec, plain, MANY, &sums, NULL), DR_E_CANCELLED);
        cancel_fini(&cancel);
        container_close(c);
        (void)close(fd);
    }
    free(plain);
}

/* Left after any number of steps; with everything still under way. */
static void test_free_anywhere(void **state)
{
    unsigned char *plain = stream(MANY, 10);
    struct container_sums sums;
    int fd = memfile();
    (void)state;
    for (unsigned i = 0; i < 24; i++) {
        struct container_spec spec = spec_for(fd, 1, i % 3);
        struct container_writer *w = NULL;
        assert_int_equal(container_writer_new(&spec, &w, NULL), DR_OK);
        assert_int_equal(container_write(w, plain, (size_t)i * 200000, NULL), DR_OK);
        container_writer_free(w);
    }
    struct container_spec spec = spec_for(fd, 1, 2);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(write_stream(&spec, plain, MANY, &sums, NULL), DR_OK);
    struct container *c = open_again(fd);
    for (unsigned i = 0; i < 24; i++) {
        const struct container_reader_spec how = {.containers = &c, .count = 1, .threads = i % 3};
        struct container_reader *r = NULL;
        const void *p;
        size_t n;
        assert_int_equal(container_reader_new(&how, &r, NULL), DR_OK);
        for (unsigned j = 0; j < i / 3; j++)
            assert_int_equal(container_read(r, &p, &n, NULL), DR_OK);
        container_reader_free(r);
    }
    container_close(c);
    container_close(NULL);
    container_writer_free(NULL);
    container_reader_free(NULL);
    (void)close(fd);
    free(plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),          cmocka_unit_test(test_chain),
        cmocka_unit_test(test_bad_references), cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_chunks_moved),   cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_callbacks_fail), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_free_anywhere)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
