/* HKDF, PBKDF2, recovery codes. */
#include "worker/backup/derive.h"

#include <ctype.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/str.h"
#include "worker/pipe/aead.h"

enum { LABEL_MAX = 64, CHECK = 5, CODE_CHARS = 60, GROUP = 5, PASSPHRASE_MAX = 1024 };

static const char prefix[] = "DRK1-";
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_KDF *hkdf; /* lives as long as the process */

static void fetch(void)
{
    hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
}

enum dr_rc derive_key(const unsigned char key[DERIVE_KEY], const char *label, void *out, size_t len,
                      struct dr_err *err)
{
    char info[LABEL_MAX];
    int n = snprintf(info, sizeof info, "drworker/1/%s", label);
    if (n < 0 || (size_t)n >= sizeof info)
        return dr_fail(err, DR_E_BUG, "label '%s'", label);
    (void)pthread_once(&once, fetch);
    EVP_KDF_CTX *ctx = hkdf ? EVP_KDF_CTX_new(hkdf) : NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA512"}, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)key, DERIVE_KEY),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, (size_t)n),
        OSSL_PARAM_construct_end()};
    bool ok = ctx && EVP_KDF_derive(ctx, out, len, params) == 1;
    EVP_KDF_CTX_free(ctx);
    return ok ? DR_OK : aead_crypto_failed(err, "HKDF");
}

enum dr_rc derive_kek(enum derive_kdf kdf, const void *secret, size_t secret_len, const void *salt,
                      size_t salt_len, unsigned rounds, unsigned char out[DERIVE_KEY],
                      struct dr_err *err)
{
    const EVP_MD *md = kdf == DERIVE_PBKDF2_SHA512 ? EVP_sha512() : EVP_sha256();
    bool ok = PKCS5_PBKDF2_HMAC(secret, (int)secret_len, salt, (int)salt_len, (int)rounds, md,
                                DERIVE_KEY, out) == 1;
    return ok ? DR_OK : aead_crypto_failed(err, "PBKDF2");
}

bool derive_is_code(const struct dr_secret *s)
{
    return s->len >= sizeof prefix - 1 &&
           strncasecmp((const char *)s->bytes, prefix, sizeof prefix - 1) == 0;
}

static enum dr_rc checksum(const unsigned char key[DERIVE_KEY], unsigned char out[CHECK],
                           struct dr_err *err)
{
    static const char domain[] = "dr-recovery-code"; /* hashed with its NUL */
    unsigned char text[sizeof domain + DERIVE_KEY], digest[32];
    size_t n = 0;
    memcpy(text, domain, sizeof domain);
    memcpy(text + sizeof domain, key, DERIVE_KEY);
    bool ok = EVP_Q_digest(NULL, "SHA256", NULL, text, sizeof text, digest, &n) == 1;
    memcpy(out, digest, CHECK);
    dr_wipe(text, sizeof text);
    return ok ? DR_OK : aead_crypto_failed(err, "SHA-256");
}

enum dr_rc derive_code_text(const unsigned char key[DERIVE_KEY], char out[DERIVE_CODE_TEXT],
                            struct dr_err *err)
{
    unsigned char bytes[DERIVE_KEY + CHECK];
    char plain[CODE_CHARS + 4];
    memcpy(bytes, key, DERIVE_KEY);
    enum dr_rc rc = checksum(key, bytes + DERIVE_KEY, err);
    if (!rc) {
        char *p = out + snprintf(out, DERIVE_CODE_TEXT, "%.4s", prefix);
        dr_base32(bytes, sizeof bytes, plain);
        for (unsigned i = 0; i < CODE_CHARS; i++) {
            if (i % GROUP == 0)
                *p++ = '-';
            *p++ = (char)toupper((unsigned char)plain[i]);
        }
        *p = 0;
    }
    dr_wipe(bytes, sizeof bytes);
    dr_wipe(plain, sizeof plain);
    return rc;
}

static enum dr_rc refuse(struct dr_err *err, const char *reason, const char *why)
{
    enum dr_rc rc = dr_fail(err, DR_E_KEY, "%s", why);
    (void)dr_err_reason(err, reason);
    return rc;
}

/* 60 letters, blanks and '-' aside -> 37 bytes and 4 zero bits. */
static bool decode(const char *p, size_t len, unsigned char out[DERIVE_KEY + CHECK])
{
    unsigned letters = 0, bits = 0, n = 0;
    uint32_t held = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)p[i];
        const char *at = c ? strchr(alphabet, toupper(c)) : NULL;
        if (c == '-' || isspace(c))
            continue;
        if (!at || ++letters > CODE_CHARS)
            return false;
        held = held << 5 | (uint32_t)(at - alphabet);
        bits += 5;
        if (bits >= 8) {
            bits -= 8;
            out[n++] = (unsigned char)(held >> bits);
            held &= (1u << bits) - 1;
        }
    }
    return letters == CODE_CHARS && held == 0;
}

enum dr_rc derive_code_read(const void *text, size_t len, unsigned char key[DERIVE_KEY],
                            struct dr_err *err)
{
    unsigned char bytes[DERIVE_KEY + CHECK], want[CHECK];
    enum dr_rc rc = DR_OK;
    size_t skip = sizeof prefix - 1;
    if (len < skip || !decode((const char *)text + skip, len - skip, bytes))
        rc = refuse(err, "code-form", "the recovery code is not DRK1- and twelve groups of five");
    else if (checksum(bytes, want, err))
        rc = DR_E_CRYPTO;
    else if (CRYPTO_memcmp(want, bytes + DERIVE_KEY, CHECK) != 0)
        rc = refuse(err, "code-checksum", "the recovery code is mistyped: its checksum differs");
    else
        memcpy(key, bytes, DERIVE_KEY);
    dr_wipe(bytes, sizeof bytes);
    return rc;
}

enum dr_rc derive_secret(const struct dr_secret *s, struct dr_secret *out, struct dr_err *err)
{
    unsigned char key[DERIVE_KEY];
    if (!derive_is_code(s)) {
        if (s->len < 1 || s->len > PASSPHRASE_MAX)
            return refuse(err, "wrong-secret", "a passphrase has 1 to 1024 bytes");
        dr_secret_set(out, s->bytes, s->len);
        return DR_OK;
    }
    enum dr_rc rc = derive_code_read(s->bytes, s->len, key, err);
    if (!rc)
        dr_secret_set(out, key, sizeof key);
    dr_wipe(key, sizeof key);
    return rc;
}
