/* Decrypted ranges of containers: every encrypted chunk that is touched is authenticated, none
 * twice while reading forwards. One thread at a time. */
#ifndef DR_WORKER_BACKUP_CONTAINER_RANGE_H
#define DR_WORKER_BACKUP_CONTAINER_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct container;
struct container_range;

/* hash: the payload's SHA-256 is taken too; then the ranges must follow each other from 0 on. */
enum dr_rc container_range_new(const struct container *c, bool hash, struct container_range **out,
                               struct dr_err *err) DR_MUST_CHECK;
void container_range_free(struct container_range *r);
/* INTEGRITY: chunk-range (beyond the payload), chunk-tag. */
enum dr_rc container_range_read(struct container_range *r, uint64_t offset, void *out, size_t len,
                                struct dr_err *err) DR_MUST_CHECK;
/* After the last range of a forward pass: authenticates what follows it (the last, perhaps empty,
 * chunk). sha256: of the payload, when hashed; may be NULL. */
enum dr_rc container_range_end(struct container_range *r, unsigned char *sha256,
                               struct dr_err *err) DR_MUST_CHECK;

#endif
