/* .drb containers: written as a stream, read as a stream, by several threads inside, in order
 * outside. Blocking, for pool threads; one object has one caller at a time. The caller of a writer
 * fills segments of a mebibyte, `threads` compressors cut and compress them, whoever holds the turn
 * encrypts, hashes and writes the oldest. A reader is the same backwards. Memory: about 2.1 MiB a
 * segment, 2 segments a thread and 2 more. Source: formats.md 2, formats-bytes.md 2. */
#ifndef DR_WORKER_BACKUP_CONTAINER_H
#define DR_WORKER_BACKUP_CONTAINER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"
#include "worker/backup/keyring.h"
#include "worker/core/cancel.h"
#include "worker/pipe/sink.h"

enum { CONTAINER_HEADER = 256, CONTAINER_CHUNK_MAX = 262144, CONTAINER_THREADS_MAX = 16 };
enum { CONTAINER_LOOK = 1 << 20 };
#define CONTAINER_INDEX_ANY UINT32_MAX /* expect: not compared */

struct container_chunk {
    unsigned char name[16];
    uint64_t offset; /* in the decrypted payload */
    uint32_t stored_len, plain_len;
};

struct container_sums {
    unsigned char root[32];           /* over (name, plain length) of all chunks */
    unsigned char sha256_payload[32]; /* of the file from offset 256 */
    uint64_t plain_bytes, stored_bytes;
    uint64_t chunks;
    unsigned generation;
};

/* Writing. */
struct container_spec {
    const struct keyring *keys;
    const char *backup_id, *series;
    uint32_t index;   /* position in the manifest */
    unsigned level;   /* zstd level; 0: chunks as they are (comp 0) */
    bool rows;        /* the stream is rows of text: frame_codec_rows */
    unsigned threads; /* compressors, at most 16; 0: in the caller's thread */
    int fd;           /* borrowed; written from its offset 0 on, fsynced by container_finish */
    /* In stream order, from one thread at a time, not the caller's; may be NULL. */
    enum dr_rc (*on_chunk)(void *arg, const struct container_chunk *c, struct dr_err *err);
    void *arg;
    /* Asked before every CONTAINER_LOOK bytes of the file, from one thread at a time; an error is
     * the writer's. NULL: nobody is. */
    enum dr_rc (*room)(void *arg, uint64_t bytes, struct dr_err *err);
    void *room_arg;
    struct cancel *cancel;      /* may be NULL */
    _Atomic uint64_t *progress; /* plain bytes written are added; may be NULL */
};
struct container_writer;
enum dr_rc container_writer_new(const struct container_spec *spec, struct container_writer **out,
                                struct dr_err *err) DR_MUST_CHECK;
enum dr_rc container_write(struct container_writer *w, const void *bytes, size_t len,
                           struct dr_err *err) DR_MUST_CHECK;
/* Zero copy: room for *len >= 1 bytes; read into it, then commit what was filled (0 too). */
enum dr_rc container_reserve(struct container_writer *w, void **room, size_t *len,
                             struct dr_err *err) DR_MUST_CHECK;
enum dr_rc container_commit(struct container_writer *w, size_t len,
                            struct dr_err *err) DR_MUST_CHECK;
/* Everything on disk; nothing may be written after it. An error of any thread comes out here or
 * earlier, once; the file is then worthless. */
enum dr_rc container_finish(struct container_writer *w, struct container_sums *out,
                            struct dr_err *err) DR_MUST_CHECK;
void container_writer_free(struct container_writer *w); /* in any state; joins its threads */
struct pipe_sink container_writer_sink(struct container_writer *w);

/* Reading. */
struct container_expect {  /* what the manifest says; else INTEGRITY, header-binding */
    const char *backup_id; /* NULL: not compared */
    const char *series;    /* NULL: not compared */
    uint32_t index;        /* CONTAINER_INDEX_ANY: not compared */
};
struct container; /* header checked, file key unwrapped; immutable: any thread, several readers */
/* fd is taken, also on failure, and must be seekable. INTEGRITY with the header's class; the
 * header's key slot must be known to the keyring (header-slot). expect may be NULL. */
enum dr_rc container_open(int fd, const struct keyring *keys, const struct container_expect *expect,
                          struct container **out, struct dr_err *err) DR_MUST_CHECK;
/* By the passphrase alone: one PBKDF2. KEY wrong-secret, code-form, code-checksum. Chunk names are
 * not known then: no name is checked, no root comes out. Refuses incremental containers. */
enum dr_rc container_open_secret(int fd, const struct dr_secret *secret, struct container **out,
                                 struct dr_err *err) DR_MUST_CHECK;
void container_close(struct container *c); /* NULL is allowed */
unsigned container_generation(const struct container *c);
bool container_incremental(const struct container *c);
uint64_t container_stored_bytes(const struct container *c); /* size of the file when opened */

struct container_ref {
    unsigned char name[16];
    uint32_t container; /* position in containers */
    uint64_t offset;
    uint32_t stored_len, plain_len;
};

struct container_reader_spec {
    struct container *const *containers; /* borrowed; the array is copied */
    unsigned count;
    /* Asked by an internal thread, one at a time, in stream order. NULL: all chunks of
     * containers[0], which must be a full one. */
    enum dr_rc (*next)(void *arg, struct container_ref *out, bool *end, struct dr_err *err);
    void *arg;
    /* The whole of containers[0]: payload hash, every tag, and the chunks of `next` that lie in it
     * cover it without gap or overlap (chunk-order). */
    bool whole;
    unsigned threads; /* 0: in the caller's thread */
    struct cancel *cancel;
    _Atomic uint64_t *progress; /* plain bytes proven are added; may be NULL */
};
struct container_reader;
/* INTEGRITY: chunk-tag, frame, frame-size, chunk-name, chunk-range (a reference outside of its
 * payload), chunk-order. The first error of the stream's order wins. */
enum dr_rc container_reader_new(const struct container_reader_spec *spec,
                                struct container_reader **out, struct dr_err *err) DR_MUST_CHECK;
/* A piece of the plain stream, borrowed until the next call. len 0: the end, everything proven. */
enum dr_rc container_read(struct container_reader *r, const void **bytes, size_t *len,
                          struct dr_err *err) DR_MUST_CHECK;
/* Several references may be read by one reader: what was delivered so far is in the sums; after the
 * end all are final. sha256_payload only with `whole`; stored_bytes is containers[0]'s size. */
enum dr_rc container_reader_sums(struct container_reader *r, struct container_sums *out,
                                 struct dr_err *err) DR_MUST_CHECK;
struct pipe_source container_reader_source(struct container_reader *r);
void container_reader_free(struct container_reader *r); /* in any state; joins its threads */

/* How many threads compress or decompress well here: the online CPUs, 1..16. */
unsigned container_threads(void);

#endif
