/* What follows a command: options with a value, flags, and words. */
#ifndef DR_WORKER_CLI_ARGS_H
#define DR_WORKER_CLI_ARGS_H

#include "worker/cli/cli.h"

/* Takes name and the value after it (flag: only name) out of c's words. NULL: not there, or, for
 * an option, nothing follows it: it then stays and is refused by args_only. */
const char *args_option(struct cli *c, const char *name);
bool args_flag(struct cli *c, const char *name);
/* At most most words are left and none looks like an option, else says so and is false. */
bool args_only(const struct cli *c, const char *command, int most);

#endif
