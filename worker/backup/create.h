/* One backup on its way from an empty staging folder to a published one: objects one after the
 * other, the index beside them, read back from disk, published. One owner; blocking, for pool
 * threads. */
#ifndef DR_WORKER_BACKUP_CREATE_H
#define DR_WORKER_BACKUP_CREATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/backup/container.h"
#include "worker/backup/index.h"
#include "worker/backup/store.h"

struct cancel;
struct create;

struct create_spec {
    struct store *store;
    const char *kind, *class, *job_id, *series;
    const char *run, *ticket; /* of the staging folder */
    int64_t t_start_ms;       /* stands in the backup's id */
    unsigned objects;         /* how many will be made, the index not counted */
    unsigned level;           /* of zstd; 0: plain chunks */
    unsigned threads;         /* that compress */
    /* As container_spec's; NULL: all there is may be written. */
    enum dr_rc (*room)(void *arg, uint64_t bytes, struct dr_err *err);
    void *room_arg;
};

/* All text of spec is copied. Errors as store_staging_new. */
enum dr_rc create_new(const struct create_spec *spec, struct create **out,
                      struct dr_err *err) DR_MUST_CHECK;
void create_free(struct create *c); /* removes what was not published; NULL is allowed */

struct manifest *create_manifest(struct create *c);  /* tools and server may be added */
struct index_writer *create_index(struct create *c); /* records of the object that is open */

/* The next object: plain bytes are written to *out, its chunk records go to the index by
 * themselves. progress counts plain bytes; both it and cancel are borrowed until the end. */
enum dr_rc create_object_begin(struct create *c, const char *role, struct cancel *cancel,
                               _Atomic uint64_t *progress, struct container_writer **out,
                               struct dr_err *err) DR_MUST_CHECK;
enum dr_rc create_object_end(struct create *c, struct dr_err *err) DR_MUST_CHECK;

/* Ends the index. Nothing more can be added. */
enum dr_rc create_seal(struct create *c, struct dr_err *err) DR_MUST_CHECK;
/* Reads back every byte as it lies on disk: INTEGRITY when it is not what was written. progress
 * counts plain bytes. */
enum dr_rc create_read_back(struct create *c, struct cancel *cancel, _Atomic uint64_t *progress,
                            struct dr_err *err) DR_MUST_CHECK;
/* After create_read_back. adopted: an earlier delivery of the same job had published already; the
 * manifest is then that one's. */
enum dr_rc create_publish(struct create *c, bool *adopted, struct dr_err *err) DR_MUST_CHECK;

#endif
