/* drworker check: the store, the work directory and the roots of file backups. What blocks runs in
 * the pool. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/keyring.h"
#include "worker/backup/store.h"
#include "worker/cli/check.h"
#include "worker/core/pool.h"
#include "worker/pipe/exclude.h"
#include "worker/pipe/mounts.h"

enum { PATHS_MAX = 1024 };

/* An item's blocking half. */
struct blocking {
    const struct dr_config *config;
    const char *option;
    struct dr_buf *detail;
    bool *skipped;
};

static enum dr_rc in_pool(struct check *c, const char *option, struct dr_buf *detail, pool_fn *fn,
                          struct dr_err *err)
{
    struct blocking b = {c->config, option, detail, &c->skipped};
    return pool_run(c->pool, fn, &b, NULL, err);
}

static enum dr_rc writable(const char *path, struct dr_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return dr_fail_errno(err, DR_E_IO, "%s", path);
    if (!S_ISDIR(st.st_mode))
        return dr_fail(err, DR_E_IO, "%s: not a directory", path);
    if (faccessat(AT_FDCWD, path, R_OK | W_OK | X_OK, AT_EACCESS) != 0)
        return dr_fail_errno(err, DR_E_IO,
                             "%s: user %u needs to read and write there; owner %u:%u, mode %04o",
                             path, (unsigned)geteuid(), (unsigned)st.st_uid, (unsigned)st.st_gid,
                             (unsigned)(st.st_mode & 07777));
    return DR_OK;
}

static void free_space(const char *path, struct dr_buf *detail)
{
    struct statvfs v;
    if (statvfs(path, &v) == 0)
        dr_buf_printf(detail, ", %.1f GB of %.1f GB free",
                      (double)v.f_bavail * (double)v.f_frsize / 1e9,
                      (double)v.f_blocks * (double)v.f_frsize / 1e9);
}

static enum dr_rc look_at_directory(void *item, struct cancel *cancel, struct dr_err *err)
{
    static const char *const folders[] = {"backups", "catalog", "catalog/log", "trash",
                                          "journal", "results", "staging"};
    struct blocking *b = item;
    const char *path = dr_config_str(b->config, "BACKUP_DIRECTORY");
    (void)cancel;
    if (path[0] != '/') {
        (void)dr_fail(err, DR_E_CONFIG, "BACKUP_DIRECTORY is %s",
                      path[0] ? "not an absolute path" : "not set");
        return dr_err_field(err, "BACKUP_DIRECTORY", path, strlen(path));
    }
    enum dr_rc rc = writable(path, err);
    for (size_t i = 0; !rc && i < sizeof folders / sizeof folders[0]; i++) {
        char *below = dr_xasprintf("%s/%s", path, folders[i]);
        if (access(below, F_OK) == 0)
            rc = writable(below, err);
        free(below);
    }
    if (!rc) {
        dr_buf_str(b->detail, path);
        free_space(path, b->detail);
    }
    return rc;
}

enum dr_rc check_directory(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    return in_pool(c, NULL, detail, look_at_directory, err);
}

static void describe(struct store *s, const struct store_entry *list, size_t count,
                     struct dr_buf *detail)
{
    const struct store_entry *newest = NULL;
    size_t damaged = 0, given_up = 0;
    for (size_t i = 0; i < count; i++) {
        if (list[i].tombstoned_at_ms)
            given_up++;
        else if (!newest)
            newest = &list[i];
        damaged += !list[i].tombstoned_at_ms && list[i].bad[0];
    }
    dr_buf_printf(detail, "store %s, key generation %u, %zu backups", store_id(s),
                  keyring_generation(store_keys(s)), count - given_up);
    if (given_up)
        dr_buf_printf(detail, " and %zu given up", given_up);
    if (damaged)
        dr_buf_printf(detail, ", %zu DAMAGED", damaged);
    if (newest)
        dr_buf_printf(detail, ", newest %s", newest->backup_id);
}

static enum dr_rc look_at_keyring(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct blocking *b = item;
    struct store_entry *list = NULL;
    struct store *s = NULL;
    size_t count = 0;
    (void)cancel;
    enum dr_rc rc = store_open(b->config, STORE_READ, &s, err);
    if (rc == DR_E_NOT_FOUND) { /* before the first start: nothing is wrong with that */
        dr_buf_str(b->detail, err->msg);
        dr_err_clear(err);
        return DR_OK;
    }
    if (!rc)
        rc = store_list(s, &list, &count, err);
    if (!rc)
        describe(s, list, count, b->detail);
    for (size_t i = 0; !rc && i < count; i++)
        if (list[i].bad[0] && !list[i].tombstoned_at_ms) {
            (void)dr_fail(err, rc = DR_E_INTEGRITY, "%s: %s", list[i].backup_id, list[i].bad);
            (void)dr_err_reason(err, list[i].bad);
        }
    free(list);
    store_close(s);
    return rc;
}

enum dr_rc check_keyring(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    return in_pool(c, NULL, detail, look_at_keyring, err);
}

static enum dr_rc look_at_work(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct blocking *b = item;
    const char *path = dr_config_str(b->config, "DR_WORK_DIRECTORY");
    (void)cancel;
    *b->skipped = !path[0];
    if (!path[0]) {
        dr_buf_str(b->detail, "DR_WORK_DIRECTORY is not set: staging/ of the store");
        return DR_OK;
    }
    if (writable(path, err))
        return dr_wrap(err, "DR_WORK_DIRECTORY");
    dr_buf_str(b->detail, path);
    free_space(path, b->detail);
    return DR_OK;
}

enum dr_rc check_work_directory(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    return in_pool(c, NULL, detail, look_at_work, err);
}

struct paths {
    char *text;
    const char *list[PATHS_MAX + 1]; /* NULL-ended */
    size_t count;
};

static enum dr_rc split(const struct dr_config *config, const char *option, struct paths *out,
                        struct dr_err *err)
{
    char *rest = out->text = dr_xstrdup(dr_config_str(config, option)), *one;
    out->count = 0;
    while ((one = strsep(&rest, ":")))
        if (one[0]) {
            if (out->count == PATHS_MAX)
                return dr_fail(err, DR_E_CONFIG, "%s: over %d entries", option, PATHS_MAX);
            for (size_t n = strlen(one); n > 1 && one[n - 1] == '/';)
                one[--n] = 0;
            out->list[out->count++] = one;
        }
    out->list[out->count] = NULL;
    return DR_OK;
}

static bool has(const struct paths *p, const char *path)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->list[i], path) == 0)
            return true;
    return false;
}

static enum dr_rc look_at_root(const char *root, const struct paths *roots,
                               const struct paths *exclude, const struct mounts *mounts,
                               struct dr_err *err)
{
    const char *below;
    int fd = open(root, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return dr_fail_errno(err, DR_E_IO, "root %s as user %u", root, (unsigned)geteuid());
    (void)close(fd);
    for (size_t i = 0; (below = mounts_below(mounts, root, i)); i++)
        if (!has(roots, below) && !exclude_covers(exclude->list, root, below))
            return dr_fail(err, DR_E_PREFLIGHT,
                           "%s is mounted below the root %s: name it as a root or exclude it",
                           below, root);
    return DR_OK;
}

static enum dr_rc look_at_roots(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct blocking *b = item;
    struct paths roots = {0}, exclude = {0};
    struct mounts *mounts = NULL;
    (void)cancel;
    enum dr_rc rc = split(b->config, b->option, &roots, err);
    if (!rc)
        rc = split(b->config, "BACKUP_EXCLUDE", &exclude, err);
    if (!rc)
        rc = mounts_read(&mounts, err);
    for (size_t i = 0; !rc && i < roots.count; i++)
        rc = roots.list[i][0] == '/'
                 ? look_at_root(roots.list[i], &roots, &exclude, mounts, err)
                 : dr_fail(err, DR_E_CONFIG, "root %s: not an absolute path", roots.list[i]);
    if (rc) {
        rc = dr_wrap(err, "%s", b->option);
    } else if (!roots.count) {
        *b->skipped = true;
        dr_buf_printf(b->detail, "%s is not set", b->option);
    }
    for (size_t i = 0; !rc && i < roots.count; i++)
        dr_buf_printf(b->detail, "%s%s", i ? ", " : "", roots.list[i]);
    mounts_free(mounts);
    free(roots.text);
    free(exclude.text);
    return rc;
}

enum dr_rc check_files(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    return in_pool(c, "BACKUP_FILES_PATHS", detail, look_at_roots, err);
}

enum dr_rc check_config_files(struct check *c, struct dr_buf *detail, struct dr_err *err)
{
    return in_pool(c, "BACKUP_CONFIG_PATHS", detail, look_at_roots, err);
}
