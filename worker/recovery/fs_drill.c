/* A drill of file_system_recovery: scratch trees in a staging folder of this delivery, whose lock
 * and journal record bring whoever comes after a crash to remove them; the self-test; what was
 * found. Owner: struct fs. Steps in a fiber, the work in the pool. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/container.h"
#include "worker/backup/disk.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"
#include "worker/pipe/tree.h"
#include "worker/recovery/fs_internal.h"
#include "worker/recovery/steps.h"
#include "worker/recovery/swap_internal.h"

enum { PROBE_MAX = 64 << 20, BLOCK = 4096, LISTED_MAX = 256 };

static const char *folder_of(const struct recovery *r)
{
    return dr_config_str(r->env->config, "DR_DRILL_DIRECTORY");
}

/* ---- scratch ---- */

enum dr_rc fs_drill_begin(struct recovery *r, struct dr_err *err)
{
    const char *folder = folder_of(r);
    if (recovery_pending(r, "scratch"))
        return DR_OK;
    char *path = dr_xasprintf("%s%s/%s.%s", folder[0] ? folder : store_path(r->env->store),
                              folder[0] ? "" : "/staging", r->run, r->ticket);
    enum dr_rc rc =
        recovery_intent(r, "scratch", json_pack("{s:o}", "path", recovery_text(path)), err);
    free(path);
    return rc;
}

static bool lies_below(const char *path, const char *root)
{
    size_t len = strlen(root);
    return strncmp(path, root, len) == 0 && (path[len] == '/' || !path[len]);
}

/* A backup taken meanwhile would hold the scratch tree, and the drill would fill a live folder. */
static enum dr_rc check_apart(const struct fs *f, const char *folder, struct dr_err *err)
{
    char *real = folder[0] ? realpath(folder, NULL) : NULL;
    enum dr_rc rc = DR_OK;
    if (!folder[0])
        return DR_OK; /* store_apart knows */
    if (!real)
        return dr_fail_errno(err, DR_E_CONFIG, "DR_DRILL_DIRECTORY %s", folder);
    for (unsigned i = 0; i < f->root_count && !rc; i++) {
        char *root = realpath(f->roots[i].path, NULL);
        if (lies_below(real, root ? root : f->roots[i].path))
            rc = dr_fail(err, DR_E_PREFLIGHT, "DR_DRILL_DIRECTORY %s lies in root %s", folder,
                         f->roots[i].path);
        free(root);
    }
    free(real);
    return rc;
}

enum dr_rc fs_drill_open(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    struct dr_err ignored = {0};
    bool made;
    if (f->scratch)
        return DR_OK;
    (void)store_sweep_staging_at(r->env->store, folder_of(r), NULL, &ignored);
    if (check_apart(f, folder_of(r), err) ||
        store_staging_at(r->env->store, folder_of(r), r->run, r->ticket, &f->scratch, err) ||
        disk_mkdir(staging_dirfd(f->scratch), "trees", &made, err))
        return err->rc;
    f->at = dr_xarray(f->root_count + 1, sizeof *f->at);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < f->root_count; i++)
        bytes += f->roots[i].bytes + f->roots[i].entries * BLOCK;
    if (recovery_spares_reserve(r, folder_of(r), bytes, err))
        return err->rc;
    for (unsigned i = 0; i < f->root_count; i++) /* sorted, as a swap's roots are */
        f->at[i] = dr_xasprintf("%s/trees/%03u", staging_path(f->scratch), i);
    return DR_OK;
}

void fs_drill_look(struct recovery *r)
{
    struct fs *f = fs_of(r);
    struct swap *live = NULL;
    struct dr_err why = {0};
    const struct swap_spec spec = {.roots = f->paths, .run = r->run, .look = true};
    if (swap_open(&spec, &live, &why) || swap_check(live, &why))
        (void)snprintf(r->obstacle, sizeof r->obstacle, "%.*s", (int)sizeof r->obstacle - 1,
                       why.msg);
    swap_close(live);
}

void fs_drill_fini(struct fs *f)
{
    for (unsigned i = 0; f->at && f->at[i]; i++)
        free((void *)(uintptr_t)f->at[i]);
    free(f->at);
    free(f->probe_path);
    staging_free(f->scratch);
}

static enum dr_rc remove_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct fs *f = item;
    struct stat st;
    swap_close(f->swap);
    f->swap = NULL;
    if (!f->scratch)
        return DR_OK;
    /* Trees with whatever modes; the folder itself is plain. */
    if (prune_tree(staging_dirfd(f->scratch), "trees", cancel, err))
        return err->rc;
    char *path = dr_xstrdup(staging_path(f->scratch));
    staging_free(f->scratch);
    f->scratch = NULL;
    enum dr_rc rc = stat(path, &st) == 0 || errno != ENOENT
                        ? dr_fail(err, DR_E_IO, "the scratch folder %s is still there", path)
                        : DR_OK;
    free(path);
    return rc;
}

enum dr_rc fs_drill_remove(struct recovery *r, struct dr_err *err)
{
    if (pool_run_long(r->env->pool, remove_item, fs_of(r), recovery_cancel(r), err))
        return err->rc;
    return recovery_pending(r, "scratch") ? recovery_undone(r, "scratch", NULL, err) : DR_OK;
}

/* The folder of a dead delivery: its name begins with this run's, whatever the record says. */
enum dr_rc fs_drill_sweep(struct recovery *r, struct cancel *cancel, struct dr_err *err)
{
    const char *path =
        json_string_value(json_object_get(recovery_find_intent(r, "scratch"), "path"));
    const char *name = path ? strrchr(path, '/') : NULL;
    if (!name || strncmp(name + 1, r->run, strlen(r->run)) != 0)
        return DR_OK;
    char *folder = dr_xstrndup(path, (size_t)(name - path));
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum dr_rc rc = fd >= 0 ? prune_tree(fd, name + 1, cancel, err) : DR_OK;
    if (fd >= 0)
        (void)close(fd);
    free(folder);
    return rc;
}

/* ---- self-test: the comparison has to notice a flipped byte ---- */

struct probe {
    struct fs *f;
    const char *spool;
    struct fs_root whole; /* of the undamaged copy */
    unsigned char sha256[32];
    bool has_file, compare;
};

static enum dr_rc on_file(void *arg, const struct pipe_file *p, struct dr_err *err)
{
    struct probe *b = arg;
    (void)err;
    if (p->type == 'f' && p->has_sha256) {
        memcpy(b->sha256, p->sha256, sizeof b->sha256);
        b->has_file = true;
    }
    return DR_OK;
}

static enum dr_rc on_root(void *arg, const struct pipe_root *p, struct dr_err *err)
{
    struct probe *b = arg;
    if (b->compare)
        return fs_stage_compare(&b->whole, p, true, err);
    memcpy(b->whole.content, p->content, sizeof b->whole.content);
    return DR_OK;
}

static enum dr_rc hash_copy(struct probe *b, struct cancel *cancel, struct dr_err *err)
{
    static const char *const roots[] = {"/self-test", NULL};
    char *at = dr_xasprintf("%s/trees/self-test", staging_path(b->f->scratch));
    const char *const where[] = {at, NULL};
    const struct tree_spec spec = {.roots = roots,
                                   .at = where,
                                   .spool_dir = b->spool,
                                   .on = {.file = on_file, .root = on_root, .arg = b},
                                   .threads = container_threads(),
                                   .cancel = cancel};
    struct tree_sums sums = {0};
    enum dr_rc rc = tree_walk(&spec, &sums, err);
    free(at);
    return rc;
}

/* The staged file, where it was restored. */
static enum dr_rc read_probe(struct fs *f, struct dr_buf *out, struct dr_err *err)
{
    const struct fs_root *in = NULL;
    unsigned n = 0;
    const char *last;
    char *full = dr_xasprintf("/%s", f->probe_path);
    for (unsigned i = 0; i < f->root_count; i++)
        if (lies_below(full, f->roots[i].path) &&
            (!in || strlen(f->roots[i].path) > strlen(in->path))) {
            in = &f->roots[i];
            n = i;
        }
    int top = in ? open(swap_staged_path(f->swap, n), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int dir = top >= 0 ? swap_open_parent(top, full + strlen(in->path) + 1, &last) : -1;
    int fd = dir >= 0 ? openat(dir, last, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
    enum dr_rc rc = fd < 0 ? dr_fail_errno(err, DR_E_IO, "self-test: %s", full)
                           : disk_read_fd(fd, full, out, err);
    int fds[] = {top, dir, fd};
    for (size_t i = 0; i < 3; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    free(full);
    return rc;
}

static enum dr_rc put_copy(const struct fs *f, const struct dr_buf *bytes, struct dr_err *err)
{
    int fd = -1;
    bool made;
    enum dr_rc rc = disk_mkdir(staging_dirfd(f->scratch), "trees/self-test", &made, err);
    if (!rc)
        rc = disk_open_dir(staging_dirfd(f->scratch), "trees/self-test", &fd, err);
    if (!rc)
        rc = disk_replace(fd, "copy", bytes->data, bytes->len, err);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

static enum dr_rc test(struct probe *b, struct dr_buf *bytes, struct cancel *cancel,
                       struct dr_err *err)
{
    struct dr_err found = {0};
    if (read_probe(b->f, bytes, err) || put_copy(b->f, bytes, err) || hash_copy(b, cancel, err))
        return err->rc;
    if (!b->has_file || memcmp(b->sha256, b->f->probe_sha256, sizeof b->sha256) != 0)
        return dr_fail(err, DR_E_INTEGRITY, "self-test: the copy of %s is not that file already",
                       b->f->probe_path);
    bytes->data[bytes->len / 2] ^= 1;
    b->compare = true;
    if (put_copy(b->f, bytes, err))
        return err->rc;
    enum dr_rc rc = hash_copy(b, cancel, &found);
    if (rc == DR_E_INTEGRITY)
        return DR_OK;
    if (rc) {
        *err = found;
        return rc;
    }
    (void)dr_fail(err, DR_E_INTEGRITY, "self-test: a flipped byte in a copy of %s was not noticed",
                  b->f->probe_path);
    return dr_err_reason(err, "self-test");
}

static enum dr_rc test_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct recovery *r = item;
    struct fs *f = fs_of(r);
    struct probe b = {.f = f, .spool = store_path(r->env->store), .whole = {.path = "self-test"}};
    struct dr_buf bytes;
    dr_buf_init(&bytes, PROBE_MAX);
    enum dr_rc rc = test(&b, &bytes, cancel, err);
    dr_buf_fini(&bytes);
    return rc;
}

enum dr_rc fs_drill_self_test(struct recovery *r, struct dr_err *err)
{
    const struct fs *f = fs_of(r);
    if (!f->probe_path || f->probe_size > PROBE_MAX) {
        (void)snprintf(r->self_test, sizeof r->self_test,
                       "not possible: no file of 1 byte to %d MB", (int)PROBE_MAX >> 20);
        return DR_OK;
    }
    (void)snprintf(r->self_test, sizeof r->self_test, "failed");
    if (pool_run_long(r->env->pool, test_item, r, recovery_cancel(r), err))
        return err->rc;
    (void)snprintf(r->self_test, sizeof r->self_test, "noticed");
    return DR_OK;
}

/* ---- evidence ---- */

static json_t *hex_of(const unsigned char bytes[32])
{
    char text[65];
    dr_hex(bytes, 32, text);
    return json_string(text);
}

void fs_drill_evidence(struct recovery *r, json_t *into, json_t *lists)
{
    const struct fs *f = fs_of(r);
    json_t *roots = json_array();
    for (unsigned i = 0; i < f->root_count && i < LISTED_MAX; i++)
        (void)json_array_append_new(
            roots, json_pack("{s:o,s:o,s:o,s:I,s:I}", "path", recovery_text(f->roots[i].path),
                             "root_content", hex_of(f->roots[i].content), "root_meta",
                             hex_of(f->roots[i].meta), "entries", (json_int_t)f->roots[i].entries,
                             "bytes", (json_int_t)f->roots[i].bytes));
    (void)json_object_update_new(
        into, json_pack("{s:I,s:I,s:I,s:I,s:I,s:b,s:I}", "files", (json_int_t)f->verified_files,
                        "bytes", (json_int_t)f->verified_bytes, "entries", (json_int_t)f->entries,
                        "roots", (json_int_t)f->root_count, "roots_matched",
                        (json_int_t)(f->verified_files ? f->root_count : 0), "meta_compared",
                        !f->ignore_owner, "proven_bytes", (json_int_t)f->proven.plain_bytes));
    (void)json_object_set_new(lists, "roots", roots);
    if (f->scratch)
        (void)json_object_set_new(into, "scratch", recovery_text(staging_path(f->scratch)));
}
