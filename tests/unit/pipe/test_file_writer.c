/* What was handed over is what the files hold, however it is cut and whoever writes; what is wrong
 * is said of the first file that is. */
#include "tests/unit/cm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/core/cancel.h"
#include "worker/pipe/file_writer.h"

enum { MIB = 1 << 20, LARGEST = 5 * MIB, SMALL = 100 };

static const unsigned threads[] = {0, 1, 3};
static unsigned char *content;

static int setup(void **state)
{
    (void)state;
    content = dr_xalloc(LARGEST);
    for (size_t i = 0; i < LARGEST; i++)
        content[i] = (unsigned char)(i * 31 + i / 257);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(content);
    return 0;
}

/* An fd for the writer; *mine sees the same file after the writer has closed its own. */
static int nameless(int *mine)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    *mine = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    assert_true(*mine >= 0);
    return fd;
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n;
}

static struct file_writer *writer(unsigned n, struct cancel *cancel, _Atomic uint64_t *progress)
{
    const struct file_writer_spec spec = {
        .threads = n, .ignore_owner = true, .cancel = cancel, .progress = progress};
    struct file_writer *w = NULL;
    assert_int_equal(file_writer_new(&spec, &w, NULL), DR_OK);
    return w;
}

static struct pipe_file record(const char *path, uint64_t size)
{
    struct pipe_file f = {.path = {(const unsigned char *)path, strlen(path)},
                          .type = 'f',
                          .mode = 0640,
                          .mtime_ns = 1234567890123456789,
                          .size = size,
                          .has_sha256 = true};
    (void)SHA256(content, size, f.sha256);
    return f;
}

/* The content from its beginning on, in pieces of cut bytes. */
static enum dr_rc put(struct file_writer *w, const struct pipe_file *f, int fd, size_t cut,
                      struct dr_err *err)
{
    unsigned char *piece = dr_xalloc(cut);
    enum dr_rc rc = file_writer_begin(w, f, fd, err);
    for (uint64_t at = 0, n; !rc && at < f->size; at += n) {
        n = f->size - at < cut ? f->size - at : cut;
        memcpy(piece, content + at, n);
        rc = file_writer_add(w, piece, n, at, err);
        memset(piece, 0, n); /* it is the caller's again */
    }
    free(piece);
    return rc ? rc : file_writer_end(w, err);
}

static void holds(int fd, uint64_t size)
{
    unsigned char *got = dr_xalloc(LARGEST + 1);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, size);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(st.st_mtim.tv_sec, 1234567890);
    assert_int_equal(st.st_mtim.tv_nsec, 123456789);
    assert_int_equal(pread(fd, got, LARGEST + 1, 0), size);
    assert_memory_equal(got, content, size);
    free(got);
}

static void files_of_all_sizes_hold_what_was_handed_over(void **state)
{
    static const uint64_t sizes[] = {0, 1, MIB - 1, MIB, 0, MIB + 1, LARGEST, 65536, 2 * MIB, 3};
    static const size_t cuts[] = {700, 65536, 3 * MIB};
    (void)state;
    for (size_t t = 0; t < CM_COUNT(threads); t++)
        for (size_t c = 0; c < CM_COUNT(cuts); c++) {
            int mine[CM_COUNT(sizes) + SMALL];
            _Atomic uint64_t progress = 0;
            uint64_t total = 0;
            struct file_writer *w = writer(threads[t], NULL, &progress);
            for (size_t i = 0; i < CM_COUNT(mine); i++) {
                uint64_t size = i < CM_COUNT(sizes) ? sizes[i] : i;
                const struct pipe_file f = record("a", size);
                assert_int_equal(put(w, &f, nameless(&mine[i]), cuts[c], NULL), DR_OK);
                total += size;
            }
            assert_int_equal(file_writer_flush(w, NULL), DR_OK);
            assert_int_equal(progress, total);
            for (size_t i = 0; i < CM_COUNT(mine); i++) {
                holds(mine[i], i < CM_COUNT(sizes) ? sizes[i] : i);
                (void)close(mine[i]);
            }
            file_writer_free(w);
        }
}

static void what_is_left_out_is_a_hole(void **state)
{
    enum { BEFORE = 2 * MIB, AFTER = 3 * MIB, SIZE = BEFORE + 100 + AFTER };
    unsigned char *whole = dr_xalloc(SIZE);
    (void)state;
    memcpy(whole + BEFORE, content, 100);
    for (size_t t = 0; t < CM_COUNT(threads); t++) {
        struct file_writer *w = writer(threads[t], NULL, NULL);
        struct pipe_file f = record("sparse", 0), empty = record("nothing but a hole", 0);
        struct stat st;
        int mine, other;
        f.size = SIZE;
        (void)SHA256(whole, SIZE, f.sha256);
        assert_int_equal(file_writer_begin(w, &f, nameless(&mine), NULL), DR_OK);
        assert_int_equal(file_writer_add(w, content, 100, BEFORE, NULL), DR_OK);
        assert_int_equal(file_writer_end(w, NULL), DR_OK);
        empty.size = BEFORE;
        (void)SHA256(whole, BEFORE, empty.sha256);
        assert_int_equal(file_writer_begin(w, &empty, nameless(&other), NULL), DR_OK);
        assert_int_equal(file_writer_end(w, NULL), DR_OK);
        assert_int_equal(file_writer_flush(w, NULL), DR_OK);
        assert_int_equal(fstat(mine, &st), 0);
        assert_int_equal(st.st_size, SIZE);
        assert_in_range(st.st_blocks, 1, 64);
        assert_int_equal(fstat(other, &st), 0);
        assert_int_equal(st.st_size, BEFORE);
        (void)close(mine);
        (void)close(other);
        file_writer_free(w);
    }
    free(whole);
}

/* Two are wrong; the first is named, whether it is small or large. */
static void another_content_is_told_of_the_first_file(void **state)
{
    static const uint64_t sizes[] = {10, 3 * MIB};
    (void)state;
    for (size_t t = 0; t < CM_COUNT(threads); t++)
        for (size_t s = 0; s < CM_COUNT(sizes); s++) {
            unsigned fds = open_fds();
            struct file_writer *w = writer(threads[t], NULL, NULL);
            static const char *const names[] = {"good", "wrong", "also wrong", "good again"};
            struct dr_err err = {0};
            enum dr_rc rc = DR_OK;
            for (size_t i = 0; !rc && i < CM_COUNT(names); i++) {
                struct pipe_file f = record(names[i], i == 2 ? 5 : sizes[s]);
                int mine, fd = nameless(&mine);
                (void)close(mine);
                if (i == 1 || i == 2)
                    f.sha256[0] ^= 1;
                rc = put(w, &f, fd, 65536, &err);
            }
            if (!rc)
                rc = file_writer_flush(w, &err);
            assert_int_equal(rc, DR_E_INTEGRITY);
            assert_string_equal(err.reason, "tar-index");
            assert_string_equal(err.value, "wrong");
            assert_int_equal(file_writer_flush(w, NULL), DR_E_INTEGRITY); /* it stays */
            file_writer_free(w);
            assert_int_equal(open_fds(), fds);
        }
}

static void a_write_that_fails_is_told_with_its_file(void **state)
{
    (void)state;
    for (size_t t = 0; t < CM_COUNT(threads); t++) {
        struct file_writer *w = writer(threads[t], NULL, NULL);
        struct pipe_file f = record("full", 100);
        struct dr_err err = {0};
        int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(put(w, &f, fd, 100, &err), DR_OK);
        assert_int_equal(file_writer_flush(w, &err), DR_E_NO_SPACE);
        assert_string_equal(err.value, "full");
        file_writer_free(w);
    }
}

/* An extraction that fails gives up in the middle: of a small file, of a large one, between. */
static void giving_up_closes_everything(void **state)
{
    static const size_t given[] = {0, 10, 2 * MIB};
    (void)state;
    for (size_t t = 0; t < CM_COUNT(threads); t++)
        for (size_t g = 0; g < CM_COUNT(given); g++) {
            unsigned fds = open_fds();
            struct file_writer *w = writer(threads[t], NULL, NULL);
            const struct pipe_file f = record("a", LARGEST);
            int mine;
            assert_int_equal(put(w, &f, nameless(&mine), MIB, NULL), DR_OK);
            (void)close(mine);
            assert_int_equal(file_writer_begin(w, &f, nameless(&mine), NULL), DR_OK);
            (void)close(mine);
            assert_int_equal(file_writer_add(w, content, given[g], 0, NULL), DR_OK);
            file_writer_free(w);
            assert_int_equal(open_fds(), fds);
        }
    file_writer_free(NULL);
}

static void a_cancelled_token_ends_it(void **state)
{
    (void)state;
    for (size_t t = 0; t < CM_COUNT(threads); t++) {
        struct cancel cancel;
        struct dr_err err = {0};
        const struct pipe_file f = record("a", 10);
        int mine;
        cancel_init(&cancel, NULL);
        struct file_writer *w = writer(threads[t], &cancel, NULL);
        cancel_fire(&cancel, DR_E_CANCELLED, "the test says so");
        enum dr_rc rc = put(w, &f, nameless(&mine), 10, &err);
        if (!rc)
            rc = file_writer_flush(w, &err);
        assert_int_equal(rc, DR_E_CANCELLED);
        (void)close(mine);
        file_writer_free(w);
        cancel_fini(&cancel);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_all_sizes_hold_what_was_handed_over),
        cmocka_unit_test(what_is_left_out_is_a_hole),
        cmocka_unit_test(another_content_is_told_of_the_first_file),
        cmocka_unit_test(a_write_that_fails_is_told_with_its_file),
        cmocka_unit_test(giving_up_closes_everything),
        cmocka_unit_test(a_cancelled_token_ends_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
