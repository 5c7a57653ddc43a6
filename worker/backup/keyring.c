/* Opening a keyring and using its keys. */
#include "worker/backup/keyring.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/backup/keyring_internal.h"

/* The audit log is signed with the catalog's key, in a domain of its own. */
static const char *const signer_labels[] = {"manifest-sign", "catalog-sign", "catalog-sign"};
static const char *const signer_domains[] = {"drworker/1/manifest", "drworker/1/catalog",
                                             "drworker/1/audit"};

enum dr_rc keyring_refuse(struct dr_err *err, enum dr_rc rc, const char *reason, const char *why)
{
    rc = dr_fail(err, rc, "%s", why);
    (void)dr_err_reason(err, reason);
    return rc;
}

void keyring_free(struct keyring *k)
{
    if (!k)
        return;
    dr_secret_free(&k->keys);
    free(k->gone);
    free(k);
}

void keyring_slot_block(const struct keyring_slot *s, unsigned generation,
                        unsigned char out[KEYRING_BLOCK])
{
    memset(out, 0, KEYRING_BLOCK);
    out[0] = (unsigned char)s->kdf;
    memcpy(out + 4, s->id, SLOT_ID);
    dr_put_u32be(out + 12, s->rounds);
    memcpy(out + 16, s->salt, SLOT_SALT);
    memcpy(out + 48, s->kcv, SLOT_KCV);
    memcpy(out + 64, s->wraps[generation - 1], AEAD_WRAP);
    dr_put_u32be(out + 124, generation);
}

/* Header bytes 52..115 and the generation: everything that says which key this is. */
void keyring_slot_aad(const unsigned char block[KEYRING_BLOCK], unsigned char aad[SLOT_AAD])
{
    memcpy(aad, block, 64);
    memcpy(aad + 64, block + 124, 4);
}

static const unsigned char *repository_key(const struct keyring *k, unsigned generation)
{
    if (generation == 0)
        generation = k->generations;
    return generation <= k->generations ? k->keys.bytes + (size_t)(generation - 1) * KEYRING_KEY
                                        : NULL;
}

enum dr_rc keyring_derive(const struct keyring *k, unsigned generation, const char *label,
                          void *out, size_t len, struct dr_err *err)
{
    const unsigned char *key = repository_key(k, generation);
    if (!key)
        return keyring_refuse(err, DR_E_INTEGRITY, "generation",
                              "the keyring holds no key of this generation");
    return derive_key(key, label, out, len, err);
}

static enum dr_rc hmac(const struct keyring *k, unsigned generation, const char *label,
                       const void *text, size_t len, unsigned char mac[32], struct dr_err *err)
{
    unsigned char key[KEYRING_KEY];
    size_t n = 0;
    enum dr_rc rc = keyring_derive(k, generation, label, key, sizeof key, err);
    if (!rc &&
        !EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, sizeof key, text, len, mac, 32, &n))
        rc = aead_crypto_failed(err, "HMAC");
    dr_wipe(key, sizeof key);
    return rc;
}

enum dr_rc keyring_mac(const struct keyring *k, const void *text, size_t len, unsigned char mac[32],
                       struct dr_err *err)
{
    return hmac(k, 0, "keyring", text, len, mac, err);
}

enum dr_rc keyring_series_tag(const struct keyring *k, const char *series, unsigned char out[16],
                              struct dr_err *err)
{
    unsigned char mac[32];
    enum dr_rc rc = hmac(k, 1, "series-tag", series, strlen(series), mac, err);
    if (!rc)
        memcpy(out, mac, 16);
    return rc;
}

static EVP_PKEY *private_key(const struct keyring *k, int type, const char *label,
                             unsigned generation, struct dr_err *err)
{
    unsigned char seed[32];
    EVP_PKEY *key = NULL;
    if (keyring_derive(k, generation, label, seed, sizeof seed, err) == DR_OK) {
        key = EVP_PKEY_new_raw_private_key(type, NULL, seed, sizeof seed);
        if (!key)
            (void)aead_crypto_failed(err, label);
    }
    dr_wipe(seed, sizeof seed);
    return key;
}

static EVP_PKEY *signing_key(const struct keyring *k, enum keyring_signer signer,
                             unsigned generation, struct dr_err *err)
{
    return private_key(k, EVP_PKEY_ED25519, signer_labels[signer], generation, err);
}

enum dr_rc keyring_seal_public(const struct keyring *k, unsigned char out[KEYRING_KEY],
                               struct dr_err *err)
{
    size_t len = KEYRING_KEY;
    EVP_PKEY *key = private_key(k, EVP_PKEY_X25519, "seal", 1, err);
    bool ok = key && EVP_PKEY_get_raw_public_key(key, out, &len) == 1;
    EVP_PKEY_free(key);
    return ok ? DR_OK : aead_crypto_failed(err, "X25519");
}

enum dr_rc keyring_public(const struct keyring *k, enum keyring_signer signer, unsigned generation,
                          unsigned char out[32], struct dr_err *err)
{
    size_t len = 32;
    EVP_PKEY *key = signing_key(k, signer, generation, err);
    bool ok = key && EVP_PKEY_get_raw_public_key(key, out, &len) == 1;
    EVP_PKEY_free(key);
    return ok ? DR_OK : aead_crypto_failed(err, "Ed25519");
}

/* domain 00 msg; freed by the caller. */
static unsigned char *signed_text(enum keyring_signer signer, const void *msg, size_t len)
{
    size_t head = strlen(signer_domains[signer]) + 1;
    unsigned char *all = dr_try_alloc(head + len);
    if (all) {
        memcpy(all, signer_domains[signer], head);
        if (len)
            memcpy(all + head, msg, len);
    }
    return all;
}

enum dr_rc keyring_sign(const struct keyring *k, enum keyring_signer signer, unsigned generation,
                        const void *msg, size_t len, unsigned char sig[64], struct dr_err *err)
{
    size_t n = 64, head = strlen(signer_domains[signer]) + 1;
    unsigned char *all = signed_text(signer, msg, len);
    EVP_PKEY *key = all ? signing_key(k, signer, generation, err) : NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = key && ctx && EVP_DigestSignInit_ex(ctx, NULL, NULL, NULL, NULL, key, NULL) == 1 &&
              EVP_DigestSign(ctx, sig, &n, all, head + len) == 1 && n == 64;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    free(all);
    return ok ? DR_OK : aead_crypto_failed(err, "Ed25519");
}

bool keyring_verify(const struct keyring *k, enum keyring_signer signer, unsigned generation,
                    const void *msg, size_t len, const unsigned char sig[64])
{
    size_t head = strlen(signer_domains[signer]) + 1;
    if (generation == 0)
        generation = k->generations;
    if (generation > k->generations)
        return false;
    unsigned char *all = signed_text(signer, msg, len);
    const unsigned char *public =
        k->public[generation - 1][signer == KEYRING_AUDIT ? KEYRING_CATALOG : signer];
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, 32);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = all && key && ctx &&
              EVP_DigestVerifyInit_ex(ctx, NULL, NULL, NULL, NULL, key, NULL) == 1 &&
              EVP_DigestVerify(ctx, sig, 64, all, head + len) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    free(all);
    if (!ok)
        (void)aead_crypto_failed(NULL, "drain"); /* stale entries would explain later errors */
    return ok;
}

unsigned keyring_verify_any(const struct keyring *k, enum keyring_signer signer, const void *msg,
                            size_t len, const unsigned char sig[64])
{
    unsigned g = k->generations;
    while (g > 0 && !keyring_verify(k, signer, g, msg, len, sig))
        g--;
    return g;
}

/* The slot's KEK, and whether it is the right one by its check value. */
static enum dr_rc try_slot(const struct keyring_slot *s, const struct dr_secret *secret,
                           unsigned char kek[DERIVE_KEY], bool *right, struct dr_err *err)
{
    unsigned char kcv[SLOT_KCV];
    enum dr_rc rc =
        derive_kek(s->kdf, secret->bytes, secret->len, s->salt, SLOT_SALT, s->rounds, kek, err);
    if (!rc)
        rc = derive_key(kek, "kcv", kcv, sizeof kcv, err);
    *right = !rc && CRYPTO_memcmp(kcv, s->kcv, SLOT_KCV) == 0;
    return rc;
}

static enum dr_rc unwrap_all(struct keyring *k, const struct keyring_slot *s,
                             const unsigned char kek[DERIVE_KEY], struct dr_err *err)
{
    unsigned char key[AEAD_KEY], block[KEYRING_BLOCK], aad[SLOT_AAD];
    unsigned char keys[KEYRING_GENERATIONS_MAX * KEYRING_KEY];
    enum dr_rc rc = derive_key(kek, "wrap", key, sizeof key, err);
    for (unsigned g = 1; !rc && g <= k->generations; g++) {
        keyring_slot_block(s, g, block);
        keyring_slot_aad(block, aad);
        if (!aead_unwrap(key, aad, sizeof aad, s->wraps[g - 1],
                         keys + (size_t)(g - 1) * KEYRING_KEY))
            rc = keyring_refuse(err, DR_E_INTEGRITY, "rk-wrap",
                                "the slot's repository key was changed");
    }
    if (!rc)
        dr_secret_set(&k->keys, keys, (size_t)k->generations * KEYRING_KEY);
    dr_wipe(keys, sizeof keys);
    dr_wipe(key, sizeof key);
    return rc;
}

static enum dr_rc unlock(struct keyring *k, const struct dr_secret *secret, struct dr_err *err)
{
    struct dr_secret text = {0};
    unsigned char kek[DERIVE_KEY];
    bool right = false, code = derive_is_code(secret);
    enum dr_rc rc = derive_secret(secret, &text, err);
    for (unsigned i = 0; !rc && !right && i < k->slot_count; i++) {
        if (k->slots[i].recovery != code)
            continue;
        rc = try_slot(&k->slots[i], &text, kek, &right, err);
        k->opened = i;
    }
    if (!rc && right)
        rc = unwrap_all(k, &k->slots[k->opened], kek, err);
    else if (!rc)
        rc = keyring_refuse(err, DR_E_KEY, "wrong-secret",
                            code ? "the recovery code opens no slot of the keyring"
                                 : "the passphrase opens no slot of the keyring");
    dr_wipe(kek, sizeof kek);
    dr_secret_free(&text);
    return rc;
}

static enum dr_rc check_public(const struct keyring *k, struct dr_err *err)
{
    unsigned char want[32];
    for (unsigned g = 1; g <= k->generations; g++)
        for (unsigned s = 0; s < 2; s++) {
            enum dr_rc rc = keyring_public(k, (enum keyring_signer)s, g, want, err);
            if (rc)
                return rc;
            if (memcmp(want, k->public[g - 1][s], sizeof want) != 0)
                return keyring_refuse(err, DR_E_KEY, "keyring-public",
                                      "keyring: public keys are not those of its keys");
        }
    return DR_OK;
}

enum dr_rc keyring_open_tolerant(const void *json, size_t len, const char *store_id,
                                 const struct dr_secret *secret, bool *mac_bad,
                                 struct keyring **out, struct dr_err *err)
{
    struct keyring *k = dr_xalloc(sizeof *k);
    unsigned char mac[32];
    enum dr_rc rc = keyring_parse(json, len, k, err);
    if (!rc)
        rc = unlock(k, secret, err);
    if (!rc)
        rc = keyring_mac(k, json, len - MAC_TAIL, mac, err);
    if (rc)
        goto out;
    *mac_bad = CRYPTO_memcmp(mac, k->mac, sizeof mac) != 0;
    if (!*mac_bad)
        rc = check_public(k, err);
    if (!rc && !*mac_bad && store_id && strcmp(store_id, k->store) != 0)
        rc = keyring_refuse(err, DR_E_KEY, "keyring-store",
                            "the keyring belongs to another store than store.id says");
out:
    if (rc)
        keyring_free(k);
    else
        *out = k;
    return rc;
}

enum dr_rc keyring_open(const void *json, size_t len, const char *store_id,
                        const struct dr_secret *secret, struct keyring **out, struct dr_err *err)
{
    bool mac_bad = false;
    struct keyring *k = NULL;
    enum dr_rc rc = keyring_open_tolerant(json, len, store_id, secret, &mac_bad, &k, err);
    if (!rc && mac_bad) {
        keyring_free(k);
        rc = keyring_refuse(err, DR_E_KEY, "keyring-mac", "keyring.json was changed: wrong MAC");
    } else if (!rc) {
        *out = k;
    }
    return rc;
}

const char *keyring_store(const struct keyring *k)
{
    return k->store;
}

unsigned keyring_generation(const struct keyring *k)
{
    return k->generations;
}

enum dr_rc keyring_header_block(const struct keyring *k, unsigned char out[KEYRING_BLOCK],
                                struct dr_err *err)
{
    const struct keyring_slot *newest = NULL;
    for (unsigned i = 0; i < k->slot_count; i++)
        if (!k->slots[i].recovery && (!newest || strcmp(k->slots[i].created, newest->created) >= 0))
            newest = &k->slots[i];
    if (!newest)
        return dr_fail(err, DR_E_REFUSED,
                       "the keyring has no passphrase slot: files could not be opened without it");
    keyring_slot_block(newest, k->generations, out);
    return DR_OK;
}

bool keyring_knows_block(const struct keyring *k, const unsigned char block[KEYRING_BLOCK])
{
    unsigned char own[KEYRING_BLOCK], digest[32];
    size_t n = 0;
    unsigned generation = dr_get_u32be(block + 124);
    if (generation < 1 || generation > k->generations)
        return false;
    for (unsigned i = 0; i < k->slot_count; i++) {
        keyring_slot_block(&k->slots[i], generation, own);
        if (memcmp(own, block, KEYRING_BLOCK) == 0)
            return true;
    }
    if (EVP_Q_digest(NULL, "SHA256", NULL, block, KEYRING_BLOCK, digest, &n) != 1)
        return false;
    for (unsigned i = 0; i < k->gone_count; i++)
        if (k->gone[i].generation == generation &&
            memcmp(k->gone[i].sha256, digest, sizeof digest) == 0)
            return true;
    return false;
}

unsigned keyring_slots(const struct keyring *k)
{
    return k->slot_count;
}

void keyring_slot_view(const struct keyring *k, unsigned index, struct keyring_slot_view *out)
{
    const struct keyring_slot *s = &k->slots[index];
    *out = (struct keyring_slot_view){.id = s->id_text,
                                      .kind = s->recovery ? "recovery" : "passphrase",
                                      .label = s->label,
                                      .created = s->created,
                                      .kdf = s->kdf == DERIVE_PBKDF2_SHA512 ? "pbkdf2-sha512"
                                                                            : "pbkdf2-sha256",
                                      .rounds = s->rounds,
                                      .opened = index == k->opened};
}

unsigned keyring_retired(const struct keyring *k)
{
    return k->gone_count;
}
