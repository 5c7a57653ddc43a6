/* The index records of formats-bytes 3 as plain structs. Every pointer is borrowed: it lives as
 * long as the call that hands the record over. Bytes are raw: no encoding, no NUL at the end. */
#ifndef DR_WORKER_PIPE_RECORDS_H
#define DR_WORKER_PIPE_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pipe_bytes {
    const unsigned char *data; /* NULL only with len 0 */
    size_t len;
};

struct pipe_xattr {
    struct pipe_bytes name, value;
};

/* "f": one entry of a tree. path has no leading slash. */
struct pipe_file {
    struct pipe_bytes path;
    char type;     /* f file, d directory, l symlink, h hard link, p fifo, c and b devices */
    uint32_t mode; /* & 07777 */
    uint32_t uid, gid;
    struct pipe_bytes uname, gname; /* empty: unknown */
    int64_t mtime_ns;
    uint64_t size;   /* f and h, else 0 */
    bool has_sha256; /* f and h */
    unsigned char sha256[32];
    bool has_target;                 /* l: its text; h: the path that carries the data; c, b: */
    struct pipe_bytes target;        /* "major:minor" */
    const struct pipe_xattr *xattrs; /* sorted by name */
    unsigned xattr_count;
};

struct pipe_file *pipe_file_copy(const struct pipe_file *f); /* one block: free() */

/* "r": one root, after its last entry. path has no leading slash. */
struct pipe_root {
    struct pipe_bytes path;
    bool mount; /* was a mount point */
    unsigned char content[32], meta[32];
};

/* "x": why is "excluded", "unreadable" or "changed". */
struct pipe_skip {
    struct pipe_bytes path;
    const char *why;
};

/* "t": a table's data. Rows without a digest: count only (a member of an extension); neither: a
 * materialized view, a partition that is loaded through its root, or rows that are no COPY text. */
struct pipe_table {
    struct pipe_bytes schema, name;
    const struct pipe_bytes *columns; /* in COPY order */
    unsigned column_count;
    bool has_rows;
    uint64_t rows;
    bool has_digest;
    unsigned char digest[16];
};

/* "q": a sequence. */
struct pipe_sequence {
    struct pipe_bytes schema, name;
    int64_t last;
    bool called;
};

/* "o": all large objects together. */
struct pipe_blobs {
    uint64_t count, bytes;
    bool has_digest;
    unsigned char digest[16];
};

#endif
