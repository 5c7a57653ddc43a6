/* The procedure file_system_recovery: one row of recovery_procedures. Source: formats.md 6. */
#ifndef DR_WORKER_RECOVERY_FILES_H
#define DR_WORKER_RECOVERY_FILES_H

#include "worker/recovery/procedure.h"

extern const struct recovery_procedure recovery_files;

#endif
