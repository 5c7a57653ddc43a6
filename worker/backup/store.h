/* BACKUP_DIRECTORY: one store shared by all workers of a namespace. Blocking, for pool threads; one
 * struct store may be used by several threads at once. Safe to be killed anywhere: whatever is
 * half done is not believed and the next writer removes it. Source: formats.md 1, interface.md 1.
 */
#ifndef DR_WORKER_BACKUP_STORE_H
#define DR_WORKER_BACKUP_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"
#include "worker/backup/catalog.h"
#include "worker/backup/manifest.h"
#include "worker/backup/names.h"

struct container;
struct keyring;
struct store;
struct staging;
struct backup_handle;

enum store_open_mode {
    STORE_READ, /* changes nothing */
    STORE_WORK, /* makes store.id and keyring when the directory is empty; adopts, cuts, signs */
    STORE_INIT, /* as STORE_WORK, but the directory must be empty: EXISTS */
    STORE_INIT_ANEW /* and an off-site store that is configured does not count */
};

/* CONFIG (BACKUP_DIRECTORY, BACKUP_ENCRYPTION_PASSWORD), REFUSED (NFS without locks, a store whose
 * keyring is gone), IO with the path and the right that is missing, KEY and INTEGRITY with the
 * class of formats-bytes 7. Nothing is written before the keyring was opened. */
enum dr_rc store_open(const struct dr_config *config, enum store_open_mode mode, struct store **out,
                      struct dr_err *err) DR_MUST_CHECK;
void store_close(struct store *s);           /* NULL is allowed */
const char *store_id(const struct store *s); /* 32 hex digits */
const char *store_path(const struct store *s);
int store_dirfd(const struct store *s); /* borrowed */
const struct keyring *store_keys(const struct store *s);
/* Puts a changed keyring in place, recorded as `keys` with the change's name. LOCKED when another
 * one changed it first. s goes on with the keys it was opened with. */
enum dr_rc store_change_keys(struct store *s, const struct keyring *changed, const char *change,
                             struct dr_err *err) DR_MUST_CHECK;
void store_head(struct store *s, struct catalog_head *out); /* as last read */
/* Read again; new records are folded in. INTEGRITY, head-rollback: an older one than we knew. */
enum dr_rc store_head_now(struct store *s, struct catalog_head *out,
                          struct dr_err *err) DR_MUST_CHECK;
/* The strict check of `verify`: catalog chain to its end, nothing behind the head, head's
 * generation. INTEGRITY with its class. unrecorded: manifests without a record (may be NULL). */
enum dr_rc store_audit(struct store *s, unsigned *unrecorded, struct dr_err *err) DR_MUST_CHECK;

/* Staging folder of one delivery, locked as long as it lives. ticket: digits of the delivery. */
enum dr_rc store_staging_new(struct store *s, const char *run, const char *ticket,
                             struct staging **out, struct dr_err *err) DR_MUST_CHECK;
/* The same below another folder, "": the store's own. */
enum dr_rc store_staging_at(struct store *s, const char *folder, const char *run,
                            const char *ticket, struct staging **out,
                            struct dr_err *err) DR_MUST_CHECK;
enum dr_rc store_sweep_staging_at(struct store *s, const char *folder, unsigned *removed,
                                  struct dr_err *err);
int staging_dirfd(const struct staging *g);
const char *staging_path(const struct staging *g);
void staging_free(struct staging *g); /* removes the folder unless it was published */
/* Removes what dead deliveries left (whose lock is free). */
enum dr_rc store_sweep_staging(struct store *s, unsigned *removed, struct dr_err *err);

/* What its read-back found. */
struct store_proof {
    int64_t at_ms;
    uint64_t unreadable; /* paths that could not be read when it was taken */
};

/* Publishes a staging folder whose containers and index are complete, fsynced and read back.
 * Under the catalog lock: the twin of the same job is looked up; seq and prev_sha256 are filled;
 * manifest and signature are written; rename; record `added`; head. adopted: a twin was there, m
 * becomes the twin's manifest, the staging folder is left to staging_free. */
enum dr_rc store_publish(struct store *s, struct staging *g, struct manifest **m,
                         const struct store_proof *proof, bool *adopted,
                         struct dr_err *err) DR_MUST_CHECK;
/* The twin of this job if one is published already: before any work is done. NULL: none. */
enum dr_rc store_find_job(struct store *s, const char *kind, const char *job_id,
                          struct manifest **out, struct dr_err *err) DR_MUST_CHECK;
/* One record of any type (data_json: an object, or NULL for {}); durable when it returns. */
enum dr_rc store_append(struct store *s, const char *type, const char *backup_id,
                        const char *data_json, struct dr_err *err) DR_MUST_CHECK;

/* Every catalog record of that type, oldest first; fn runs without any lock held. */
enum dr_rc store_each_record(struct store *s, const char *type, catalog_fn *fn, void *arg,
                             struct dr_err *err) DR_MUST_CHECK;

/* results/<run>.msgpack: a result too long for Redis; written anew each time. */
enum dr_rc store_keep_result(struct store *s, const char *run, const void *bytes, size_t len,
                             struct dr_err *err);
/* Removes those that were written before. */
struct store_swept {
    unsigned files;
    uint64_t bytes;
};
enum dr_rc store_sweep_results(struct store *s, int64_t before_ms, struct store_swept *out,
                               struct dr_err *err) DR_MUST_CHECK;

/* PREFLIGHT when the store lies in one of the roots (NULL-ended): a backup would hold itself, and a
 * recovery would move the store away. A root that is not there is no matter. */
enum dr_rc store_apart(const struct store *s, const char *const *roots,
                       struct dr_err *err) DR_MUST_CHECK;

struct store_entry {
    char backup_id[64], job_id[65], kind[12], class[12];
    char series[MANIFEST_SERIES_MAX + 1];
    uint64_t seq, plain_bytes, stored_bytes;
    int64_t t_start_ms, t_point_ms, t_end_ms;
    unsigned char manifest_sha256[32];
    int64_t verified_at_ms;                                 /* last proof; 0: never */
    int64_t drilled_at_ms, offsite_at_ms, tombstoned_at_ms; /* 0: not; drilled: that passed */
    int64_t drill_tried_at_ms;                              /* last drill, passed or not */
    bool drill_ok;                                          /* how that one ended */
    bool verified_ok, pinned, recorded;
    bool acknowledged; /* a person has seen that its time is wrong */
    bool by_hand;      /* given up by a person */
    bool deep;         /* proven again since it was published, and the last proof held */
    bool unreadable;   /* good by hash, but some path could not be read when it was taken */
    bool differs;      /* the last drill restored something else than was saved */
    char source[48];   /* system identifier / major version of the server; "": not a database */
    char bad[32];     /* "", or why its manifest is not believed: then only id and kind are known */
    char finding[32]; /* class of what the last proof found, where that failed */
};
/* Recorded as damaged, or its manifest is not believed. */
bool store_is_damaged(const struct store_entry *e);
/* Newest first, tombstoned ones too, purged ones not. *out is freed by free(). */
enum dr_rc store_list(struct store *s, struct store_entry **out, size_t *count,
                      struct dr_err *err) DR_MUST_CHECK;
/* And the newest record about a backup that the list was made of. */
enum dr_rc store_list_at(struct store *s, struct store_entry **out, size_t *count, uint64_t *seq,
                         struct dr_err *err) DR_MUST_CHECK;

#endif
