/* Shared by the files of the drill. */
#ifndef DR_WORKER_RECOVERY_DRILL_INTERNAL_H
#define DR_WORKER_RECOVERY_DRILL_INTERNAL_H

#include "worker/recovery/drill.h"

/* drill.c */
void drill_note_world(struct drill *d, struct drill_part *p);

/* drill_exercise.c: what level exercise adds, in the job's fiber. */
/* Before a step: the fault of a test; before quiesce what was compared goes into the journal. */
enum dr_rc drill_exercise_step(struct drill *d, const struct drill_step *s, struct dr_err *err);
/* Undoes the started steps of the procedure, the last first, as the engine does for execute. */
void drill_take_back(struct drill *d, struct job *j);
/* From the journal of a run that an earlier delivery brought to its end. */
void drill_recall(struct drill *d, struct drill_part *p);
enum job_outcome drill_run_outcome(const struct recovery *r, const struct dr_err *err);
enum dr_rc drill_no_target(struct dr_err *err);

/* drill_evidence.c */
json_t *drill_backup_json(const struct backup_handle *h, const char *chosen_by);
/* Fills p->findings and builds p->evidence anew from what p and d->r know. */
void drill_judge(struct drill *d, struct drill_part *p);

#endif
