/* What drills and exercises of database_recovery add to the recovery's steps. In a fiber. */
#ifndef DR_WORKER_RECOVERY_DB_DRILL_H
#define DR_WORKER_RECOVERY_DB_DRILL_H

#include "worker/recovery/db_internal.h"

/* A session in the scratch database that writes rows as pg_dump does. To be closed also after an
 * error. */
enum dr_rc db_verify_session(struct recovery *r, struct cancel *cancel, struct pg_conn **out,
                             struct dr_err *err) DR_MUST_CHECK;
/* Rows and digest of one table, counted in d->verified_*. key: of the rows, 32 bytes. */
enum dr_rc db_verify_table(struct recovery *r, struct cancel *cancel, struct pg_conn *c,
                           const unsigned char *key, const struct db_table *t,
                           struct dr_err *err) DR_MUST_CHECK;
/* db_drill.c: the last steps of a drill. */
enum dr_rc db_drill_self_test(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_drill_remove(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
void db_drill_evidence(struct recovery *r, json_t *into, json_t *lists);
/* db_exercise.c: the target of an exercise. */
enum dr_rc db_exercise_prepare(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
/* Drops what stood there before when live_ours; false: it stays. */
bool db_exercise_dropped(struct recovery *r);

#endif
