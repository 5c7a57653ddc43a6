/* AES-256-GCM in chunks. The last chunk is always shorter than the others, so that a cut at a
 * border is no valid length; the commitment keeps one payload from opening under two keys. */
#include "worker/pipe/aead.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"

enum { EXPANDED = AEAD_KEY + AEAD_NONCE + AEAD_COMMITMENT, CONTEXT_MAX = 256 };
#define CHUNKS_MAX (1ull << 38)

static const char scheme[] = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM";

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_CIPHER *gcm; /* live as long as the process */
static EVP_KDF *hkdf;

struct aead {
    EVP_CIPHER_CTX *seal, *open; /* keyed when first used */
    struct aead_keys keys;
};

static void fetch(void)
{
    gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
}

enum dr_rc aead_crypto_failed(struct dr_err *err, const char *what)
{
    char text[160] = "no reason given";
    unsigned long code, last = 0;
    while ((code = ERR_get_error()) != 0)
        last = code;
    if (last)
        ERR_error_string_n(last, text, sizeof text);
    return dr_fail(err, DR_E_CRYPTO, "%s: %s", what, text);
}

static enum dr_rc refuse(struct dr_err *err, const char *reason, const char *why, uint64_t number)
{
    enum dr_rc rc =
        dr_fail(err, DR_E_INTEGRITY, "payload: %s (%llu)", why, (unsigned long long)number);
    (void)dr_err_reason(err, reason);
    return rc;
}

static enum dr_rc ready(struct dr_err *err)
{
    (void)pthread_once(&once, fetch);
    return gcm && hkdf ? DR_OK : aead_crypto_failed(err, "AES-256-GCM or HKDF is not there");
}

enum dr_rc aead_derive(const unsigned char file_key[AEAD_KEY], const unsigned char salt[AEAD_SALT],
                       const void *context, size_t context_len, struct aead_keys *out,
                       struct dr_err *err)
{
    unsigned char info[sizeof scheme + AEAD_SALT + CONTEXT_MAX], okm[EXPANDED];
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    if (context_len > CONTEXT_MAX)
        return dr_fail(err, DR_E_BUG, "context of %zu bytes", context_len);
    if (ready(err))
        return DR_E_CRYPTO;
    memcpy(info, scheme, sizeof scheme); /* with its NUL */
    memcpy(info + sizeof scheme, salt, AEAD_SALT);
    if (context_len)
        memcpy(info + sizeof scheme + AEAD_SALT, context, context_len);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(hkdf);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA512"}, 0),
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)file_key,
                                          AEAD_KEY),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info,
                                          sizeof scheme + AEAD_SALT + context_len),
        OSSL_PARAM_construct_end()};
    bool ok = ctx && EVP_KDF_derive(ctx, okm, sizeof okm, params) == 1;
    EVP_KDF_CTX_free(ctx);
    if (ok) {
        memcpy(out->key, okm, AEAD_KEY);
        memcpy(out->base_nonce, okm + AEAD_KEY, AEAD_NONCE);
        memcpy(out->commitment, okm + AEAD_KEY + AEAD_NONCE, AEAD_COMMITMENT);
    }
    dr_wipe(okm, sizeof okm);
    return ok ? DR_OK : aead_crypto_failed(err, "HKDF-Expand");
}

enum dr_rc aead_new(const struct aead_keys *keys, struct aead **out, struct dr_err *err)
{
    if (ready(err))
        return DR_E_CRYPTO;
    struct aead *a = dr_xalloc(sizeof *a);
    a->keys = *keys;
    *out = a;
    return DR_OK;
}

void aead_free(struct aead *a)
{
    if (!a)
        return;
    EVP_CIPHER_CTX_free(a->seal);
    EVP_CIPHER_CTX_free(a->open);
    dr_wipe(a, sizeof *a);
    free(a);
}

static void chunk_nonce(const struct aead *a, uint64_t index, unsigned char nonce[AEAD_NONCE])
{
    unsigned char counter[8];
    dr_put_u64be(counter, index);
    memcpy(nonce, a->keys.base_nonce, AEAD_NONCE);
    for (unsigned i = 0; i < sizeof counter; i++)
        nonce[AEAD_NONCE - sizeof counter + i] ^= counter[i];
}

/* The key schedule is made once; a chunk only brings its nonce. */
static bool begin(EVP_CIPHER_CTX **ctx, const struct aead *a, uint64_t index, int encrypt)
{
    unsigned char nonce[AEAD_NONCE];
    chunk_nonce(a, index, nonce);
    if (*ctx)
        return EVP_CipherInit_ex2(*ctx, NULL, NULL, nonce, encrypt, NULL) == 1;
    *ctx = EVP_CIPHER_CTX_new();
    return *ctx && EVP_CipherInit_ex2(*ctx, gcm, a->keys.key, nonce, encrypt, NULL) == 1;
}

enum dr_rc aead_seal(struct aead *a, uint64_t index, const void *plain, size_t len,
                     unsigned char *out, struct dr_err *err)
{
    int n = 0, tail = 0;
    if (len > AEAD_CHUNK || index >= CHUNKS_MAX)
        return dr_fail(err, DR_E_TOO_BIG, "chunk %llu of %zu bytes", (unsigned long long)index,
                       len);
    if (!begin(&a->seal, a, index, 1) ||
        (len > 0 && EVP_EncryptUpdate(a->seal, out, &n, plain, (int)len) != 1) ||
        EVP_EncryptFinal_ex(a->seal, out + n, &tail) != 1 ||
        EVP_CIPHER_CTX_ctrl(a->seal, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, out + len) != 1)
        return aead_crypto_failed(err, "AES-256-GCM");
    return DR_OK;
}

enum dr_rc aead_open(struct aead *a, uint64_t index, const unsigned char *sealed, size_t sealed_len,
                     void *out, struct dr_err *err)
{
    unsigned char tag[AEAD_TAG];
    int n = 0, tail = 0;
    size_t len = sealed_len - AEAD_TAG;
    if (sealed_len < AEAD_TAG || len > AEAD_CHUNK)
        return dr_fail(err, DR_E_BUG, "sealed chunk of %zu bytes", sealed_len);
    memcpy(tag, sealed + len, sizeof tag);
    if (!begin(&a->open, a, index, 0) ||
        (len > 0 && EVP_DecryptUpdate(a->open, out, &n, sealed, (int)len) != 1) ||
        EVP_CIPHER_CTX_ctrl(a->open, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, tag) != 1)
        return aead_crypto_failed(err, "AES-256-GCM");
    if (EVP_DecryptFinal_ex(a->open, (unsigned char *)out + n, &tail) == 1)
        return DR_OK;
    ERR_clear_error();
    if (len > 0)
        memset(out, 0, len);
    return refuse(err, "chunk-tag", "an encrypted chunk was changed", index);
}

enum dr_rc aead_layout(uint64_t n, uint64_t *chunks, uint64_t *plain, struct dr_err *err)
{
    uint64_t full = n / AEAD_SEALED, rest = n % AEAD_SEALED;
    if (n < AEAD_TAG || (rest > 0 && rest < AEAD_TAG) || full >= CHUNKS_MAX)
        return refuse(err, "payload-length", "no payload has this length", n);
    if (rest == 0)
        return refuse(err, "truncated", "ends at a chunk border, its end is missing", n);
    *chunks = full + 1;
    *plain = full * AEAD_CHUNK + (rest - AEAD_TAG);
    return DR_OK;
}

enum dr_rc aead_wrap(const unsigned char key[AEAD_KEY], const unsigned char nonce[AEAD_NONCE],
                     const void *aad, size_t aad_len, const unsigned char plain[AEAD_KEY],
                     unsigned char out[AEAD_WRAP], struct dr_err *err)
{
    int n = 0, tail = 0;
    if (ready(err))
        return DR_E_CRYPTO;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    memcpy(out, nonce, AEAD_NONCE);
    bool ok =
        ctx && EVP_EncryptInit_ex2(ctx, gcm, key, nonce, NULL) == 1 &&
        EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_len) == 1 &&
        EVP_EncryptUpdate(ctx, out + AEAD_NONCE, &n, plain, AEAD_KEY) == 1 &&
        EVP_EncryptFinal_ex(ctx, out + AEAD_NONCE + n, &tail) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, out + AEAD_NONCE + AEAD_KEY) == 1;
    EVP_CIPHER_CTX_free(ctx);
    return ok ? DR_OK : aead_crypto_failed(err, "AES-256-GCM");
}

bool aead_unwrap(const unsigned char key[AEAD_KEY], const void *aad, size_t aad_len,
                 const unsigned char wrap[AEAD_WRAP], unsigned char plain[AEAD_KEY])
{
    unsigned char tag[AEAD_TAG];
    int n = 0, tail = 0;
    if (ready(NULL))
        return false;
    memcpy(tag, wrap + AEAD_NONCE + AEAD_KEY, AEAD_TAG);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = ctx && EVP_DecryptInit_ex2(ctx, gcm, key, wrap, NULL) == 1 &&
              EVP_DecryptUpdate(ctx, NULL, &n, aad, (int)aad_len) == 1 &&
              EVP_DecryptUpdate(ctx, plain, &n, wrap + AEAD_NONCE, AEAD_KEY) == 1 &&
              EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, tag) == 1 &&
              EVP_DecryptFinal_ex(ctx, plain + n, &tail) == 1;
    EVP_CIPHER_CTX_free(ctx);
    ERR_clear_error();
    if (!ok)
        dr_wipe(plain, AEAD_KEY);
    return ok;
}
