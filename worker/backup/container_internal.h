/* Inside of container_*.c; tests give the random inputs of the golden files through it. */
#ifndef DR_WORKER_BACKUP_CONTAINER_INTERNAL_H
#define DR_WORKER_BACKUP_CONTAINER_INTERNAL_H

#include "worker/backup/container.h"
#include "worker/pipe/aead.h"
#include "worker/pipe/frame.h"

enum {
    PART_A = 52, /* bytes that are the payload's context */
    AT_COMP = 12,
    AT_FLAGS = 14,
    AT_BACKUP = 16,
    AT_INDEX = 32,
    AT_SERIES = 36,
    AT_BLOCK = PART_A,
    AT_GENERATION = 176,
    AT_FILE_KEY = 180,
    AT_PADDING = AT_FILE_KEY + AEAD_WRAP,
    AT_CHUNKS = CONTAINER_HEADER + AEAD_PREFIX,
    FILE_AAD = PART_A + 4,
    FLAG_INCREMENTAL = 1,
    COMP_NONE = 0,
    COMP_ZSTD = 1
};

struct container {
    int fd;
    unsigned char header[CONTAINER_HEADER], prefix[AEAD_PREFIX];
    uint64_t stored, chunks, plain; /* file size, encrypted chunks, payload bytes decrypted */
    bool has_names;
    struct dr_secret secrets; /* struct container_secrets */
};

struct container_secrets {
    struct aead_keys payload;
    unsigned char name_key[FRAME_NAME_KEY];
};

struct container_random { /* of one file */
    unsigned char file_key[AEAD_KEY], nonce[AEAD_NONCE], salt[AEAD_SALT];
};

/* payload: the keys made of them. The header takes its slot block from the keyring. */
enum dr_rc container_header(const struct container_spec *spec,
                            const struct container_random *random,
                            unsigned char header[CONTAINER_HEADER], struct aead_keys *payload,
                            struct dr_err *err) DR_MUST_CHECK;
enum dr_rc container_writer_new_with(const struct container_spec *spec,
                                     const struct container_random *random,
                                     struct container_writer **out,
                                     struct dr_err *err) DR_MUST_CHECK;
const struct container_secrets *container_secrets(const struct container *c);
/* AAD of the file key's wrap: part A and the generation. */
void container_file_aad(const unsigned char header[CONTAINER_HEADER], unsigned char aad[FILE_AAD]);
/* First 16 bytes of SHA-256(backup_id). */
enum dr_rc container_backup_field(const char *backup_id, unsigned char out[16],
                                  struct dr_err *err) DR_MUST_CHECK;
enum dr_rc container_refuse(struct dr_err *err, const char *reason, const char *why);

#endif
