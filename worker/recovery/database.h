/* The procedure database_recovery: one row of recovery_procedures. Source: formats.md 5. */
#ifndef DR_WORKER_RECOVERY_DATABASE_H
#define DR_WORKER_RECOVERY_DATABASE_H

#include "worker/recovery/procedure.h"

extern const struct recovery_procedure recovery_database;

#endif
