/* index.drb's plain stream: u32 length and one msgpack array a record, written and read one record
 * at a time, never whole in memory. Source: formats-bytes 3. */
#ifndef DR_WORKER_BACKUP_INDEX_H
#define DR_WORKER_BACKUP_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/pipe/records.h"
#include "worker/pipe/sink.h"

enum { INDEX_RECORD_MAX = 1048576, INDEX_DEPTH_MAX = 6 };

enum index_type { /* the values are the letters on disk; 'e' is "end" */
                  INDEX_STREAM = 's',
                  INDEX_CHUNK = 'c',
                  INDEX_FILE = 'f',
                  INDEX_ROOT = 'r',
                  INDEX_SKIP = 'x',
                  INDEX_TABLE = 't',
                  INDEX_SEQUENCE = 'q',
                  INDEX_BLOBS = 'o',
                  INDEX_PROPERTIES = 'p',
                  INDEX_END = 'e'
};

struct index_chunk {
    unsigned char name[16];
    uint32_t container; /* position in the manifest's containers */
    uint64_t offset;    /* in its decrypted payload */
    uint32_t stored_len, plain_len;
};

struct index_setting {
    struct pipe_bytes role, value; /* role empty: of the database; value "name=value" */
};

/* data NULL: not set (nil). What a dump without -C loses. */
struct index_properties {
    struct pipe_bytes name, owner, tablespace, encoding, provider, collate, ctype, locale, comment,
        lc_monetary; /* of the session that dumped: money is restored under the same */
    int64_t connlimit;
    bool has_acl;
    struct pipe_bytes *acl;
    unsigned acl_count;
    struct index_setting *settings;
    unsigned setting_count;
};

struct index_record {
    enum index_type type;
    union {
        struct pipe_bytes stream; /* object name without .drb */
        struct index_chunk chunk;
        struct pipe_file file;
        struct pipe_root root;
        struct pipe_skip skip;
        struct pipe_table table;
        struct pipe_sequence sequence;
        struct pipe_blobs blobs;
        struct index_properties properties;
    };
};

/* Writing. Every call may come from any thread (a mutex inside: chunk records come from the
 * container writer's). The sink is borrowed. The first error stays and is given again by
 * index_end. A record the reader would refuse is refused here: INVALID. */
struct index_writer;
enum dr_rc index_writer_new(const struct pipe_sink *sink, struct index_writer **out,
                            struct dr_err *err) DR_MUST_CHECK;
void index_writer_free(struct index_writer *w);
enum dr_rc index_put_stream(struct index_writer *w, const char *name, struct dr_err *err);
enum dr_rc index_put_chunk(struct index_writer *w, const struct index_chunk *c, struct dr_err *err);
enum dr_rc index_put_file(struct index_writer *w, const struct pipe_file *f, struct dr_err *err);
enum dr_rc index_put_root(struct index_writer *w, const struct pipe_root *r, struct dr_err *err);
enum dr_rc index_put_skip(struct index_writer *w, const struct pipe_skip *x, struct dr_err *err);
enum dr_rc index_put_table(struct index_writer *w, const struct pipe_table *t, struct dr_err *err);
enum dr_rc index_put_sequence(struct index_writer *w, const struct pipe_sequence *q,
                              struct dr_err *err);
enum dr_rc index_put_blobs(struct index_writer *w, const struct pipe_blobs *o, struct dr_err *err);
enum dr_rc index_put_properties(struct index_writer *w, const struct index_properties *p,
                                struct dr_err *err);
enum dr_rc index_end(struct index_writer *w, struct dr_err *err) DR_MUST_CHECK; /* "end" record */

/* Reading. streams: the names expected in order, NULL-ended (the manifest's objects without the
 * index; the array is copied, the names are borrowed); NULL: any. containers: how many the manifest
 * names. Errors: INTEGRITY, reason index-truncated, index-trailing, index-length, index-record or
 * index-order (streams, counts, root before its files), or what the source said. */
struct index_reader;
enum dr_rc index_reader_new(const struct pipe_source *source, const char *const *streams,
                            uint32_t containers, struct index_reader **out,
                            struct dr_err *err) DR_MUST_CHECK;
void index_reader_free(struct index_reader *r);
/* Pointers in rec live until the next call. end: the "end" record was met, its counts were right
 * and nothing followed; rec is then of type INDEX_END. */
enum dr_rc index_next(struct index_reader *r, struct index_record *rec, bool *end,
                      struct dr_err *err) DR_MUST_CHECK;
/* The stream of the record just read: position in the manifest's objects. */
unsigned index_stream_number(const struct index_reader *r);

#endif
