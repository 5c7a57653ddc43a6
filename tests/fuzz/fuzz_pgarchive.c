/* fuzz: drpipe. A dump archive, whatever it says, in any cuts: the same outcome each time, and
 * never harm. Input: first byte the cut, then bytes behind a valid header, or (odd) from the
 * beginning. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/pipe/pgarchive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    enum dr_rc rc;
    bool supported;
    uint64_t events, sum;
};

static void add(struct outcome *o, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;

    o->events++;
    for (size_t i = 0; i < len; i++) /* reads every byte it was shown */
        o->sum = o->sum * 31 + p[i];
}

static enum dr_rc on_table(void *arg, const struct pipe_table *t, struct dr_err *err)
{
    (void)err;
    add(arg, t->schema.data, t->schema.len);
    add(arg, t->name.data, t->name.len);
    for (unsigned i = 0; i < t->column_count; i++)
        add(arg, t->columns[i].data, t->columns[i].len);
    add(arg, &t->rows, sizeof t->rows);
    add(arg, t->digest, t->has_digest ? sizeof t->digest : 0);
    return DR_OK;
}

static enum dr_rc on_sequence(void *arg, const struct pipe_sequence *q, struct dr_err *err)
{
    (void)err;
    add(arg, q->schema.data, q->schema.len);
    add(arg, q->name.data, q->name.len);
    add(arg, &q->last, sizeof q->last);
    return DR_OK;
}

static enum dr_rc on_blobs(void *arg, const struct pipe_blobs *o, struct dr_err *err)
{
    (void)err;
    add(arg, &o->bytes, sizeof o->bytes);
    add(arg, o->digest, sizeof o->digest);
    return DR_OK;
}

/* PGDMP, version, sizes, no compression, a time, three short strings. */
static size_t header(unsigned char *out, unsigned minor)
{
    static const unsigned char string[] = {0, 1, 0, 0, 0, 'x'};
    size_t n = 0;

    memcpy(out, "PGDMP\1\0\0\4\10\1", 11);
    out[6] = (unsigned char)minor;
    n = 11 + (minor >= 15 ? 1 : 5) + 35;
    memset(out + 11, 0, n - 11);
    for (int i = 0; i < 3; i++, n += sizeof string)
        memcpy(out + n, string, sizeof string);
    return n;
}

static void run(struct outcome *o, const unsigned char *bytes, size_t len, size_t cut)
{
    static const unsigned char key[32] = {1};
    struct pgarchive_events on = {
        .table = on_table, .sequence = on_sequence, .blobs = on_blobs, .arg = o};
    struct pgarchive *a = NULL;
    struct dr_err err = {0};

    memset(o, 0, sizeof *o);
    if (pgarchive_new(key, &on, &a, &err))
        abort();
    for (size_t i = 0; i < len && !o->rc; i += cut)
        o->rc = pgarchive_feed(a, bytes + i, len - i < cut ? len - i : cut, &err);
    if (!o->rc)
        o->rc = pgarchive_finish(a, NULL, &err);
    o->supported = pgarchive_supported(a);
    if ((o->rc && o->rc != DR_E_MALFORMED) || ((o->rc || !o->supported) && o->events))
        abort();
    pgarchive_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome a, b;
    unsigned char *bytes;
    size_t n = 0;

    if (size < 2 || size > 1 << 16)
        return 0;
    bytes = malloc(size + 128);
    if (!bytes)
        abort();
    if (data[0] % 4 != 3)
        n = header(bytes, 14 + data[0] % 4u);
    memcpy(bytes + n, data + 2, size - 2);
    run(&a, bytes, n + size - 2, 1 + data[1]);
    run(&b, bytes, n + size - 2, 1 << 20);
    if (memcmp(&a.rc, &b.rc, sizeof a.rc) || a.supported != b.supported || a.events != b.events ||
        a.sum != b.sum)
        abort();
    free(bytes);
    return 0;
}
