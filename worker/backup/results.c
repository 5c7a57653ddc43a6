/* Results that are too long for Redis. Blocking. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

/* <run>.msgpack, or .<run>.msgpack.new of a writer that was killed. */
static bool is_result(const char *name)
{
    const char *end = name[0] == '.' ? ".msgpack.new" : ".msgpack";
    name += name[0] == '.';
    return strspn(name, "abcdefghijklmnopqrstuvwxyz234567") == 16 && strcmp(name + 16, end) == 0;
}

static void sweep_one(int dir, const char *name, int64_t before_ms, struct store_swept *out)
{
    struct stat st;
    if (!is_result(name) || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(st.st_mode) || (int64_t)st.st_mtim.tv_sec * 1000 >= before_ms ||
        unlinkat(dir, name, 0) != 0)
        return;
    out->files++;
    out->bytes += (uint64_t)st.st_blocks * 512;
}

enum dr_rc store_sweep_results(struct store *s, int64_t before_ms, struct store_swept *out,
                               struct dr_err *err)
{
    int fd = -1;
    struct dirent *e;
    *out = (struct store_swept){0};
    if (!disk_exists(store_dirfd(s), "results"))
        return DR_OK;
    if (disk_open_dir(store_dirfd(s), "results", &fd, err))
        return dr_wrap(err, "results");
    DIR *d = fdopendir(fd);
    if (!d) {
        (void)close(fd);
        return dr_fail_errno(err, DR_E_IO, "list results");
    }
    while ((e = readdir(d)))
        sweep_one(dirfd(d), e->d_name, before_ms, out);
    (void)closedir(d);
    return DR_OK;
}
