/* Decrypted ranges. Whole chunks are decrypted straight into the caller's buffer; one that is
 * needed in part is kept, since the next range begins in it. */
#include "worker/backup/container_range.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/backup/container_internal.h"
#include "worker/pipe/rw.h"

enum { BATCH = 32 }; /* encrypted chunks read at once */
#define NO_CHUNK UINT64_MAX

struct container_range {
    const struct container *c;
    struct aead *aead;
    EVP_MD_CTX *hash; /* NULL: not hashed */
    uint64_t next;    /* chunks before it were authenticated, when reading forwards */
    uint64_t kept_index;
    unsigned char *sealed; /* BATCH chunks */
    unsigned char kept[AEAD_CHUNK];
};

enum dr_rc container_range_new(const struct container *c, bool hash, struct container_range **out,
                               struct dr_err *err)
{
    struct container_range *r = dr_xalloc(sizeof *r);
    enum dr_rc rc = aead_new(&container_secrets(c)->payload, &r->aead, err);
    r->c = c;
    r->kept_index = NO_CHUNK;
    r->sealed = dr_try_alloc((size_t)BATCH * AEAD_SEALED);
    if (!rc && !r->sealed)
        rc = dr_fail(err, DR_E_NOMEM, "container: no memory to read");
    if (!rc && hash) {
        r->hash = EVP_MD_CTX_new();
        if (!r->hash || EVP_DigestInit_ex2(r->hash, EVP_sha256(), NULL) != 1 ||
            EVP_DigestUpdate(r->hash, c->prefix, AEAD_PREFIX) != 1)
            rc = aead_crypto_failed(err, "SHA-256");
    }
    if (rc)
        container_range_free(r);
    else
        *out = r;
    return rc;
}

void container_range_free(struct container_range *r)
{
    if (!r)
        return;
    aead_free(r->aead);
    EVP_MD_CTX_free(r->hash);
    free(r->sealed);
    dr_wipe(r->kept, sizeof r->kept);
    free(r);
}

static size_t plain_len(const struct container *c, uint64_t chunk)
{
    return chunk + 1 < c->chunks ? AEAD_CHUNK : (size_t)(c->plain - chunk * AEAD_CHUNK);
}

/* Encrypted chunks first..first + count - 1 into r->sealed. */
static enum dr_rc fetch(struct container_range *r, uint64_t first, uint64_t count,
                        struct dr_err *err)
{
    size_t len = (size_t)(count - 1) * AEAD_SEALED + plain_len(r->c, first + count - 1) + AEAD_TAG;
    if (r->hash && first != r->next)
        return container_refuse(err, "chunk-order", "its chunks are not read in order");
    enum dr_rc rc =
        rw_read_at(r->c->fd, AT_CHUNKS + first * AEAD_SEALED, r->sealed, len, "container", err);
    if (!rc && r->hash && EVP_DigestUpdate(r->hash, r->sealed, len) != 1)
        rc = aead_crypto_failed(err, "SHA-256");
    r->next = first + count;
    return rc;
}

/* Decrypts the fetched chunk: into out if all of it is wanted there, else it is kept. */
static enum dr_rc unseal(struct container_range *r, uint64_t chunk, const unsigned char *sealed,
                         void *out, struct dr_err *err)
{
    if (!out)
        r->kept_index = NO_CHUNK;
    enum dr_rc rc = aead_open(r->aead, chunk, sealed, plain_len(r->c, chunk) + AEAD_TAG,
                              out ? out : r->kept, err);
    if (!rc && !out)
        r->kept_index = chunk;
    return rc;
}

enum dr_rc container_range_read(struct container_range *r, uint64_t offset, void *out, size_t len,
                                struct dr_err *err)
{
    unsigned char *to = out;
    uint64_t fetched = 0, first = 0; /* chunks first..first + fetched - 1 lie in r->sealed */
    enum dr_rc rc = DR_OK;
    if (offset > r->c->plain || len > r->c->plain - offset)
        return container_refuse(err, "chunk-range", "a chunk lies outside of its payload");
    while (!rc && len > 0) {
        uint64_t chunk = offset / AEAD_CHUNK, last = (offset + len - 1) / AEAD_CHUNK;
        size_t in = (size_t)(offset % AEAD_CHUNK), have = plain_len(r->c, chunk) - in;
        size_t take = have < len ? have : len;
        bool whole = in == 0 && take == plain_len(r->c, chunk);
        if (chunk != r->kept_index) {
            if (chunk >= first + fetched || fetched == 0) {
                first = chunk;
                fetched = last - chunk + 1 < BATCH ? last - chunk + 1 : BATCH;
                rc = fetch(r, first, fetched, err);
            }
            if (!rc)
                rc = unseal(r, chunk, r->sealed + (size_t)(chunk - first) * AEAD_SEALED,
                            whole ? to : NULL, err);
        } else {
            whole = false;
        }
        if (!rc && !whole)
            memcpy(to, r->kept + in, take);
        to += take;
        offset += take;
        len -= take;
    }
    return rc;
}

enum dr_rc container_range_end(struct container_range *r, unsigned char *sha256, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    for (uint64_t q = r->next; !rc && q < r->c->chunks; q++) {
        rc = fetch(r, q, 1, err);
        if (!rc)
            rc = unseal(r, q, r->sealed, NULL, err);
    }
    if (!rc && r->hash && sha256 && EVP_DigestFinal_ex(r->hash, sha256, NULL) != 1)
        rc = aead_crypto_failed(err, "SHA-256");
    return rc;
}
