/* manifest.json and manifest.sig: what a backup is made of, signed. Nothing in it is secret. A
 * manifest owns its memory, has one owner, any thread. Source: formats-bytes 5. */
#ifndef DR_WORKER_BACKUP_MANIFEST_H
#define DR_WORKER_BACKUP_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

struct keyring;

enum {
    MANIFEST_BYTES_MAX = 1048576,
    MANIFEST_OBJECTS_MAX = 5, /* one a role */
    MANIFEST_CONTAINERS_MAX = 2048,
    MANIFEST_PAIRS_MAX = 64,
    MANIFEST_SERIES_MAX = 256,
    MANIFEST_SIG_LEN = 64,
};

struct manifest_pair { /* of tools and server */
    char *name, *value;
};

struct manifest_object {
    char name[16]; /* role.drb; index.drb is the last */
    char role[12]; /* database globals files config index */
    uint64_t plain_bytes, stored_bytes;
    unsigned char root[32], sha256_payload[32];
};

struct manifest_container { /* what the index's container numbers mean; own ones first */
    char backup_id[64];
    char name[16];
    unsigned char sha256_payload[32];
};

struct manifest {
    char backup_id[64], job_id[65];
    char series[MANIFEST_SERIES_MAX + 1];
    uint64_t seq; /* from 1 within the series */
    char class[12], kind[12];
    int64_t t_start_ms, t_point_ms, t_end_ms;
    unsigned key_generation; /* of all objects; it signs */
    struct manifest_pair *tools, *server;
    unsigned tool_count, server_count;
    struct manifest_object objects[MANIFEST_OBJECTS_MAX]; /* their index is the position */
    unsigned object_count;
    struct manifest_container *containers;
    unsigned container_count;
    unsigned char prev_sha256[32]; /* of the manifest before it in the series; zeros: none */
};

struct manifest *manifest_new(void);
void manifest_free(struct manifest *m);
/* Adds one; values are made fit for JSON by manifest_write. */
void manifest_tool(struct manifest *m, const char *name, const char *value);
void manifest_server(struct manifest *m, const char *name, const char *value);
/* Appends an object and, unless it is the index, its container. INVALID for an unknown role, one
 * twice, or any after the index. */
enum dr_rc manifest_add_object(struct manifest *m, const char *role, uint64_t plain_bytes,
                               uint64_t stored_bytes, const unsigned char root[32],
                               const unsigned char sha256_payload[32],
                               struct dr_err *err) DR_MUST_CHECK;
const struct manifest_object *manifest_object(const struct manifest *m, const char *role);

/* The file's bytes and their signature by m->key_generation. Refuses what manifest_read would. */
enum dr_rc manifest_write(const struct manifest *m, const struct keyring *keys, struct dr_buf *json,
                          unsigned char sig[MANIFEST_SIG_LEN], struct dr_err *err) DR_MUST_CHECK;
/* Nothing is parsed before a key of some generation, newest first, verifies. expect_id: the
 * folder's name. INTEGRITY, reason manifest-sig or manifest-form. */
enum dr_rc manifest_read(const void *json, size_t len, const void *sig, size_t sig_len,
                         const char *expect_id, const struct keyring *keys, struct manifest **out,
                         struct dr_err *err) DR_MUST_CHECK;
/* What manifest_read checks behind the signature: INTEGRITY, reason manifest-form. */
enum dr_rc manifest_parse(const void *json, size_t len, const char *expect_id,
                          struct manifest **out, struct dr_err *err) DR_MUST_CHECK;

#endif
