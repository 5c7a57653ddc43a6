/* Folders, publication and metadata of the `file` row. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/str.h"
#include "worker/storage/file_internal.h"

#define MARK  "user.dr.sha256" /* "<hex> <size> <mtime ns>" */
#define LABEL "user.dr.label"

enum { READ_PIECE = 1 << 20, DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

static bool writes(enum storage_op op)
{
    return op <= STORAGE_ABORT || op == STORAGE_DELETE;
}

enum storage_class file_errno(const struct storage_call *c, struct dr_err *err, const char *what)
{
    int e = errno;
    enum storage_class class = STORAGE_TRANSIENT; /* EIO, ESTALE, ETIMEDOUT, whatever a NAS has */
    if (e == ENOENT)
        class = STORAGE_NO_KEY;
    else if (e == EACCES || e == EPERM || e == EROFS)
        class = writes(c->op) ? STORAGE_READ_ONLY : STORAGE_AUTH;
    else if (e == ENOSPC || e == EDQUOT || e == EFBIG)
        class = STORAGE_FULL;
    else if (e == ENAMETOOLONG || e == ENOTDIR || e == EISDIR || e == ELOOP)
        class = STORAGE_PERMANENT;
    return storage_fail(err, class, "%s: %s", what, strerror(e));
}

void file_place_close(struct file_place *p)
{
    if (p->dir >= 0)
        (void)close(p->dir);
    if (p->root >= 0)
        (void)close(p->root);
    p->dir = p->root = -1;
}

enum storage_class file_open_root(const struct storage_call *c, int *root, struct dr_err *err)
{
    *root = open(c->target->bucket, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*root >= 0)
        return STORAGE_OK;
    if (errno == ENOENT || errno == ENOTDIR) /* never made by us: a NAS that is not mounted */
        return storage_fail(err, STORAGE_NO_BUCKET, "%s is not there", c->target->bucket);
    return file_errno(c, err, c->target->bucket);
}

/* Opens a folder below dir; dir is closed. What it makes is there after a crash too. */
static int step(int dir, const char *name, bool make)
{
    int next = openat(dir, name, DIR_FLAGS);
    if (next < 0 && errno == ENOENT && make) {
        if (mkdirat(dir, name, 0700) == 0 || errno == EEXIST) {
            (void)fsync(dir);
            next = openat(dir, name, DIR_FLAGS);
        }
    }
    int e = errno;
    (void)close(dir);
    errno = e;
    return next;
}

static bool good_component(const char *s)
{
    return *s && strcmp(s, ".") != 0 && strcmp(s, "..") != 0 && !dr_starts(s, ".dr-") &&
           strlen(s) < 256;
}

enum storage_class file_open_place(const struct storage_call *c, bool make, struct file_place *out,
                                   struct dr_err *err)
{
    char path[2 * FILE_KEY_MAX], *name = path, *slash;
    int n = snprintf(path, sizeof path, "%s%s", c->target->prefix ? c->target->prefix : "",
                     c->key ? c->key : "");
    *out = (struct file_place){.root = -1, .dir = -1};
    if (n <= 0 || n > FILE_KEY_MAX)
        return storage_fail(err, STORAGE_PERMANENT, "a key of %d bytes", n);
    enum storage_class class = file_open_root(c, &out->root, err);
    if (class != STORAGE_OK)
        return class;
    out->dir = fcntl(out->root, F_DUPFD_CLOEXEC, 3);
    for (; out->dir >= 0 && (slash = strchr(name, '/')); name = slash + 1) {
        *slash = 0;
        if (!good_component(name))
            break;
        out->dir = step(out->dir, name, make);
    }
    if (out->dir < 0)
        return file_errno(c, err, c->key);
    if (!good_component(name))
        return storage_fail(err, STORAGE_PERMANENT, "key: a name this store cannot hold");
    memcpy(out->name, name, strlen(name) + 1);
    return STORAGE_OK;
}

int file_open_uploads(int root, bool make)
{
    int copy = fcntl(root, F_DUPFD_CLOEXEC, 3);
    return copy < 0 ? -1 : step(copy, FILE_UPLOADS, make);
}

bool file_id_valid(const char *id)
{
    return id && strlen(id) == FILE_ID && id[strspn(id, "0123456789abcdef")] == 0;
}

bool file_write_all(int fd, const void *bytes, size_t len, off_t at)
{
    const char *p = bytes;
    while (len) {
        ssize_t n = pwrite(fd, p, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
        at += n;
    }
    return true;
}

/* 0, or -1 with errno. A link whose answer got lost is there all the same: NFS says EEXIST then. */
static int create_only(int fd, int from, const char *temp, const struct file_place *to)
{
    struct stat st;
    if (renameat2(from, temp, to->dir, to->name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
        return -1;
    if (linkat(from, temp, to->dir, to->name, 0) != 0) {
        int e = errno;
        if (e != EEXIST || fstat(fd, &st) != 0 || st.st_nlink < 2) {
            errno = e;
            return -1;
        }
    }
    return unlinkat(from, temp, 0);
}

static int64_t mtime_ns(const struct stat *st)
{
    return st->st_mtim.tv_sec * 1000000000LL + st->st_mtim.tv_nsec;
}

static void mark(int fd, const unsigned char sha256[32], const char *label)
{
    struct stat st;
    char hex[65], text[128];
    if (fstat(fd, &st) != 0)
        return;
    dr_hex(sha256, 32, hex);
    int n = snprintf(text, sizeof text, "%s %lld %lld", hex, (long long)st.st_size,
                     (long long)mtime_ns(&st));
    if (fsetxattr(fd, MARK, text, (size_t)n, 0) == 0 && label && *label)
        (void)fsetxattr(fd, LABEL, label, strlen(label), 0);
}

enum storage_class file_publish(const struct storage_call *c, int fd, int from, const char *temp,
                                const struct file_place *to, struct dr_err *err)
{
    if (fsync(fd) != 0)
        return file_errno(c, err, "fsync");
    mark(fd, c->sha256, c->label); /* the time has settled; if a crash loses it, HEAD reads */
    int done =
        c->create_only ? create_only(fd, from, temp, to) : renameat(from, temp, to->dir, to->name);
    if (done != 0 && errno == EEXIST)
        return storage_fail(err, STORAGE_EXISTS, "it is there already");
    if (done != 0)
        return file_errno(c, err, "rename");
    if (fsync(to->dir) != 0)
        return file_errno(c, err, "fsync of the folder");
    return STORAGE_OK;
}

static bool marked(int fd, const struct stat *st, unsigned char sha256[32])
{
    char text[129], want[64];
    ssize_t n = fgetxattr(fd, MARK, text, sizeof text - 1);
    if (n < 66)
        return false;
    text[n] = 0;
    (void)snprintf(want, sizeof want, " %lld %lld", (long long)st->st_size,
                   (long long)mtime_ns(st));
    return strcmp(text + 64, want) == 0 && dr_unhex(text, 64, sha256, 32);
}

static enum storage_class read_whole(const struct storage_call *c, int fd, struct cancel *cancel,
                                     unsigned char sha256[32], struct dr_err *err)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char *piece = malloc(READ_PIECE);
    enum storage_class class = STORAGE_OK;
    off_t at = 0;
    ssize_t n = 1;
    if (!md || !piece || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
        class = storage_fail(err, STORAGE_TRANSIENT, "out of memory");
    while (class == STORAGE_OK && n > 0) {
        n = pread(fd, piece, READ_PIECE, at);
        if (n < 0)
            class = file_errno(c, err, "read");
        else if (cancel_pending(cancel))
            class = storage_fail(err, STORAGE_TRANSIENT, "cancelled");
        else if (n > 0 && EVP_DigestUpdate(md, piece, (size_t)n) != 1)
            class = storage_fail(err, STORAGE_TRANSIENT, "digest");
        at += n > 0 ? n : 0;
    }
    if (class == STORAGE_OK && EVP_DigestFinal_ex(md, sha256, NULL) != 1)
        class = storage_fail(err, STORAGE_TRANSIENT, "digest");
    EVP_MD_CTX_free(md);
    free(piece);
    return class;
}

enum storage_class file_hash(const struct storage_call *c, int fd, struct cancel *cancel,
                             struct storage_answer *out, struct dr_err *err)
{
    struct stat st;
    enum storage_class class = STORAGE_OK;
    if (fstat(fd, &st) != 0)
        return file_errno(c, err, "stat");
    ssize_t n = fgetxattr(fd, LABEL, out->label, sizeof out->label - 1);
    out->label[n > 0 ? n : 0] = 0;
    if (!marked(fd, &st, out->sha256)) {
        class = read_whole(c, fd, cancel, out->sha256, err);
        if (class == STORAGE_OK)
            mark(fd, out->sha256, out->label);
    }
    out->has_sha256 = class == STORAGE_OK;
    return class;
}

void file_etag(const struct storage_answer *a, int64_t mtime, uint64_t ino, char out[128])
{
    (void)snprintf(out, 128, "%llx-%llx-%llx", (unsigned long long)a->size,
                   (unsigned long long)mtime, (unsigned long long)ino);
}
