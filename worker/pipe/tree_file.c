/* Content of a regular file: hashed as it passes into the tar. A small one is read before its
 * header is written, so that one that changes meanwhile is read again. Owns nothing. */
#include "worker/pipe/tree_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/core/cancel.h"

enum { TRIES = 3, ZEROS = 1 << 16 };

static const unsigned char zeros[ZEROS];

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static enum dr_rc crypto(struct dr_err *err)
{
    return dr_fail(err, DR_E_CRYPTO, "SHA-256 fails");
}

enum dr_rc tree_reader_init(struct tree_reader *r, struct dr_err *err)
{
    r->buffer = dr_try_alloc(TREE_BUFFER + 1);
    r->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    r->hash = EVP_MD_CTX_new();
    if (!r->buffer)
        return dr_fail(err, DR_E_NOMEM, "buffer of a walk");
    return r->sha256 && r->hash ? DR_OK : dr_fail(err, DR_E_CRYPTO, "SHA-256 is not there");
}

void tree_reader_fini(struct tree_reader *r)
{
    free(r->buffer);
    EVP_MD_free(r->sha256);
    EVP_MD_CTX_free(r->hash);
}

/* The bytes of a file of size bytes, and one more if it has grown; negative: errno. */
static ssize_t read_all(int fd, unsigned char *p, size_t size)
{
    size_t have = 0;

    do {
        ssize_t n = pread(fd, p + have, size + 1 - have, (off_t)have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        have += (size_t)n;
    } while (have < size);
    return (ssize_t)have;
}

/* Reads st->st_size bytes, again when they changed meanwhile; then *st is the newer look and
 * *changed tells that even the last try was no quiet one. False: errno. */
static bool read_small(struct tree_reader *r, int fd, struct stat *st, bool *changed)
{
    for (int i = 0; i < TRIES && st->st_size <= TREE_BUFFER; i++) {
        struct stat after;
        size_t size = (size_t)st->st_size;
        ssize_t n = read_all(fd, r->buffer, size);
        if (n < 0 || fstat(fd, &after))
            return false;
        *changed = (size_t)n != size || !same(st, &after);
        if (!*changed)
            return true;
        if ((size_t)n < size)
            memset(r->buffer + n, 0, size - (size_t)n);
        if (i + 1 < TRIES)
            *st = after;
    }
    return true;
}

static enum dr_rc pass(struct tree_walk *w, struct tree_reader *r, const unsigned char *p,
                       size_t len, struct dr_err *err)
{
    if (EVP_DigestUpdate(r->hash, p, len) != 1)
        return crypto(err);
    if (w->spec->progress)
        atomic_fetch_add_explicit(w->spec->progress, len, memory_order_relaxed);
    return w->tar ? tree_tar_data(w->tar, p, len, err) : DR_OK;
}

static enum dr_rc pass_zeros(struct tree_walk *w, struct tree_reader *r, uint64_t len,
                             struct dr_err *err)
{
    enum dr_rc rc = DR_OK;

    while (!rc && len && !cancel_pending(w->spec->cancel)) {
        size_t n = len < ZEROS ? (size_t)len : ZEROS;
        rc = pass(w, r, zeros, n, err);
        len -= n;
    }
    return rc;
}

/* Where the next data begins: what lies before it is a hole. */
static uint64_t next_data(int fd, uint64_t at, uint64_t size, bool sparse)
{
    off_t next = sparse ? lseek(fd, (off_t)at, SEEK_DATA) : (off_t)at;

    if (next < 0)
        return errno == ENXIO ? size : at;
    return (uint64_t)next < size ? (uint64_t)next : size;
}

/* Exactly size bytes go into the tar. *failed: errno of a read that did not succeed. */
static enum dr_rc pass_large(struct tree_walk *w, struct tree_reader *r, int fd,
                             const struct stat *st, int *failed, struct dr_err *err)
{
    uint64_t size = (uint64_t)st->st_size, at = 0, data;
    bool sparse = (uint64_t)st->st_blocks * 512 < size;
    enum dr_rc rc = DR_OK;

    *failed = 0;
    if (size > TREE_BUFFER)
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    while (!rc && at < size && !cancel_pending(w->spec->cancel)) {
        data = next_data(fd, at, size, sparse);
        rc = pass_zeros(w, r, data - at, err);
        at = data;
        if (!rc && at < size) {
            size_t want = size - at < TREE_BUFFER ? (size_t)(size - at) : TREE_BUFFER;
            ssize_t n = pread(fd, r->buffer, want, (off_t)at);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                *failed = errno;
            if (n <= 0)
                break; /* it shrank, or cannot be read: zeros for the rest */
            rc = pass(w, r, r->buffer, (size_t)n, err);
            at += (uint64_t)n;
        }
    }
    return rc ? rc : pass_zeros(w, r, size - at, err);
}

static enum dr_rc begin(struct tree_walk *w, const struct pipe_file *f, struct dr_err *err)
{
    if (EVP_DigestInit_ex(w->reader.hash, w->reader.sha256, NULL) != 1)
        return crypto(err);
    return w->tar ? tree_tar_entry(w->tar, f, err) : DR_OK;
}

static enum dr_rc finish(struct tree_walk *w, const struct stat *st, struct pipe_file *f,
                         struct dr_err *err)
{
    uint32_t group = 0;

    if (cancel_pending(w->spec->cancel))
        return dr_fail(err, DR_E_CANCELLED, "cancelled");
    if (EVP_DigestFinal_ex(w->reader.hash, f->sha256, NULL) != 1)
        return crypto(err);
    f->has_sha256 = true;
    if (st->st_nlink > 1)
        group = tree_links_add(&w->links, st, f);
    return tree_emit(w, f, group, err);
}

static enum dr_rc hard_link(struct tree_walk *w, const struct stat *st,
                            const struct tree_link *first, struct dr_err *err)
{
    struct pipe_file f;
    enum dr_rc rc;

    tree_fill(w, st, 'h', &f);
    f.size = first->size;
    f.has_sha256 = f.has_target = true;
    memcpy(f.sha256, first->sha256, sizeof f.sha256);
    f.target = (struct pipe_bytes){(const unsigned char *)first->path, first->path_len};
    rc = w->tar ? tree_tar_entry(w->tar, &f, err) : DR_OK;
    return rc ? rc : tree_emit(w, &f, first->group, err);
}

enum dr_rc tree_content(struct tree_walk *w, struct tree_reader *r, int fd, const struct stat *st,
                        struct tree_look *out, struct dr_err *err)
{
    struct stat after;

    if (EVP_DigestInit_ex(r->hash, r->sha256, NULL) != 1)
        return crypto(err);
    if (pass_large(w, r, fd, st, &out->failed, err))
        return err->rc;
    if (cancel_pending(w->spec->cancel))
        return dr_fail(err, DR_E_CANCELLED, "cancelled");
    out->changed = !out->failed && (fstat(fd, &after) || !same(st, &after));
    return EVP_DigestFinal_ex(r->hash, out->sha256, NULL) == 1 ? DR_OK : crypto(err);
}

enum dr_rc tree_file(struct tree_walk *w, int fd, const struct stat *first, struct dr_err *err)
{
    struct tree_link *known = NULL;
    struct stat st = *first, after;
    struct pipe_file f;
    bool changed = false;
    int failed = 0;
    enum dr_rc rc;

    if (!tree_xattrs_read(&w->xattrs, fd, NULL))
        return tree_unreadable(w, "attributes of", err);
    if (first->st_nlink > 1) {
        if (tree_ahead_flush(w->ahead, err))
            return err->rc;
        known = tree_links_find(&w->links, first);
    }
    if (known)
        return hard_link(w, &st, known, err);
    if (w->ahead)
        return tree_ahead_add(w->ahead, fd, &st, err);
    if (!read_small(&w->reader, fd, &st, &changed))
        return tree_unreadable(w, "read", err);
    tree_fill(w, &st, 'f', &f);
    f.size = (uint64_t)st.st_size;
    rc = begin(w, &f, err);
    if (!rc && st.st_size <= TREE_BUFFER) {
        rc = pass(w, &w->reader, w->reader.buffer, (size_t)st.st_size, err);
    } else if (!rc) {
        rc = pass_large(w, &w->reader, fd, &st, &failed, err);
        if (!rc && failed && !w->spec->allow_unreadable) {
            errno = failed;
            rc = tree_unreadable(w, "read", err);
        }
        changed = !failed && (fstat(fd, &after) || !same(&st, &after));
    }
    if (!rc)
        rc = finish(w, &st, &f, err);
    if (!rc && (changed || failed))
        rc = tree_skip(w, failed ? "unreadable" : "changed", err);
    return rc;
}
