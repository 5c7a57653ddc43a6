/* Backups of file trees: kinds files and config. See take.h. */
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/mem.h"
#include "worker/backup/take.h"
#include "worker/backup/take_internal.h"
#include "worker/core/pool.h"
#include "worker/pipe/tree.h"

char **take_list(const struct dr_config *c, const char *option)
{
    const char *s = dr_config_str(c, option);
    size_t parts = 2;
    for (const char *p = s; *p; p++)
        parts += *p == ':';
    char **list = dr_xarray(parts, sizeof *list);
    for (size_t n = 0; *s;) {
        size_t len = strcspn(s, ":");
        if (len)
            list[n++] = dr_xstrndup(s, len);
        s += len + (s[len] == ':');
    }
    return list;
}

void take_list_free(char **list)
{
    for (char **p = list; p && *p; p++)
        free(*p);
    free(list);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* No empty, `.` or `..` part; slashes at the end are dropped. */
static bool normalise(char *path)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        path[--len] = 0;
    if (path[0] != '/' || len < 2)
        return false;
    for (const char *p = path; *p; p += strcspn(p + 1, "/") + 1) {
        size_t part = strcspn(p + 1, "/");
        if (part == 0 || (part == 1 && p[1] == '.') || (part == 2 && p[1] == '.' && p[2] == '.'))
            return false;
    }
    return true;
}

enum dr_rc take_roots(const struct dr_config *c, const char *option, char ***out,
                      struct dr_err *err)
{
    char **list = take_list(c, option);
    size_t n = 0;
    for (; list[n]; n++)
        if (!normalise(list[n])) {
            (void)dr_fail(err, DR_E_CONFIG, "%s: a root is an absolute path without . and ..",
                          option);
            (void)dr_err_field(err, option, list[n], strlen(list[n]));
            take_list_free(list);
            return err->rc;
        }
    qsort(list, n, sizeof *list, by_bytes);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept && strcmp(list[kept - 1], list[i]) == 0)
            free(list[i]);
        else
            list[kept++] = list[i];
    }
    list[kept] = NULL;
    if (!kept) {
        take_list_free(list);
        return dr_fail(err, DR_E_CONFIG, "%s is not set", option);
    }
    *out = list;
    return DR_OK;
}

static enum dr_rc begin(struct take *t, struct take_part *p, struct dr_err *err)
{
    if (!t->exclude)
        t->exclude = take_list(t->o.env->config, "BACKUP_EXCLUDE");
    return take_roots(t->o.env->config, p->kind->option, &p->roots, err);
}

static enum dr_rc on_file(void *arg, const struct pipe_file *f, struct dr_err *err)
{
    return index_put_file(arg, f, err);
}

static enum dr_rc on_root(void *arg, const struct pipe_root *r, struct dr_err *err)
{
    return index_put_root(arg, r, err);
}

static enum dr_rc on_skip(void *arg, const struct pipe_skip *x, struct dr_err *err)
{
    return index_put_skip(arg, x, err);
}

struct walking {
    struct take *t;
    const struct take_part *part;
};

static enum dr_rc walk(void *item, struct cancel *cancel, struct dr_err *err)
{
    const struct walking *walking = item;
    struct take *t = walking->t;
    struct container_writer *w = NULL;
    struct tree_sums sums;
    if (create_object_begin(t->create, walking->part->kind->name, cancel, t->o.progress, &w, err))
        return err->rc;
    const struct pipe_sink tar = container_writer_sink(w);
    const struct tree_spec spec = {.roots = (const char *const *)walking->part->roots,
                                   .exclude = (const char *const *)t->exclude,
                                   .spool_dir = store_path(t->o.env->store),
                                   .allow_unreadable =
                                       dr_config_bool(t->o.env->config, "BACKUP_ALLOW_UNREADABLE"),
                                   .tar = &tar,
                                   .on = {on_file, on_root, on_skip, create_index(t->create)},
                                   .cancel = cancel};
    if (store_apart(t->o.env->store, spec.roots, err) || tree_walk(&spec, &sums, err) ||
        create_object_end(t->create, err))
        return err->rc;
    t->sums.files += sums.files;
    t->sums.entries += sums.entries;
    t->sums.skipped += sums.skipped;
    t->sums.unreadable += sums.unreadable;
    t->sums.changed += sums.changed;
    return DR_OK;
}

static enum dr_rc data(struct take *t, struct take_part *p, struct dr_err *err)
{
    struct walking w = {t, p};
    return pool_run_long(t->o.env->pool, walk, &w, t->o.cancel, err);
}

const struct take_kind take_kind_files = {"files", "BACKUP_FILES_PATHS", 1, begin, data};
const struct take_kind take_kind_config = {"config", "BACKUP_CONFIG_PATHS", 1, begin, data};
