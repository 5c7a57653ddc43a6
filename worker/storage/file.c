/* The `file` row: an absolute directory, a NAS. A put is a temporary file below the directory,
 * synced, then given its name by a rename that replaces nothing (a link where the file system has
 * no such rename). Our hash is an extended attribute of that file, so that it comes into being with
 * the name; there is no second file that could disagree. Where attributes are missing or were lost
 * by a copy, a HEAD reads the object, which proves more than a note would. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/str.h"
#include "worker/storage/file_internal.h"

enum { ENTRIES_MAX = 1000000 };

static enum dr_rc wrong(struct dr_err *err, const char *field, const char *value, const char *why)
{
    (void)dr_fail(err, DR_E_CONFIG, "%s: %s", field, why);
    (void)dr_err_field(err, field, value, strlen(value));
    return DR_E_CONFIG;
}

static enum dr_rc check(const struct storage_target *t, struct dr_err *err)
{
    const char *p = t->prefix ? t->prefix : "", *b = t->bucket ? t->bucket : "";
    if (b[0] != '/' || b[1] == 0 || strlen(b) > PATH_MAX / 2)
        return wrong(err, "bucket", b, "the absolute path of a folder");
    if (*p && (strlen(p) > 512 || p[0] == '/' || p[strlen(p) - 1] != '/' || strstr(p, "//") ||
               p[0] == '.' || strstr(p, "/.")))
        return wrong(err, "prefix", p, "names between single slashes, none with a dot first");
    return DR_OK;
}

static void describe(int fd, struct storage_answer *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return;
    out->size = (uint64_t)st.st_size;
    out->has_size = S_ISREG(st.st_mode);
    file_etag(out, st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec, st.st_ino, out->etag);
}

static enum storage_class put(const struct storage_call *c, const void *payload,
                              struct storage_answer *out, struct dr_err *err)
{
    struct file_place place;
    unsigned char random[FILE_ID / 2];
    char hex[FILE_ID + 1], temp[FILE_NAME_MAX];
    int fd = -1, dir = -1;
    dr_random_bytes(random, sizeof random);
    dr_hex(random, sizeof random, hex);
    (void)snprintf(temp, sizeof temp, "%s.put", hex);
    enum storage_class class = file_open_place(c, true, &place, err);
    if (class == STORAGE_OK) {
        dir = file_open_uploads(place.root, true);
        fd = dir < 0 ? -1 : openat(dir, temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || !file_write_all(fd, payload, c->length, 0))
            class = file_errno(c, err, "write");
    }
    if (class == STORAGE_OK)
        class = file_publish(c, fd, dir, temp, &place, err);
    if (class == STORAGE_OK)
        describe(fd, out);
    else if (fd >= 0)
        (void)unlinkat(dir, temp, 0);
    if (fd >= 0)
        (void)close(fd);
    if (dir >= 0)
        (void)close(dir);
    file_place_close(&place);
    return class;
}

static enum storage_class open_object(const struct storage_call *c, int *fd,
                                      struct storage_answer *out, struct dr_err *err)
{
    struct file_place place;
    enum storage_class class = file_open_place(c, false, &place, err);
    *fd = -1;
    if (class == STORAGE_OK) {
        *fd = openat(place.dir, place.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (*fd < 0)
            class = file_errno(c, err, c->key);
    }
    file_place_close(&place);
    if (class == STORAGE_OK) {
        describe(*fd, out);
        if (!out->has_size)
            class = storage_fail(err, STORAGE_PERMANENT, "no regular file");
    }
    return class;
}

static enum storage_class get(const struct storage_call *c, void *into, struct storage_answer *out,
                              struct dr_err *err)
{
    int fd;
    enum storage_class class = open_object(c, &fd, out, err);
    if (class == STORAGE_OK && c->etag && *c->etag && strcmp(c->etag, out->etag) != 0)
        class = storage_fail(err, STORAGE_CHANGED, "it is another one by now");
    uint64_t len = c->length ? c->length : out->size;
    if (class == STORAGE_OK && (c->offset > out->size || len > out->size - c->offset))
        class = storage_fail(err, STORAGE_INTEGRITY, "it is shorter than that");
    for (uint64_t done = 0; class == STORAGE_OK && done < len;) {
        ssize_t n = pread(fd, (char *)into + done, len - done, (off_t)(c->offset + done));
        if (n > 0)
            done += (uint64_t)n;
        else if (n == 0)
            class = storage_fail(err, STORAGE_CHANGED, "it became shorter meanwhile");
        else if (errno != EINTR)
            class = file_errno(c, err, "read");
    }
    if (fd >= 0)
        (void)close(fd);
    return class;
}

static enum storage_class head(const struct storage_call *c, struct cancel *cancel,
                               struct storage_answer *out, struct dr_err *err)
{
    int fd;
    enum storage_class class = open_object(c, &fd, out, err);
    if (class == STORAGE_OK)
        class = file_hash(c, fd, cancel, out, err);
    if (fd >= 0)
        (void)close(fd);
    return class;
}

static enum storage_class drop(const struct storage_call *c, struct dr_err *err)
{
    struct file_place place;
    struct dr_err why = {0};
    enum storage_class class = file_open_place(c, false, &place, &why);
    if (class == STORAGE_OK && unlinkat(place.dir, place.name, 0) != 0)
        class = file_errno(c, &why, c->key);
    else if (class == STORAGE_OK && fsync(place.dir) != 0)
        class = file_errno(c, &why, "fsync of the folder");
    file_place_close(&place);
    if (class == STORAGE_OK || class == STORAGE_NO_KEY)
        return STORAGE_OK;
    return storage_fail(err, class, "%s", why.msg);
}

struct walk {
    const struct storage_call *c;
    struct storage_answer *out;
    struct dr_err *err;
    char path[2 * FILE_KEY_MAX]; /* from the root */
    const char *prefix;          /* of the target */
    char wanted[2 * FILE_KEY_MAX];
};

static void put_entry(struct walk *w, const struct stat *st)
{
    struct storage_answer *a = w->out;
    if (!dr_starts(w->path, w->wanted))
        return;
    if ((a->entry_count & (a->entry_count - 1)) == 0) /* doubles at powers of two */
        a->entries =
            dr_xrealloc(a->entries, (a->entry_count ? 2 * a->entry_count : 1) * sizeof *a->entries);
    a->entries[a->entry_count++] =
        (struct storage_entry){.key = dr_xstrdup(w->path + strlen(w->prefix)),
                               .size = (uint64_t)st->st_size,
                               .at_unix_s = st->st_mtim.tv_sec};
}

/* Is there anything wanted below this folder? */
static bool leads_there(const struct walk *w, size_t len)
{
    size_t n = strlen(w->wanted);
    return strncmp(w->path, w->wanted, len < n ? len : n) == 0;
}

static enum storage_class walk(struct walk *w, int dir, size_t len, unsigned depth);

static enum storage_class entry(struct walk *w, int dir, const char *name, size_t len,
                                unsigned depth)
{
    struct stat st;
    size_t n = strlen(name);
    if (name[0] == '.' || len + n + 2 > FILE_KEY_MAX)
        return STORAGE_OK; /* ours have no dot first, and are shorter */
    memcpy(w->path + len, name, n + 1);
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? STORAGE_OK : file_errno(w->c, w->err, "list");
    if (S_ISREG(st.st_mode))
        put_entry(w, &st);
    if (!S_ISDIR(st.st_mode))
        return STORAGE_OK;
    memcpy(w->path + len + n, "/", 2);
    if (!leads_there(w, len + n + 1))
        return STORAGE_OK;
    int below = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return below < 0 ? file_errno(w->c, w->err, "list") : walk(w, below, len + n + 1, depth + 1);
}

/* Closes dir. */
static enum storage_class walk(struct walk *w, int dir, size_t len, unsigned depth)
{
    DIR *list = depth > FILE_DEPTH_MAX ? NULL : fdopendir(dir);
    enum storage_class class = STORAGE_OK;
    struct dirent *e;
    if (!list) {
        (void)close(dir);
        return storage_fail(w->err, STORAGE_PERMANENT, "folders nested too deeply");
    }
    while (class == STORAGE_OK && (errno = 0, e = readdir(list)))
        class = w->out->entry_count == ENTRIES_MAX
                    ? storage_fail(w->err, STORAGE_PERMANENT, "too many files")
                    : entry(w, dirfd(list), e->d_name, len, depth);
    if (class == STORAGE_OK && errno)
        class = file_errno(w->c, w->err, "list");
    (void)closedir(list);
    return class;
}

static int by_key(const void *a, const void *b)
{
    const struct storage_entry *x = a, *y = b;
    return strcmp(x->key, y->key);
}

/* One page has all. */
static enum storage_class list(const struct storage_call *c, struct storage_answer *out,
                               struct dr_err *err)
{
    const char *prefix = c->target->prefix ? c->target->prefix : "";
    struct walk w = {.c = c, .out = out, .err = err, .prefix = prefix};
    int root;
    if (snprintf(w.wanted, sizeof w.wanted, "%s%s", prefix, c->key ? c->key : "") > FILE_KEY_MAX)
        return storage_fail(err, STORAGE_PERMANENT, "key too long");
    enum storage_class class = file_open_root(c, &root, err);
    if (class == STORAGE_OK)
        class = walk(&w, root, 0, 0);
    if (out->entry_count)
        qsort(out->entries, out->entry_count, sizeof *out->entries, by_key);
    return class;
}

static enum storage_class run(const struct storage_call *c, const void *payload, void *into,
                              struct cancel *cancel, struct storage_answer *out, struct dr_err *err)
{
    memset(out, 0, sizeof *out);
    switch (c->op) {
    case STORAGE_PUT:
        return put(c, payload, out, err);
    case STORAGE_BEGIN:
        return file_begin(c, out, err);
    case STORAGE_PART:
        return file_part(c, payload, out, err);
    case STORAGE_COMPLETE:
        return file_complete(c, out, err);
    case STORAGE_ABORT:
        return file_abort(c, err);
    case STORAGE_LIST_PARTS:
        return file_parts(c, out, err);
    case STORAGE_GET:
        return get(c, into, out, err);
    case STORAGE_HEAD:
        return head(c, cancel, out, err);
    case STORAGE_LIST:
        return list(c, out, err);
    case STORAGE_LIST_UPLOADS:
        return file_uploads(c, out, err);
    case STORAGE_DELETE:
        return drop(c, err);
    case STORAGE_AUTHORISE:
    default:
        return storage_fail(err, STORAGE_PERMANENT, "operation %d", (int)c->op);
    }
}

static const struct storage_local local = {run};

const struct storage_dialect storage_file = {
    .provider = "file",
    .put_max = 64ULL << 20,
    .part_min = 1,
    .part_max = 1ULL << 30,
    .part_multiple = 1,
    .parts_max = 10000,
    .check = check,
    .local = &local,
};
