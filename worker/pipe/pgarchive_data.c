/* Data blocks of a custom archive, in any order, and the two ways out: not understood, malformed.
 * Data passes straight into the row digests. Owns nothing. */
#include "worker/pipe/pgarchive_internal.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/str.h"

void pgarchive_unknown(struct pgarchive *a, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(a->why, sizeof a->why, fmt, ap);
    va_end(ap);
    a->at = IGNORED;
    pgarchive_items_fini(&a->items);
}

void pgarchive_wrong(struct pgarchive *a, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(a->wrong, sizeof a->wrong, fmt, ap);
    va_end(ap);
}

/* A block begins. */
void pgarchive_data_block(struct pgarchive *a, uint32_t id)
{
    struct item *i = pgarchive_items_find(&a->items, id);
    char name[80];

    if (!i || !i->has_data) {
        pgarchive_wrong(a, "data of entry %u, which is not there", id);
        return;
    }
    pgarchive_items_name(&a->items, i, name, sizeof name);
    if (i->done)
        pgarchive_wrong(a, "data of %s (entry %u) comes twice", name, id);
    else if ((a->block == PGARCHIVE_BLOCK_BLOBS) != (i->kind == ITEM_BLOBS) &&
             i->kind != ITEM_OTHER)
        pgarchive_wrong(a, "data of %s (entry %u) in a block of type %u", name, id, a->block);
    i->done = true;
    a->block_begun = true;
    a->block_entry_at = i->entry_at;
    a->table = i->kind == ITEM_TABLE && i->is_copy && a->digests ? i : NULL;
    digest_rows_init(&a->rows, a->row_key);
    a->at = a->block == PGARCHIVE_BLOCK_BLOBS ? BLOB_OID : PIECE;
}

static void end_of_data(struct pgarchive *a)
{
    char name[80];

    if (a->table) {
        digest_rows_sums(&a->rows, &a->table->rows, a->table->digest);
        if (!digest_rows_ended(&a->rows)) {
            pgarchive_items_name(&a->items, a->table, name, sizeof name);
            pgarchive_wrong(a, "data of %s ends without its mark", name);
        }
    }
    a->at = BLOCK;
}

void pgarchive_data_piece(struct pgarchive *a, int64_t len)
{
    if (len < 0) {
        pgarchive_wrong(a, "a piece of %lld bytes", (long long)len);
    } else if (len) {
        a->left = (uint64_t)len;
    } else if (a->at == PIECE) {
        end_of_data(a);
    } else {
        digest_rows_close(&a->blobs);
        a->blob_count++;
        a->at = BLOB_OID;
    }
}

void pgarchive_data_blob(struct pgarchive *a, int64_t value)
{
    unsigned char oid[4];

    if (!value) {
        a->at = BLOCK;
        return;
    }
    dr_put_u32be(oid, (uint32_t)value); /* written as a signed number */
    digest_rows_open(&a->blobs);
    digest_rows_part(&a->blobs, oid, sizeof oid);
    a->at = BLOB_PIECE;
}

size_t pgarchive_data_feed(struct pgarchive *a, const unsigned char *p, size_t len)
{
    size_t n = a->left < len ? (size_t)a->left : len;

    if (a->at == BLOB_PIECE && a->digests) {
        digest_rows_part(&a->blobs, p, n);
        a->blob_bytes += n;
    } else if (a->table) {
        digest_rows_feed(&a->rows, p, n);
    }
    a->left -= n;
    return n;
}
