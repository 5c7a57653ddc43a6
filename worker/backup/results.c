/* Results that are too long for Redis. Blocking. */
#include <stdio.h>
#include <unistd.h>

#include "worker/backup/disk.h"
#include "worker/backup/store.h"

enum dr_rc store_keep_result(struct store *s, const char *run, const void *bytes, size_t len,
                             struct dr_err *err)
{
    char name[64];
    int fd = -1;
    bool created;
    (void)snprintf(name, sizeof name, "%s.msgpack", run);
    enum dr_rc rc = disk_mkdir(store_dirfd(s), "results", &created, err);
    if (!rc)
        rc = disk_open_dir(store_dirfd(s), "results", &fd, err);
    if (!rc)
        rc = disk_replace(fd, name, bytes, len, err);
    if (fd >= 0)
        (void)close(fd);
    return rc ? dr_wrap(err, "results") : DR_OK;
}
