/* Roots against mounts: what may be walked, and what must be named first. Owns nothing. */
#include "worker/pipe/tree.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/pipe/exclude.h"
#include "worker/pipe/mounts.h"

static bool normal(const char *path)
{
    size_t len = strlen(path);

    if (len < 2 || len >= PATH_MAX || path[0] != '/' || path[len - 1] == '/')
        return false;
    for (const char *p = path; *p; p++)
        if (*p == '/' && (p[1] == '/' || (p[1] == '.' && (p[2] == '/' || !p[2])) ||
                          (p[1] == '.' && p[2] == '.' && (p[3] == '/' || !p[3]))))
            return false;
    return true;
}

static bool inside(const char *root, const char *path)
{
    size_t len = strlen(root);
    return strncmp(root, path, len) == 0 && path[len] == '/';
}

static enum dr_rc refuse(struct dr_err *err, const char *root)
{
    return dr_err_field(err, "root", root, strlen(root));
}

static enum dr_rc check_path(const char *root, struct dr_err *err)
{
    char real[PATH_MAX];
    struct stat st;

    if (!normal(root)) {
        (void)dr_fail(err, DR_E_PREFLIGHT, "root %s: not an absolute, normalised path below /",
                      root);
        return refuse(err, root);
    }
    if (lstat(root, &st) || !realpath(root, real)) {
        (void)dr_fail_errno(err, DR_E_PREFLIGHT, "root %s", root);
        return refuse(err, root);
    }
    if (!S_ISDIR(st.st_mode) || strcmp(real, root)) {
        (void)dr_fail(err, DR_E_PREFLIGHT, "root %s: %s%s", root,
                      strcmp(real, root) ? "leads through a symbolic link to " : "not a folder",
                      strcmp(real, root) ? real : "");
        return refuse(err, root);
    }
    return DR_OK;
}

static bool is_root(const char *const *roots, const char *path)
{
    for (; *roots; roots++)
        if (strcmp(*roots, path) == 0)
            return true;
    return false;
}

static enum dr_rc check_mounts(const char *const *roots, const char *root, const struct mounts *m,
                               const char *const *exclude, struct dr_err *err)
{
    const char *below;

    for (const char *const *other = roots; *other; other++)
        if (inside(*other, root) && !mounts_has(m, root)) {
            (void)dr_fail(err, DR_E_PREFLIGHT, "root %s lies in root %s and is no mount point",
                          root, *other);
            return refuse(err, root);
        }
    for (size_t i = 0; (below = mounts_below(m, root, i)); i++)
        if (!is_root(roots, below) && !exclude_covers(exclude, root, below)) {
            (void)dr_fail(err, DR_E_PREFLIGHT,
                          "root %s contains the mount point %s: name it as a root or exclude it",
                          root, below);
            return refuse(err, root);
        }
    return DR_OK;
}

enum dr_rc tree_check_roots(const char *const *roots, const char *const *exclude,
                            struct dr_err *err)
{
    struct mounts *m = NULL;
    enum dr_rc rc = mounts_read(&m, err);

    for (size_t i = 0; !rc && roots[i]; i++) {
        if (i == TREE_ROOTS_MAX)
            rc = dr_fail(err, DR_E_PREFLIGHT, "more than %d roots", TREE_ROOTS_MAX);
        else if (i && strcmp(roots[i - 1], roots[i]) >= 0)
            rc = dr_fail(err, DR_E_PREFLIGHT, "root %s: twice, or not in order", roots[i]);
        else
            rc = check_path(roots[i], err);
        if (!rc)
            rc = check_mounts(roots, roots[i], m, exclude, err);
    }
    mounts_free(m);
    return rc;
}
