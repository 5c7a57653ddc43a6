/* The commands of drproducer. Each returns an exit code; errors are printed where they end. */
#ifndef DR_PRODUCER_CMD_H
#define DR_PRODUCER_CMD_H

#include <stdbool.h>

#include "common/keys.h"
#include "common/wire/envelope.h"
#include "producer/link.h"

enum { CMD_WORDS_MAX = 64 };

struct cmd {
    const char *name; /* the command */
    int argc;         /* words behind it that are no options */
    const char *argv[CMD_WORDS_MAX];
    const char *option[CMD_WORDS_MAX][2]; /* name without dashes, value ("true" for a flag) */
    int options;
    bool json, wait;
    struct dr_keys keys;
    struct dr_redis_url url;
    const struct dr_key_entry *signer; /* NULL: bare messages */
    struct link *link;                 /* open unless the command needs none */
};

const char *cmd_option(const struct cmd *c, const char *name); /* NULL: not given */
int cmd_fail(const struct dr_err *err);                        /* prints it; its exit code */
/* Refuses options the command does not know: DR_OK or USAGE. names: separated by blanks. */
enum dr_rc cmd_only(const struct cmd *c, const char *names, struct dr_err *err) DR_MUST_CHECK;

int cmd_enqueue(struct cmd *c); /* enqueue, noop, backup, verify, execute, ... */
bool cmd_is_enqueue(const char *name);
int cmd_status(struct cmd *c);
int cmd_watch(struct cmd *c);
int cmd_watch_job(struct cmd *c, const char *id); /* until its end; the job's exit code */
int cmd_jobs(struct cmd *c);
int cmd_cancel(struct cmd *c);
int cmd_workers(struct cmd *c);
int cmd_schedule(struct cmd *c);
int cmd_keys(struct cmd *c);
int cmd_alert_test(struct cmd *c);

#endif
