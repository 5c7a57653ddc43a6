/* Parts of `drworker retention-plan`. */
#ifndef DR_WORKER_CLI_RETENTION_H
#define DR_WORKER_CLI_RETENTION_H

#include "common/buf.h"
#include "worker/backup/retain_simulate.h"
#include "worker/cli/cli.h"
#include "worker/recovery/expiry.h"

struct retention_cli {
    struct dr_config *config;
    struct expiry_terms terms;
    bool json;
};

void retention_words(retain_mask m, struct dr_buf *b); /* "daily minimum" */
void retention_simulated_text(const struct retain_sim *s, struct dr_buf *b);
void retention_simulated_json(const struct retain_sim *s, struct dr_buf *b);

#endif
