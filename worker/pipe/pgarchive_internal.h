/* What the parts of pgarchive share: pgarchive.c (the tap), pgarchive_toc.c (header and table of
 * contents), pgarchive_data.c (data blocks), pgarchive_items.c (what all of it told). */
#ifndef DR_WORKER_PIPE_PGARCHIVE_INTERNAL_H
#define DR_WORKER_PIPE_PGARCHIVE_INTERNAL_H

#include "common/buf.h"
#include "worker/pipe/digest.h"
#include "worker/pipe/pgarchive.h"

enum {
    PGARCHIVE_MAGIC_LEN = 5,
    PGARCHIVE_BLOCK_BLOBS = 3,
    PGARCHIVE_NAME_KEEP = 1024,
    COLUMNS_MAX = 1664,
    DEPS_MAX = 4
};

enum place {
    MAGIC,
    MAJOR,
    MINOR,
    REVISION,
    INT_SIZE,
    OFFSET_SIZE,
    FORMAT,
    COMPRESSION_LEVEL,
    COMPRESSION_KIND,
    TIME,
    DBNAME,
    SERVER,
    TOOL,
    ENTRIES,
    DUMP_ID, /* an entry begins */
    HAS_DATA,
    TABLE_OID,
    OID,
    TAG,
    DESC,
    SECTION,
    DEFN,
    DROP,
    COPY,
    SCHEMA,
    TABLESPACE,
    ACCESS_METHOD,
    RELKIND,
    OWNER,
    WITH_OIDS,
    DEPENDENCY, /* until NULL */
    OFFSET,
    BLOCK, /* the archive may end here */
    BLOCK_ID,
    PIECE, /* length of a piece of a table's data; 0: its end */
    BLOB_OID,
    BLOB_PIECE,
    IGNORED /* not understood: the rest passes by */
};

enum item_kind { ITEM_TABLE, ITEM_VIEW, ITEM_SEQUENCE, ITEM_BLOBS, ITEM_OTHER };

/* One entry that counts: has data, or is a table's, a materialized view's, a sequence's. */
struct item {
    uint32_t dump_id;
    uint64_t entry_at; /* pgarchive_place */
    enum item_kind kind;
    bool has_data; /* a block of it must come */
    bool done;     /* it has come */
    bool is_copy;  /* COPY text */
    bool columns_known;
    bool own; /* its table is in the archive too: no member of an extension */
    bool called;
    unsigned dep_count;
    uint32_t deps[DEPS_MAX];
    size_t names;  /* where its names begin in items.names */
    uint64_t rows; /* a sequence: last, as bits */
    unsigned char digest[16];
};

struct items {
    struct item *list;
    size_t count, room;
    struct item **by_id; /* sorted, once the table of contents is read */
    uint32_t *tables;    /* dump ids of TABLE entries */
    size_t table_count, table_room;
    struct dr_buf names; /* u16 schema, name, columns; u16 a column; the bytes */
};

/* The entry just read. */
struct toc_entry {
    uint32_t dump_id;
    uint64_t at; /* of flag and position */
    bool has_data;
    unsigned dep_count;
    uint32_t deps[DEPS_MAX];
    struct dr_buf tag, desc, defn, copy, schema;
    bool has_copy;
};

void pgarchive_items_init(struct items *t);
void pgarchive_items_fini(struct items *t);
/* NULL, or why the archive is not understood. */
const char *pgarchive_items_add(struct items *t, const struct toc_entry *e);
/* The table of contents is read. NULL, or why it is malformed. */
const char *pgarchive_items_seal(struct items *t);
struct item *pgarchive_items_find(const struct items *t, uint32_t dump_id);
/* An item whose data has not come; NULL: none. */
const struct item *pgarchive_items_missing(const struct items *t);
enum dr_rc pgarchive_items_report(const struct items *t, const struct pgarchive_events *on,
                                  struct pgarchive_sums *sums, struct dr_err *err);
/* "schema.name", printable, for messages. */
void pgarchive_items_name(const struct items *t, const struct item *i, char *out, size_t size);

struct pgarchive {
    struct pgarchive_events on;
    struct pgarchive_info info;
    unsigned char row_key[32];
    bool digests, block_begun; /* rows are hashed; a block's head has just passed */
    uint64_t passed, value_at, block_at, block_entry_at; /* bytes from the archive's begin */
    enum place at;
    unsigned char small[16]; /* a number that was cut */
    size_t small_len;
    bool in_string;
    uint64_t left;      /* of a string, or of a piece of data */
    struct dr_buf text; /* the string so far */
    bool is_null;
    size_t raw_len; /* magic: 5, offset: 1 + size */
    unsigned offset_size, block, times;
    int64_t entries; /* still to come */
    struct toc_entry entry;
    struct items items;
    struct item *table; /* whose data passes; NULL: of no interest */
    struct digest_rows rows, blobs;
    uint64_t blob_count, blob_bytes;
    char why[160];   /* not understood */
    char wrong[160]; /* malformed */
};

/* Not understood: what passes from now on is ignored. Malformed: every call fails from now on. */
void pgarchive_unknown(struct pgarchive *a, const char *fmt, ...) DR_PRINTF(2, 3);
void pgarchive_wrong(struct pgarchive *a, const char *fmt, ...) DR_PRINTF(2, 3);
/* Take bytes of a number or of a string; say how many. */
size_t pgarchive_toc_small(struct pgarchive *a, const unsigned char *p, size_t len);
size_t pgarchive_toc_string(struct pgarchive *a, const unsigned char *p, size_t len);
/* A block begins; the length of a piece, 0: the end; the oid of a large object, 0: the end. */
void pgarchive_data_block(struct pgarchive *a, uint32_t id);
void pgarchive_data_piece(struct pgarchive *a, int64_t len);
void pgarchive_data_blob(struct pgarchive *a, int64_t oid);
size_t pgarchive_data_feed(struct pgarchive *a, const unsigned char *p, size_t len);

#endif
