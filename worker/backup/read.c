/* Streams and records of a proven backup, for restores. See prove.h. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/backup/prove.h"
#include "worker/backup/walk.h"

struct record_reader {
    struct walk walk;
    bool all, end; /* all: of every stream */
};

enum dr_rc record_reader_open(struct backup_handle *h, const char *stream, struct cancel *cancel,
                              struct record_reader **out, struct dr_err *err)
{
    struct record_reader *r = dr_xalloc(sizeof *r);
    r->all = !stream;
    if (walk_open(&r->walk, h, false, cancel, err) ||
        (stream && walk_seek(&r->walk, stream, err))) {
        record_reader_close(r);
        return err->rc;
    }
    *out = r;
    return DR_OK;
}

enum dr_rc record_reader_next(struct record_reader *r, const struct index_record **rec,
                              struct dr_err *err)
{
    *rec = NULL;
    while (!r->end) {
        if (walk_step(&r->walk, err))
            return err->rc;
        r->end = r->walk.end || (r->walk.rec.type == INDEX_STREAM && !r->all);
        if (!r->end && r->walk.rec.type != INDEX_CHUNK) {
            *rec = &r->walk.rec;
            break;
        }
    }
    return DR_OK;
}

void record_reader_close(struct record_reader *r)
{
    if (!r)
        return;
    walk_close(&r->walk);
    free(r);
}

enum dr_rc prove_each_record(struct backup_handle *h, const char *stream, struct cancel *cancel,
                             enum dr_rc (*fn)(void *arg, const struct index_record *rec,
                                              struct dr_err *err),
                             void *arg, struct dr_err *err)
{
    struct record_reader *r = NULL;
    const struct index_record *rec = NULL;
    enum dr_rc rc = record_reader_open(h, stream, cancel, &r, err);
    while (!rc && !(rc = record_reader_next(r, &rec, err)) && rec)
        rc = fn(arg, rec, err);
    record_reader_close(r);
    return rc;
}

struct object_reader {
    struct walk walk;
    struct container_reader *reader;
    const struct manifest_object *object;
};

enum dr_rc object_reader_open(struct backup_handle *h, const char *stream,
                              const struct prove_options *o, struct object_reader **out,
                              struct dr_err *err)
{
    struct object_reader *r = dr_xalloc(sizeof *r);
    const struct manifest *m = handle_manifest(h);
    r->object = manifest_object(m, stream);
    if (!r->object)
        (void)dr_fail(err, DR_E_NOT_FOUND, "%s: no object '%s'", m->backup_id, stream);
    if (!r->object || walk_open(&r->walk, h, false, o->cancel, err) ||
        walk_seek(&r->walk, stream, err) ||
        walk_object_open(&r->walk, (unsigned)(r->object - m->objects), err))
        goto failed;
    const struct container_reader_spec spec = {.containers = r->walk.list,
                                               .count = r->walk.count,
                                               .next = walk_next_ref,
                                               .arg = &r->walk,
                                               .threads = o->threads,
                                               .cancel = o->cancel,
                                               .progress = o->progress};
    if (container_reader_new(&spec, &r->reader, err))
        goto failed;
    *out = r;
    return DR_OK;
failed:
    object_reader_close(r);
    return err->rc;
}

enum dr_rc object_reader_read(struct object_reader *r, const void **bytes, size_t *len,
                              struct dr_err *err)
{
    struct container_sums s;
    if (container_read(r->reader, bytes, len, err))
        return dr_wrap(err, "%s", r->object->name);
    if (*len)
        return DR_OK;
    if (container_reader_sums(r->reader, &s, err))
        return err->rc;
    if (memcmp(s.root, r->object->root, sizeof s.root) == 0)
        return DR_OK;
    (void)dr_fail(err, DR_E_INTEGRITY, "%s: the root of its chunks is not what the manifest says",
                  r->object->name);
    return dr_err_reason(err, "root");
}

static enum dr_rc read_piece(void *arg, const void **bytes, size_t *len, struct dr_err *err)
{
    return object_reader_read(arg, bytes, len, err);
}

struct pipe_source object_reader_source(struct object_reader *r)
{
    return (struct pipe_source){read_piece, r};
}

void object_reader_close(struct object_reader *r)
{
    if (!r)
        return;
    container_reader_free(r->reader);
    walk_close(&r->walk);
    free(r);
}
