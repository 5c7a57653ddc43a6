/* The staged trees: extracted beside live, verified there, thrown away when nothing came of them.
 * In a fiber, the work in the pool. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "worker/backup/container.h"
#include "worker/backup/handle.h"
#include "worker/backup/store.h"
#include "worker/core/fault.h"
#include "worker/core/pool.h"
#include "worker/pipe/extract.h"
#include "worker/pipe/tree.h"
#include "worker/recovery/fs_internal.h"

/* ---- extract ---- */

struct staging {
    struct recovery *r;
    _Atomic uint64_t *progress;
};

static enum dr_rc next_file(void *arg, const struct pipe_file **out, struct dr_err *err)
{
    const struct index_record *rec;
    for (;;) {
        if (record_reader_next(arg, &rec, err))
            return err->rc;
        *out = rec && rec->type == INDEX_FILE ? &rec->file : NULL;
        if (!rec || *out)
            return DR_OK;
    }
}

static enum dr_rc make_folders(struct fs *f, struct extract_root *roots, struct cancel *cancel,
                               struct dr_err *err)
{
    for (unsigned i = 0; i < f->root_count; i++) {
        roots[i].path = f->roots[i].path;
        if (swap_stage(f->swap, i, cancel, &roots[i].fd, err))
            return err->rc;
    }
    return DR_OK;
}

static enum dr_rc extract(struct staging *s, const struct extract_root *roots,
                          struct cancel *cancel, struct dr_err *err)
{
    struct recovery *r = s->r;
    struct fs *f = fs_of(r);
    struct object_reader *tar = NULL;
    struct record_reader *records = NULL;
    const struct prove_options o = {.cancel = cancel, .threads = container_threads()};
    struct extract_sums sums = {0};
    enum dr_rc rc = object_reader_open(r->backup, "files", &o, &tar, err);
    if (!rc)
        rc = record_reader_open(r->backup, "files", cancel, &records, err);
    if (!rc) {
        const struct pipe_source source = object_reader_source(tar);
        const struct extract_spec spec = {.tar = &source,
                                          .roots = roots,
                                          .root_count = f->root_count,
                                          .next = next_file,
                                          .arg = records,
                                          .ignore_owner = f->ignore_owner,
                                          .threads = container_threads(),
                                          .cancel = cancel,
                                          .progress = s->progress};
        rc = extract_tree(&spec, &sums, err);
    }
    record_reader_close(records);
    object_reader_close(tar);
    if (!rc && sums.entries != f->entries)
        rc = dr_fail(err, DR_E_INTEGRITY, "%llu entries restored, the index counts %llu",
                     (unsigned long long)sums.entries, (unsigned long long)f->entries);
    return rc;
}

static enum dr_rc stage_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct staging *s = item;
    struct fs *f = fs_of(s->r);
    struct extract_root *roots = dr_xarray(f->root_count, sizeof *roots);
    enum dr_rc rc = make_folders(f, roots, cancel, err);
    if (!rc)
        rc = extract(s, roots, cancel, err);
    free(roots);
    return rc;
}

/* Where to look for what this run left, should nobody come back to it. */
static json_t *where(const struct fs *f)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < f->root_count; i++)
        (void)json_array_append_new(list, recovery_text(swap_root_path(f->swap, i)));
    return json_pack("{s:o}", "roots", list);
}

enum dr_rc fs_stage(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    struct staging s = {.r = r, .progress = job_progress_counter(r->job)};
    int64_t began = dr_clock_ms();
    job_progress_total(r->job, f->bytes);
    if (recovery_intent(r, "restore", where(f), err) ||
        pool_run_long(r->env->pool, stage_item, &s, recovery_cancel(r), err))
        return err->rc;
    f->stage_ms = (uint64_t)(dr_clock_ms() - began);
    return recovery_done(r, "restore",
                         json_pack("{s:I,s:I,s:I}", "entries", (json_int_t)f->entries, "bytes",
                                   (json_int_t)f->bytes, "ms", (json_int_t)f->stage_ms),
                         err);
}

/* ---- verify ---- */

enum dr_rc fs_stage_compare(const struct fs_root *root, const struct pipe_root *found,
                            bool ignore_owner, struct dr_err *err)
{
    /* The fault makes the comparison blind: the self-test of a drill has to find that out. */
    if (memcmp(found->content, root->content, sizeof root->content) != 0 &&
        fault_point("recovery.compare.blind", &(struct dr_err){0}) == DR_OK)
        return dr_fail(err, DR_E_INTEGRITY, "root %s: the staged content is not the backup's",
                       root->path);
    if (!ignore_owner && memcmp(found->meta, root->meta, sizeof root->meta) != 0)
        return dr_fail(err, DR_E_INTEGRITY,
                       "root %s: owners, modes, times or attributes of the staged tree are not "
                       "the backup's; DR_RESTORE_OWNER=ignore accepts them",
                       root->path);
    return DR_OK;
}

static enum dr_rc on_root(void *arg, const struct pipe_root *p, struct dr_err *err)
{
    struct fs *f = arg;
    for (unsigned i = 0; i < f->root_count; i++) {
        const struct fs_root *root = &f->roots[i];
        if (p->path.len != strlen(root->path + 1) ||
            memcmp(p->path.data, root->path + 1, p->path.len) != 0)
            continue;
        return fs_stage_compare(root, p, f->ignore_owner, err);
    }
    return dr_fail(err, DR_E_BUG, "a root that the backup does not name");
}

static enum dr_rc verify_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct staging *s = item;
    struct fs *f = fs_of(s->r);
    const char **at = dr_xarray(f->root_count + 1, sizeof *at);
    struct tree_sums sums = {0};
    for (unsigned i = 0; i < f->root_count; i++)
        at[i] = swap_staged_path(f->swap, i);
    const struct tree_spec spec = {.roots = f->paths,
                                   .at = at,
                                   .spool_dir = store_path(s->r->env->store),
                                   .on = {.root = on_root, .arg = f},
                                   .threads = container_threads(),
                                   .cancel = cancel,
                                   .progress = s->progress};
    enum dr_rc rc = tree_walk(&spec, &sums, err);
    free(at);
    if (!rc && (sums.entries != f->entries || sums.skipped))
        rc = dr_fail(err, DR_E_INTEGRITY, "%llu entries staged, the index counts %llu",
                     (unsigned long long)sums.entries, (unsigned long long)f->entries);
    f->verified_files = sums.files;
    f->verified_bytes = sums.bytes;
    return rc ? rc : swap_sync(f->swap, err);
}

enum dr_rc fs_stage_verify(struct recovery *r, struct dr_err *err)
{
    struct staging s = {.r = r, .progress = job_progress_counter(r->job)};
    job_progress_total(r->job, fs_of(r)->bytes);
    return pool_run_long(r->env->pool, verify_item, &s, recovery_cancel(r), err);
}

/* ---- undo ---- */

static enum dr_rc discard_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    return swap_discard(item, cancel, err);
}

enum dr_rc fs_stage_undone(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    enum dr_rc rc = DR_OK;
    if (!f->swap || r->order.dry_run || r->undo_failed)
        return DR_OK;
    if (r->outcome == JOB_NEEDS_HUMAN) /* the recovered tree is the only one there is */
        return DR_OK;
    rc = pool_run_long(r->env->pool, discard_item, f->swap, recovery_cancel(r), err);
    if (!rc)
        fs_after_keep(r, true);
    swap_close(f->swap);
    f->swap = NULL;
    return rc;
}
