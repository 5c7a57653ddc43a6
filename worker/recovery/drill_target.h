/* What level exercise may swap: never production, nor what recoveries live from. Blocking, any
 * thread. */
#ifndef DR_WORKER_RECOVERY_DRILL_TARGET_H
#define DR_WORKER_RECOVERY_DRILL_TARGET_H

#include "common/config.h"
#include "common/err.h"

/* DR_EXERCISE_DATABASE and DR_EXERCISE_DIRECTORY, where they are set: CONFIG with name and value.
 */
enum dr_rc drill_check_targets(const struct dr_config *config, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc drill_target_database(const struct dr_config *config, const char *name,
                                 struct dr_err *err) DR_MUST_CHECK;
/* Neither is in the other, by their real paths; what: of the other, for the error. */
enum dr_rc drill_target_apart(const char *directory, const char *what, const char *other,
                              struct dr_err *err) DR_MUST_CHECK;

#endif
