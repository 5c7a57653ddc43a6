/* A backup opened for reading: its manifest verified, a read lock on it held, so that retention
 * leaves it alone. One owner; blocking, for pool threads. */
#ifndef DR_WORKER_BACKUP_HANDLE_H
#define DR_WORKER_BACKUP_HANDLE_H

#include "common/err.h"
#include "worker/backup/manifest.h"

struct backup_handle;
struct container;
struct staging;
struct store;

/* backups/<id>, or trash/<id> until it is purged: manifest verified, nothing asked of the catalog.
 * INTEGRITY: missing-file, manifest-sig, manifest-form; NOT_FOUND when there is no such folder. */
enum dr_rc handle_open(struct store *s, const char *backup_id, struct backup_handle **out,
                       struct dr_err *err) DR_MUST_CHECK;
/* A staging folder about to be published, with the manifest it is going to have (borrowed). */
enum dr_rc handle_staged(struct store *s, struct staging *g, const struct manifest *m,
                         struct backup_handle **out, struct dr_err *err) DR_MUST_CHECK;
void handle_close(struct backup_handle *h); /* NULL is allowed */
const struct manifest *handle_manifest(const struct backup_handle *h);
const unsigned char *handle_sha256(const struct backup_handle *h); /* of manifest.json; 32 bytes */
struct store *handle_store(const struct backup_handle *h);

/* Object by its index (index.drb too). Size on disk, header and its binding to backup, index and
 * series are checked. INTEGRITY: missing-file, stored-bytes, the header's classes. */
enum dr_rc handle_object(struct backup_handle *h, unsigned index, struct container **out,
                         struct dr_err *err) DR_MUST_CHECK;
/* Container by the number the index records use; of another backup of the chain too: that one's
 * manifest is verified and locked as well. */
enum dr_rc handle_container(struct backup_handle *h, unsigned number, struct container **out,
                            struct dr_err *err) DR_MUST_CHECK;
/* The catalog's record holds this manifest's SHA-256, else INTEGRITY, catalog-manifest. The last
 * check of `verify`. */
enum dr_rc handle_recorded(struct backup_handle *h, struct dr_err *err) DR_MUST_CHECK;

#endif
