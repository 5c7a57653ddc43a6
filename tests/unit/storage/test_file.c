/* The `file` row on a folder of its own: objects, hashes, unfinished uploads, and what it refuses.
 */
#include "tests/unit/cm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "worker/storage/dialect.h"
#include "worker/storage/sigv4.h"

#define TOKEN "0123456789abcdef0123456789abcdef"

static char folder[64], command[128];
static struct storage_target target;
static const struct storage_route route;

/* File systems that lack something, by standing in for libc. */
static bool no_exclusive_rename, link_answer_is_lost, no_attributes;

int renameat2(int from, const char *a, int to, const char *b, unsigned flags)
{
    if (!no_exclusive_rename)
        return (int)syscall(SYS_renameat2, from, a, to, b, flags);
    errno = EINVAL;
    return -1;
}

int linkat(int from, const char *a, int to, const char *b, int flags)
{
    int done = (int)syscall(SYS_linkat, from, a, to, b, flags);
    if (done != 0 || !link_answer_is_lost)
        return done;
    errno = EEXIST; /* what NFS answers to the request that it repeats */
    return -1;
}

int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    if (!no_attributes)
        return (int)syscall(SYS_fsetxattr, fd, name, value, size, flags);
    errno = ENOTSUP;
    return -1;
}

static int setup(void **state)
{
    (void)state;
    no_exclusive_rename = link_answer_is_lost = no_attributes = false;
    (void)snprintf(folder, sizeof folder, "/tmp/dr-file-XXXXXX");
    target = (struct storage_target){.provider = "file", .bucket = folder, .prefix = "pre/"};
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    FILE *f = popen(command, "r"); /* a folder of ours below /tmp */
    return f ? pclose(f) : -1;
}

static struct storage_call call(enum storage_op op)
{
    return (struct storage_call){.op = op,
                                 .target = &target,
                                 .route = &route,
                                 .key = "a/b.drb",
                                 .token = TOKEN,
                                 .upload_id = TOKEN};
}

static enum storage_class run(const struct storage_call *c, const void *payload, void *into,
                              struct storage_answer *a)
{
    struct dr_err err = {0};
    const struct storage_dialect *d = storage_dialect_find("file");
    assert_non_null(d);
    enum storage_class class = d->local->run(c, payload, into, NULL, a, &err);
    assert_int_equal(err.rc, storage_class_rc(class));
    return class;
}

static enum storage_class quietly(const struct storage_call *c, const void *payload, void *into)
{
    struct storage_answer a;
    enum storage_class class = run(c, payload, into, &a);
    storage_answer_fini(&a);
    return class;
}

static enum storage_class put(const char *key, const char *text, bool create_only)
{
    struct storage_call c = call(STORAGE_PUT);
    c.key = key;
    c.size = c.length = strlen(text);
    c.create_only = create_only;
    c.label = "store 1";
    sigv4_sha256(text, strlen(text), c.sha256);
    return quietly(&c, text, NULL);
}

static void expect_object(const char *key, const char *text)
{
    struct storage_call c = call(STORAGE_HEAD);
    struct storage_answer a;
    unsigned char sum[32];
    char got[64] = "";
    c.key = key;
    sigv4_sha256(text, strlen(text), sum);
    assert_int_equal(run(&c, NULL, NULL, &a), STORAGE_OK);
    assert_true(a.has_size && a.size == strlen(text) && a.has_sha256);
    assert_memory_equal(a.sha256, sum, 32);
    c.op = STORAGE_GET;
    c.etag = a.etag;
    assert_int_equal(quietly(&c, NULL, got), STORAGE_OK);
    assert_string_equal(got, text);
    storage_answer_fini(&a);
}

static const char *path_of(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name), "w");
    assert_non_null(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

static void test_objects(void **state)
{
    (void)state;
    struct storage_call c = call(STORAGE_HEAD);
    char part[3] = "";
    struct stat st;
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_NO_KEY);
    assert_int_equal(put("a/b.drb", "first", true), STORAGE_OK);
    expect_object("a/b.drb", "first");
    assert_int_equal(put("a/b.drb", "second", true), STORAGE_EXISTS);
    expect_object("a/b.drb", "first");
    assert_int_equal(put("a/b.drb", "second", false), STORAGE_OK);
    expect_object("a/b.drb", "second");
    assert_int_equal(stat(path_of("pre/a/b.drb"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    c.op = STORAGE_GET;
    c.offset = 1;
    c.length = 2;
    assert_int_equal(quietly(&c, NULL, part), STORAGE_OK);
    assert_string_equal(part, "ec");
    c.offset = 5;
    assert_int_equal(quietly(&c, NULL, part), STORAGE_INTEGRITY);
    c.offset = 0;
    c.etag = "1-2-3";
    assert_int_equal(quietly(&c, NULL, part), STORAGE_CHANGED);
    c = call(STORAGE_DELETE);
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_OK);
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_OK); /* it is gone already */
    c.op = STORAGE_GET;
    assert_int_equal(quietly(&c, NULL, part), STORAGE_NO_KEY);
    assert_int_equal(put("empty", "", true), STORAGE_OK);
    expect_object("empty", "");
}

/* A hash that belongs to other bytes is not told: the object is read. */
static void test_hash_of_a_changed_object(void **state)
{
    (void)state;
    struct storage_call c = call(STORAGE_HEAD);
    struct storage_answer a;
    assert_int_equal(put("a/b.drb", "first", false), STORAGE_OK);
    assert_int_equal(run(&c, NULL, NULL, &a), STORAGE_OK);
    if (getxattr(path_of("pre/a/b.drb"), "user.dr.label", NULL, 0) >
        0) /* a file system with them */
        assert_string_equal(a.label, "store 1");
    storage_answer_fini(&a);
    write_file("pre/a/b.drb", "other");
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    assert_int_equal(utimensat(AT_FDCWD, path_of("pre/a/b.drb"), times, 0), 0);
    expect_object("a/b.drb", "other");
    (void)removexattr(path_of("pre/a/b.drb"), "user.dr.sha256"); /* a copy without attributes */
    expect_object("a/b.drb", "other");
}

static void test_poorer_file_systems(void **state)
{
    (void)state;
    no_exclusive_rename = true;
    assert_int_equal(put("a", "first", true), STORAGE_OK);
    assert_int_equal(put("a", "second", true), STORAGE_EXISTS);
    expect_object("a", "first");
    link_answer_is_lost = true;
    assert_int_equal(put("b", "second", true), STORAGE_OK);
    expect_object("b", "second");
    assert_int_equal(put("b", "third", true), STORAGE_EXISTS);
    no_attributes = true;
    assert_int_equal(put("c", "third", true), STORAGE_OK);
    assert_true(getxattr(path_of("pre/c"), "user.dr.sha256", NULL, 0) < 0);
    expect_object("c", "third");
    /* no temporary file is left of any of them */
    assert_int_equal(rmdir(path_of(".dr-uploads")), 0);
}

static enum storage_class part(unsigned number, uint64_t offset, const char *text,
                               struct storage_part *p)
{
    struct storage_call c = call(STORAGE_PART);
    struct storage_answer a;
    c.part_number = number;
    c.offset = offset;
    c.length = strlen(text);
    sigv4_sha256(text, strlen(text), c.payload.sha256);
    enum storage_class class = run(&c, text, NULL, &a);
    *p = (struct storage_part){.number = number, .offset = offset, .length = c.length};
    memcpy(p->etag, a.etag, sizeof p->etag);
    storage_answer_fini(&a);
    return class;
}

static struct storage_call completion(const struct storage_part *parts, size_t count,
                                      const char *text)
{
    struct storage_call c = call(STORAGE_COMPLETE);
    c.parts = parts;
    c.part_count = count;
    c.size = strlen(text);
    c.create_only = true;
    sigv4_sha256(text, strlen(text), c.sha256);
    return c;
}

static void test_multipart(void **state)
{
    (void)state;
    struct storage_call c = call(STORAGE_BEGIN);
    struct storage_part parts[3];
    struct storage_answer a;
    assert_int_equal(run(&c, NULL, NULL, &a), STORAGE_OK);
    assert_string_equal(a.upload_id, TOKEN);
    storage_answer_fini(&a);
    assert_int_equal(part(3, 6, "gh", &parts[2]), STORAGE_OK);
    assert_int_equal(part(1, 0, "xxx", &parts[0]), STORAGE_OK);
    assert_int_equal(part(1, 0, "abc", &parts[0]), STORAGE_OK); /* sent again */
    c = completion(parts, 3, "abcdefgh");
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_NO_UPLOAD); /* one is missing */
    assert_int_equal(part(2, 3, "def", &parts[1]), STORAGE_OK);
    /* a line that a crash has torn */
    FILE *f = fopen(path_of(".dr-uploads/" TOKEN ".parts"), "a");
    assert_non_null(f);
    (void)fputs("4 8 1", f);
    (void)fclose(f);
    c = call(STORAGE_LIST_PARTS);
    assert_int_equal(run(&c, NULL, NULL, &a), STORAGE_OK);
    assert_int_equal(a.part_count, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(a.parts[i].number, i + 1);
        assert_string_equal(a.parts[i].etag, parts[i].etag);
    }
    storage_answer_fini(&a);
    c = call(STORAGE_LIST_UPLOADS);
    c.key = "a/";
    assert_int_equal(run(&c, NULL, NULL, &a), STORAGE_OK);
    assert_int_equal(a.entry_count, 1);
    assert_string_equal(a.entries[0].key, "a/b.drb");
    assert_string_equal(a.entries[0].upload_id, TOKEN);
    storage_answer_fini(&a);
    c = completion(parts, 3, "abcdefgh");
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_OK);
    expect_object("a/b.drb", "abcdefgh");
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_NO_UPLOAD); /* it is done */
    c = call(STORAGE_LIST);
    c.key = NULL;
    assert_int_equal(run(&c, NULL, NULL, &a), STORAGE_OK);
    assert_int_equal(a.entry_count, 1); /* nothing else is left */
    storage_answer_fini(&a);
}

static void test_completion_replaces_nothing(void **state)
{
    (void)state;
    struct storage_call c = call(STORAGE_BEGIN);
    struct storage_part parts[1];
    assert_int_equal(put("a/b.drb", "first", true), STORAGE_OK);
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_OK);
    assert_int_equal(part(1, 0, "abc", &parts[0]), STORAGE_OK);
    c = completion(parts, 1, "abc");
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_EXISTS);
    expect_object("a/b.drb", "first");
    c = call(STORAGE_ABORT);
    c.key = "a/b.drb";
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_OK);
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_OK);
    assert_int_not_equal(access(path_of(".dr-uploads/" TOKEN ".data"), F_OK), 0);
    c.op = STORAGE_LIST_PARTS;
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_NO_UPLOAD);
    c.upload_id = "../../etc/passwd";
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_NO_UPLOAD);
}

static void test_list(void **state)
{
    (void)state;
    struct storage_call c = call(STORAGE_LIST);
    struct storage_answer a;
    assert_int_equal(put("b/2", "x", true), STORAGE_OK);
    assert_int_equal(put("b/1", "xy", true), STORAGE_OK);
    assert_int_equal(put("c", "x", true), STORAGE_OK);
    write_file("foreign", "x");
    assert_int_equal(symlink("/etc/passwd", path_of("pre/b/link")), 0);
    c.key = "b/";
    assert_int_equal(run(&c, NULL, NULL, &a), STORAGE_OK);
    assert_int_equal(a.entry_count, 2);
    assert_string_equal(a.entries[0].key, "b/1");
    assert_int_equal(a.entries[0].size, 2);
    assert_true(a.entries[0].at_unix_s > 0 && !a.next);
    storage_answer_fini(&a);
    c.key = "";
    assert_int_equal(run(&c, NULL, NULL, &a), STORAGE_OK);
    assert_int_equal(a.entry_count, 3);
    storage_answer_fini(&a);
    c.key = "nothing/";
    assert_int_equal(run(&c, NULL, NULL, &a), STORAGE_OK);
    assert_int_equal(a.entry_count, 0);
    storage_answer_fini(&a);
}

static void test_ways_out_are_refused(void **state)
{
    (void)state;
    static const char *const keys[] = {"../x", "a/../../x",     "/etc/x", "a//b", "a/",
                                       "",     ".dr-uploads/x", "./a",    "a/.",  ".."};
    for (size_t i = 0; i < CM_COUNT(keys); i++)
        assert_int_equal(put(keys[i], "x", false), STORAGE_PERMANENT);
    assert_int_equal(put("a/b", "x", true), STORAGE_OK);
    assert_int_equal(symlink("/tmp", path_of("pre/out")), 0);
    assert_int_equal(put("out/x", "x", false), STORAGE_PERMANENT);
    assert_int_equal(symlink("/etc/passwd", path_of("pre/a/l")), 0);
    struct storage_call c = call(STORAGE_HEAD);
    c.key = "a/l";
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_PERMANENT);
    assert_int_equal(mkfifo(path_of("pre/a/f"), 0600), 0);
    c.key = "a/f";
    assert_int_equal(quietly(&c, NULL, NULL), STORAGE_PERMANENT);
    assert_int_equal(put("a/b/c", "x", true), STORAGE_PERMANENT); /* b is a file */
}

/* A NAS that is not mounted is no empty store. */
static void test_folder_that_is_not_there(void **state)
{
    (void)state;
    struct storage_target gone = target;
    gone.bucket = "/tmp/dr-file-that-is-not-there";
    for (int op = STORAGE_PUT; op < STORAGE_AUTHORISE; op++) {
        struct storage_call c = call((enum storage_op)op);
        c.target = &gone;
        c.part_number = 1;
        assert_int_equal(quietly(&c, "", NULL), STORAGE_NO_BUCKET);
    }
}

static void test_settings(void **state)
{
    (void)state;
    const struct storage_dialect *d = storage_dialect_find("file");
    struct storage_target t = target;
    struct dr_err err = {0};
    assert_int_equal(d->check(&t, NULL), DR_OK);
    t.bucket = "relative";
    assert_int_equal(d->check(&t, &err), DR_E_CONFIG);
    assert_string_equal(err.field, "bucket");
    t.bucket = "/";
    assert_int_equal(d->check(&t, NULL), DR_E_CONFIG);
    t.bucket = folder;
    t.prefix = ".dr-uploads/";
    assert_int_equal(d->check(&t, NULL), DR_E_CONFIG);
    t.prefix = "a/../b/";
    assert_int_equal(d->check(&t, NULL), DR_E_CONFIG);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_objects),
        T(test_hash_of_a_changed_object),
        T(test_poorer_file_systems),
        T(test_multipart),
        T(test_completion_replaces_nothing),
        T(test_list),
        T(test_ways_out_are_refused),
        T(test_folder_that_is_not_there),
        T(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
