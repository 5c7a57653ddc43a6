/* Shared by the halves of the manifest. */
#ifndef DR_WORKER_BACKUP_MANIFEST_INTERNAL_H
#define DR_WORKER_BACKUP_MANIFEST_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "worker/backup/manifest.h"

bool manifest_is_role(const char *s);
bool manifest_is_class(const char *s);
/* The generation whose signature it is; 0: nobody's. */
unsigned manifest_signer(const struct keyring *keys, const void *json, size_t len,
                         const unsigned char sig[MANIFEST_SIG_LEN]);

#endif
