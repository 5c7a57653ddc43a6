/* New repositories, new slots. A change copies the keyring; the old one stays as it is until the
 * new file is in place. */
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "common/clock.h"
#include "common/str.h"
#include "worker/backup/keyring_internal.h"

enum { PASSPHRASE_MIN = 14, PASSPHRASE_MAX = 1024 };

enum dr_rc keyring_slot_seal(const struct keyring *k, struct keyring_slot *s, const void *secret,
                             size_t secret_len, const struct keyring_slot_random *random,
                             struct dr_err *err)
{
    unsigned char kek[DERIVE_KEY], key[AEAD_KEY], block[KEYRING_BLOCK], aad[SLOT_AAD];
    memcpy(s->id, random->id, SLOT_ID);
    dr_hex(s->id, SLOT_ID, s->id_text);
    memcpy(s->salt, random->salt, SLOT_SALT);
    enum dr_rc rc = derive_kek(s->kdf, secret, secret_len, s->salt, SLOT_SALT, s->rounds, kek, err);
    if (!rc)
        rc = derive_key(kek, "kcv", s->kcv, SLOT_KCV, err);
    if (!rc)
        rc = derive_key(kek, "wrap", key, sizeof key, err);
    for (unsigned g = 1; !rc && g <= k->generations; g++) {
        keyring_slot_block(s, g, block);
        keyring_slot_aad(block, aad);
        rc = aead_wrap(key, random->nonces[g - 1], aad, sizeof aad,
                       k->keys.bytes + (size_t)(g - 1) * KEYRING_KEY, s->wraps[g - 1], err);
    }
    dr_wipe(kek, sizeof kek);
    dr_wipe(key, sizeof key);
    return rc;
}

static enum dr_rc add_slot(struct keyring *k, bool recovery, const char *label, unsigned rounds,
                           const void *secret, size_t secret_len, struct dr_err *err)
{
    struct keyring_slot_random random;
    if (k->slot_count == KEYRING_SLOTS_MAX)
        return dr_fail(err, DR_E_REFUSED, "the keyring has %d slots already", KEYRING_SLOTS_MAX);
    if (rounds < KEYRING_ROUNDS_MIN || rounds > KEYRING_ROUNDS_MAX)
        return dr_fail(err, DR_E_INVALID, "%u rounds of PBKDF2", rounds);
    if (strlen(label) > KEYRING_LABEL_MAX || !dr_utf8_valid(label, strlen(label)))
        return dr_fail(err, DR_E_INVALID, "a label has at most %d bytes of UTF-8",
                       KEYRING_LABEL_MAX);
    struct keyring_slot *s = &k->slots[k->slot_count];
    memset(s, 0, sizeof *s);
    s->recovery = recovery;
    s->kdf = DERIVE_PBKDF2_SHA256;
    s->rounds = rounds;
    for (size_t i = 0; label[i]; i++)
        s->label[i] = (unsigned char)label[i] < 0x20 || label[i] == 0x7f ? ' ' : label[i];
    dr_format_time(dr_wall_ms(), s->created);
    dr_random_bytes(&random, sizeof random);
    enum dr_rc rc = keyring_slot_seal(k, s, secret, secret_len, &random, err);
    if (!rc)
        k->slot_count++;
    return rc;
}

static struct keyring *copy(const struct keyring *k, unsigned more_gone)
{
    struct keyring *c = dr_xalloc(sizeof *c);
    *c = *k;
    c->keys = (struct dr_secret){0};
    dr_secret_set(&c->keys, k->keys.bytes, k->keys.len);
    c->gone = dr_xarray(k->gone_count + more_gone, sizeof *c->gone);
    if (k->gone_count)
        memcpy(c->gone, k->gone, k->gone_count * sizeof *c->gone);
    return c;
}

static enum dr_rc check_passphrase(const struct dr_secret *p, struct dr_err *err)
{
    if (derive_is_code(p))
        return dr_fail(err, DR_E_REFUSED, "a passphrase must not begin as a recovery code does");
    if (p->len < PASSPHRASE_MIN || p->len > PASSPHRASE_MAX)
        return dr_fail(err, DR_E_REFUSED, "a passphrase has %d to %d bytes", PASSPHRASE_MIN,
                       PASSPHRASE_MAX);
    return DR_OK;
}

static enum dr_rc fill_new(struct keyring *k, const char *store_id,
                           const struct dr_secret *passphrase, unsigned rounds, struct dr_err *err)
{
    unsigned char key[KEYRING_KEY], id[16];
    if (!dr_unhex(store_id, strlen(store_id), id, sizeof id))
        return dr_fail(err, DR_E_INVALID, "store id '%s'", store_id);
    memcpy(k->store, store_id, sizeof k->store);
    dr_random_bytes(key, sizeof key);
    dr_secret_set(&k->keys, key, sizeof key);
    dr_wipe(key, sizeof key);
    k->generations = 1;
    for (unsigned s = 0; s < 2; s++) {
        enum dr_rc rc = keyring_public(k, (enum keyring_signer)s, 1, k->public[0][s], err);
        if (rc)
            return rc;
    }
    return add_slot(k, false, "first", rounds, passphrase->bytes, passphrase->len, err);
}

enum dr_rc keyring_create(const char *store_id, const struct dr_secret *passphrase, unsigned rounds,
                          struct keyring **out, struct dr_err *err)
{
    enum dr_rc rc = check_passphrase(passphrase, err);
    if (rc)
        return rc;
    struct keyring *k = dr_xalloc(sizeof *k);
    rc = fill_new(k, store_id, passphrase, rounds, err);
    if (rc)
        keyring_free(k);
    else
        *out = k;
    return rc;
}

enum dr_rc keyring_add_recovery(const struct keyring *k, const char *label, struct dr_secret *code,
                                struct keyring **out, struct dr_err *err)
{
    unsigned char key[DERIVE_KEY];
    char text[DERIVE_CODE_TEXT];
    struct keyring *c = copy(k, 0);
    dr_random_bytes(key, sizeof key);
    enum dr_rc rc = derive_code_text(key, text, err);
    if (!rc)
        rc = add_slot(c, true, label, KEYRING_ROUNDS_MIN, key, sizeof key, err);
    if (rc) {
        keyring_free(c);
    } else {
        dr_secret_set(code, text, strlen(text));
        *out = c;
    }
    dr_wipe(key, sizeof key);
    dr_wipe(text, sizeof text);
    return rc;
}

/* The slot's headers stay known by their fingerprints. */
static enum dr_rc retire(struct keyring *k, unsigned index, struct dr_err *err)
{
    unsigned char block[KEYRING_BLOCK];
    for (unsigned g = 1; g <= k->generations; g++) {
        struct keyring_gone *gone = &k->gone[k->gone_count];
        size_t n = 0;
        keyring_slot_block(&k->slots[index], g, block);
        if (EVP_Q_digest(NULL, "SHA256", NULL, block, sizeof block, gone->sha256, &n) != 1)
            return aead_crypto_failed(err, "SHA-256");
        memcpy(gone->id, k->slots[index].id, SLOT_ID);
        gone->generation = g;
        k->gone_count++;
    }
    k->slot_count--;
    memmove(&k->slots[index], &k->slots[index + 1],
            (k->slot_count - index) * sizeof k->slots[index]);
    return DR_OK;
}

static bool find_replaced(const struct keyring *k, unsigned *index)
{
    bool found = false;
    if (k->opened < k->slot_count && !k->slots[k->opened].recovery) {
        *index = k->opened;
        return true;
    }
    for (unsigned i = 0; i < k->slot_count; i++)
        if (!k->slots[i].recovery &&
            (!found || strcmp(k->slots[i].created, k->slots[*index].created) >= 0)) {
            *index = i;
            found = true;
        }
    return found;
}

enum dr_rc keyring_change_passphrase(const struct keyring *k, const struct dr_secret *passphrase,
                                     unsigned rounds, const char *label, struct keyring **out,
                                     struct dr_err *err)
{
    unsigned old = 0;
    enum dr_rc rc = check_passphrase(passphrase, err);
    if (rc)
        return rc;
    if (k->gone_count + k->generations > RETIRED_MAX)
        return dr_fail(err, DR_E_REFUSED, "the keyring remembers %u removed slots", k->gone_count);
    struct keyring *c = copy(k, k->generations);
    if (find_replaced(c, &old))
        rc = retire(c, old, err);
    if (!rc)
        rc = add_slot(c, false, label, rounds, passphrase->bytes, passphrase->len, err);
    c->opened = rc ? 0 : c->slot_count - 1;
    if (rc)
        keyring_free(c);
    else
        *out = c;
    return rc;
}

static enum dr_rc check_renewed(const struct keyring *k, const struct keyring *n, const void *json,
                                size_t len, struct dr_err *err)
{
    unsigned char mac[32];
    enum dr_rc rc = keyring_mac(k, json, len - MAC_TAIL, mac, err);
    if (rc)
        return rc;
    if (strcmp(n->store, k->store) != 0)
        return keyring_refuse(err, DR_E_KEY, "keyring-store", "keyring.json is of another store");
    if (n->generations != k->generations)
        return keyring_refuse(err, DR_E_KEY, "wrong-secret",
                              "keyring.json holds another generation: its secret is needed again");
    if (CRYPTO_memcmp(mac, n->mac, sizeof mac) != 0 ||
        memcmp(n->public, k->public, sizeof n->public) != 0)
        return keyring_refuse(err, DR_E_KEY, "keyring-mac", "keyring.json was changed: wrong MAC");
    return DR_OK;
}

enum dr_rc keyring_renew(const struct keyring *k, const void *json, size_t len,
                         struct keyring **out, struct dr_err *err)
{
    struct keyring *n = dr_xalloc(sizeof *n);
    enum dr_rc rc = keyring_parse(json, len, n, err);
    if (!rc)
        rc = check_renewed(k, n, json, len, err);
    if (rc) {
        keyring_free(n);
        return rc;
    }
    dr_secret_set(&n->keys, k->keys.bytes, k->keys.len);
    for (n->opened = 0; n->opened < n->slot_count; n->opened++)
        if (k->opened < k->slot_count &&
            memcmp(n->slots[n->opened].id, k->slots[k->opened].id, SLOT_ID) == 0)
            break;
    *out = n;
    return DR_OK;
}
