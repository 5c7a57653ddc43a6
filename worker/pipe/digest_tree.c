/* root_content and root_meta as streams. An item is A, target 00, and for meta B: what comes before
 * and after the target. While a file's first entry does not know whether there is a second one,
 * items wait in `spool`, then in an unlinked file. Owns both; one thread at a time. */
#include "worker/pipe/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"

enum { ITEM_MAX = 4 << 20, HEAD = 16 };

struct digest_tree {
    EVP_MD *sha256;
    EVP_MD_CTX *content, *meta;
    struct dr_buf a, b;  /* of the item at hand */
    uint32_t *seen;      /* entries of each group; a group is known from its second one on */
    size_t groups, room; /* numbers 1..groups are in use */
    size_t unknown;      /* groups with one entry so far */
    struct dr_buf spool; /* items that wait: head, A, target, B */
    char *spool_dir;
    int fd; /* those that came before them; -1: none */
    uint64_t fd_len;
};

static enum dr_rc begin(struct digest_tree *d, struct dr_err *err)
{
    if (EVP_DigestInit_ex(d->content, d->sha256, NULL) != 1 ||
        EVP_DigestInit_ex(d->meta, d->sha256, NULL) != 1)
        return dr_fail(err, DR_E_CRYPTO, "SHA-256 does not start");
    d->groups = d->unknown = 0;
    return DR_OK;
}

enum dr_rc digest_tree_new(const char *spool_dir, struct digest_tree **out, struct dr_err *err)
{
    struct digest_tree *d = dr_xalloc(sizeof *d);
    enum dr_rc rc;

    d->fd = -1;
    d->spool_dir = dr_xstrdup(spool_dir ? spool_dir : "/var/tmp");
    dr_buf_init(&d->a, ITEM_MAX);
    dr_buf_init(&d->b, ITEM_MAX);
    dr_buf_init(&d->spool, DIGEST_TREE_MEMORY + 3 * (size_t)ITEM_MAX);
    d->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    d->content = EVP_MD_CTX_new();
    d->meta = EVP_MD_CTX_new();
    if (d->sha256 && d->content && d->meta)
        rc = begin(d, err);
    else
        rc = dr_fail(err, DR_E_CRYPTO, "SHA-256 is not there");
    if (rc) {
        digest_tree_free(d);
        return rc;
    }
    *out = d;
    return DR_OK;
}

void digest_tree_free(struct digest_tree *d)
{
    if (!d)
        return;
    if (d->fd >= 0)
        close(d->fd);
    EVP_MD_CTX_free(d->content);
    EVP_MD_CTX_free(d->meta);
    EVP_MD_free(d->sha256);
    dr_buf_fini(&d->a);
    dr_buf_fini(&d->b);
    dr_buf_fini(&d->spool);
    free(d->seen);
    free(d->spool_dir);
    free(d);
}

static void field(struct dr_buf *b, const void *bytes, size_t len)
{
    dr_buf_add(b, bytes, len);
    dr_buf_add(b, "", 1);
}

static void number(struct dr_buf *b, unsigned long long value)
{
    char text[24];
    field(b, text, (size_t)snprintf(text, sizeof text, "%llu", value));
}

static void hex_field(struct dr_buf *b, const unsigned char *bytes, size_t len)
{
    char text[129];
    for (size_t i = 0; i < len; i += 64) {
        size_t n = len - i < 64 ? len - i : 64;
        dr_hex(bytes + i, n, text);
        dr_buf_add(b, text, 2 * n);
    }
    dr_buf_add(b, "", 1);
}

/* path 00 type 00 size 00 sha256 00 | mode 00 uid 00 gid 00 mtime_ns 00 xattrs 00 */
static void build(struct digest_tree *d, const struct pipe_file *f)
{
    char type = f->type == 'h' ? 'f' : f->type;
    char text[24];

    dr_buf_reset(&d->a);
    dr_buf_reset(&d->b);
    field(&d->a, f->path.data, f->path.len);
    field(&d->a, &type, 1);
    number(&d->a, f->size);
    hex_field(&d->a, f->sha256, f->has_sha256 ? sizeof f->sha256 : 0);
    field(&d->b, text, (size_t)snprintf(text, sizeof text, "%04o", f->mode));
    number(&d->b, f->uid);
    number(&d->b, f->gid);
    field(&d->b, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)f->mtime_ns));
    for (unsigned i = 0; i < f->xattr_count; i++) {
        field(&d->b, f->xattrs[i].name.data, f->xattrs[i].name.len);
        hex_field(&d->b, f->xattrs[i].value.data, f->xattrs[i].value.len);
    }
    dr_buf_add(&d->b, "", 1);
}

static enum dr_rc hash_item(struct digest_tree *d, const unsigned char *a, size_t a_len,
                            const unsigned char *target, size_t target_len, const unsigned char *b,
                            size_t b_len, struct dr_err *err)
{
    if (EVP_DigestUpdate(d->content, a, a_len) != 1 ||
        EVP_DigestUpdate(d->content, target, target_len) != 1 ||
        EVP_DigestUpdate(d->content, "", 1) != 1 || EVP_DigestUpdate(d->meta, a, a_len) != 1 ||
        EVP_DigestUpdate(d->meta, target, target_len) != 1 ||
        EVP_DigestUpdate(d->meta, "", 1) != 1 || EVP_DigestUpdate(d->meta, b, b_len) != 1)
        return dr_fail(err, DR_E_CRYPTO, "SHA-256 fails");
    return DR_OK;
}

static enum dr_rc write_all(int fd, const unsigned char *p, size_t len, struct dr_err *err)
{
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "write digests that wait");
        p += n;
        len -= (size_t)n;
    }
    return DR_OK;
}

static enum dr_rc spill(struct digest_tree *d, struct dr_err *err)
{
    if (d->fd < 0) {
        d->fd = open(d->spool_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (d->fd < 0) { /* not every file system has O_TMPFILE */
            char *name = dr_xasprintf("%s/.dr-digest-XXXXXX", d->spool_dir);
            d->fd = mkostemp(name, O_CLOEXEC);
            if (d->fd >= 0)
                unlink(name);
            free(name);
        }
        if (d->fd < 0)
            return dr_fail_errno(err, DR_E_IO, "make a temporary file in %s", d->spool_dir);
    }
    if (write_all(d->fd, d->spool.data, d->spool.len, err))
        return err ? err->rc : DR_E_IO;
    d->fd_len += d->spool.len;
    dr_buf_reset(&d->spool);
    return DR_OK;
}

static enum dr_rc wait_in_spool(struct digest_tree *d, const struct pipe_bytes *target,
                                uint32_t group, struct dr_err *err)
{
    dr_buf_u32be(&d->spool, (uint32_t)d->a.len);
    dr_buf_u32be(&d->spool, (uint32_t)target->len);
    dr_buf_u32be(&d->spool, (uint32_t)d->b.len);
    dr_buf_u32be(&d->spool, group);
    dr_buf_add(&d->spool, d->a.data, d->a.len);
    dr_buf_add(&d->spool, target->data, target->len);
    dr_buf_add(&d->spool, d->b.data, d->b.len);
    if (d->spool.failed)
        return dr_fail(err, DR_E_NOMEM, "digests that wait");
    return d->spool.len >= DIGEST_TREE_MEMORY ? spill(d, err) : DR_OK;
}

/* Hashes the whole items at p; returns how many bytes they were. */
static enum dr_rc hash_items(struct digest_tree *d, const unsigned char *p, size_t len,
                             size_t *used, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;

    *used = 0;
    while (!rc && len - *used >= HEAD) {
        const unsigned char *item = p + *used, *a = item + HEAD;
        size_t a_len = dr_get_u32be(item), t_len = dr_get_u32be(item + 4);
        size_t b_len = dr_get_u32be(item + 8);
        uint32_t group = dr_get_u32be(item + 12);
        const unsigned char *target = a + a_len;
        if (len - *used < HEAD + a_len + t_len + b_len)
            break;
        if (group && d->seen[group] > 1) /* the first of several: its own path, up to the 00 */
            rc = hash_item(d, a, a_len, a, strlen((const char *)a), target, b_len, err);
        else
            rc = hash_item(d, a, a_len, target, t_len, target + t_len, b_len, err);
        *used += HEAD + a_len + t_len + b_len;
    }
    return rc;
}

static enum dr_rc hash_file(struct digest_tree *d, struct dr_err *err)
{
    size_t cap = DIGEST_TREE_MEMORY + 3 * (size_t)ITEM_MAX, have = 0, used;
    unsigned char *p = malloc(cap);
    uint64_t at = 0;
    enum dr_rc rc = DR_OK;

    if (!p)
        return dr_fail(err, DR_E_NOMEM, "digests that wait");
    while (!rc && at < d->fd_len) {
        ssize_t n = pread(d->fd, p + have, cap - have, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = dr_fail_errno(err, DR_E_IO, "read digests that wait");
            break;
        }
        at += (uint64_t)n;
        have += (size_t)n;
        rc = hash_items(d, p, have, &used, err);
        memmove(p, p + used, have - used);
        have -= used;
    }
    free(p);
    if (!rc && have)
        rc = dr_fail(err, DR_E_IO, "digests that wait were cut");
    if (!rc && ftruncate(d->fd, 0))
        rc = dr_fail_errno(err, DR_E_IO, "empty the file of digests that wait");
    if (!rc && lseek(d->fd, 0, SEEK_SET))
        rc = dr_fail_errno(err, DR_E_IO, "rewind the file of digests that wait");
    d->fd_len = 0;
    return rc;
}

/* Every group is known, or the root has ended: what waits is hashed in its order. */
static enum dr_rc release(struct digest_tree *d, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    size_t used;

    if (d->fd_len)
        rc = hash_file(d, err);
    if (!rc)
        rc = hash_items(d, d->spool.data, d->spool.len, &used, err);
    dr_buf_reset(&d->spool);
    return rc;
}

static enum dr_rc count_group(struct digest_tree *d, uint32_t group, struct dr_err *err)
{
    if (group > d->groups) {
        if (group != d->groups + 1)
            return dr_fail(err, DR_E_BUG, "group %u comes after %zu", group, d->groups);
        if (group >= d->room) {
            d->room = d->room ? 2 * d->room : 64;
            d->seen = dr_xrealloc(d->seen, d->room * sizeof *d->seen);
        }
        d->seen[group] = 1;
        d->groups = group;
        d->unknown++;
    } else if (d->seen[group]++ == 1) {
        d->unknown--;
    }
    return DR_OK;
}

enum dr_rc digest_tree_add(struct digest_tree *d, const struct pipe_file *f, uint32_t group,
                           struct dr_err *err)
{
    struct pipe_bytes target = f->has_target ? f->target : (struct pipe_bytes){0};
    bool first = group && f->type != 'h';
    enum dr_rc rc;

    build(d, f);
    if (d->a.failed || d->b.failed)
        return dr_fail(err, DR_E_TOO_BIG, "digest of one entry over %d bytes", ITEM_MAX);
    if (group && (rc = count_group(d, group, err)))
        return rc;
    if (first || d->unknown || d->spool.len || d->fd_len) {
        rc = wait_in_spool(d, &target, first ? group : 0, err);
        return rc || d->unknown ? rc : release(d, err);
    }
    return hash_item(d, d->a.data, d->a.len, target.data, target.len, d->b.data, d->b.len, err);
}

enum dr_rc digest_tree_end(struct digest_tree *d, unsigned char content[32], unsigned char meta[32],
                           struct dr_err *err)
{
    enum dr_rc rc = release(d, err);

    if (!rc && (EVP_DigestFinal_ex(d->content, content, NULL) != 1 ||
                EVP_DigestFinal_ex(d->meta, meta, NULL) != 1))
        rc = dr_fail(err, DR_E_CRYPTO, "SHA-256 fails");
    return rc ? rc : begin(d, err);
}
