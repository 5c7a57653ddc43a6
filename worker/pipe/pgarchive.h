/* A tap on a custom-format archive of pg_dump (-Fc -Z0) as it passes: rows and digest of every
 * table, values of sequences, large objects, without a second scan (formats 5).
 *
 * Understood: archive versions 1.14, 1.15 and 1.16, uncompressed, table data as COPY text. Data
 * blocks may come in any order. Anything else that a newer or other pg_dump may rightly write
 * (another version, compression, INSERTs, names or numbers of entries beyond our limits) makes the
 * digests unknown, never the backup fail: pgarchive_supported() turns false, pgarchive_why() says
 * why, and pgarchive_finish reports nothing. What no pg_dump writes (no magic, a data block of an
 * entry that is not there, a block that ends too early, data that is missing at the end) is
 * MALFORMED: pg_restore would refuse such an archive too.
 * Memory: PGARCHIVE_MEMORY_MAX whatever the archive says. One owner, any thread, never blocks. */
#ifndef DR_WORKER_PIPE_PGARCHIVE_H
#define DR_WORKER_PIPE_PGARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/pipe/records.h"

enum {
    PGARCHIVE_MEMORY_MAX = 32 << 20,  /* names and columns of all tables and sequences */
    PGARCHIVE_ENTRIES_MAX = 10000000, /* of the table of contents */
    PGARCHIVE_COPY_MAX = 1 << 18      /* a COPY statement: 1,600 columns of 63 quoted bytes fit */
};

struct pgarchive;

/* Called by pgarchive_finish, tables and sequences in the order of the table of contents, then
 * blobs once. Any may be NULL. A return other than DR_OK ends it. */
/* A data block that begins, and where the table of contents says so: offset_size + 1 bytes at
 * entry_at, a flag and a little-endian position. A dump that went through a pipe has none there. */
struct pgarchive_place {
    uint64_t entry_at, block_at; /* bytes from the archive's begin */
    unsigned offset_size;
};

struct pgarchive_events {
    enum dr_rc (*table)(void *arg, const struct pipe_table *t, struct dr_err *err);
    enum dr_rc (*sequence)(void *arg, const struct pipe_sequence *q, struct dr_err *err);
    enum dr_rc (*blobs)(void *arg, const struct pipe_blobs *o, struct dr_err *err);
    /* From within pgarchive_feed, as the block's head has passed. */
    enum dr_rc (*block)(void *arg, const struct pgarchive_place *p, struct dr_err *err);
    void *arg;
};

struct pgarchive_info {
    unsigned major, minor;   /* of the archive format; 0.0: header not met yet */
    char dbname[64];         /* printable, cut */
    char server_version[64]; /* "15.20 (Debian 15.20-0+deb12u1)" */
    char tool_version[64];
};

struct pgarchive_sums {
    uint64_t tables, sequences, rows;
};

/* row_key NULL: rows are not digested; only `block` is told. */
enum dr_rc pgarchive_new(const unsigned char *row_key, const struct pgarchive_events *on,
                         struct pgarchive **out, struct dr_err *err) DR_MUST_CHECK;
void pgarchive_free(struct pgarchive *a);
/* MALFORMED, or DR_OK. After an error every call gives it again. */
enum dr_rc pgarchive_feed(struct pgarchive *a, const void *bytes, size_t len,
                          struct dr_err *err) DR_MUST_CHECK;
/* The stream has ended; runs the events. out may be NULL. */
enum dr_rc pgarchive_finish(struct pgarchive *a, struct pgarchive_sums *out,
                            struct dr_err *err) DR_MUST_CHECK;
bool pgarchive_supported(const struct pgarchive *a);  /* so far; final after _finish */
const char *pgarchive_why(const struct pgarchive *a); /* "" while supported */
const struct pgarchive_info *pgarchive_info(const struct pgarchive *a);

#endif
