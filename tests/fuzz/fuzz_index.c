/* fuzz: drbackup */
/* A hostile index stream in pieces: no record that breaks a rule comes out, and what comes out is
 * taken by the writer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "worker/backup/index.h"

struct pieces {
    const uint8_t *at;
    size_t left, piece;
};

static enum dr_rc next_piece(void *arg, const void **bytes, size_t *len, struct dr_err *err)
{
    struct pieces *p = arg;
    (void)err;
    *len = p->left < p->piece ? p->left : p->piece;
    *bytes = p->at;
    p->at += *len;
    p->left -= *len;
    return DR_OK;
}

static enum dr_rc swallow(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    (void)bytes;
    (void)err;
    *(size_t *)arg += len;
    return DR_OK;
}

static void put(struct index_writer *w, const struct index_record *r)
{
    struct dr_err err = {0};
    char name[16];
    enum dr_rc rc = DR_OK;
    switch (r->type) {
    case INDEX_STREAM:
        (void)snprintf(name, sizeof name, "%.*s", (int)r->stream.len, (const char *)r->stream.data);
        rc = index_put_stream(w, name, &err);
        break;
    case INDEX_CHUNK:
        rc = index_put_chunk(w, &r->chunk, &err);
        break;
    case INDEX_FILE:
        rc = index_put_file(w, &r->file, &err);
        break;
    case INDEX_ROOT:
        rc = index_put_root(w, &r->root, &err);
        break;
    case INDEX_SKIP:
        rc = index_put_skip(w, &r->skip, &err);
        break;
    case INDEX_TABLE:
        rc = index_put_table(w, &r->table, &err);
        break;
    case INDEX_SEQUENCE:
        rc = index_put_sequence(w, &r->sequence, &err);
        break;
    case INDEX_BLOBS:
        rc = index_put_blobs(w, &r->blobs, &err);
        break;
    case INDEX_PROPERTIES:
        rc = index_put_properties(w, &r->properties, &err);
        break;
    default:
        rc = index_end(w, &err);
        break;
    }
    if (rc && rc != DR_E_TOO_BIG) /* properties that were left out are written as nil */
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t written = 0;
    struct dr_err err = {0};
    struct index_record rec;
    struct index_reader *r = NULL;
    struct index_writer *w = NULL;
    bool end = false;
    if (size == 0)
        return 0;
    struct pieces p = {data + 1, size - 1, 1u + data[0]};
    const struct pipe_source source = {next_piece, &p};
    const struct pipe_sink sink = {swallow, &written};
    if (index_reader_new(&source, NULL, 4, &r, &err) || index_writer_new(&sink, &w, &err))
        abort();
    while (!end && index_next(r, &rec, &end, &err) == DR_OK)
        put(w, &rec);
    if (!end && !err.reason[0])
        abort();
    index_reader_free(r);
    index_writer_free(w);
    return 0;
}
