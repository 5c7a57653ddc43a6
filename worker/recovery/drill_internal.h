/* Shared by the files of the drill. */
#ifndef DR_WORKER_RECOVERY_DRILL_INTERNAL_H
#define DR_WORKER_RECOVERY_DRILL_INTERNAL_H

#include "worker/recovery/drill.h"

/* drill_evidence.c */
json_t *drill_backup_json(const struct backup_handle *h, const char *chosen_by);
/* Fills p->findings and builds p->evidence anew from what p and d->r know. */
void drill_judge(struct drill *d, struct drill_part *p);

#endif
