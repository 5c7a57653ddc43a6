/* Frames are measured before anything is decompressed; whole reads and writes of rw. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/unit/cm.h"
#include "worker/pipe/frame.h"
#include "worker/pipe/rw.h"

static unsigned char plain[FRAME_CUT], packed[FRAME_CUT_STORED];

static size_t pack(struct frame_codec *c, size_t len, unsigned noise)
{
    uint64_t x = len * 31 + noise;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        plain[i] = x >> 32 & 15 ? (unsigned char)(noise ? x >> 40 : 'a' + i % 3) : 'x';
    }
    assert_int_equal(frame_pack(c, plain, len, packed, &n, NULL), DR_OK);
    return n;
}

static void test_round_trip(void **state)
{
    static const size_t sizes[] = {1, 2, 255, 256, 257, 4096, 65535, 65536};
    (void)state;
    for (unsigned k = 0; k < 6; k++) {
        struct frame_codec *c = NULL;
        assert_int_equal(frame_codec_new(1 + k / 2 * 9, NULL, &c, NULL), DR_OK);
        if (k % 2)
            assert_int_equal(frame_codec_rows(c, NULL), DR_OK);
        for (size_t i = 0; i < CM_COUNT(sizes) * 2; i++) {
            size_t len = sizes[i / 2], n = pack(c, len, i % 2), stored = 0, content = 0;
            unsigned char back[FRAME_CUT];
            assert_int_equal(frame_measure(packed, n, true, &stored, &content, NULL), DR_OK);
            assert_int_equal(stored, n);
            assert_int_equal(content, len);
            assert_int_equal(frame_unpack(c, packed, n, back, len, NULL), DR_OK);
            assert_memory_equal(back, plain, len);
        }
        frame_codec_free(c);
    }
}

/* A part of a frame is never taken for a whole one: more is asked for, or it is refused. */
static void test_every_prefix(void **state)
{
    struct frame_codec *c = NULL;
    (void)state;
    assert_int_equal(frame_codec_new(1, NULL, &c, NULL), DR_OK);
    for (unsigned noise = 0; noise < 2; noise++) {
        size_t n = pack(c, 3000, noise), stored = 7, content = 7;
        for (size_t len = 1; len < n; len++) {
            struct dr_err err = {0};
            assert_int_equal(frame_measure(packed, len, false, &stored, &content, NULL), DR_OK);
            assert_int_equal(stored, 0);
            assert_int_equal(frame_measure(packed, len, true, &stored, &content, &err),
                             DR_E_INTEGRITY);
            assert_string_equal(err.reason, "frame");
        }
    }
    frame_codec_free(c);
}

/* Any byte changed: refused, or still exactly as long as it says; never more. */
static void test_every_byte_changed(void **state)
{
    struct frame_codec *c = NULL;
    unsigned refused = 0;
    (void)state;
    assert_int_equal(frame_codec_new(1, NULL, &c, NULL), DR_OK);
    size_t n = pack(c, 2000, 1);
    for (size_t at = 0; at < n; at++)
        for (unsigned bit = 0; bit < 8; bit++) {
            unsigned char *room = dr_xalloc(FRAME_PLAIN_MAX), back[2000];
            size_t stored = 0, content = 0;
            struct dr_err err = {0};
            packed[at] ^= (unsigned char)(1u << bit);
            enum dr_rc rc = frame_measure(packed, n, true, &stored, &content, &err);
            if (!rc) {
                assert_true(stored <= n && content >= 1 && content <= FRAME_PLAIN_MAX);
                rc = frame_unpack(c, packed, stored, room, content, &err);
            }
            refused += rc != DR_OK;
            packed[at] ^= (unsigned char)(1u << bit);
            assert_int_equal(frame_unpack(c, packed, n, back, sizeof back, NULL), DR_OK);
            free(room);
        }
    assert_true(refused > n * 8 - 16); /* the checksum sees all but what only says less of itself */
    frame_codec_free(c);
}

static void test_bounds_in_the_header(void **state)
{
    static const struct {
        unsigned char bytes[14];
        const char *reason;
    } cases[] = {
        {{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 1, 0, 0}, "frame"},            /* no content size */
        {{0x28, 0xb5, 0x2f, 0xfd, 0x08, 0x58, 1, 0, 0}, "frame"},            /* reserved bit */
        {{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 1, 0, 0}, "frame-size"},       /* empty */
        {{0x28, 0xb5, 0x2f, 0xfd, 0x21, 0x01, 0x05, 1, 0, 0}, "frame-size"}, /* dictionary */
        {{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0x01, 0x00, 0x04, 0x00}, "frame-size"},       /* 262,145 */
        {{0x28, 0xb5, 0x2f, 0xfd, 0x80, 0x41, 0x01, 0x00, 0x00, 0x00}, "frame-size"}, /* window */
        {{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 255, 255, 255, 255, 255, 255, 255, 255}, "frame-size"},
        {{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x01, 0x07, 0, 0}, "frame"},       /* block type 3 */
        {{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x01, 0xfc, 0xff, 0xff}, "frame"}, /* block too long */
        {{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, "frame"},       /* skippable */
        {{0x27, 0xb5, 0x2f, 0xfd}, "frame"}};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        struct dr_err err = {0};
        size_t stored, content;
        assert_int_equal(
            frame_measure(cases[i].bytes, sizeof cases[i].bytes, false, &stored, &content, &err),
            DR_E_INTEGRITY);
        assert_string_equal(err.reason, cases[i].reason);
    }
}

/* Empty blocks without an end: bounded by the length of a frame, not of the file. */
static void test_endless_blocks(void **state)
{
    unsigned char *p = dr_xalloc(FRAME_STORED_MAX * 2);
    static const unsigned char head[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x01};
    size_t stored, content;
    struct dr_err err = {0};
    (void)state;
    memcpy(p, head, sizeof head);
    assert_int_equal(frame_measure(p, FRAME_STORED_MAX * 2, false, &stored, &content, &err),
                     DR_E_INTEGRITY);
    assert_string_equal(err.reason, "frame");
    free(p);
}

static void on_signal(int number)
{
    (void)number;
}

struct ends {
    int from;
    pthread_t writer;
    size_t got;
};

/* Interrupts the writer again and again while it waits, and reads a little at a time. */
static void *drain(void *arg)
{
    struct ends *e = arg;
    unsigned char piece[700];
    ssize_t n;
    do {
        (void)pthread_kill(e->writer, SIGUSR1);
        n = read(e->from, piece, sizeof piece);
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(piece[i], (unsigned char)((e->got + (size_t)i) * 7));
        e->got += n > 0 ? (size_t)n : 0;
    } while (n > 0 || (n < 0 && errno == EINTR));
    return NULL;
}

static void test_interrupted_writes(void **state)
{
    enum { LEN = 400000 };
    struct sigaction act = {.sa_handler = on_signal}, was; /* without SA_RESTART */
    unsigned char *p = dr_xalloc(LEN);
    struct ends e = {.writer = pthread_self()};
    pthread_t thread;
    int fds[2];
    (void)state;
    for (size_t i = 0; i < LEN; i++)
        p[i] = (unsigned char)(i * 7);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(sigaction(SIGUSR1, &act, &was), 0);
    e.from = fds[0];
    assert_int_equal(pthread_create(&thread, NULL, drain, &e), 0);
    assert_int_equal(rw_write(fds[1], p, LEN, "pipe", NULL), DR_OK);
    (void)close(fds[1]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(e.got, LEN);
    (void)sigaction(SIGUSR1, &was, NULL);
    (void)close(fds[0]);
    free(p);
}

static void test_ends(void **state)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC), fd = memfd_create("rw", MFD_CLOEXEC);
    unsigned char back[8];
    struct dr_err err = {0};
    (void)state;
    assert_int_equal(rw_write(full, "12345678", 8, "full", &err), DR_E_NO_SPACE);
    dr_err_clear(&err);
    assert_int_equal(rw_write_at(full, 100, "12345678", 8, "full", &err), DR_E_NO_SPACE);
    assert_int_equal(rw_write_at(fd, 3, "12345", 5, "memory", NULL), DR_OK);
    assert_int_equal(rw_read_at(fd, 0, back, 8, "memory", NULL), DR_OK);
    assert_memory_equal(back, "\0\0\00012345", 8);
    dr_err_clear(&err);
    assert_int_equal(rw_read_at(fd, 1, back, 8, "memory", &err), DR_E_INTEGRITY);
    assert_string_equal(err.reason, "short-file");
    dr_err_clear(&err);
    assert_int_equal(rw_read_at(-1, 0, back, 8, "nothing", &err), DR_E_IO);
    (void)close(full);
    (void)close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip),
                                       cmocka_unit_test(test_every_prefix),
                                       cmocka_unit_test(test_every_byte_changed),
                                       cmocka_unit_test(test_bounds_in_the_header),
                                       cmocka_unit_test(test_endless_blocks),
                                       cmocka_unit_test(test_interrupted_writes),
                                       cmocka_unit_test(test_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
