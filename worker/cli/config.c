/* drworker config: what is in effect and where each value comes from. */
#include <stdio.h>

#include "worker/cli/cli.h"

int cli_fail(const struct dr_err *err)
{
    (void)fprintf(stderr, "drworker: %s%s%s%s%s%s%s%s%s\n", err->msg, err->reason[0] ? " (" : "",
                  err->reason, err->reason[0] ? ")" : "", err->field[0] ? " [" : "", err->field,
                  err->field[0] ? "=" : "", err->value, err->field[0] ? "]" : "");
    return dr_rc_exit(err->rc);
}

int cli_config(const struct cli *c)
{
    struct dr_config *config = NULL;
    struct dr_err err = {0};
    struct dr_buf out;
    if (dr_config_load(c->config_file, &config, &err))
        return cli_fail(&err);
    dr_buf_init(&out, 1 << 20);
    dr_config_print(config, c->json, &out);
    (void)fputs(out.data ? (const char *)out.data : "", stdout);
    dr_buf_fini(&out);
    dr_config_free(config);
    return fflush(stdout) == 0 ? 0 : 1;
}
