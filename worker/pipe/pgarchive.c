/* The tap as its users see it: begins, passes bytes on to what stands at the place it is at, checks
 * that nothing is missing at the end. Owns all it keeps; the row key is wiped. */
#include "worker/pipe/pgarchive.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/pipe/pgarchive_internal.h"

enum dr_rc pgarchive_new(const unsigned char *row_key, const struct pgarchive_events *on,
                         struct pgarchive **out, struct dr_err *err)
{
    struct pgarchive *a = dr_try_alloc(sizeof *a);

    if (!a)
        return dr_fail(err, DR_E_NOMEM, "reader of dump archives");
    a->on = *on;
    a->digests = row_key != NULL;
    if (row_key)
        memcpy(a->row_key, row_key, sizeof a->row_key);
    a->raw_len = PGARCHIVE_MAGIC_LEN;
    dr_buf_init(&a->text, PGARCHIVE_COPY_MAX);
    dr_buf_init(&a->entry.tag, PGARCHIVE_COPY_MAX);
    dr_buf_init(&a->entry.desc, PGARCHIVE_COPY_MAX);
    dr_buf_init(&a->entry.defn, PGARCHIVE_COPY_MAX);
    dr_buf_init(&a->entry.copy, PGARCHIVE_COPY_MAX);
    dr_buf_init(&a->entry.schema, PGARCHIVE_COPY_MAX);
    pgarchive_items_init(&a->items);
    digest_rows_init(&a->blobs, a->row_key);
    *out = a;
    return DR_OK;
}

void pgarchive_free(struct pgarchive *a)
{
    if (!a)
        return;
    dr_buf_fini(&a->text);
    dr_buf_fini(&a->entry.tag);
    dr_buf_fini(&a->entry.desc);
    dr_buf_fini(&a->entry.defn);
    dr_buf_fini(&a->entry.copy);
    dr_buf_fini(&a->entry.schema);
    pgarchive_items_fini(&a->items);
    dr_wipe(a, sizeof *a); /* the row key */
    free(a);
}

bool pgarchive_supported(const struct pgarchive *a)
{
    return !a->why[0];
}

const char *pgarchive_why(const struct pgarchive *a)
{
    return a->why;
}

const struct pgarchive_info *pgarchive_info(const struct pgarchive *a)
{
    return &a->info;
}

enum dr_rc pgarchive_feed(struct pgarchive *a, const void *bytes, size_t len, struct dr_err *err)
{
    const unsigned char *p = bytes, *end = p + len;

    while (p < end && a->at != IGNORED && !a->wrong[0]) {
        size_t left = (size_t)(end - p), n;
        if (a->in_string)
            n = pgarchive_toc_string(a, p, left);
        else if (a->left)
            n = pgarchive_data_feed(a, p, left);
        else
            n = pgarchive_toc_small(a, p, left);
        p += n;
        a->passed += n;
        if (a->block_begun && !a->wrong[0] && a->on.block) {
            const struct pgarchive_place place = {a->block_entry_at, a->block_at, a->offset_size};
            if (a->on.block(a->on.arg, &place, err))
                return err->rc;
        }
        a->block_begun = false;
    }
    if (a->wrong[0])
        return dr_fail(err, DR_E_MALFORMED, "dump archive: %s", a->wrong);
    return DR_OK;
}

static void check_end(struct pgarchive *a)
{
    const struct item *i;
    char name[80];

    if (a->at == IGNORED || a->wrong[0])
        return;
    i = a->at == BLOCK ? pgarchive_items_missing(&a->items) : NULL;
    if (a->at != BLOCK || a->small_len) {
        pgarchive_wrong(a, "ends in the middle");
    } else if (i) {
        pgarchive_items_name(&a->items, i, name, sizeof name);
        pgarchive_wrong(a, "ends before the data of %s (entry %u)", name, i->dump_id);
    }
}

enum dr_rc pgarchive_finish(struct pgarchive *a, struct pgarchive_sums *out, struct dr_err *err)
{
    struct pgarchive_sums sums = {0};
    struct pipe_blobs o = {.count = a->blob_count, .bytes = a->blob_bytes, .has_digest = true};
    uint64_t count;
    enum dr_rc rc = DR_OK;

    check_end(a);
    if (a->wrong[0])
        return dr_fail(err, DR_E_MALFORMED, "dump archive: %s", a->wrong);
    if (pgarchive_supported(a) && a->digests) {
        digest_rows_sums(&a->blobs, &count, o.digest);
        rc = pgarchive_items_report(&a->items, &a->on, &sums, err);
        if (!rc && a->on.blobs)
            rc = a->on.blobs(a->on.arg, &o, err);
    }
    if (out)
        *out = sums;
    return rc;
}
