/* Inside of keyring_*.c; tests give the random inputs of the golden files through it. */
#ifndef DR_WORKER_BACKUP_KEYRING_INTERNAL_H
#define DR_WORKER_BACKUP_KEYRING_INTERNAL_H

#include "worker/backup/derive.h"
#include "worker/backup/keyring.h"
#include "worker/pipe/aead.h"

enum {
    SLOT_ID = 8,
    SLOT_SALT = 32,
    SLOT_KCV = 16,
    SLOT_AAD = 68,
    RETIRED_MAX = 2048,
    MAC_TAIL = 68
};

struct keyring_slot {
    unsigned char id[SLOT_ID];
    bool recovery;
    char label[KEYRING_LABEL_MAX + 1], created[32], id_text[2 * SLOT_ID + 1];
    enum derive_kdf kdf;
    uint32_t rounds;
    unsigned char salt[SLOT_SALT], kcv[SLOT_KCV];
    unsigned char wraps[KEYRING_GENERATIONS_MAX][AEAD_WRAP]; /* generation g at g - 1 */
};

struct keyring_gone { /* a removed slot, one entry a generation */
    unsigned char id[SLOT_ID], sha256[32];
    unsigned generation;
};

struct keyring {
    char store[33];
    unsigned slot_count, generations, gone_count;
    unsigned opened; /* slot that opened it; slot_count: removed since */
    struct keyring_slot slots[KEYRING_SLOTS_MAX];
    struct keyring_gone *gone;
    unsigned char public[KEYRING_GENERATIONS_MAX][2][32]; /* manifest, catalog */
    unsigned char mac[32];
    struct dr_secret keys; /* 32 bytes a generation */
};

struct keyring_slot_random {
    unsigned char id[SLOT_ID], salt[SLOT_SALT], nonces[KEYRING_GENERATIONS_MAX][AEAD_NONCE];
};

/* KEY keyring-form, INTEGRITY kdf-iter or kdf-salt; no secret is touched. */
enum dr_rc keyring_parse(const void *json, size_t len, struct keyring *k,
                         struct dr_err *err) DR_MUST_CHECK;
void keyring_slot_block(const struct keyring_slot *s, unsigned generation,
                        unsigned char out[KEYRING_BLOCK]);
void keyring_slot_aad(const unsigned char block[KEYRING_BLOCK], unsigned char aad[SLOT_AAD]);
enum dr_rc keyring_mac(const struct keyring *k, const void *text, size_t len, unsigned char mac[32],
                       struct dr_err *err) DR_MUST_CHECK;
enum dr_rc keyring_public(const struct keyring *k, enum keyring_signer signer, unsigned generation,
                          unsigned char out[32], struct dr_err *err) DR_MUST_CHECK;
/* Fills a slot: kind, label, created, kdf and rounds are set by the caller. */
enum dr_rc keyring_slot_seal(const struct keyring *k, struct keyring_slot *s, const void *secret,
                             size_t secret_len, const struct keyring_slot_random *random,
                             struct dr_err *err) DR_MUST_CHECK;
enum dr_rc keyring_refuse(struct dr_err *err, enum dr_rc rc, const char *reason, const char *why);

#endif
