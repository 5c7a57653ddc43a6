/* Proof of a backup: every stored byte hashed, decrypted, decompressed and compared with index and
 * manifest; and the streams of a backup, read by its index. Blocking, for pool threads. */
#ifndef DR_WORKER_BACKUP_PROVE_H
#define DR_WORKER_BACKUP_PROVE_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/backup/handle.h"
#include "worker/backup/index.h"
#include "worker/pipe/sink.h"

struct cancel;

struct prove_options {
    struct cancel *cancel;
    _Atomic uint64_t *progress; /* plain bytes proven; NULL: nobody asks */
    unsigned threads;           /* that decrypt and decompress; 0: the caller's alone */
    /* Sees every index record but chunks, with its object, from one thread at a time; what it is
     * told may be used only when prove_backup has said that all is well. NULL: nobody. */
    enum dr_rc (*record)(void *arg, const char *object, const struct index_record *rec,
                         struct dr_err *err);
    /* Sees the plain bytes of every object but the index on their way, under the same condition;
     * from the caller's thread. NULL: nobody. */
    enum dr_rc (*plain)(void *arg, const struct manifest_object *object, const void *bytes,
                        size_t len, struct dr_err *err);
    void *arg;
};

struct prove_sums {
    uint64_t plain_bytes, stored_bytes;
    uint64_t files, file_bytes, tables, rows; /* as the index counts them */
    uint64_t unreadable;                      /* paths that the index says could not be read */
    unsigned objects;                         /* of the manifest, the first so many are whole */
    char bad[80];                             /* "backup_id/object" where the proof failed; "" */
};

/* INTEGRITY names the object, reason as formats-bytes 7. */
enum dr_rc prove_backup(struct backup_handle *h, const struct prove_options *o,
                        struct prove_sums *out, struct dr_err *err) DR_MUST_CHECK;

/* Index records of one stream, chunks left out, in order; every byte used is authenticated.
 * stream NULL: of all. */
enum dr_rc prove_each_record(struct backup_handle *h, const char *stream, struct cancel *cancel,
                             enum dr_rc (*fn)(void *arg, const struct index_record *rec,
                                              struct dr_err *err),
                             void *arg, struct dr_err *err) DR_MUST_CHECK;

/* Pull form of the same, for lock-step with the object's bytes. */
struct record_reader;
enum dr_rc record_reader_open(struct backup_handle *h, const char *stream, struct cancel *cancel,
                              struct record_reader **out, struct dr_err *err) DR_MUST_CHECK;
/* *rec NULL: the stream has no more. Valid until the next call. */
enum dr_rc record_reader_next(struct record_reader *r, const struct index_record **rec,
                              struct dr_err *err) DR_MUST_CHECK;
void record_reader_close(struct record_reader *r); /* NULL is allowed */

/* Plain bytes of one object (stream: its role), references to other backups followed. */
struct object_reader;
enum dr_rc object_reader_open(struct backup_handle *h, const char *stream,
                              const struct prove_options *o, struct object_reader **out,
                              struct dr_err *err) DR_MUST_CHECK;
/* Borrowed until the next call; len 0: the end, and the stream's root was right. */
enum dr_rc object_reader_read(struct object_reader *r, const void **bytes, size_t *len,
                              struct dr_err *err) DR_MUST_CHECK;
struct pipe_source object_reader_source(struct object_reader *r);
void object_reader_close(struct object_reader *r); /* NULL is allowed */

#endif
