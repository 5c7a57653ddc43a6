/* The application's services around a swap: DR_SERVICE_COMMAND called as `PROGRAM start|stop|status
 * NAME`, never through a shell, with DR_FENCE (the ticket) and DR_RUN in its environment. status
 * exits with 0: up; 1, 2, 3: down (as LSB and systemctl say it); anything else is an error. A call
 * has DR_SERVICE_TIMEOUT_S. Without DR_SERVICE_COMMAND nothing is called and `configured` is false.
 * In a fiber; the set has one owner. */
#ifndef DR_WORKER_RECOVERY_SERVICES_H
#define DR_WORKER_RECOVERY_SERVICES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct cancel;
struct dr_config;
struct loop;

enum { SERVICES_MAX = 64, SERVICE_NAME_MAX = 64 };

struct services {
    struct loop *loop;
    const char *command;     /* borrowed from the configuration; NULL: none */
    char fence[32], run[20]; /* what the command finds in DR_FENCE and DR_RUN */
    uint64_t timeout_ms;     /* of one call */
    unsigned count;          /* in start order */
    char names[SERVICES_MAX][SERVICE_NAME_MAX + 1];
    bool up[SERVICES_MAX]; /* as observed, or as a journal says: only these are started */
    uint64_t ms;           /* spent in calls so far */
};

/* option is DR_SERVICES_DATABASE or DR_SERVICES_FILES: empty means all of DR_SERVICES, a name that
 * DR_SERVICES lacks is CONFIG. */
enum dr_rc services_load(struct services *s, struct loop *l, const struct dr_config *c,
                         const char *option, struct dr_err *err) DR_MUST_CHECK;
bool services_configured(const struct services *s);

/* Fills up[] by asking each. */
enum dr_rc services_observe(struct services *s, struct cancel *cancel,
                            struct dr_err *err) DR_MUST_CHECK;
/* Stops those that are up, last first, and demands that status says down. */
enum dr_rc services_stop(struct services *s, struct cancel *cancel,
                         struct dr_err *err) DR_MUST_CHECK;
/* Starts those of up[] that status does not already call up, in order; demands that all are. The
 * first failure is returned after every other one was started, too. */
enum dr_rc services_start(struct services *s, struct cancel *cancel,
                          struct dr_err *err) DR_MUST_CHECK;

/* up[] as an array of names, for the quiesce intent, and back: names that the configuration no
 * longer has are taken from the journal, since they were stopped by this run. */
json_t *services_to_json(const struct services *s);
enum dr_rc services_from_json(struct services *s, const json_t *names,
                              struct dr_err *err) DR_MUST_CHECK;

#endif
