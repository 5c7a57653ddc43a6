/* The commands of drworker but `run`: one function each. Return the exit code. */
#ifndef DR_WORKER_CLI_CLI_H
#define DR_WORKER_CLI_CLI_H

#include "common/config.h"

struct cli {
    const char *config_file; /* NULL: none */
    bool json;
    int argc; /* what follows the command */
    char **argv;
};

int cli_config(const struct cli *c);
int cli_open(const struct cli *c);
int cli_keys(const struct cli *c);
int cli_backups(const struct cli *c);
int cli_audit(const struct cli *c);
int cli_drills(const struct cli *c);
int cli_check(const struct cli *c);
int cli_leftovers(const struct cli *c);
int cli_retention_plan(const struct cli *c);
int cli_schedule(const struct cli *c);
struct store;
/* What was changed goes into the audit log. It is done already: a log that cannot be written is a
 * warning, and no reason to keep back what it printed. */
void cli_changed(struct store *s, const char *action, const char *subject, const char *reason);
/* Prints err to standard error as a person reads it; its exit code. */
int cli_fail(const struct dr_err *err);

#endif
