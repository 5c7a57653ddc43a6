/* Every stored byte against index and manifest. See prove.h. */
#include "worker/backup/prove.h"

#include <stdio.h>
#include <string.h>

#include "worker/backup/walk.h"

struct proving {
    struct walk walk;
    const struct prove_options *o;
    struct prove_sums *sums;
};

static enum dr_rc count_record(void *arg, const char *object, const struct index_record *rec,
                               struct dr_err *err)
{
    struct proving *p = arg;
    struct prove_sums *s = p->sums;
    if (rec->type == INDEX_FILE) {
        s->files++;
        s->file_bytes += rec->file.size;
    } else if (rec->type == INDEX_TABLE) {
        s->tables++;
        s->rows += rec->table.has_rows ? rec->table.rows : 0;
    } else if (rec->type == INDEX_SKIP) {
        s->unreadable += strcmp(rec->skip.why, "unreadable") == 0;
    }
    return p->o->record ? p->o->record(p->o->arg, object, rec, err) : DR_OK;
}

static enum dr_rc mismatch(struct dr_err *err, const char *reason, const char *what)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "%s is not what the manifest says", what);
    return dr_err_reason(err, reason);
}

static enum dr_rc compare(const struct manifest *m, const struct manifest_object *o,
                          const struct container_sums *s, struct dr_err *err)
{
    if (memcmp(s->sha256_payload, o->sha256_payload, 32) != 0)
        return mismatch(err, "payload-hash", "the hash of its payload");
    if (s->plain_bytes != o->plain_bytes)
        return mismatch(err, "plain-bytes", "the length of its stream");
    if (memcmp(s->root, o->root, 32) != 0)
        return mismatch(err, "root", "the root of its chunks");
    if (s->generation < m->key_generation)
        return mismatch(err, "header-binding", "its key generation");
    return DR_OK;
}

/* object NULL: nobody looks on. */
static enum dr_rc read_all(struct container_reader *r, const struct prove_options *o,
                           const struct manifest_object *object, struct container_sums *s,
                           struct dr_err *err)
{
    const void *bytes;
    size_t len;
    do {
        if (container_read(r, &bytes, &len, err) ||
            (len && object && o->plain && o->plain(o->arg, object, bytes, len, err)))
            return err->rc;
    } while (len);
    return container_reader_sums(r, s, err);
}

static enum dr_rc prove_object(struct proving *p, unsigned i, struct container_sums *s,
                               struct dr_err *err)
{
    struct container_reader *r = NULL;
    enum dr_rc rc = walk_object_open(&p->walk, i, err);
    const struct container_reader_spec spec = {.containers = p->walk.list,
                                               .count = p->walk.count,
                                               .next = walk_next_ref,
                                               .arg = &p->walk,
                                               .whole = true,
                                               .threads = p->o->threads,
                                               .cancel = p->o->cancel,
                                               .progress = p->o->progress};
    if (!rc)
        rc = container_reader_new(&spec, &r, err);
    if (!rc)
        rc = read_all(r, p->o, &handle_manifest(p->walk.handle)->objects[i], s, err);
    container_reader_free(r);
    walk_object_close(&p->walk);
    return rc;
}

/* The containers of other backups that a chain leans on: their payloads, whole. */
static enum dr_rc prove_foreign(struct proving *p, unsigned n, struct dr_err *err)
{
    const struct manifest_container *want = &handle_manifest(p->walk.handle)->containers[n];
    struct container *c = NULL;
    struct container_reader *r = NULL;
    struct container_sums s;
    enum dr_rc rc = handle_container(p->walk.handle, n, &c, err);
    const struct container_reader_spec spec = {.containers = &c,
                                               .count = 1,
                                               .whole = true,
                                               .threads = p->o->threads,
                                               .cancel = p->o->cancel};
    if (!rc)
        rc = container_reader_new(&spec, &r, err);
    if (!rc)
        rc = read_all(r, p->o, NULL, &s, err);
    if (!rc && memcmp(s.sha256_payload, want->sha256_payload, 32) != 0)
        rc = mismatch(err, "payload-hash", "the hash of its payload");
    container_reader_free(r);
    container_close(c);
    if (rc)
        (void)snprintf(p->sums->bad, sizeof p->sums->bad, "%s/%s", want->backup_id, want->name);
    return rc ? dr_wrap(err, "%s/%s", want->backup_id, want->name) : DR_OK;
}

static enum dr_rc prove_objects(struct proving *p, struct dr_err *err)
{
    const struct manifest *m = handle_manifest(p->walk.handle);
    struct container_sums s;
    unsigned i = 0;
    if (walk_step(&p->walk, err))
        goto failed;
    for (; i + 1 < m->object_count; i++) {
        if (prove_object(p, i, &s, err) || compare(m, &m->objects[i], &s, err))
            goto failed;
        p->sums->plain_bytes += s.plain_bytes;
        p->sums->stored_bytes += s.stored_bytes;
        p->sums->objects = i + 1;
    }
    if (!p->walk.end) /* the reader of the last object went on to the end record */
        (void)dr_fail(err, DR_E_BUG, "the index has more streams than the manifest");
    else if (!container_reader_sums(p->walk.reader, &s, err))
        (void)compare(m, &m->objects[i], &s, err);
    p->sums->plain_bytes += s.plain_bytes;
    p->sums->stored_bytes += s.stored_bytes;
    if (!err->rc) {
        p->sums->objects = m->object_count;
        return DR_OK;
    }
failed:
    if (p->walk.damaged) /* whichever object asked for the next record */
        i = m->object_count - 1;
    (void)snprintf(p->sums->bad, sizeof p->sums->bad, "%s/%s", m->backup_id, m->objects[i].name);
    return p->walk.damaged ? err->rc : dr_wrap(err, "%s/%s", m->backup_id, m->objects[i].name);
}

enum dr_rc prove_backup(struct backup_handle *h, const struct prove_options *o,
                        struct prove_sums *out, struct dr_err *err)
{
    struct proving p = {.o = o, .sums = out};
    const struct manifest *m = handle_manifest(h);
    struct dr_err own = {0};
    struct dr_err *e = err ? err : &own;
    *out = (struct prove_sums){0};
    if (walk_open(&p.walk, h, true, o->cancel, e)) {
        (void)snprintf(out->bad, sizeof out->bad, "%s/index.drb", m->backup_id);
        return e->rc;
    }
    p.walk.record = count_record;
    p.walk.arg = &p;
    enum dr_rc rc = prove_objects(&p, e);
    for (unsigned n = m->object_count - 1; !rc && n < m->container_count; n++)
        rc = prove_foreign(&p, n, e);
    walk_close(&p.walk);
    return rc;
}
