/* Room on the volume of BACKUP_DIRECTORY, and the reserve that only a recovery may use: its
 * emergency backup has to find place when everything else has filled the disk. Blocking. */
#ifndef DR_WORKER_BACKUP_SPACE_H
#define DR_WORKER_BACKUP_SPACE_H

#include <stdint.h>

#include "common/config.h"
#include "common/err.h"

struct space {
    uint64_t free_bytes, total_bytes, reserve_bytes;
    uint64_t free_inodes, inodes, reserve_inodes; /* inodes 0: that file system has no count */
};

/* The reserve is the larger one of DR_DISK_RESERVE_BYTES and DR_DISK_RESERVE_PERCENT. */
enum dr_rc space_look(int dirfd, const struct dr_config *c, struct space *out,
                      struct dr_err *err) DR_MUST_CHECK;
/* REFUSED (disk-reserve) when `bytes` more would leave less than the reserve, or a backup that is
 * to begin finds no inodes. */
enum dr_rc space_allows(const struct space *s, uint64_t bytes, struct dr_err *err) DR_MUST_CHECK;
/* The first half: for one that has its inodes and grows. */
enum dr_rc space_allows_bytes(const struct space *s, uint64_t bytes,
                              struct dr_err *err) DR_MUST_CHECK;

#endif
