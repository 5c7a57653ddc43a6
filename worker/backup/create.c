/* Objects and index of one backup, from staging to published. See create.h. */
#include "worker/backup/create.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "worker/backup/handle.h"
#include "worker/backup/names.h"
#include "worker/backup/prove.h"

struct create {
    struct store *store;
    struct staging *staging;
    struct manifest *manifest;
    unsigned objects, level, threads;
    unsigned next; /* objects begun so far */
    struct making {
        char role[12];
        int fd;
        struct container_writer *writer; /* NULL: not open */
    } object, outer;                     /* outer: of the index */
    struct index_writer *index;
    enum dr_rc (*room)(void *arg, uint64_t bytes, struct dr_err *err);
    void *room_arg;
    struct pipe_sink sink;    /* where the index goes */
    struct store_proof proof; /* at_ms 0: not read back */
};

static enum dr_rc begin(struct create *c, struct making *o, const char *role, unsigned number,
                        struct container_spec spec, struct dr_err *err)
{
    char name[20];
    (void)snprintf(o->role, sizeof o->role, "%s", role);
    (void)snprintf(name, sizeof name, "%s.drb", role);
    o->fd = openat(staging_dirfd(c->staging), name,
                   O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (o->fd < 0)
        return dr_fail_errno(err, DR_E_IO, "create %s/%s", staging_path(c->staging), name);
    spec.fd = o->fd;
    spec.keys = store_keys(c->store);
    spec.backup_id = c->manifest->backup_id;
    spec.series = c->manifest->series;
    spec.index = number;
    spec.room = c->room;
    spec.room_arg = c->room_arg;
    return container_writer_new(&spec, &o->writer, err) ? dr_wrap(err, "%s", name) : DR_OK;
}

static void drop(struct making *o)
{
    container_writer_free(o->writer);
    if (o->fd >= 0)
        (void)close(o->fd);
    *o = (struct making){.fd = -1};
}

static enum dr_rc to_index(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    struct create *c = arg;
    return container_write(c->outer.writer, bytes, len, err);
}

enum dr_rc create_new(const struct create_spec *spec, struct create **out, struct dr_err *err)
{
    struct create *c = dr_xalloc(sizeof *c);
    struct manifest *m = manifest_new();
    c->store = spec->store;
    c->manifest = m;
    c->objects = spec->objects;
    c->level = spec->level;
    c->threads = spec->threads;
    c->room = spec->room;
    c->room_arg = spec->room_arg;
    names_backup_id(spec->t_start_ms, spec->kind, spec->job_id, m->backup_id);
    (void)snprintf(m->job_id, sizeof m->job_id, "%s", spec->job_id);
    (void)snprintf(m->series, sizeof m->series, "%s", spec->series);
    (void)snprintf(m->class, sizeof m->class, "%s", spec->class);
    (void)snprintf(m->kind, sizeof m->kind, "%s", spec->kind);
    m->t_start_ms = m->t_point_ms = spec->t_start_ms;
    m->key_generation = keyring_generation(store_keys(c->store));
    c->object.fd = c->outer.fd = -1;
    c->sink = (struct pipe_sink){to_index, c};
    /* The index compresses in the caller's thread: its records are small beside the data. */
    const struct container_spec how = {.level = c->level ? c->level : 1};
    if (store_staging_new(c->store, spec->run, spec->ticket, &c->staging, err) ||
        begin(c, &c->outer, "index", c->objects, how, err) ||
        index_writer_new(&c->sink, &c->index, err)) {
        create_free(c);
        return err->rc;
    }
    *out = c;
    return DR_OK;
}

void create_free(struct create *c)
{
    if (!c)
        return;
    drop(&c->object);
    index_writer_free(c->index);
    drop(&c->outer);
    staging_free(c->staging);
    manifest_free(c->manifest);
    free(c);
}

struct manifest *create_manifest(struct create *c)
{
    return c->manifest;
}

struct index_writer *create_index(struct create *c)
{
    return c->index;
}

static enum dr_rc on_chunk(void *arg, const struct container_chunk *k, struct dr_err *err)
{
    struct create *c = arg;
    struct index_chunk x = {.container = c->next - 1,
                            .offset = k->offset,
                            .stored_len = k->stored_len,
                            .plain_len = k->plain_len};
    memcpy(x.name, k->name, sizeof x.name);
    return index_put_chunk(c->index, &x, err);
}

enum dr_rc create_object_begin(struct create *c, const char *role, struct cancel *cancel,
                               _Atomic uint64_t *progress, struct container_writer **out,
                               struct dr_err *err)
{
    const struct container_spec how = {.level = c->level,
                                       .rows = strcmp(role, "database") == 0,
                                       .threads = c->threads,
                                       .on_chunk = on_chunk,
                                       .arg = c,
                                       .cancel = cancel,
                                       .progress = progress};
    if (c->object.writer || c->next >= c->objects)
        return dr_fail(err, DR_E_BUG, "object %s: out of turn", role);
    unsigned number = c->next++;
    if (index_put_stream(c->index, role, err) || begin(c, &c->object, role, number, how, err))
        return err->rc;
    *out = c->object.writer;
    return DR_OK;
}

static enum dr_rc finish(struct create *c, struct making *o, struct dr_err *err)
{
    struct container_sums s;
    if (container_finish(o->writer, &s, err))
        return dr_wrap(err, "%s.drb", o->role);
    if (manifest_add_object(c->manifest, o->role, s.plain_bytes, s.stored_bytes, s.root,
                            s.sha256_payload, err))
        return err->rc;
    drop(o);
    return DR_OK;
}

enum dr_rc create_object_end(struct create *c, struct dr_err *err)
{
    return finish(c, &c->object, err);
}

enum dr_rc create_seal(struct create *c, struct dr_err *err)
{
    if (c->object.writer || c->next != c->objects)
        return dr_fail(err, DR_E_BUG, "%u of %u objects were made", c->next, c->objects);
    if (index_end(c->index, err) || finish(c, &c->outer, err))
        return err->rc;
    c->manifest->t_end_ms = dr_wall_ms();
    return DR_OK;
}

enum dr_rc create_read_back(struct create *c, struct cancel *cancel, _Atomic uint64_t *progress,
                            struct dr_err *err)
{
    struct backup_handle *h = NULL;
    struct prove_sums sums;
    const struct prove_options o = {.cancel = cancel, .progress = progress, .threads = c->threads};
    if (handle_staged(c->store, c->staging, c->manifest, &h, err))
        return err->rc;
    enum dr_rc rc = prove_backup(h, &o, &sums, err);
    handle_close(h);
    if (rc)
        return dr_wrap(err, "read back");
    c->proof = (struct store_proof){.at_ms = dr_wall_ms(), .unreadable = sums.unreadable};
    return DR_OK;
}

enum dr_rc create_publish(struct create *c, bool *adopted, struct dr_err *err)
{
    if (!c->proof.at_ms)
        return dr_fail(err, DR_E_BUG, "published before it was read back");
    return store_publish(c->store, c->staging, &c->manifest, &c->proof, adopted, err);
}
