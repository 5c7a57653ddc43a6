/* Digests of rows and trees (formats-bytes 4).
 *
 * Rows: COPY text in any cuts -> row count and the sum modulo 2^128 of the rows' hashes, so that
 * the order of rows does not matter. A row's hash: first 16 bytes of SHA-256(key || row without
 * its newline). Data ends at the line `\.`; what follows is ignored. An empty line is a row; a
 * last line without newline is one too.
 * Embedded, no memory of its own, one owner, any thread. The key is wiped by digest_rows_fini. */
#ifndef DR_WORKER_PIPE_DIGEST_H
#define DR_WORKER_PIPE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/pipe/records.h"

struct digest_rows {
    unsigned char key[32];
    uint64_t rows;
    uint64_t sum[2];       /* high, low */
    uint64_t partial[14];  /* hash state of a row that was cut */
    uint64_t partial_len;  /* its bytes so far */
    unsigned char head[2]; /* its first two */
    bool open;             /* a row has begun and not ended */
    bool ended;            /* `\.` was met */
};

void digest_rows_init(struct digest_rows *d, const unsigned char key[32]);
void digest_rows_fini(struct digest_rows *d);
/* Cannot fail. */
void digest_rows_feed(struct digest_rows *d, const void *bytes, size_t len);
bool digest_rows_ended(const struct digest_rows *d); /* `\.` was met */
/* So far, a last line without newline included. No row: 16 zero bytes. */
void digest_rows_sums(const struct digest_rows *d, uint64_t *rows, unsigned char digest[16]);

/* A row of any bytes in pieces (a large object: u32 oid || content); not mixed with _feed. */
void digest_rows_open(struct digest_rows *d);
void digest_rows_part(struct digest_rows *d, const void *bytes, size_t len);
void digest_rows_close(struct digest_rows *d);

/* Trees: the entries of one root, in bytewise order of their paths, give root_content and
 * root_meta. An `h` counts as `f`. The target of a file with several entries is their smallest
 * path, which the first of them does not know yet: digest_tree_add takes a group for those, and
 * what follows waits (in memory, beyond DIGEST_TREE_MEMORY in an unlinked file) until it is known.
 * Memory grows with the number of files that have several entries, not with the tree. */
enum { DIGEST_TREE_MEMORY = 1 << 20 };
struct digest_tree;
/* spool_dir: where the file that waits is made; NULL: /var/tmp. */
enum dr_rc digest_tree_new(const char *spool_dir, struct digest_tree **out,
                           struct dr_err *err) DR_MUST_CHECK;
void digest_tree_free(struct digest_tree *d);
/* group: 0 for a file with one name (st_nlink 1) and whatever is no file, else a number of its own
 * for each file, from 1, dense; the first of a group comes as `f`, the others as `h` with its path.
 */
enum dr_rc digest_tree_add(struct digest_tree *d, const struct pipe_file *f, uint32_t group,
                           struct dr_err *err) DR_MUST_CHECK;
/* Ends the root; the object begins anew for the next one. */
enum dr_rc digest_tree_end(struct digest_tree *d, unsigned char content[32], unsigned char meta[32],
                           struct dr_err *err) DR_MUST_CHECK;

#endif
