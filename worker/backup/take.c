/* The phases of a backup. See take.h. */
#include "worker/backup/take.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "worker/backup/handle.h"
#include "worker/backup/names.h"
#include "worker/backup/prove.h"
#include "worker/backup/space.h"
#include "worker/backup/take_internal.h"
#include "worker/core/pool.h"

/* In this order in a full backup, whose point in time is the database's. */
static const struct take_kind *const kinds[TAKE_PARTS_MAX] = {&take_kind_database, &take_kind_files,
                                                              &take_kind_config};

/* An emergency backup is what the reserve is for. */
static bool spares_reserve(const struct take *t)
{
    return strcmp(t->o.class, "emergency") != 0;
}

/* As large as the last one of its series, probably. */
static enum dr_rc refuse_reserve(const struct take *t, uint64_t bytes, struct dr_err *err)
{
    struct space space;
    if (!spares_reserve(t))
        return DR_OK;
    if (space_look(store_dirfd(t->o.env->store), t->o.env->config, &space, err))
        return err->rc;
    return space_allows(&space, bytes, err);
}

/* The first one of a series, one that has grown, two at a time: what the guess at the beginning
 * does not see is seen on the way. */
static enum dr_rc grow(void *arg, uint64_t bytes, struct dr_err *err)
{
    const struct take *t = arg;
    struct space space;
    if (space_look(store_dirfd(t->o.env->store), t->o.env->config, &space, err))
        return err->rc;
    if (!space.reserve_bytes)
        return DR_OK; /* a full disk says it by itself, and may be tried again */
    return space_allows_bytes(&space, bytes, err);
}

static enum dr_rc begin_create(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct take *t = item;
    const struct dr_config *c = t->o.env->config;
    struct store_entry *list = NULL;
    size_t count = 0;
    (void)cancel;
    if (store_sweep_staging(t->o.env->store, NULL, err) || /* what killed deliveries left */
        store_find_job(t->o.env->store, t->kind, t->job_id, &t->twin, err))
        return err->rc;
    if (t->twin)
        return DR_OK;
    if (store_list(t->o.env->store, &list, &count, err))
        return err->rc;
    uint64_t stored_bytes = 0;
    for (size_t i = 0; i < count && !t->expected_bytes; i++)
        if (strcmp(list[i].series, t->series) == 0) {
            t->expected_bytes = list[i].plain_bytes;
            stored_bytes = list[i].stored_bytes;
        }
    free(list);
    if (refuse_reserve(t, stored_bytes, err))
        return err->rc;
    unsigned objects = 0;
    for (unsigned i = 0; i < t->part_count; i++)
        objects += t->parts[i].kind->objects;
    const struct create_spec spec = {
        .store = t->o.env->store,
        .kind = t->kind,
        .class = t->o.class,
        .job_id = t->job_id,
        .series = t->series,
        .run = t->run,
        .ticket = t->ticket,
        .t_start_ms = dr_wall_ms(),
        .objects = objects,
        .level = (unsigned)dr_config_int(c, "BACKUP_COMPRESSION_LEVEL"),
        .threads = container_threads(),
        .room = spares_reserve(t) ? grow : NULL,
        .room_arg = t,
    };
    return create_new(&spec, &t->create, err);
}

static bool is_configured(const struct dr_config *c, const struct take_kind *k)
{
    return k == &take_kind_database ? dr_config_secret(c, k->option)->len > 0
                                    : dr_config_str(c, k->option)[0] != 0;
}

static enum dr_rc choose_parts(struct take *t, struct dr_err *err)
{
    bool full = strcmp(t->o.kind, "full") == 0;
    t->kind = full ? "full" : NULL;
    for (size_t i = 0; i < TAKE_PARTS_MAX; i++)
        if (full ? is_configured(t->o.env->config, kinds[i])
                 : strcmp(kinds[i]->name, t->o.kind) == 0) {
            t->parts[t->part_count++].kind = kinds[i];
            t->kind = full ? "full" : kinds[i]->name;
        }
    if (!t->kind) {
        (void)dr_fail(err, DR_E_INVALID, "not a kind of backup");
        return dr_err_field(err, "a.kind", t->o.kind, strlen(t->o.kind));
    }
    if (!t->part_count)
        return dr_fail(err, DR_E_CONFIG,
                       "a full backup of nothing: neither DATABASE_URL nor BACKUP_FILES_PATHS nor "
                       "BACKUP_CONFIG_PATHS is set");
    for (unsigned i = 0; i < t->part_count; i++)
        if (t->parts[i].kind->begin(t, &t->parts[i], err))
            return err->rc;
    names_series(t->kind, t->dbname[0] ? t->dbname : NULL, strlen(t->dbname), t->series);
    return DR_OK;
}

enum dr_rc take_begin(const struct take_order *o, struct take **out, struct dr_err *err)
{
    struct take *t = dr_xalloc(sizeof *t);
    t->o = *o;
    (void)snprintf(t->job_id, sizeof t->job_id, "%s", o->job_id);
    (void)snprintf(t->ticket, sizeof t->ticket, "%s", o->ticket);
    names_run(o->env->ns, t->job_id, t->run);
    if (!o->env->store) {
        (void)dr_fail(err, DR_E_CONFIG, "BACKUP_DIRECTORY is not set on this worker");
    } else if (!choose_parts(t, err) && !pool_run(o->env->pool, begin_create, t, o->cancel, err)) {
        *out = t;
        return DR_OK;
    }
    take_free(t);
    return err->rc;
}

static enum dr_rc seal(void *item, struct cancel *cancel, struct dr_err *err)
{
    (void)cancel;
    return create_seal(item, err);
}

enum dr_rc take_data(struct take *t, struct dr_err *err)
{
    int64_t began_ms = dr_clock_ms();
    if (t->twin)
        return DR_OK;
    for (unsigned i = 0; i < t->part_count; i++)
        if (t->parts[i].kind->data(t, &t->parts[i], err))
            return dr_wrap(err, "backup of %s", t->series);
    if (pool_run(t->o.env->pool, seal, t->create, t->o.cancel, err))
        return dr_wrap(err, "backup of %s", t->series);
    t->sums.data_ms = (uint64_t)(dr_clock_ms() - began_ms);
    return DR_OK;
}

static enum dr_rc read_back(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct take *t = item;
    struct backup_handle *h = NULL;
    struct prove_sums sums;
    const struct prove_options o = {
        .cancel = cancel, .progress = t->o.progress, .threads = container_threads()};
    if (!t->twin)
        return create_read_back(t->create, cancel, t->o.progress, err);
    if (handle_open(t->o.env->store, t->twin->backup_id, &h, err))
        return err->rc;
    enum dr_rc rc = prove_backup(h, &o, &sums, err);
    handle_close(h);
    return rc;
}

enum dr_rc take_read_back(struct take *t, struct dr_err *err)
{
    int64_t began_ms = dr_clock_ms();
    if (pool_run_long(t->o.env->pool, read_back, t, t->o.cancel, err))
        return err->rc;
    t->sums.read_back_ms = (uint64_t)(dr_clock_ms() - began_ms);
    return DR_OK;
}

static enum dr_rc publish(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct take *t = item;
    (void)cancel;
    return create_publish(t->create, &t->sums.adopted, err);
}

enum dr_rc take_publish(struct take *t, struct dr_err *err)
{
    if (t->twin)
        t->sums.adopted = true;
    else if (pool_run(t->o.env->pool, publish, t, t->o.cancel, err))
        return dr_wrap(err, "publish");
    const struct manifest *m = take_manifest(t);
    for (unsigned i = 0; i < m->object_count; i++) {
        t->sums.plain_bytes += m->objects[i].plain_bytes;
        t->sums.stored_bytes += m->objects[i].stored_bytes;
    }
    return DR_OK;
}

enum dr_rc take_all(struct take *t, struct dr_err *err)
{
    if (take_data(t, err) || take_read_back(t, err))
        return err->rc;
    return take_publish(t, err);
}

static enum dr_rc remove_create(void *item, struct cancel *cancel, struct dr_err *err)
{
    (void)cancel;
    (void)err;
    create_free(item);
    return DR_OK;
}

void take_free(struct take *t)
{
    if (!t)
        return;
    if (t->create)
        (void)pool_run(t->o.env->pool, remove_create, t->create, NULL, NULL);
    manifest_free(t->twin);
    for (unsigned i = 0; i < t->part_count; i++)
        take_list_free(t->parts[i].roots);
    take_list_free(t->exclude);
    take_facts_free(t->facts);
    dr_pg_url_free(&t->url);
    free(t);
}

const struct take_sums *take_sums(const struct take *t)
{
    return &t->sums;
}

const struct manifest *take_manifest(const struct take *t)
{
    return t->twin ? t->twin : create_manifest(t->create);
}

uint64_t take_expected_bytes(const struct take *t)
{
    return t->expected_bytes;
}
