/* The plain dump in a file without a name, which pg_restore reads with several jobs. It is written
 * while the backup is proven, as the same bytes pass; when that cannot be, the restore reads the
 * backup once more. */
#include "worker/recovery/db_dump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/core/fault.h"
#include "worker/pipe/pgarchive.h"

struct db_dump {
    char *folder;
    int fd;
    struct pgarchive *tap; /* tells where blocks begin */
    uint64_t bytes;
};

static int open_unnamed(const char *folder)
{
    char path[4200];
    (void)mkdir(folder, 0700); /* staging/ is there once anything was backed up */
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    (void)snprintf(path, sizeof path, "%s/.dr-dump-XXXXXX", folder);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(path);
    return fd;
}

/* pg_dump leaves positions out when it writes to a pipe, and pg_restore then reads through the
 * whole file for each table: 1.4 times as long. We know where each block begins. */
static enum dr_rc note_position(void *arg, const struct pgarchive_place *p, struct dr_err *err)
{
    enum { POSITION_SET = 2 };
    const struct db_dump *d = arg;
    unsigned char b[1 + 8] = {POSITION_SET};
    uint64_t at = p->block_at;
    for (unsigned i = 0; i < p->offset_size; i++, at >>= 8)
        b[1 + i] = (unsigned char)at;
    ssize_t n = pwrite(d->fd, b, 1 + p->offset_size, (off_t)p->entry_at);
    if (n != (ssize_t)(1 + p->offset_size))
        return dr_fail_errno(err, DR_E_IO, "plain dump in %s", d->folder);
    return DR_OK;
}

enum dr_rc db_dump_new(const char *folder, struct db_dump **out, struct dr_err *err)
{
    struct db_dump *d = dr_xalloc(sizeof *d);
    const struct pgarchive_events on = {.block = note_position, .arg = d};
    enum dr_rc rc = DR_OK;
    d->folder = dr_xstrdup(folder);
    d->fd = open_unnamed(folder);
    if (d->fd < 0)
        rc = dr_fail_errno(err, DR_E_IO, "DR_WORK_DIRECTORY %s", folder);
    if (!rc)
        rc = pgarchive_new(NULL, &on, &d->tap, err);
    if (rc)
        db_dump_free(d);
    else
        *out = d;
    return rc;
}

bool db_dump_has_room(const char *folder, uint64_t bytes)
{
    struct statvfs v;
    return statvfs(folder, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize / 3 > bytes;
}

static enum dr_rc write_all(struct db_dump *d, const char *bytes, size_t len, struct dr_err *err)
{
    while (len > 0) {
        ssize_t n = write(d->fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "plain dump in %s", d->folder);
        bytes += n;
        len -= (size_t)n;
    }
    return DR_OK;
}

enum dr_rc db_dump_add(struct db_dump *d, const void *bytes, size_t len, struct dr_err *err)
{
    if (fault_point("execute.dump.add", err) || write_all(d, bytes, len, err) ||
        pgarchive_feed(d->tap, bytes, len, err))
        return err->rc;
    d->bytes += len;
    return DR_OK;
}

int db_dump_fd(const struct db_dump *d)
{
    return d->fd;
}

uint64_t db_dump_bytes(const struct db_dump *d)
{
    return d->bytes;
}

void db_dump_free(struct db_dump *d)
{
    if (!d)
        return;
    if (d->fd >= 0)
        (void)close(d->fd);
    pgarchive_free(d->tap);
    free(d->folder);
    free(d);
}
