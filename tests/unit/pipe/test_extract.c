/* Extraction: hostile archives touch nothing outside, honest ones come back exactly. */
#include "tests/unit/cm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"
#include "tests/unit/pipe/tar_maker.h"
#include "worker/pipe/extract.h"

#define ROOT "srv/files"

static char base[64];
static int staging;
static unsigned file_at;
static size_t tar_at;
static bool ignore_owner;

static enum dr_rc next(void *arg, const struct pipe_file **out, struct dr_err *err)
{
    (void)arg;
    (void)err;
    *out = file_at < file_count ? &files[file_at++] : NULL;
    return DR_OK;
}

static enum dr_rc give(void *arg, const void **bytes, size_t *len, struct dr_err *err)
{
    (void)arg;
    (void)err;
    *len = tar.len - tar_at > 700 ? 700 : tar.len - tar_at; /* cuts at odd places */
    *bytes = tar.data + tar_at;
    tar_at += *len;
    return DR_OK;
}

static enum dr_rc extract(struct dr_err *err)
{
    static const unsigned char end[1024];
    struct extract_root root = {"/" ROOT, staging};
    struct pipe_source source = {give, NULL};
    struct extract_spec spec = {.tar = &source,
                                .roots = &root,
                                .root_count = 1,
                                .next = next,
                                .ignore_owner = ignore_owner,
                                .threads = 2};
    dr_buf_add(&tar, end, sizeof end);
    tar_at = file_at = 0;
    return extract_tree(&spec, NULL, err);
}

/* ---- the world around ---- */

static void path_of(char out[512], const char *name)
{
    (void)snprintf(out, 512, "%s/%s", base, name);
}

static void write_text(const char *name, const char *text)
{
    char path[512];
    path_of(path, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    (void)fputs(text, f);
    (void)fclose(f);
}

static int setup(void **state)
{
    char path[512];
    (void)state;
    (void)snprintf(base, sizeof base, "/tmp/dr-extract-XXXXXX");
    assert_non_null(mkdtemp(base));
    path_of(path, "outside");
    assert_int_equal(mkdir(path, 0755), 0);
    write_text("outside/canary", "alive");
    path_of(path, "new");
    assert_int_equal(mkdir(path, 0700), 0);
    staging = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(staging >= 0);
    dr_buf_init(&tar, 64 << 20);
    file_count = 0;
    ignore_owner = false;
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    (void)close(staging);
    dr_buf_fini(&tar);
    free(files);
    files = NULL;
    (void)snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", base, base);
    return system(command);
}

/* Refused with that reason; outside is as it was: one file, one name, its text. */
static void refused(enum dr_rc kind, const char *reason)
{
    struct dr_err err = {0};
    char path[512], text[16] = {0};
    unsigned names = 0;
    enum dr_rc rc = extract(&err);
    if (rc != kind || strcmp(err.reason, reason) != 0)
        fail_msg("rc %d, reason %s: %s", rc, err.reason, err.msg);
    path_of(path, "outside/canary");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    (void)fclose(f);
    assert_string_equal(text, "alive");
    path_of(path, "outside");
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d))
        names++;
    (void)closedir(d);
    assert_int_equal(names, 3);
    path_of(path, "planted");
    assert_int_equal(access(path, F_OK), -1);
}

static void works(void)
{
    struct dr_err err = {0};
    if (extract(&err))
        fail_msg("%s: %s (%s)", err.reason, err.msg, err.value);
}

static struct stat look(const char *name)
{
    struct stat st;
    if (fstatat(staging, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        fail_msg("%s: %s", name, strerror(errno));
    return st;
}

/* ---- hostile archives ---- */

static void an_entry_below_a_symlink_is_refused(void **state)
{
    char outside[512];
    (void)state;
    path_of(outside, "outside");
    add(ROOT, 'd', "");
    add(ROOT "/link", 'l', outside);
    add(ROOT "/link/planted", 'f', "data");
    refused(DR_E_INTEGRITY, "tar-unsafe");
}

static void a_directory_over_a_symlink_is_refused(void **state)
{
    char outside[512];
    (void)state;
    path_of(outside, "outside");
    add(ROOT, 'd', "");
    add(ROOT "/link", 'l', outside);
    add(ROOT "/link", 'd', "");
    add(ROOT "/link/planted", 'f', "data");
    refused(DR_E_INTEGRITY, "tar-unsafe");
}

static void a_planted_symlink_is_not_followed(void **state)
{
    char outside[512], link[512];
    (void)state; /* somebody else plants it in staging: the worst case */
    path_of(outside, "outside");
    path_of(link, "new/dir");
    assert_int_equal(symlink(outside, link), 0);
    add(ROOT "/dir/planted", 'f', "data");
    refused(DR_E_INTEGRITY, "tar-unsafe");
    path_of(link, "new/file");
    path_of(outside, "outside/canary");
    assert_int_equal(symlink(outside, link), 0);
    fresh();
    add(ROOT "/file", 'f', "dead");
    refused(DR_E_INTEGRITY, "tar-unsafe");
}

static void dot_dot_is_refused(void **state)
{
    static const char *const names[] = {ROOT "/../../../planted",
                                        "../planted",
                                        ROOT "/a/..",
                                        ROOT "/./x",
                                        ROOT "//x",
                                        "..",
                                        ROOT "/..",
                                        ROOT "/x/../y"};
    (void)state;
    for (unsigned i = 0; i < CM_COUNT(names); i++) {
        fresh();
        add(names[i], 'f', "data");
        refused(DR_E_INTEGRITY, "tar-unsafe");
    }
}

static void absolute_names_are_refused(void **state)
{
    char path[512];
    (void)state;
    path_of(path, "planted");
    add(path, 'f', "data");
    refused(DR_E_INTEGRITY, "tar-unsafe");
}

static void names_outside_the_roots_are_refused(void **state)
{
    static const char *const names[] = {"srv/filesx/a", "srv", "etc/passwd", "srv/file"};
    (void)state;
    for (unsigned i = 0; i < CM_COUNT(names); i++) {
        fresh();
        add(names[i], 'f', "data");
        refused(DR_E_INTEGRITY, "tar-unsafe");
    }
}

static void device_nodes_are_refused(void **state)
{
    static const char types[] = "cb";
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        fresh();
        add(ROOT "/dev", types[i], "");
        refused(DR_E_REFUSED, "");
        assert_int_equal(faccessat(staging, "dev", F_OK, AT_SYMLINK_NOFOLLOW), -1);
    }
    fresh(); /* and where the index says it is a file */
    add(ROOT "/dev", 'c', "");
    files[0].type = 'f';
    refused(DR_E_REFUSED, "");
}

static void hard_links_to_outside_are_refused(void **state)
{
    char path[512];
    static const char *const targets[] = {"etc/passwd",  ROOT "/missing", ROOT "/../x",
                                          "/etc/passwd", ROOT "/dir",     ROOT "/later"};
    (void)state;
    path_of(path, "outside/canary");
    for (unsigned i = 0; i < CM_COUNT(targets) + 1; i++) {
        fresh();
        (void)unlinkat(staging, "dir", AT_REMOVEDIR);
        (void)unlinkat(staging, "hard", 0);
        add(ROOT "/dir", 'd', "");
        add(ROOT "/hard", 'h', i < CM_COUNT(targets) ? targets[i] : path);
        refused(DR_E_INTEGRITY, "tar-unsafe");
        assert_int_equal(faccessat(staging, "hard", F_OK, AT_SYMLINK_NOFOLLOW), -1);
    }
}

/* A link into the tree is one: what lies behind a symlink of the archive is still not reached. */
static void hard_links_through_symlinks_are_refused(void **state)
{
    char outside[512];
    (void)state;
    path_of(outside, "outside");
    add(ROOT "/link", 'l', outside);
    add(ROOT "/hard", 'h', ROOT "/link/canary");
    refused(DR_E_INTEGRITY, "tar-unsafe");
}

static void the_same_name_twice_is_refused(void **state)
{
    static const char types[] = "fdlhp";
    (void)state;
    for (unsigned a = 0; a < 5; a++)
        for (unsigned b = 0; b < 5; b++) {
            char command[128];
            (void)snprintf(command, sizeof command, "rm -rf %s/new/*", base);
            assert_int_equal(system(command), 0);
            fresh();
            add(ROOT "/a", 'f', "data");
            add(ROOT "/twice", types[a], types[a] == 'f' ? "data" : ROOT "/a");
            add(ROOT "/twice", types[b], types[b] == 'f' ? "data" : ROOT "/a");
            refused(DR_E_INTEGRITY, "tar-unsafe");
        }
}

static void an_entry_below_a_file_is_refused(void **state)
{
    (void)state;
    add(ROOT "/a", 'f', "data");
    add(ROOT "/a/b", 'f', "data");
    refused(DR_E_INTEGRITY, "tar-unsafe");
}

static void tar_and_index_must_agree(void **state)
{
    struct pipe_file *f;
    (void)state;
    for (unsigned i = 0; i < 9; i++) {
        char command[128];
        (void)snprintf(command, sizeof command, "rm -rf %s/new/*", base);
        assert_int_equal(system(command), 0);
        fresh();
        add(ROOT "/a", 'f', "data");
        f = add(ROOT "/b", i == 4 ? 'l' : 'f', "data");
        if (i == 0)
            f->path = (struct pipe_bytes){(const unsigned char *)ROOT "/c", 11};
        if (i == 1)
            f->type = 'd';
        if (i == 2)
            f->size++;
        if (i == 3)
            f->sha256[31] ^= 1;
        if (i == 4)
            f->target.len--;
        if (i == 5)
            file_count--; /* the tar holds more */
        if (i == 6)
            (void)record(ROOT "/z", 'f'); /* the index holds more */
        if (i == 7)
            f->has_sha256 = false;
        if (i == 8)
            f->path.len = 0;
        refused(DR_E_INTEGRITY, "tar-index");
    }
}

static void a_broken_tar_is_refused(void **state)
{
    (void)state;
    add(ROOT "/a", 'f', "data");
    add(ROOT "/b", 'f', "data");
    tar.data[512 + 512 + 20] ^= 1; /* checksum of the second header */
    refused(DR_E_INTEGRITY, "tar-format");
}

static void foreign_attributes_are_refused(void **state)
{
    struct pipe_xattr x = {{(const unsigned char *)"trusted.overlay.opaque", 22},
                           {(const unsigned char *)"y", 1}};
    (void)state;
    struct pipe_file *f = add(ROOT "/a", 'f', "data");
    f->xattrs = &x;
    f->xattr_count = 1;
    refused(DR_E_INTEGRITY, "");
}

/* ---- honest ones ---- */

static void metadata_comes_from_the_index(void **state)
{
    struct pipe_xattr x[] = {
        {{(const unsigned char *)"user.a", 6}, {(const unsigned char *)"1", 1}},
        {{(const unsigned char *)"user.b", 6}, {NULL, 0}}};
    char value[8];
    (void)state;
    struct pipe_file *f = add(ROOT, 'd', "");
    f->mode = 0750;
    f->mtime_ns = 1000000000123456789;
    f = add(ROOT "/file", 'f', "data");
    f->mode = 04711;
    f->mtime_ns = -1500000001; /* before 1970 */
    f->xattrs = x;
    f->xattr_count = 2;
    f = add(ROOT "/locked", 'd', "");
    f->mode = 0;
    f->mtime_ns = 77;
    add(ROOT "/locked/in", 'f', "data")->mode = 0;
    f = add(ROOT "/link", 'l', "/nowhere/at/all");
    f->mtime_ns = 5000000007;
    add(ROOT "/pipe", 'p', "");
    works();
    struct stat st = look(".");
    assert_int_equal(st.st_mode & 07777, 0750);
    assert_int_equal(st.st_mtim.tv_nsec, 123456789);
    st = look("file");
    assert_int_equal(st.st_mode & 07777, 04711);
    assert_int_equal(st.st_mtim.tv_sec, -2);
    assert_int_equal(st.st_mtim.tv_nsec, 499999999);
    int fd = openat(staging, "file", O_RDONLY);
    assert_int_equal(fgetxattr(fd, "user.a", value, sizeof value), 1);
    assert_int_equal(fgetxattr(fd, "user.b", value, sizeof value), 0);
    (void)close(fd);
    st = look("locked");
    assert_int_equal(st.st_mode & 07777, 0);
    assert_int_equal(st.st_mtim.tv_nsec, 77);
    st = look("link");
    assert_int_equal(st.st_mtim.tv_nsec, 7);
    assert_true(S_ISFIFO(look("pipe").st_mode));
}

static void hard_links_share_an_inode(void **state)
{
    (void)state;
    add(ROOT "/b", 'f', "data");
    add(ROOT "/d", 'd', "");
    add(ROOT "/d/c", 'h', ROOT "/b");
    add(ROOT "/e", 'h', ROOT "/b");
    add(ROOT "/s", 'l', "text");
    add(ROOT "/t", 'h', ROOT "/s"); /* a symlink may have two names, too */
    works();
    assert_int_equal(look("b").st_nlink, 3);
    assert_int_equal(look("b").st_ino, look("d/c").st_ino);
    assert_int_equal(look("s").st_ino, look("t").st_ino);
}

static void names_are_bytes(void **state)
{
    static char deep[6000]; /* records point into it: it only grows */
    static char wide[300];
    static const char *const names[] = {ROOT "/\xc3\xa9t\xc3\xa9", ROOT "/a\xcc\x81",
                                        ROOT "/bad\xff\xfe", ROOT "/line\nbreak", ROOT "/ blank "};
    char target[301] = {0};
    struct stat st;
    (void)state;
    for (unsigned i = 0; i < CM_COUNT(names); i++)
        add(names[i], 'f', "data");
    add(ROOT "/link", 'l', "\xc3\xa9\xff");
    add(ROOT "/hard", 'h', names[1]);
    memset(wide, 'w', sizeof wide - 1);
    add(ROOT "/far", 'l', wide);
    (void)snprintf(deep, sizeof deep, "%s", ROOT);
    while (strlen(deep) < 4500) { /* longer than PATH_MAX, deeper than the kept fds */
        size_t len = strlen(deep);
        (void)snprintf(deep + len, sizeof deep - len, "/%.*s", len % 10 ? 1 : 70, wide);
        add(deep, 'd', "");
    }
    works();
    for (unsigned i = 0; i < CM_COUNT(names); i++)
        assert_int_equal(look(names[i] + strlen(ROOT) + 1).st_size, 4);
    st = look("a\xcc\x81");
    assert_int_equal(look("hard").st_ino, st.st_ino);
    assert_int_equal(readlinkat(staging, "link", target, 300), 3);
    assert_memory_equal(target, "\xc3\xa9\xff", 3);
    assert_int_equal(readlinkat(staging, "far", target, 300), 299);
    assert_string_equal(target, wide);
}

static void holes_stay_holes(void **state)
{
    /* GNU.sparse 1.0: a map of one block, then the data of the one region. */
    static const char map[512] = "1\n8388608\n4\n";
    unsigned char *plain = dr_xalloc(10485760);
    (void)state;
    memcpy(plain + 8388608, "data", 4);
    struct pipe_file *f = record(ROOT "/sparse", 'f');
    f->size = 10485760;
    f->has_sha256 = true;
    (void)SHA256(plain, f->size, f->sha256);
    char records[256] = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
                        "36 GNU.sparse.name=srv/files/sparse\n32 GNU.sparse.realsize=10485760\n";
    header("pax", 3, 'x', NULL, strlen(records));
    body(records, strlen(records));
    header("GNUSparseFile.0/sparse", 22, '0', NULL, 516);
    dr_buf_add(&tar, map, 512);
    body("data", 4);
    works();
    struct stat st = look("sparse");
    assert_int_equal(st.st_size, 10485760);
    assert_true(st.st_blocks * 512 < 1 << 20);
    free(plain);
}

static void inner_roots_get_their_own_folder(void **state)
{
    static const unsigned char end[1024];
    struct dr_err err = {0};
    char path[512];
    (void)state;
    path_of(path, "inner");
    assert_int_equal(mkdir(path, 0700), 0);
    int inner = open(path, O_RDONLY | O_DIRECTORY);
    struct extract_root roots[] = {{"/" ROOT, staging}, {"/" ROOT "/mnt", inner}};
    struct pipe_source source = {give, NULL};
    struct extract_sums sums;
    struct extract_spec spec = {.tar = &source, .roots = roots, .root_count = 2, .next = next};
    add(ROOT, 'd', "");
    add(ROOT "/a", 'f', "data");
    add(ROOT "/mntx", 'f', "data");
    add(ROOT "/mnt", 'd', "")->mode = 0711;
    add(ROOT "/mnt/b", 'f', "data");
    dr_buf_add(&tar, end, sizeof end);
    tar_at = file_at = 0;
    assert_int_equal(extract_tree(&spec, &sums, &err), DR_OK);
    assert_int_equal(sums.files, 3);
    assert_int_equal(sums.bytes, 12);
    assert_int_equal(faccessat(staging, "mnt", F_OK, 0), -1);
    assert_int_equal(faccessat(staging, "mntx", F_OK, 0), 0);
    assert_int_equal(faccessat(inner, "b", F_OK, 0), 0);
    struct stat st;
    assert_int_equal(fstat(inner, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0711);
    (void)close(inner);
}

static void set_id_bits_need_their_owner(void **state)
{
    (void)state;
    ignore_owner = true;
    struct pipe_file *f = add(ROOT "/own", 'f', "data");
    f->mode = 06755;
    f = add(ROOT "/foreign", 'f', "data");
    f->mode = 06755;
    f->uid = geteuid() + 1;
    f->gid = getegid() + 1;
    works();
    assert_int_equal(look("own").st_mode & 07777, 06755);
    assert_int_equal(look("foreign").st_mode & 07777, 0755);
    assert_int_equal(look("foreign").st_uid, geteuid());
}

static void root_sets_owners_and_capabilities(void **state)
{
    static const unsigned char caps[20] = {1, 0, 0, 2, 0, 4};
    struct pipe_xattr x = {{(const unsigned char *)"security.capability", 19}, {caps, sizeof caps}};
    unsigned char got[32];
    (void)state;
    if (geteuid() != 0) {
        print_message("not run: needs root\n");
        return;
    }
    struct pipe_file *f = add(ROOT "/a", 'f', "data");
    f->uid = 1234;
    f->gid = 2345;
    f->mode = 06755;
    f->xattrs = &x;
    f->xattr_count = 1;
    f = add(ROOT "/l", 'l', "a");
    f->uid = 77;
    works();
    assert_int_equal(look("a").st_uid, 1234);
    assert_int_equal(look("a").st_gid, 2345);
    assert_int_equal(look("a").st_mode & 07777, 06755);
    assert_int_equal(look("l").st_uid, 77);
    int fd = openat(staging, "a", O_RDONLY);
    assert_int_equal(fgetxattr(fd, "security.capability", got, sizeof got), sizeof caps);
    assert_memory_equal(got, caps, sizeof caps);
    (void)close(fd);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_entry_below_a_symlink_is_refused),
        T(a_directory_over_a_symlink_is_refused),
        T(a_planted_symlink_is_not_followed),
        T(dot_dot_is_refused),
        T(absolute_names_are_refused),
        T(names_outside_the_roots_are_refused),
        T(device_nodes_are_refused),
        T(hard_links_to_outside_are_refused),
        T(hard_links_through_symlinks_are_refused),
        T(the_same_name_twice_is_refused),
        T(an_entry_below_a_file_is_refused),
        T(tar_and_index_must_agree),
        T(a_broken_tar_is_refused),
        T(foreign_attributes_are_refused),
        T(metadata_comes_from_the_index),
        T(hard_links_share_an_inode),
        T(names_are_bytes),
        T(holes_stay_holes),
        T(inner_roots_get_their_own_folder),
        T(set_id_bits_need_their_owner),
        T(root_sets_owners_and_capabilities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
