/* Reading an index beside the objects it describes. See walk.h. */
#include "worker/backup/walk.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum dr_rc walk_open(struct walk *w, struct backup_handle *h, bool whole, struct cancel *cancel,
                     struct dr_err *err)
{
    const struct manifest *m = handle_manifest(h);
    *w = (struct walk){.handle = h};
    for (unsigned i = 0; i + 1 < m->object_count; i++)
        w->roles[i] = m->objects[i].role;
    if (handle_object(h, m->object_count - 1, &w->container, err))
        goto failed;
    const struct container_reader_spec spec = {
        .containers = &w->container, .count = 1, .whole = whole, .cancel = cancel};
    if (container_reader_new(&spec, &w->reader, err))
        goto failed;
    w->source = container_reader_source(w->reader);
    if (index_reader_new(&w->source, w->roles, m->container_count, &w->index, err))
        goto failed;
    return DR_OK;
failed:
    walk_close(w);
    return dr_wrap(err, "%s/index.drb", m->backup_id);
}

void walk_close(struct walk *w)
{
    walk_object_close(w);
    index_reader_free(w->index);
    container_reader_free(w->reader);
    container_close(w->container);
    *w = (struct walk){0};
}

enum dr_rc walk_step(struct walk *w, struct dr_err *err)
{
    if (w->end)
        return DR_OK;
    if (index_next(w->index, &w->rec, &w->end, err)) {
        w->damaged = true;
        return dr_wrap(err, "%s/index.drb", handle_manifest(w->handle)->backup_id);
    }
    if (w->rec.type == INDEX_STREAM)
        w->object = handle_manifest(w->handle)->objects[index_stream_number(w->index)].role;
    return DR_OK;
}

static bool is_named(const struct pipe_bytes *b, const char *name)
{
    return b->len == strlen(name) && memcmp(b->data, name, b->len) == 0;
}

enum dr_rc walk_seek(struct walk *w, const char *stream, struct dr_err *err)
{
    do {
        if (walk_step(w, err))
            return err->rc;
    } while (!w->end && !(w->rec.type == INDEX_STREAM && is_named(&w->rec.stream, stream)));
    if (w->end)
        return dr_fail(err, DR_E_NOT_FOUND, "%s: no stream '%s'",
                       handle_manifest(w->handle)->backup_id, stream);
    return DR_OK;
}

/* The next chunk of the stream at hand; NULL: it has no more, the record at hand is another
 * stream's or the end. */
static enum dr_rc next_chunk(struct walk *w, const struct index_chunk **chunk, struct dr_err *err)
{
    *chunk = NULL;
    for (;;) {
        if (walk_step(w, err))
            return err->rc;
        if (w->end || w->rec.type == INDEX_STREAM)
            return DR_OK;
        if (w->rec.type == INDEX_CHUNK) {
            *chunk = &w->rec.chunk;
            return DR_OK;
        }
        if (w->record && w->record(w->arg, w->object, &w->rec, err))
            return err->rc;
    }
}

/* Place in list of a container by its number: the own one comes first. */
static unsigned place(const struct walk *w, unsigned number)
{
    if (number == w->own)
        return 0;
    return number == 0 ? w->own : number;
}

enum dr_rc walk_object_open(struct walk *w, unsigned object, struct dr_err *err)
{
    const struct manifest *m = handle_manifest(w->handle);
    w->own = object;
    w->count = m->container_count;
    w->list = dr_xarray(w->count, sizeof(struct container *));
    if (handle_object(w->handle, object, &w->list[0], err))
        return err->rc;
    /* A full backup refers to itself only; a chain needs the others' containers, all of them.
     * Those of this backup come first, in the order of its objects. */
    for (unsigned n = m->object_count - 1; n < w->count; n++)
        if (handle_container(w->handle, n, &w->list[place(w, n)], err))
            return err->rc;
    return DR_OK;
}

void walk_object_close(struct walk *w)
{
    for (unsigned i = 0; w->list && i < w->count; i++)
        container_close(w->list[i]);
    free(w->list);
    w->list = NULL;
}

enum dr_rc walk_next_ref(void *walk, struct container_ref *out, bool *end, struct dr_err *err)
{
    struct walk *w = walk;
    const struct index_chunk *c;
    if (next_chunk(w, &c, err))
        return err->rc;
    *end = !c;
    if (!c)
        return DR_OK;
    *out = (struct container_ref){.container = place(w, c->container),
                                  .offset = c->offset,
                                  .stored_len = c->stored_len,
                                  .plain_len = c->plain_len};
    memcpy(out->name, c->name, sizeof out->name);
    if (w->list[out->container])
        return DR_OK;
    (void)dr_fail(err, DR_E_INTEGRITY, "a chunk lies in another object's container");
    return dr_err_reason(err, "chunk-range");
}
