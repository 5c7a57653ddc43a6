/* AES-256-GCM: the chunked payload of a container (c2sp.org/chunked-encryption, Cobblestone-256)
 * and the wrap of one key. Algorithms are fetched once a process; a struct aead belongs to one
 * thread at a time. Source: formats-bytes.md 2. */
#ifndef DR_WORKER_PIPE_AEAD_H
#define DR_WORKER_PIPE_AEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum {
    AEAD_KEY = 32,
    AEAD_NONCE = 12,
    AEAD_TAG = 16,
    AEAD_SALT = 24,
    AEAD_COMMITMENT = 32,
    AEAD_PREFIX = AEAD_SALT + AEAD_COMMITMENT, /* before the first chunk */
    AEAD_CHUNK = 16384,
    AEAD_SEALED = AEAD_CHUNK + AEAD_TAG,
    AEAD_WRAP = AEAD_NONCE + AEAD_KEY + AEAD_TAG
};

struct aead_keys { /* secret: the owner wipes it */
    unsigned char key[AEAD_KEY], base_nonce[AEAD_NONCE], commitment[AEAD_COMMITMENT];
};

/* HKDF-Expand-SHA-512 of the file key over salt and context (header bytes 0..51). */
enum dr_rc aead_derive(const unsigned char file_key[AEAD_KEY], const unsigned char salt[AEAD_SALT],
                       const void *context, size_t context_len, struct aead_keys *out,
                       struct dr_err *err) DR_MUST_CHECK;

struct aead;
enum dr_rc aead_new(const struct aead_keys *keys, struct aead **out,
                    struct dr_err *err) DR_MUST_CHECK;
void aead_free(struct aead *a);
/* Chunk number index; every chunk but the last has AEAD_CHUNK bytes. out: len + AEAD_TAG. */
enum dr_rc aead_seal(struct aead *a, uint64_t index, const void *plain, size_t len,
                     unsigned char *out, struct dr_err *err) DR_MUST_CHECK;
/* sealed_len: with the tag. INTEGRITY, chunk-tag: out holds zeros then. */
enum dr_rc aead_open(struct aead *a, uint64_t index, const unsigned char *sealed, size_t sealed_len,
                     void *out, struct dr_err *err) DR_MUST_CHECK;

/* Payload of n bytes after the prefix -> number of chunks and plain bytes. INTEGRITY,
 * payload-length or truncated. */
enum dr_rc aead_layout(uint64_t n, uint64_t *chunks, uint64_t *plain,
                       struct dr_err *err) DR_MUST_CHECK;

/* wrap = nonce (given) + ciphertext + tag of a 32-byte key. */
enum dr_rc aead_wrap(const unsigned char key[AEAD_KEY], const unsigned char nonce[AEAD_NONCE],
                     const void *aad, size_t aad_len, const unsigned char plain[AEAD_KEY],
                     unsigned char out[AEAD_WRAP], struct dr_err *err) DR_MUST_CHECK;
/* false: not this key, not this context, or changed; plain is zeros then. */
bool aead_unwrap(const unsigned char key[AEAD_KEY], const void *aad, size_t aad_len,
                 const unsigned char wrap[AEAD_WRAP], unsigned char plain[AEAD_KEY]);

/* Fails with CRYPTO and the library's own words; drains its error queue. */
enum dr_rc aead_crypto_failed(struct dr_err *err, const char *what);

#endif
