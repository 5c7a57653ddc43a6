/* See head.h. */
#include "worker/watch/head.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/str.h"
#include "worker/backup/store.h"
#include "worker/core/pool.h"

struct look {
    struct store *store;
    struct catalog_head head;
};

static enum dr_rc look(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct look *l = item;
    (void)cancel;
    return store_head_now(l->store, &l->head, err);
}

bool head_went_back(const struct job_services *env, uint64_t seen_seq, const char *seen_sha256,
                    struct catalog_head *now)
{
    struct look l = {.store = env->store};
    struct dr_err err = {0};
    char seq[24], sha256[65];
    enum dr_rc rc = pool_run(env->pool, look, &l, NULL, &err);
    dr_hex(l.head.sha256, sizeof l.head.sha256, sha256);
    *now = l.head;
    if (!rc &&
        (l.head.seq > seen_seq || (l.head.seq == seen_seq && strcmp(sha256, seen_sha256) == 0)))
        return false;
    if (rc &&
        rc != DR_E_INTEGRITY) { /* it says nothing about the store; asked again by the next order */
        dr_log_err(DR_LOG_WARN, "store.head", &err, NULL);
        return true;
    }
    (void)snprintf(seq, sizeof seq, "%llu", (unsigned long long)seen_seq);
    dr_log(DR_LOG_ERROR, "store.rolled_back", "msg",
           "Redis has seen a newer catalog, or another one, than BACKUP_DIRECTORY holds",
           "seen_seq", seq, "seen_sha256", seen_sha256, NULL);
    return true;
}
