/* Shared by the halves of the manifest. */
#ifndef DR_WORKER_BACKUP_MANIFEST_INTERNAL_H
#define DR_WORKER_BACKUP_MANIFEST_INTERNAL_H

#include <stdbool.h>

bool manifest_is_role(const char *s);
bool manifest_is_class(const char *s);

#endif
