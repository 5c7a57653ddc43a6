/* worker/pipe/tree on trees that change while they are read, that may not be read, and walks that
 * end early. */
#include "tests/unit/pipe/tree_again.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "worker/core/cancel.h"

/* Every pread of this program, those of the walk too. disk: may make it fail (errno), and is called
 * again after it, to change the file. */
static int (*disk)(int fd, off_t at, bool after);
ssize_t pread(int fd, void *p, size_t len, off_t at);
ssize_t __pread_chk(int fd, void *p, size_t len, off_t at, size_t room);

ssize_t pread(int fd, void *p, size_t len, off_t at)
{
    int failure = disk ? disk(fd, at, false) : 0;
    ssize_t n;

    if (failure) {
        errno = failure;
        return -1;
    }
    n = syscall(SYS_pread64, fd, p, len, at);
    if (disk)
        (void)disk(fd, at, true);
    return n;
}

ssize_t __pread_chk(int fd, void *p, size_t len, off_t at, size_t room)
{
    assert_true(len <= room);
    return pread(fd, p, len, at);
}

static bool is_file(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino;
}

static void change_link(const char *path)
{
    if (strcmp(path, "/srv/a") == 0)
        text("srv/b", "longer than before");
}

/* A file that changed between two of its names: two files, each as it was read. */
static void hard_link_changes(void **state)
{
    (void)state;
    fresh();
    folder("srv");
    text("srv/a", "before");
    assert_int_equal(link("srv/a", "srv/b"), 0);
    assert_int_equal(link("srv/a", "srv/c"), 0);
    root_list[0] = full("srv");
    meddle = change_link;
    walked();
    check_roots();
    check_tar();
    assert_int_equal(find("srv/a")->f.size, 6);
    assert_int_equal(find("srv/b")->f.type, 'f');
    assert_int_equal(find("srv/b")->f.size, 18);
    assert_int_equal(find("srv/c")->f.type, 'h');
    assert_string_equal(find("srv/c")->target, full("srv/b") + 1);
}

static void unreadable(void **state)
{
    bool was_root = geteuid() == 0;

    (void)state;
    fresh();
    folder("srv");
    text("srv/a", "x");
    text("srv/b", "secret");
    folder("srv/c");
    text("srv/c/x", "x");
    text("srv/d", "x");
    assert_int_equal(chmod("srv/b", 0), 0);
    assert_int_equal(chmod("srv/c", 0), 0);
    root_list[0] = full("srv");
    if (was_root)
        assert_int_equal(seteuid(65534), 0);
    assert_int_equal(walk(), DR_E_IO);
    if (was_root)
        assert_int_equal(seteuid(0), 0);
    assert_non_null(strstr(error.msg, full("srv/b")));
    spec.allow_unreadable = true;
    if (was_root)
        assert_int_equal(seteuid(65534), 0);
    assert_int_equal(walk(), DR_OK);
    if (was_root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod("srv/c", 0755), 0);
    check_roots();
    check_tar();
    assert_string_equal(skips, "unreadable /srv/b\nunreadable /srv/c\n");
    assert_null(find("srv/b"));
    assert_null(find("srv/c"));
    assert_null(find("srv/c/x"));
    assert_non_null(find("srv/d"));
    assert_int_equal(sums.unreadable, 2);
}

static void vanish(const char *path)
{
    if (strcmp(path, "/srv/a") == 0) {
        assert_int_equal(unlink("srv/b"), 0);
        assert_int_equal(unlink("srv/c/x"), 0);
        assert_int_equal(rmdir("srv/c"), 0);
        assert_int_equal(unlink("srv/d"), 0);
        folder("srv/d");
        assert_int_equal(unlink("srv/e"), 0);
        assert_int_equal(symlink("f", "srv/e"), 0);
        assert_int_equal(rmdir("srv/f"), 0);
        text("srv/f", "was a folder");
    }
}

/* Gone, or another thing, when its turn comes. */
static void gone(void **state)
{
    (void)state;
    fresh();
    folder("srv");
    text("srv/a", "x");
    text("srv/b", "x");
    folder("srv/c");
    text("srv/c/x", "x");
    text("srv/d", "x");
    text("srv/e", "x");
    folder("srv/f");
    text("srv/z", "x");
    root_list[0] = full("srv");
    meddle = vanish;
    walked();
    check_roots();
    check_tar();
    assert_string_equal(skips, "changed /srv/b\nchanged /srv/c\nchanged /srv/d\nchanged /srv/f\n");
    assert_int_equal(find("srv/e")->f.type, 'l'); /* not followed */
    assert_non_null(find("srv/z"));
    assert_int_equal(sums.changed, 4);
}

enum { LARGE = 3 << 20 };
static int large_does; /* 1 shrinks, 2 grows, 3 is written over */

static enum dr_rc to_tar_and_change(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    bool began = tar.len <= 2048 && tar.len + len > 2048;

    if (began && large_does == 1)
        assert_int_equal(truncate("srv/large", LARGE / 2 + 77), 0);
    if (began && large_does == 2)
        assert_int_equal(truncate("srv/large", 2 * LARGE), 0);
    if (began && large_does == 3) {
        int fd = open("srv/large", O_WRONLY);
        assert_int_equal(pwrite(fd, "!", 1, LARGE - 1), 1);
        close(fd);
    }
    return to_tar(arg, bytes, len, err);
}

/* A large file changes while it passes: its entry keeps the size it had, and says so. */
static void large_changes(void **state)
{
    static const struct pipe_sink changing = {to_tar_and_change, NULL};
    unsigned char *bytes = dr_xalloc(LARGE);

    (void)state;
    folder("srv");
    for (large_does = 0; large_does < 4; large_does++) {
        fresh();
        memset(bytes, 'x', LARGE);
        put("srv/large", bytes, LARGE);
        text("srv/z", "after it");
        root_list[0] = full("srv");
        spec.tar = &changing;
        walked();
        check_roots();
        check_tar();
        assert_int_equal(find("srv/large")->f.size, LARGE);
        assert_string_equal(skips, large_does ? "changed /srv/large\n" : "");
    }
    free(bytes);
}

static int changes_left;

static int grow(int fd, off_t at, bool after)
{
    (void)at;
    if (after && changes_left > 0 && is_file(fd, "srv/a")) {
        int to = open("srv/a", O_WRONLY | O_APPEND);
        changes_left--;
        assert_int_equal(write(to, "+", 1), 1);
        close(to);
    }
    return 0;
}

static int shrink(int fd, off_t at, bool after)
{
    struct stat st;

    (void)at;
    if (!after && changes_left > 0 && is_file(fd, "srv/a") && fstat(fd, &st) == 0) {
        changes_left--;
        assert_int_equal(truncate("srv/a", st.st_size - 1), 0);
    }
    return 0;
}

/* A small file is read again until it holds still, three times at most. */
static void small_changes(void **state)
{
    static const struct {
        int (*disk)(int fd, off_t at, bool after);
        int changes;
        uint64_t size;
        const char *skips;
    } cases[] = {{grow, 0, 6, ""},   {grow, 1, 7, ""},
                 {grow, 2, 8, ""},   {grow, 9, 8, "changed /srv/a\n"},
                 {shrink, 1, 5, ""}, {shrink, 9, 2, "changed /srv/a\n"}};

    (void)state;
    folder("srv");
    for (size_t i = 0; i < CM_COUNT(cases); i++) {
        fresh();
        text("srv/a", "before");
        text("srv/b", "after it");
        root_list[0] = full("srv");
        changes_left = cases[i].changes;
        restless = true;
        disk = cases[i].disk;
        walked();
        disk = NULL;
        check_roots();
        check_tar();
        assert_int_equal(find("srv/a")->f.size, cases[i].size);
        assert_string_equal(skips, cases[i].skips);
    }
}

static off_t bad_at;

static int bad_block(int fd, off_t at, bool after)
{
    static int interrupted;

    if (after || !is_file(fd, "srv/a") || at < bad_at)
        return 0;
    return interrupted++ % 2 ? EIO : EINTR;
}

/* A small file that cannot be read is left out; a large one is zeros from there on, and says so. */
static void bad_disks(void **state)
{
    unsigned char *bytes = dr_xalloc(LARGE), sum[32];

    (void)state;
    fresh();
    folder("srv");
    text("srv/a", "x");
    text("srv/b", "after it");
    root_list[0] = full("srv");
    disk = bad_block;
    bad_at = 0;
    assert_int_equal(walk(), DR_E_IO);
    assert_non_null(strstr(error.msg, full("srv/a")));
    spec.tar = NULL;
    spec.threads = 2;
    assert_int_equal(walk(), DR_E_IO);
    assert_non_null(strstr(error.msg, full("srv/a")));
    spec.tar = &sink;
    spec.threads = 0;
    spec.allow_unreadable = true;
    walked();
    assert_string_equal(skips, "unreadable /srv/a\n");
    assert_null(find("srv/a"));
    memset(bytes, 'x', LARGE);
    put("srv/a", bytes, LARGE);
    bad_at = 1 << 20;
    walked();
    assert_string_equal(skips, "unreadable /srv/a\n");
    memset(bytes + bad_at, 0, (size_t)(LARGE - bad_at));
    assert_int_equal(EVP_Digest(bytes, LARGE, sum, NULL, EVP_sha256(), NULL), 1);
    assert_memory_equal(find("srv/a")->f.sha256, sum, 32);
    check_roots();
    spec.allow_unreadable = false;
    assert_int_equal(walk(), DR_E_IO);
    disk = NULL;
    walked();
    check_tar();
    free(bytes);
}

/* Files of all sizes, in folders and with second names, told in order whoever reads them. */
static void several_threads(void **state)
{
    static const size_t sizes[] = {0, 1, 4096, 65536, 1 << 18, (1 << 18) + 1, LARGE, 77};
    unsigned char *bytes = dr_xalloc(LARGE);
    char name[64], other[64];

    (void)state;
    fresh();
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 251);
    folder("srv");
    for (unsigned i = 0; i < 120; i++) {
        (void)snprintf(name, sizeof name, "srv/d%u", i % 3);
        if (i < 3)
            folder(name);
        (void)snprintf(name, sizeof name, "srv/d%u/f%03u", i % 3, i);
        put(name, bytes + i, sizes[i % CM_COUNT(sizes)] > i ? sizes[i % CM_COUNT(sizes)] - i : 0);
        (void)snprintf(other, sizeof other, "srv/d%u/g%03u", (i + 1) % 3, i);
        if (i % 10 == 9)
            assert_int_equal(link(name, other), 0);
    }
    root_list[0] = full("srv");
    walked();
    check_roots();
    assert_int_equal(sums.files, 132);
    free(bytes);
}

/* What changes under a thread's hands is told in its place. */
static void several_threads_and_a_change(void **state)
{
    (void)state;
    fresh();
    folder("srv");
    text("srv/a", "before");
    text("srv/b", "after it");
    root_list[0] = full("srv");
    spec.tar = NULL;
    spec.threads = 2;
    changes_left = 1;
    disk = grow;
    walked();
    disk = NULL;
    assert_string_equal(skips, "changed /srv/a\n");
    assert_int_equal(find("srv/a")->f.size, 6);
    assert_non_null(find("srv/b"));
}

static struct cancel token;

static void cancel_it(const char *path)
{
    if (strcmp(path, "/srv/a") == 0)
        atomic_store(&token.fired, DR_E_CANCELLED);
}

static enum dr_rc refuse_file(void *arg, const struct pipe_file *f, struct dr_err *err)
{
    (void)arg;
    (void)f;
    return dr_fail(err, DR_E_TOO_BIG, "the index says no");
}

static void ends_early(void **state)
{
    _Atomic uint64_t progress = 0;

    (void)state;
    fresh();
    folder("srv");
    text("srv/a", "x");
    text("srv/b", "x");
    root_list[0] = full("srv");
    spec.cancel = &token;
    spec.progress = &progress;
    meddle = cancel_it;
    assert_int_equal(walk(), DR_E_CANCELLED);
    assert_int_equal(progress, 1);
    spec.cancel = NULL;
    meddle = NULL;
    spec.on.file = refuse_file;
    assert_int_equal(walk(), DR_E_TOO_BIG);
    assert_string_equal(error.msg, "the index says no");
    spec.tar = NULL;
    spec.threads = 2;
    assert_int_equal(walk(), DR_E_TOO_BIG);
    assert_string_equal(error.msg, "the index says no");
    spec.on.file = on_file;
    spec.cancel = &token;
    assert_int_equal(walk(), DR_E_CANCELLED);
    spec.cancel = NULL;
    spec.tar = &sink;
    forget();
    tar.max = 1500;
    assert_int_equal(tree_walk(&spec, &sums, &error), DR_E_NO_SPACE);
    assert_string_equal(error.msg, "the sink is full");
    root_list[0] = full("nowhere");
    assert_int_equal(walk(), DR_E_PREFLIGHT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(hard_link_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(unreadable, setup, teardown),
        cmocka_unit_test_setup_teardown(gone, setup, teardown),
        cmocka_unit_test_setup_teardown(large_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(small_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_disks, setup, teardown),
        cmocka_unit_test_setup_teardown(several_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(several_threads_and_a_change, setup, teardown),
        cmocka_unit_test_setup_teardown(ends_early, setup, teardown),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
