/* fuzz: drpipe. Any tar, with an index that says whatever the tar says: the worst an attacker with
 * the keys could write. Nothing outside of the staging folder may change. */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/unit/pipe/tar_maker.h"
#include "worker/pipe/extract.h"

enum { RECORDS_MAX = 64, CONTENT_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char base[] = "/tmp/dr-fuzz-XXXXXX";
static int base_fd = -1;
static struct pipe_file records[RECORDS_MAX];
static unsigned count, at;
static struct pipe_bytes input;

static void demand(int what)
{
    if (!what)
        abort();
}

static void clean(void)
{
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", base);
    (void)!system(command);
}

static void make_base(void)
{
    demand(mkdtemp(base) != NULL);
    base_fd = open(base, O_RDONLY | O_DIRECTORY);
    int fd = openat(base_fd, "canary", O_CREAT | O_WRONLY, 0600);
    demand(write(fd, "alive", 5) == 5);
    (void)close(fd);
    (void)atexit(clean);
}

static struct pipe_bytes copy(const char *s)
{
    return (struct pipe_bytes){(unsigned char *)dr_xstrdup(s ? s : ""), s ? strlen(s) : 0};
}

/* What an index of this tar would say. */
static void index_of(const uint8_t *data, size_t size)
{
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    (void)archive_read_support_format_tar(a);
    if (archive_read_open_memory(a, data, size) == ARCHIVE_OK)
        while (count < RECORDS_MAX && archive_read_next_header(a, &e) >= ARCHIVE_WARN) {
            struct pipe_file *f = &records[count++];
            la_int64_t length = archive_entry_size(e);
            *f = (struct pipe_file){.mode = 0644, .uid = geteuid(), .gid = getegid()};
            f->path = copy(archive_entry_pathname(e));
            if (f->path.len > 1 && f->path.data[f->path.len - 1] == '/')
                f->path.len--;
            f->type = archive_entry_hardlink(e)               ? 'h'
                      : archive_entry_filetype(e) == AE_IFDIR ? 'd'
                      : archive_entry_filetype(e) == AE_IFLNK ? 'l'
                      : archive_entry_filetype(e) == AE_IFIFO ? 'p'
                                                              : 'f';
            f->target = copy(f->type == 'h'   ? archive_entry_hardlink(e)
                             : f->type == 'l' ? archive_entry_symlink(e)
                                              : NULL);
            if (f->type != 'f' || length < 0 || length > CONTENT_MAX)
                continue;
            unsigned char *content = dr_xalloc((size_t)length + 1);
            f->size = (uint64_t)length;
            f->has_sha256 = archive_read_data(a, content, (size_t)length) >= 0;
            (void)SHA256(content, (size_t)length, f->sha256);
            free(content);
        }
    (void)archive_read_free(a);
}

static enum dr_rc next(void *arg, const struct pipe_file **out, struct dr_err *err)
{
    (void)arg, (void)err;
    *out = at < count ? &records[at++] : NULL;
    return DR_OK;
}

static enum dr_rc give(void *arg, const void **bytes, size_t *len, struct dr_err *err)
{
    (void)arg, (void)err;
    *bytes = input.data;
    *len = input.len;
    input.len = 0;
    return DR_OK;
}

/* A path of up to four parts, chosen by the bytes. */
static char *some_path(const uint8_t **data, size_t *size)
{
    static const char *const parts[] = {"r", "a", "b", "..", ".", "", "c/d", "/", "r/a"};
    char *path = dr_xalloc(64);
    for (unsigned n = 0; *size && n < 4; n++) {
        uint8_t byte = *(*data)++;
        (*size)--;
        (void)strcat(strcat(path, n ? "/" : ""), parts[byte % 9]);
        if (byte & 0x80)
            break;
    }
    return path;
}

/* Well-formed entries in any order: input and records in one. */
static void make_tar(const uint8_t *data, size_t size)
{
    static const char types[] = "fdlhpd";
    static const unsigned char end_of_tar[1024];
    fresh();
    while (size && file_count < RECORDS_MAX) {
        char type = types[*data % 6];
        data++, size--;
        char *path = some_path(&data, &size), *what = some_path(&data, &size);
        struct pipe_file *f = add(path, type, what);
        if (type == 'h')
            f->size = size ? *data % 8 : 0;
        if (!f->target.data)
            free(what);
    }
    dr_buf_add(&tar, end_of_tar, sizeof end_of_tar);
    count = file_count;
    if (count)
        memcpy(records, files, count * sizeof *records);
    input = (struct pipe_bytes){tar.data, tar.len};
}

static void check_outside(void)
{
    char text[8] = {0}, path[64];
    unsigned names = 0;
    int fd = openat(base_fd, "canary", O_RDONLY);
    demand(fd >= 0 && read(fd, text, sizeof text) == 5 && strcmp(text, "alive") == 0);
    (void)close(fd);
    (void)snprintf(path, sizeof path, "%s", base);
    DIR *d = opendir(path);
    while (readdir(d))
        names++;
    (void)closedir(d);
    demand(names == 4); /* ., .., canary, new */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dr_err err = {0};
    char command[128];
    if (base_fd < 0)
        make_base();
    (void)mkdirat(base_fd, "new", 0700);
    int fd = openat(base_fd, "new", O_RDONLY | O_DIRECTORY);
    demand(fd >= 0);
    const struct extract_root root = {"/r", fd};
    const struct pipe_source source = {give, NULL};
    const struct extract_spec spec = {
        .tar = &source, .roots = &root, .root_count = 1, .next = next};
    count = at = 0;
    if (size && (*data & 1)) {
        dr_buf_init(&tar, 1 << 20);
        make_tar(data + 1, size - 1);
    } else {
        index_of(data, size);
        input = (struct pipe_bytes){data, size};
    }
    if (extract_tree(&spec, NULL, &err) != DR_OK)
        demand(err.rc != DR_OK && err.rc != DR_E_BUG);
    check_outside();
    for (unsigned i = 0; i < count; i++) {
        free((void *)(uintptr_t)records[i].path.data);
        free((void *)(uintptr_t)records[i].target.data);
    }
    dr_buf_fini(&tar);
    (void)close(fd);
    (void)snprintf(command, sizeof command, "chmod -R u+rwx %s/new 2>/dev/null; rm -rf %s/new",
                   base, base);
    if (faccessat(base_fd, "new", F_OK, 0) == 0 && unlinkat(base_fd, "new", AT_REMOVEDIR) != 0)
        demand(system(command) == 0);
    return 0;
}
