/* zstd frames and chunk names. */
#include "worker/pipe/frame.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/mem.h"
#include "worker/pipe/aead.h"

enum { BLOCK = 64, DIGEST = 32, WINDOW_LOG_MAX = 18, BLOCK_SIZE_MAX = 131072, ROWS_HASH_LOG = 11 };

struct frame_codec {
    unsigned level;
    ZSTD_CCtx *pack;
    ZSTD_DCtx *unpack;
    EVP_MD_CTX *inner, *outer, *work; /* HMAC's two keyed states, made once; a copy does the work */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256; /* lives as long as the process */

static void fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

static bool keyed(EVP_MD_CTX *ctx, const unsigned char key[FRAME_NAME_KEY], unsigned char pad)
{
    unsigned char block[BLOCK];
    memset(block, pad, sizeof block);
    for (unsigned i = 0; i < FRAME_NAME_KEY; i++)
        block[i] ^= key[i];
    bool ok = ctx && sha256 && EVP_DigestInit_ex2(ctx, sha256, NULL) == 1 &&
              EVP_DigestUpdate(ctx, block, sizeof block) == 1;
    dr_wipe(block, sizeof block);
    return ok;
}

static enum dr_rc set_up(struct frame_codec *c, unsigned level, const unsigned char *name_key,
                         struct dr_err *err)
{
    c->level = level;
    c->unpack = ZSTD_createDCtx();
    if (level > 0) {
        c->pack = ZSTD_createCCtx();
        if (!c->pack ||
            ZSTD_isError(ZSTD_CCtx_setParameter(c->pack, ZSTD_c_compressionLevel, (int)level)) ||
            ZSTD_isError(ZSTD_CCtx_setParameter(c->pack, ZSTD_c_checksumFlag, 1)))
            return dr_fail(err, DR_E_NOMEM, "zstd: no compressor of level %u", level);
    }
    if (!c->unpack ||
        ZSTD_isError(ZSTD_DCtx_setParameter(c->unpack, ZSTD_d_windowLogMax, WINDOW_LOG_MAX)))
        return dr_fail(err, DR_E_NOMEM, "zstd: no decompressor");
    if (!name_key)
        return DR_OK;
    (void)pthread_once(&once, fetch);
    c->inner = EVP_MD_CTX_new();
    c->outer = EVP_MD_CTX_new();
    c->work = EVP_MD_CTX_new();
    return c->work && keyed(c->inner, name_key, 0x36) && keyed(c->outer, name_key, 0x5c)
               ? DR_OK
               : aead_crypto_failed(err, "SHA-256");
}

enum dr_rc frame_codec_new(unsigned level, const unsigned char *name_key, struct frame_codec **out,
                           struct dr_err *err)
{
    struct frame_codec *c = dr_xalloc(sizeof *c);
    enum dr_rc rc = set_up(c, level, name_key, err);
    if (rc) {
        frame_codec_free(c);
        return rc;
    }
    *out = c;
    return DR_OK;
}

/* Level 1 looks for matches through a table of 32 KiB, which is all of the first cache; rows repeat
 * what the last few of them said, and 8 KiB remember those. One core, frames of 64 KiB: the shop's
 * dump 334 -> 428 MB/s, ratio 2.54 -> 2.56; log lines with UUIDs and JSON 277 -> 346 MB/s, 2.63 ->
 * 2.50. File trees would gain 1 to 8 % of speed for 1 % of size. */
enum dr_rc frame_codec_rows(struct frame_codec *c, struct dr_err *err)
{
    if (c->level == 1 &&
        ZSTD_isError(ZSTD_CCtx_setParameter(c->pack, ZSTD_c_hashLog, ROWS_HASH_LOG)))
        return dr_fail(err, DR_E_NOMEM, "zstd: no compressor of rows");
    return DR_OK;
}

void frame_codec_free(struct frame_codec *c)
{
    if (!c)
        return;
    (void)ZSTD_freeCCtx(c->pack);
    (void)ZSTD_freeDCtx(c->unpack);
    EVP_MD_CTX_free(c->inner);
    EVP_MD_CTX_free(c->outer);
    EVP_MD_CTX_free(c->work);
    free(c);
}

enum dr_rc frame_name(struct frame_codec *c, const void *plain, size_t len,
                      unsigned char name[FRAME_NAME], struct dr_err *err)
{
    unsigned char digest[DIGEST];
    if (!c->work || EVP_MD_CTX_copy_ex(c->work, c->inner) != 1 ||
        EVP_DigestUpdate(c->work, plain, len) != 1 ||
        EVP_DigestFinal_ex(c->work, digest, NULL) != 1 ||
        EVP_MD_CTX_copy_ex(c->work, c->outer) != 1 ||
        EVP_DigestUpdate(c->work, digest, sizeof digest) != 1 ||
        EVP_DigestFinal_ex(c->work, digest, NULL) != 1)
        return aead_crypto_failed(err, "chunk name");
    memcpy(name, digest, FRAME_NAME);
    return DR_OK;
}

enum dr_rc frame_pack(struct frame_codec *c, const void *plain, size_t len, unsigned char *out,
                      size_t *stored_len, struct dr_err *err)
{
    if (len == 0 || len > FRAME_CUT)
        return dr_fail(err, DR_E_BUG, "chunk of %zu bytes", len);
    size_t n = ZSTD_compress2(c->pack, out, FRAME_CUT_STORED, plain, len);
    if (ZSTD_isError(n))
        return dr_fail(err, DR_E_NOMEM, "zstd: %s", ZSTD_getErrorName(n));
    *stored_len = n;
    return DR_OK;
}

static enum dr_rc refuse(struct dr_err *err, const char *reason, const char *why)
{
    enum dr_rc rc = dr_fail(err, DR_E_INTEGRITY, "compressed chunk: %s", why);
    (void)dr_err_reason(err, reason);
    return rc;
}

enum dr_rc frame_unpack(struct frame_codec *c, const void *stored, size_t stored_len, void *plain,
                        size_t plain_len, struct dr_err *err)
{
    size_t n = ZSTD_decompressDCtx(c->unpack, plain, plain_len, stored, stored_len);
    if (ZSTD_isError(n))
        return refuse(err, "frame", ZSTD_getErrorName(n));
    return n == plain_len ? DR_OK : refuse(err, "frame", "shorter than its header says");
}

static uint64_t little(const unsigned char *p, unsigned bytes)
{
    uint64_t v = 0;
    while (bytes-- > 0)
        v = v << 8 | p[bytes];
    return v;
}

/* Length of the frame header, 0: more bytes needed. RFC 8878, 3.1.1.1. */
static enum dr_rc header(const unsigned char *p, size_t len, size_t *used, uint64_t *content,
                         bool *checksum, struct dr_err *err)
{
    static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    static const unsigned dict_bytes[] = {0, 1, 2, 4}, size_bytes[] = {0, 2, 4, 8};
    *used = 0;
    if (memcmp(p, magic, len < 4 ? len : 4) != 0)
        return refuse(err, "frame", "no zstd frame begins here");
    if (len < 5)
        return DR_OK;
    bool single = p[4] & 0x20;
    unsigned dict = dict_bytes[p[4] & 3], size = size_bytes[p[4] >> 6];
    if (p[4] & 0x08)
        return refuse(err, "frame", "reserved bit");
    if (single && size == 0)
        size = 1;
    if (size == 0)
        return refuse(err, "frame", "no content size");
    if (dict)
        return refuse(err, "frame-size", "needs a dictionary");
    size_t need = 5 + (single ? 0u : 1u) + size;
    if (len < need)
        return DR_OK;
    *content = little(p + need - size, size) + (size == 2 ? 256 : 0);
    uint64_t window = *content;
    if (!single) {
        window = 1ull << (10 + (p[5] >> 3));
        window += window / 8 * (p[5] & 7);
    }
    if (*content == 0 || *content > FRAME_PLAIN_MAX || window > FRAME_PLAIN_MAX)
        return refuse(err, "frame-size", "content size or window out of bounds");
    *checksum = p[4] & 0x04;
    *used = need;
    return DR_OK;
}

enum dr_rc frame_measure(const unsigned char *p, size_t len, bool last, size_t *stored_len,
                         size_t *plain_len, struct dr_err *err)
{
    size_t at;
    uint64_t content = 0;
    bool checksum = false, final = false;
    *stored_len = 0;
    enum dr_rc rc = header(p, len, &at, &content, &checksum, err);
    if (rc)
        return rc;
    if (at == 0)
        return last ? refuse(err, "frame", "cut in its header") : DR_OK;
    while (!final) {
        if (len - at < 3)
            return last ? refuse(err, "frame", "cut") : DR_OK;
        uint32_t block = (uint32_t)little(p + at, 3);
        unsigned type = block >> 1 & 3;
        size_t size = type == 1 ? 1 : block >> 3; /* a repeated byte takes one */
        if (type == 3 || size > BLOCK_SIZE_MAX)
            return refuse(err, "frame", "no such block");
        final = block & 1;
        at += 3;
        if (at + size > FRAME_STORED_MAX)
            return refuse(err, "frame", "longer than any frame of its content");
        if (size > len - at)
            return last ? refuse(err, "frame", "cut") : DR_OK;
        at += size;
    }
    if (checksum)
        at += 4;
    if (at > len)
        return last ? refuse(err, "frame", "cut in its checksum") : DR_OK;
    *stored_len = at;
    *plain_len = (size_t)content;
    return DR_OK;
}
