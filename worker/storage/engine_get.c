/* Downloads: ranges in parallel into one file, then the hash of what was written. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "worker/core/fiber.h"
#include "worker/core/pool.h"
#include "worker/storage/engine_internal.h"

enum { HASH_PIECE = 1 << 20 };

struct download {
    struct engine *engine;
    const char *key, *etag;
    int fd;
    uint64_t size, piece;
    const unsigned char *want;
    struct cancel *cancel;
};

struct range {
    struct download *d;
    uint64_t offset, length;
    unsigned char *bytes;
};

static enum dr_rc write_range(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct range *r = item;
    uint64_t done = 0;
    (void)cancel;
    while (done < r->length) {
        ssize_t n = pwrite(r->d->fd, r->bytes + done, r->length - done, (off_t)(r->offset + done));
        if (n < 0 && errno != EINTR)
            return dr_fail_errno(err, DR_E_IO, "write");
        done += n > 0 ? (uint64_t)n : 0;
    }
    return DR_OK;
}

static enum dr_rc fetch_range(void *arg, struct dr_err *err)
{
    struct range *r = arg;
    struct download *d = r->d;
    struct storage_call c = engine_prepare(d->engine, STORAGE_GET, d->key);
    struct storage_answer a;
    enum storage_class class;
    c.offset = r->offset;
    c.length = r->length;
    c.etag = d->etag;
    enum dr_rc rc = engine_call(d->engine, &c, NULL, r->bytes, d->cancel, &a, &class, err);
    if (!rc && (!a.has_size || a.size != d->size)) {
        rc = dr_fail(err, DR_E_INTEGRITY, "get %s: another size", d->key);
        (void)dr_err_reason(err, "changed");
    }
    storage_answer_fini(&a);
    if (!rc)
        rc = pool_run(d->engine->o.pool, write_range, r, d->cancel, err);
    free(r->bytes);
    r->bytes = NULL;
    return rc;
}

static enum dr_rc hash_file(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct download *d = item;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char *piece = malloc(HASH_PIECE), sum[32];
    enum dr_rc rc = DR_OK;
    if (!md || !piece || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
        rc = dr_fail(err, DR_E_NOMEM, "hash");
    for (uint64_t at = 0; !rc && at < d->size;) {
        uint64_t left = d->size - at;
        ssize_t n = pread(d->fd, piece, left < HASH_PIECE ? left : HASH_PIECE, (off_t)at);
        if (n <= 0)
            rc = dr_fail_errno(err, DR_E_IO, "read back");
        else if (cancel_pending(cancel))
            rc = dr_fail(err, DR_E_CANCELLED, "cancelled");
        else if (EVP_DigestUpdate(md, piece, (size_t)n) != 1)
            rc = dr_fail(err, DR_E_CRYPTO, "hash");
        at += n > 0 ? (uint64_t)n : 0;
    }
    if (!rc && EVP_DigestFinal_ex(md, sum, NULL) != 1)
        rc = dr_fail(err, DR_E_CRYPTO, "hash");
    if (!rc && memcmp(sum, d->want, sizeof sum) != 0) {
        rc = dr_fail(err, DR_E_INTEGRITY, "the bytes that came have another hash");
        (void)dr_err_reason(err, storage_class_text(STORAGE_INTEGRITY));
    }
    EVP_MD_CTX_free(md);
    free(piece);
    return rc;
}

static enum dr_rc fetch_all(struct download *d, struct cancel *cancel, struct dr_err *err)
{
    uint64_t count = d->size / d->piece + (d->size % d->piece != 0);
    struct range *ranges = dr_try_alloc((count + 1) * sizeof *ranges);
    struct fiber_group g;
    enum dr_rc failed = ranges ? DR_OK : dr_fail(err, DR_E_NOMEM, "%s: ranges", d->key);
    if (failed)
        return failed;
    fiber_group_init(&g, d->engine->o.loop, engine_at_once(d->engine, d->piece), cancel);
    d->cancel = &g.cancel;
    for (uint64_t i = 0; i < count && !g.err.rc && !failed; i++) {
        struct range *r = &ranges[i];
        r->d = d;
        r->offset = i * d->piece;
        r->length = d->size - r->offset < d->piece ? d->size - r->offset : d->piece;
        r->bytes = dr_try_alloc(r->length);
        if (!r->bytes)
            failed = dr_fail(err, DR_E_NOMEM, "%s: a range", d->key);
        else
            fiber_group_go(&g, fetch_range, r);
    }
    enum dr_rc rc = fiber_group_wait(&g, failed ? NULL : err);
    for (uint64_t i = 0; i < count; i++)
        free(ranges[i].bytes);
    free(ranges);
    return failed ? failed : rc;
}

enum dr_rc engine_get(struct engine *e, const char *key, int fd, uint64_t size,
                      const unsigned char sha256[32], struct cancel *cancel, struct dr_err *err)
{
    struct dr_err own = {0}, *er = err ? err : &own;
    struct download d = {
        .engine = e, .key = key, .fd = fd, .size = size, .piece = e->o.part_bytes, .want = sha256};
    struct storage_answer a;
    enum dr_rc rc = engine_head(e, key, cancel, &a, er);
    if (!rc && a.size != size) {
        rc = dr_fail(er, DR_E_INTEGRITY, "get %s: %llu bytes, not %llu", key,
                     (unsigned long long)a.size, (unsigned long long)size);
        (void)dr_err_reason(er, storage_class_text(STORAGE_INTEGRITY));
    }
    d.etag = a.etag;
    if (!rc)
        rc = fetch_all(&d, cancel, er);
    if (!rc)
        rc = pool_run_long(e->o.pool, hash_file, &d, cancel, er);
    storage_answer_fini(&a);
    return rc;
}
