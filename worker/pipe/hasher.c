/* A crew of one thread and one segment: the piece at hand. Owns both and the context. */
#include "worker/pipe/hasher.h"

#include <openssl/evp.h>
#include <stdlib.h>

#include "common/mem.h"
#include "worker/pipe/crew.h"

struct piece {
    const void *bytes;
    size_t len;
};

struct hasher {
    struct crew *crew;
    struct piece piece;
    EVP_MD *sha256;
    EVP_MD_CTX *ctx;
    bool beside; /* a piece is the thread's */
};

static enum dr_rc update(struct hasher *h, const void *bytes, size_t len, struct dr_err *err)
{
    return EVP_DigestUpdate(h->ctx, bytes, len) == 1 ? DR_OK : dr_fail(err, DR_E_CRYPTO, "SHA-256");
}

static enum dr_rc work(void *arg, unsigned worker, void *segment, struct dr_err *err)
{
    const struct piece *p = segment;
    (void)worker;
    return update(arg, p->bytes, p->len, err);
}

static enum dr_rc drain(void *arg, void *segment, struct dr_err *err)
{
    (void)arg, (void)segment, (void)err;
    return DR_OK;
}

enum dr_rc hasher_new(struct hasher **out, struct dr_err *err)
{
    struct hasher *h = dr_xalloc(sizeof *h);
    void *const segments[] = {&h->piece};
    const struct crew_spec spec = {
        .threads = 1, .segments = segments, .count = 1, .work = work, .drain = drain, .arg = h};
    enum dr_rc rc = DR_OK;
    h->sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    h->ctx = EVP_MD_CTX_new();
    if (!h->sha256 || !h->ctx)
        rc = dr_fail(err, DR_E_CRYPTO, "SHA-256 is not there");
    if (!rc)
        rc = crew_new(&spec, &h->crew, err);
    if (rc) {
        hasher_free(h);
        return rc;
    }
    *out = h;
    return DR_OK;
}

void hasher_free(struct hasher *h)
{
    if (!h)
        return;
    crew_free(h->crew);
    EVP_MD_CTX_free(h->ctx);
    EVP_MD_free(h->sha256);
    free(h);
}

enum dr_rc hasher_begin(struct hasher *h, struct dr_err *err)
{
    return EVP_DigestInit_ex2(h->ctx, h->sha256, NULL) == 1 ? DR_OK
                                                            : dr_fail(err, DR_E_CRYPTO, "SHA-256");
}

enum dr_rc hasher_add(struct hasher *h, const void *bytes, size_t len, struct dr_err *err)
{
    void *piece;
    if (len < HASHER_BESIDE)
        return update(h, bytes, len, err);
    if (crew_room(h->crew, &piece, err))
        return err->rc;
    *(struct piece *)piece = (struct piece){bytes, len};
    h->beside = true;
    return crew_submit(h->crew, err);
}

enum dr_rc hasher_wait(struct hasher *h, struct dr_err *err)
{
    if (!h->beside)
        return DR_OK;
    h->beside = false;
    return crew_flush(h->crew, err);
}

enum dr_rc hasher_end(struct hasher *h, unsigned char out[HASHER_BYTES], struct dr_err *err)
{
    return EVP_DigestFinal_ex(h->ctx, out, NULL) == 1 ? DR_OK
                                                      : dr_fail(err, DR_E_CRYPTO, "SHA-256");
}
