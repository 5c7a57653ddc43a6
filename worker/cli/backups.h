/* drworker backups: the half that changes something. */
#ifndef DR_WORKER_CLI_BACKUPS_H
#define DR_WORKER_CLI_BACKUPS_H

#include "worker/cli/cli.h"

/* Takes --pin, --unpin, --give-up, --undelete, --acknowledge and what belongs to them out of c's
 * words. false: there was none of them. true: *code is the exit code of what was done or refused.
 */
bool backups_change(struct cli *c, int *code);

#endif
