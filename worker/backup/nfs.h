/* Is the store on an NFS mount whose locks stay on this machine? Then workers elsewhere would not
 * see them. Any thread. */
#ifndef DR_WORKER_BACKUP_NFS_H
#define DR_WORKER_BACKUP_NFS_H

#include "common/err.h"

/* REFUSED with the option's name. path: for the message. */
enum dr_rc nfs_check(int dirfd, const char *path, struct dr_err *err) DR_MUST_CHECK;
/* The option among mountinfo's line of mount_id that switches shared locks off; NULL: none. out
 * holds it. */
const char *nfs_local_locks(const char *mountinfo, const char *mount_id, char out[64]);

#endif
