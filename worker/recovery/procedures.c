/* The procedures this worker knows: one row a procedure. */
#include <stddef.h>

#include "worker/recovery/database.h"
#include "worker/recovery/files.h"

const struct recovery_procedure *const recovery_procedures[] = {
    &recovery_database,
    &recovery_files,
    NULL,
};
