/* Words of a command. */
#include "worker/cli/args.h"

#include <stdio.h>
#include <string.h>

static void take_out(struct cli *c, int at, int count)
{
    for (int i = at; i + count < c->argc; i++)
        c->argv[i] = c->argv[i + count];
    c->argc -= count;
}

const char *args_option(struct cli *c, const char *name)
{
    for (int i = 0; i + 1 < c->argc; i++)
        if (strcmp(c->argv[i], name) == 0) {
            const char *value = c->argv[i + 1];
            take_out(c, i, 2);
            return value;
        }
    return NULL;
}

bool args_flag(struct cli *c, const char *name)
{
    for (int i = 0; i < c->argc; i++)
        if (strcmp(c->argv[i], name) == 0) {
            take_out(c, i, 1);
            return true;
        }
    return false;
}

bool args_only(const struct cli *c, const char *command, int most)
{
    for (int i = 0; i < c->argc; i++)
        if (i >= most || (c->argv[i][0] == '-' && c->argv[i][1])) {
            (void)fprintf(stderr, "drworker: %s takes no '%s'\n", command, c->argv[i]);
            return false;
        }
    return true;
}
