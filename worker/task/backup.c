/* backup: one backup of a database, of file trees, or of all of them; proven before it exists. */
#include <stdio.h>
#include <string.h>

#include "common/wire/args.h"
#include "worker/backup/take.h"
#include "worker/job/job.h"
#include "worker/task/tasks.h"

struct backup {
    char kind[12], class[12];
    struct take *take;
    bool published;
};

static enum dr_rc decode(const struct dr_args *args, void *state, struct dr_err *err)
{
    struct backup *b = state;
    const char *kind = dr_args_str(args, "kind"), *class = dr_args_str(args, "class");
    (void)err;
    (void)snprintf(b->kind, sizeof b->kind, "%s", kind ? kind : "database");
    (void)snprintf(b->class, sizeof b->class, "%s", class ? class : "manual");
    return DR_OK;
}

static enum dr_rc prepare(struct job *j, struct dr_err *err)
{
    struct backup *b = job_state(j);
    const struct take_order o = {.env = job_services(j),
                                 .kind = b->kind,
                                 .class = b->class,
                                 .job_id = job_id(j),
                                 .ticket = job_ticket(j),
                                 .cancel = job_cancel_token(j),
                                 .progress = job_progress_counter(j)};
    return take_begin(&o, &b->take, err);
}

static enum dr_rc read_data(struct job *j, struct dr_err *err)
{
    struct backup *b = job_state(j);
    job_progress_total(j, take_expected_bytes(b->take));
    return take_data(b->take, err);
}

static enum dr_rc read_back(struct job *j, struct dr_err *err)
{
    struct backup *b = job_state(j);
    const struct manifest *m = take_manifest(b->take);
    uint64_t bytes = 0;
    for (unsigned i = 0; i + 1 < m->object_count; i++)
        bytes += m->objects[i].plain_bytes;
    job_progress_total(j, bytes);
    return take_read_back(b->take, err);
}

static enum dr_rc publish(struct job *j, struct dr_err *err)
{
    struct backup *b = job_state(j);
    if (take_publish(b->take, err))
        return err->rc;
    const struct take_sums *s = take_sums(b->take);
    b->published = true;
    if (s->unreadable)
        job_mark_partial(j);
    job_summary(j, "%s: %llu bytes kept in %llu%s", take_manifest(b->take)->backup_id,
                (unsigned long long)s->plain_bytes, (unsigned long long)s->stored_bytes,
                s->adopted ? " (published by an earlier delivery)" : "");
    return DR_OK;
}

static void pack_object(struct dr_buf *map, const struct manifest_object *o)
{
    dr_pack_map(map, 3);
    dr_pack_pair(map, "name", o->name);
    dr_pack_text(map, "plain_bytes");
    dr_pack_uint(map, o->plain_bytes);
    dr_pack_text(map, "stored_bytes");
    dr_pack_uint(map, o->stored_bytes);
}

static void pack_number(struct dr_buf *map, const char *key, uint64_t value)
{
    dr_pack_text(map, key);
    dr_pack_uint(map, value);
}

static unsigned result(struct job *j, struct dr_buf *map)
{
    const struct backup *b = job_state(j);
    if (!b->published)
        return 0;
    const struct take_sums *s = take_sums(b->take);
    const struct manifest *m = take_manifest(b->take);
    double plain = (double)s->plain_bytes;
    dr_pack_pair(map, "backup_id", m->backup_id);
    dr_pack_text(map, "objects");
    dr_pack_array(map, m->object_count);
    for (unsigned i = 0; i < m->object_count; i++)
        pack_object(map, &m->objects[i]);
    pack_number(map, "plain_bytes", s->plain_bytes);
    pack_number(map, "stored_bytes", s->stored_bytes);
    dr_pack_text(map, "ratio");
    dr_pack_double(map, s->stored_bytes ? plain / (double)s->stored_bytes : 0);
    pack_number(map, "ms", s->data_ms + s->read_back_ms);
    dr_pack_text(map, "mb_s");
    dr_pack_double(map, s->data_ms ? plain / 1000.0 / (double)s->data_ms : 0);
    pack_number(map, "read_back_ms", s->read_back_ms);
    pack_number(map, "files", s->files);
    pack_number(map, "tables", s->tables);
    pack_number(map, "rows", s->rows);
    pack_number(map, "excluded", s->skipped - s->unreadable - s->changed);
    pack_number(map, "unreadable", s->unreadable);
    pack_number(map, "changed", s->changed);
    dr_pack_pair(map, "digests", s->digests_unknown[0] ? s->digests_unknown : "taken");
    return 15;
}

/* A delivery that failed or was taken away leaves nothing in staging. */
static void fini(void *state)
{
    struct backup *b = state;
    take_free(b->take);
}

static const struct job_step steps[] = {
    {"prepare", 2, 0, prepare, NULL},
    {"data", 70, 0, read_data, NULL},
    {"read-back", 25, 0, read_back, NULL},
    {"publish", 3, 0, publish, NULL},
    {0},
};

const struct job_task task_backup = {
    .type = "backup",
    .flags = TASK_HEAVY | TASK_RESERVED_PERMIT,
    .default_slots = 1,
    .state_bytes = sizeof(struct backup),
    .decode = decode,
    .steps = steps,
    .result = result,
    .fini = fini,
};
