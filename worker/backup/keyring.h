/* keyring.json: slots (passphrase, recovery code) that each unlock the repository keys of all
 * generations. An opened keyring is immutable: any thread may use it; a change makes a new one.
 * Key derivation blocks for a tenth of a second and more: for pool threads. Source: formats.md 3,
 * formats-bytes.md 1. */
#ifndef DR_WORKER_BACKUP_KEYRING_H
#define DR_WORKER_BACKUP_KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"

enum {
    KEYRING_ROUNDS_MIN = 100000,
    KEYRING_ROUNDS_MAX = 10000000,
    KEYRING_SLOTS_MAX = 16,
    KEYRING_GENERATIONS_MAX = 64,
    KEYRING_LABEL_MAX = 64,
    KEYRING_JSON_MAX = 262144,
    KEYRING_BLOCK = 128, /* header bytes 52..179 */
    KEYRING_KEY = 32
};

struct keyring;

/* A new repository: generation 1, one passphrase slot. store_id: 32 hex digits. REFUSED: a
 * passphrase of fewer than 14 or more than 1024 bytes, or one that looks like a recovery code. */
enum dr_rc keyring_create(const char *store_id, const struct dr_secret *passphrase, unsigned rounds,
                          struct keyring **out, struct dr_err *err) DR_MUST_CHECK;
/* secret: passphrase or recovery code; store_id NULL: not compared. The reason names the class of
 * formats-bytes 7: KEY code-form code-checksum keyring-form wrong-secret keyring-mac
 * keyring-public keyring-store; INTEGRITY kdf-iter kdf-salt rk-wrap. Every slot's rounds and salt
 * are checked before any derivation. */
enum dr_rc keyring_open(const void *json, size_t len, const char *store_id,
                        const struct dr_secret *secret, struct keyring **out,
                        struct dr_err *err) DR_MUST_CHECK;
/* As keyring_open, but *mac_bad says that only the file's MAC is wrong instead of failing:
 * `recover` goes on with a warning, the wraps authenticate each key. */
enum dr_rc keyring_open_tolerant(const void *json, size_t len, const char *store_id,
                                 const struct dr_secret *secret, bool *mac_bad,
                                 struct keyring **out, struct dr_err *err) DR_MUST_CHECK;
/* A keyring whose slots another process changed, read again without any secret: its MAC is checked
 * with the keys of k, which it shares. KEY: keyring-form, keyring-store, keyring-mac, or
 * wrong-secret when it holds another generation. */
enum dr_rc keyring_renew(const struct keyring *k, const void *json, size_t len,
                         struct keyring **out, struct dr_err *err) DR_MUST_CHECK;
void keyring_free(struct keyring *k); /* NULL is allowed */
/* The file's bytes, with a new MAC. */
enum dr_rc keyring_write(const struct keyring *k, struct dr_buf *out,
                         struct dr_err *err) DR_MUST_CHECK;

const char *keyring_store(const struct keyring *k);
unsigned keyring_generation(const struct keyring *k); /* the current, highest one */

/* HKDF of the repository key; generation 0: the current one. Keys shared by all generations
 * (chunk-name, row-digest, series-tag, seal, sched-sign, gear) are asked with generation 1. */
enum dr_rc keyring_derive(const struct keyring *k, unsigned generation, const char *label,
                          void *out, size_t len, struct dr_err *err) DR_MUST_CHECK;
/* Series tag of a header: 16 bytes. */
enum dr_rc keyring_series_tag(const struct keyring *k, const char *series, unsigned char out[16],
                              struct dr_err *err) DR_MUST_CHECK;

/* X25519 public key of `seal`: clients seal settings for the workers with it. 32 bytes. */
enum dr_rc keyring_seal_public(const struct keyring *k, unsigned char out[KEYRING_KEY],
                               struct dr_err *err) DR_MUST_CHECK;

enum keyring_signer { KEYRING_MANIFEST, KEYRING_CATALOG, KEYRING_AUDIT };
/* Ed25519; generation 0: the current one. */
enum dr_rc keyring_sign(const struct keyring *k, enum keyring_signer signer, unsigned generation,
                        const void *msg, size_t len, unsigned char sig[64],
                        struct dr_err *err) DR_MUST_CHECK;
bool keyring_verify(const struct keyring *k, enum keyring_signer signer, unsigned generation,
                    const void *msg, size_t len, const unsigned char sig[64]);
/* The generation whose key verifies, newest first; 0: none does. */
unsigned keyring_verify_any(const struct keyring *k, enum keyring_signer signer, const void *msg,
                            size_t len, const unsigned char sig[64]);

/* Header bytes 52..179 that a new container carries: newest passphrase slot, current generation.
 */
enum dr_rc keyring_header_block(const struct keyring *k, unsigned char out[KEYRING_BLOCK],
                                struct dr_err *err) DR_MUST_CHECK;
/* A live slot's or a removed slot's block, else the header is foreign (header-slot). */
bool keyring_knows_block(const struct keyring *k, const unsigned char block[KEYRING_BLOCK]);

struct keyring_slot_view { /* strings live as long as the keyring */
    const char *id, *kind, *label, *created, *kdf;
    uint32_t rounds;
    bool opened; /* the one this keyring was opened with */
};
unsigned keyring_slots(const struct keyring *k);
void keyring_slot_view(const struct keyring *k, unsigned index, struct keyring_slot_view *out);
unsigned keyring_retired(const struct keyring *k);

/* Changes: *out is a new keyring, k stays as it was. label: at most 64 bytes of UTF-8. */
enum dr_rc keyring_add_recovery(const struct keyring *k, const char *label,
                                struct dr_secret *code /* out: DRK1-... text */,
                                struct keyring **out, struct dr_err *err) DR_MUST_CHECK;
/* Replaces the passphrase slot it was opened with, else the newest one; that one is retired. */
enum dr_rc keyring_change_passphrase(const struct keyring *k, const struct dr_secret *passphrase,
                                     unsigned rounds, const char *label, struct keyring **out,
                                     struct dr_err *err) DR_MUST_CHECK;

#endif
