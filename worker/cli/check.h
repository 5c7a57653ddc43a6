/* drworker check: one function an item, in a fiber of a loop of its own. */
#ifndef DR_WORKER_CLI_CHECK_H
#define DR_WORKER_CLI_CHECK_H

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"

struct loop;
struct pool;

struct check {
    const struct dr_config *config;
    struct loop *loop;
    struct pool *pool;
    unsigned server_major; /* found by check_database; 0: not */
    bool skipped;          /* set by an item that has nothing to look at */
    bool json;
    int code; /* of the worst failure so far */
    unsigned items;
};

/* What was found goes into detail, one line; changes nothing. */
typedef enum dr_rc check_fn(struct check *c, struct dr_buf *detail, struct dr_err *err);

check_fn check_redis;
check_fn check_directory, check_keyring, check_work_directory;   /* check_store.c */
check_fn check_files, check_config_files;                        /* check_store.c */
check_fn check_database, check_tools, check_role, check_restore; /* check_database.c */

#endif
