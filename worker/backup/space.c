/* Room on the volume of BACKUP_DIRECTORY. */
#include "worker/backup/space.h"

#include <sys/statvfs.h>

enum { INODES_OF_A_BACKUP = 16 };

enum dr_rc space_look(int dirfd, const struct dr_config *c, struct space *out, struct dr_err *err)
{
    struct statvfs v;
    if (fstatvfs(dirfd, &v) != 0)
        return dr_fail_errno(err, DR_E_IO, "BACKUP_DIRECTORY: statvfs");
    uint64_t percent = (uint64_t)dr_config_int(c, "DR_DISK_RESERVE_PERCENT"),
             bytes = (uint64_t)dr_config_int(c, "DR_DISK_RESERVE_BYTES");
    out->total_bytes = (uint64_t)v.f_blocks * v.f_frsize;
    out->free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    out->reserve_bytes = out->total_bytes / 100 * percent;
    if (bytes > out->reserve_bytes)
        out->reserve_bytes = bytes;
    out->inodes = v.f_files;
    out->free_inodes = v.f_favail;
    out->reserve_inodes = out->inodes / 100 * percent;
    return DR_OK;
}

enum dr_rc space_allows_bytes(const struct space *s, uint64_t bytes, struct dr_err *err)
{
    if (s->total_bytes && (s->free_bytes < bytes || s->free_bytes - bytes < s->reserve_bytes)) {
        (void)dr_fail(err, DR_E_REFUSED,
                      "BACKUP_DIRECTORY has %llu bytes free; about %llu more would touch the "
                      "reserve of %llu that is kept for recovery (DR_DISK_RESERVE_PERCENT, "
                      "DR_DISK_RESERVE_BYTES)",
                      (unsigned long long)s->free_bytes, (unsigned long long)bytes,
                      (unsigned long long)s->reserve_bytes);
        return dr_err_reason(err, "disk-reserve");
    }
    return DR_OK;
}

enum dr_rc space_allows(const struct space *s, uint64_t bytes, struct dr_err *err)
{
    if (space_allows_bytes(s, bytes, err))
        return err->rc;
    if (s->inodes && s->free_inodes < s->reserve_inodes + INODES_OF_A_BACKUP) {
        (void)dr_fail(err, DR_E_REFUSED,
                      "BACKUP_DIRECTORY has %llu inodes free; the reserve of %llu is kept for "
                      "recovery (DR_DISK_RESERVE_PERCENT)",
                      (unsigned long long)s->free_inodes, (unsigned long long)s->reserve_inodes);
        return dr_err_reason(err, "disk-reserve");
    }
    return DR_OK;
}
