/* Shared by staging and publishing. */
#ifndef DR_WORKER_BACKUP_STAGING_INTERNAL_H
#define DR_WORKER_BACKUP_STAGING_INTERNAL_H

#include <stdbool.h>

#include "worker/backup/store.h"

struct staging {
    char name[48], *path;
    int rootfd, dirfd, lockfd; /* staging/, the folder, its lock */
    bool published;
};

#endif
