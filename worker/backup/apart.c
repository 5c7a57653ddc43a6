/* The store must not lie in what it protects. Blocking. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/backup/store.h"

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static enum dr_rc compare(const struct store *s, const struct stat *folder,
                          const char *const *roots, struct dr_err *err)
{
    struct stat root;
    for (size_t i = 0; roots[i]; i++)
        if (stat(roots[i], &root) == 0 && same(folder, &root))
            return dr_fail(err, DR_E_PREFLIGHT,
                           "BACKUP_DIRECTORY %s lies in root %s: keep the store outside of what it "
                           "protects",
                           store_path(s), roots[i]);
    return DR_OK;
}

/* By inodes from the store upwards: symbolic links and bind mounts do not hide it. */
enum dr_rc store_apart(const struct store *s, const char *const *roots, struct dr_err *err)
{
    struct stat here, above;
    int fd = openat(store_dirfd(s), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum dr_rc rc = DR_OK;
    while (fd >= 0 && fstat(fd, &here) == 0 && !(rc = compare(s, &here, roots, err))) {
        int up = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        (void)close(fd);
        fd = up;
        if (fd < 0 || fstat(fd, &above) != 0 || same(&here, &above))
            break;
    }
    if (fd >= 0)
        (void)close(fd);
    return rc;
}
