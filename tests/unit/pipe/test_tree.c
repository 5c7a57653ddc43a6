/* worker/pipe/tree: real trees in a temporary folder; the tar is read back by libarchive, the
 * digests are computed again from the records. */
#include "tests/unit/pipe/tree_again.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static void xattr(const char *path, const char *name, const char *value, size_t len)
{
    assert_int_equal(lsetxattr(path, name, value, len, 0), 0);
}

static void everything(void **state)
{
    static const struct timespec old[2] = {{-5, 500}, {-5, 250000000}};
    char name[256], content[40000];
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "srv/sock"};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    fresh();
    folder("srv");
    folder("srv/a");
    folder("srv/a-b"); /* '-' comes before '/' */
    folder("srv/a/b");
    folder("srv/a.d");
    text("srv/a/b/x", "hi");
    text("srv/a-b/y", "");
    text("srv/a.d/z", "zzz");
    text("srv/a/b\n", "newline");
    text("srv/lat\xe9", "no UTF-8");
    text("srv/gr\xc3\xbcn", "UTF-8");
    text("srv/ -x*", "odd");
    memset(name, 'n', 255);
    memcpy(name, "srv/", 4);
    name[255] = 0;
    memset(content, 'c', sizeof content);
    put(name, content, sizeof content);
    put("srv/512", content, 512);
    assert_int_equal(symlink("../elsewhere/gr\xc3\xbcn", "srv/link"), 0);
    assert_int_equal(symlink("a", "srv/to-folder"), 0);
    assert_int_equal(mkfifo("srv/fifo", 0600), 0);
    assert_int_equal(bind(s, (struct sockaddr *)&address, sizeof address), 0);
    close(s);
    assert_int_equal(chmod("srv/512", 06751), 0);
    assert_int_equal(utimensat(AT_FDCWD, "srv/512", old, 0), 0);
    xattr("srv/512", "user.z", "\0\xff", 2);
    xattr("srv/512", "user.gr\xc3\xbcn", "", 0);
    xattr("srv/a", "user.of-a-folder", "v", 1);
    if (root_user()) {
        assert_int_equal(mknod("srv/null", S_IFCHR | 0666, makedev(1, 3)), 0);
        assert_int_equal(lchown("srv/a/b/x", 3000000000u, 2500000), 0);
    }
    root_list[0] = full("srv");
    walked();
    check_roots();
    check_tar();
    assert_string_equal(skips, "");
    assert_int_equal(sums.entries, seen_count);
    assert_int_equal(sums.files, 9);
    assert_int_equal(sums.bytes, 2 + 3 + 7 + 8 + 5 + 3 + 40000 + 512);
    assert_false(roots_seen[0].mount);
    assert_null(find("srv/sock"));
    assert_int_equal(find("srv/fifo")->f.type, 'p');
    assert_int_equal(find("srv/link")->f.type, 'l');
    assert_int_equal(find("srv/512")->f.xattr_count, 2);
    assert_string_equal((char *)find("srv/512")->xattrs.data, "user.gr\xc3\xbcn");
    assert_int_equal(find("srv/512")->f.mtime_ns, -4750000000);
    if (geteuid() == 0) {
        assert_string_equal(find("srv/null")->target, "1:3");
        assert_int_equal(find("srv/a/b/x")->f.uid, 3000000000u);
    }
}

/* The tree lies elsewhere, and has the same digests; nothing is said of what is ours. */
static void staged(void **state)
{
    const char *at[2] = {0};
    struct pipe_root first;

    (void)state;
    fresh();
    folder("srv");
    folder("srv/sub");
    text("srv/sub/x", "hi");
    text("srv/l1", "linked");
    assert_int_equal(link("srv/l1", "srv/sub/l2"), 0);
    text("srv/.dr-lock", "ours");
    folder("srv/.dr-abcdefghijklmnop");
    text("srv/.dr-abcdefghijklmnop/before", "ours");
    text("srv/sub/.dr-lock", "not directly in the root");
    text("srv/.dr-other", "no name of ours");
    root_list[0] = full("srv");
    walked();
    check_roots();
    first = roots_seen[0];
    assert_null(find("srv/.dr-lock"));
    assert_null(find("srv/.dr-abcdefghijklmnop"));
    assert_null(find("srv/.dr-abcdefghijklmnop/before"));
    assert_non_null(find("srv/sub/.dr-lock"));
    assert_non_null(find("srv/.dr-other"));
    assert_string_equal(skips, "");
    assert_int_equal(rename("srv", "staging"), 0);
    at[0] = full("staging");
    spec.at = at;
    spec.tar = NULL;
    walked();
    assert_int_equal(tar.len, 0);
    assert_memory_equal(first.content, roots_seen[0].content, 32);
    assert_memory_equal(first.meta, roots_seen[0].meta, 32);
    text("staging/sub/x", "ho");
    walked();
    assert_memory_not_equal(first.content, roots_seen[0].content, 32);
    text("staging/sub/x", "hi");
    walked(); /* the time is another, the content the same */
    assert_memory_equal(first.content, roots_seen[0].content, 32);
    assert_memory_not_equal(first.meta, roots_seen[0].meta, 32);
}

static void hard_links(void **state)
{
    (void)state;
    fresh();
    folder("a");
    folder("b");
    folder("a/z");
    text("a/z/1", "one file");
    assert_int_equal(link("a/z/1", "a/m"), 0);
    assert_int_equal(link("a/z/1", "b/other-root"), 0);
    assert_int_equal(link("a/z/1", "b/other-root2"), 0);
    text("a/lonely", "its other name lies outside");
    assert_int_equal(link("a/lonely", "outside"), 0);
    text("a/y", "after the links");
    root_list[0] = full("a");
    root_list[1] = full("b");
    walked();
    check_roots();
    check_tar();
    assert_int_equal(find("a/m")->f.type, 'f');
    assert_int_equal(find("a/z/1")->f.type, 'h');
    assert_string_equal(find("a/z/1")->target, full("a/m") + 1);
    assert_memory_equal(find("a/z/1")->f.sha256, find("a/m")->f.sha256, 32);
    assert_int_equal(find("a/z/1")->f.size, 8);
    assert_int_equal(find("a/lonely")->f.type, 'f');
    assert_int_equal(find("b/other-root")->f.type, 'f'); /* roots stand for themselves */
    assert_int_equal(find("b/other-root2")->f.type, 'h');
    assert_int_equal(sums.bytes, 8 + 27 + 15 + 8);
}

static void excludes(void **state)
{
    (void)state;
    fresh();
    folder("srv");
    folder("srv/cache");
    text("srv/cache/x", "x");
    text("srv/cache-2", "x");
    folder("srv/keep");
    text("srv/keep/a.tmp", "x");
    text("srv/keep/b", "x");
    folder("srv/keep/old");
    text("srv/keep/old/x", "x");
    root_list[0] = full("srv");
    globs[0] = "cache";
    globs[1] = "*.tmp";
    globs[2] = full("srv/keep/old");
    walked();
    check_roots();
    check_tar();
    assert_string_equal(skips, "excluded /srv/cache\nexcluded /srv/keep/a.tmp\n"
                               "excluded /srv/keep/old\n");
    assert_null(find("srv/cache"));
    assert_null(find("srv/cache/x"));
    assert_non_null(find("srv/cache-2"));
    assert_int_equal(sums.skipped, 3);
    assert_int_equal(sums.unreadable, 0);
}

static void sparse(void **state)
{
    struct dr_buf same;
    unsigned char sum[32];
    int fd;

    (void)state;
    fresh();
    folder("srv");
    fd = open("srv/holes", O_WRONLY | O_CREAT, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 9000001), 0);
    assert_int_equal(pwrite(fd, "data", 4, 5000000), 4);
    close(fd);
    fd = open("srv/nothing", O_WRONLY | O_CREAT, 0644);
    assert_int_equal(ftruncate(fd, 700000), 0);
    close(fd);
    root_list[0] = full("srv");
    walked();
    check_roots();
    check_tar();
    dr_buf_init(&same, 16 << 20);
    for (int i = 0; i < 9000001; i += 1)
        dr_buf_add(&same, i >= 5000000 && i < 5000004 ? &"data"[i - 5000000] : "", 1);
    hash(&same, sum);
    dr_buf_fini(&same);
    assert_memory_equal(find("srv/holes")->f.sha256, sum, 32);
    assert_int_equal(sums.bytes, 9000001 + 700000);
}

/* Deeper than there are descriptors, longer than PATH_MAX. */
static void deep(void **state)
{
    struct rlimit before, few = {100, 100};
    char name[64];
    int fd, next;

    (void)state;
    fresh();
    folder("srv");
    spec.on.file = NULL;
    fd = open("srv", O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 300; i++) {
        (void)snprintf(name, sizeof name, "folder-number-%03d", i);
        assert_int_equal(mkdirat(fd, name, 0755), 0);
        next = openat(fd, name, O_RDONLY | O_DIRECTORY);
        close(fd);
        fd = next;
        close(openat(fd, "z", O_WRONLY | O_CREAT, 0644));
    }
    close(fd);
    root_list[0] = full("srv");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    walked();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(sums.entries, 601);
    assert_int_equal(sums.files, 300);
}

static void many_names(void **state)
{
    char name[64];

    (void)state;
    fresh();
    folder("srv");
    for (int i = 0; i < 3000; i++) {
        (void)snprintf(name, sizeof name, "srv/%d%s", i * 7919 % 3001, i % 3 ? "" : "-\xff");
        if (i % 5)
            text(name, name);
        else
            folder(name);
    }
    root_list[0] = full("srv");
    walked();
    check_roots();
    check_tar();
    assert_int_equal(sums.entries, 3001);
}

static void refused(const char *a, const char *b, const char *because)
{
    const char *const list[] = {a, b, NULL};

    dr_err_clear(&error);
    assert_int_equal(tree_check_roots(list, NULL, &error), DR_E_PREFLIGHT);
    if (!strstr(error.msg, because))
        fail_msg("%s: not %s", error.msg, because);
}

static void bad_roots(void **state)
{
    char path[PATH_MAX + 64];

    (void)state;
    folder("a");
    folder("b");
    folder("a/in");
    text("file", "x");
    assert_int_equal(symlink("a", "link"), 0);
    (void)snprintf(path, sizeof path, "%s/", full("a"));
    refused(path, NULL, "normalised");
    refused("/", NULL, "normalised");
    refused("", NULL, "normalised");
    refused("relative", NULL, "normalised");
    refused("//tmp", NULL, "normalised");
    (void)snprintf(path, sizeof path, "%s/../b", full("a"));
    refused(path, NULL, "normalised");
    (void)snprintf(path, sizeof path, "%s/.", full("a"));
    refused(path, NULL, "normalised");
    refused(full("link"), NULL, "leads through a symbolic link");
    refused(full("link/in"), NULL, "leads through a symbolic link");
    refused(full("file"), NULL, "not a folder");
    refused(full("nowhere"), NULL, "No such file");
    refused(full("b"), full("a"), "not in order");
    refused(full("a"), full("a"), "twice");
    refused(full("a"), full("a/in"), "no mount point");
    {
        const char *const good[] = {full("a"), full("b"), NULL};
        dr_err_clear(&error);
        assert_int_equal(tree_check_roots(good, NULL, &error), DR_OK);
    }
}

static bool refused_for(const char *mount)
{
    return walk() == DR_E_PREFLIGHT && strstr(error.msg, mount);
}

static bool own_mounts(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* In a child with mounts of its own; 0 or the number of what went wrong. */
static int mounted_is_named(void)
{
    if (!own_mounts() || mount("outside", "srv/bound", NULL, MS_BIND, NULL) ||
        mount("none", "srv/deep/tm p", "tmpfs", 0, "size=64k"))
        return 1;
    root_list[0] = full("srv");
    if (!refused_for("/srv/bound"))
        return 2;
    globs[0] = "bound";
    if (!refused_for("/srv/deep/tm p"))
        return 3;
    globs[1] = "deep"; /* a folder above it */
    if (walk() || strcmp(skips, "excluded /srv/bound\nexcluded /srv/deep\n"))
        return 4;
    return 0;
}

static int mounted_is_a_root(void)
{
    if (!own_mounts() || mount("outside", "srv/bound", NULL, MS_BIND, NULL) ||
        mount("none", "srv/deep/tm p", "tmpfs", 0, "size=64k"))
        return 1;
    root_list[0] = full("srv");
    root_list[1] = full("srv/bound");
    root_list[2] = full("srv/deep/tm p");
    if (walk() || root_count != 3 || !find("srv/deep") || skips[0])
        return 2;
    if (roots_seen[0].mount || !roots_seen[1].mount || !roots_seen[2].mount)
        return 3;
    check_roots();
    check_tar();
    if (!find("srv/bound/in"))
        return 4;
    if (umount("srv/bound") || !refused_for("no mount point"))
        return 5;
    return 0;
}

static void mount_later(const char *path)
{
    if (strcmp(path, "/srv/a") == 0 && mount("outside", "srv/bound", NULL, MS_BIND, NULL))
        _exit(9);
}

static int mounted_meanwhile(void)
{
    if (!own_mounts())
        return 1;
    meddle = mount_later;
    root_list[0] = full("srv");
    if (!refused_for("/srv/bound became a mount point"))
        return 2;
    return 0;
}

static void in_child(int (*fn)(void))
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        _exit(fn());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void mounts(void **state)
{
    (void)state;
    fresh();
    folder("srv");
    folder("srv/bound");
    folder("srv/deep");
    folder("srv/deep/tm p");
    folder("outside");
    text("srv/a", "x");
    text("outside/in", "x");
    if (!root_user())
        return;
    in_child(mounted_is_named);
    in_child(mounted_is_a_root);
    in_child(mounted_meanwhile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything, setup, teardown),
        cmocka_unit_test_setup_teardown(staged, setup, teardown),
        cmocka_unit_test_setup_teardown(hard_links, setup, teardown),
        cmocka_unit_test_setup_teardown(excludes, setup, teardown),
        cmocka_unit_test_setup_teardown(sparse, setup, teardown),
        cmocka_unit_test_setup_teardown(deep, setup, teardown),
        cmocka_unit_test_setup_teardown(many_names, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_roots, setup, teardown),
        cmocka_unit_test_setup_teardown(mounts, setup, teardown),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
