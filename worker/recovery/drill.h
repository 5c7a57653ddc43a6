/* Drills: a recovery rehearsed with a real backup, into scratch beside live, timed and removed. The
 * steps are those of the procedures (their tables `drill`, or `plan` at that level), laid end to
 * end: what fails in one procedure is its finding and does not keep the others from being drilled.
 * Level exercise takes the table `steps`, that of a recovery, upon a target which is not
 * production.
 *
 * In the job's fiber; struct drill is the state of the task test-recovery (job_state). Each
 * procedure is a run of its own, with a journal that says what has to be removed. */
#ifndef DR_WORKER_RECOVERY_DRILL_H
#define DR_WORKER_RECOVERY_DRILL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/job/job.h"
#include "worker/recovery/procedure.h"

/* Said to be skipped as long as no row of recovery_procedures bears this id. */
#define DRILL_FULL "full_system_recovery"

enum { DRILL_PARTS_MAX = 3, DRILL_STEPS_MAX = 32, DRILL_FINDINGS_MAX = 8 };

struct drill_part { /* one procedure */
    const struct recovery_procedure *procedure;
    bool begun, ok;
    char skipped[96];         /* why; "": it is not */
    enum job_outcome outcome; /* of an exercise's run, whatever became of the evidence */
    uint64_t latest_over; /* plain bytes of the latest, over the budget of drills; 0: it is not */
    unsigned passed_over; /* backups that take no turn, being over it */
    char chosen_by[12];   /* ordered, latest, rotation */
    char backup_id[80];
    int64_t began_ms, ended_ms; /* wall clock */
    uint64_t rto_ms;            /* select to the last step before a swap, or with it */
    int64_t rpo_s;              /* age of the newest usable backup; -1: there is none */
    json_t *phases;             /* [{name, ms}] */
    json_t *compared, *lists;   /* what the procedure says it compared */
    json_t *backup, *findings;
    json_t *evidence; /* complete, without lists */
    struct dr_err err;
    char failed_step[64];
    char file[80], sha256[65]; /* of the evidence in the store */
    struct dr_buf plan;        /* level plan: the procedure's own pairs */
    unsigned plan_pairs;
};

struct drill_step {
    char name[40]; /* "database.restore" */
    unsigned part;
    const struct job_step *inner; /* NULL: a step of the drill itself */
    bool first, last;
};

enum drill_level { DRILL_PLAN, DRILL_DRILL, DRILL_EXERCISE };

struct drill {
    struct recovery r; /* of the procedure whose turn it is; first: recovery_of finds it */
    bool open;         /* r is in use */
    const struct job_services *env;
    enum drill_level level;
    char backup_id[80]; /* "": chosen here */
    int64_t before_ms;
    const struct recovery_procedure *only; /* NULL: all that are configured */
    struct drill_part parts[DRILL_PARTS_MAX];
    unsigned part_count;
    struct drill_step steps[DRILL_STEPS_MAX];
    struct job_step table[DRILL_STEPS_MAX + 1];
    unsigned step_count, cursor;
    char recovery_code[256]; /* what became of it */
    struct dr_err code_err;
};

const char *drill_level_name(enum drill_level level);
/* Pure: lays out d->table for level and only. */
void drill_lay_out(struct drill *d);
unsigned drill_result(struct job *j, struct dr_buf *map);
void drill_fini(struct drill *d);

/* drill_choose.c: which backup, and how old the newest usable one is. Pool thread. */
struct drill_choice {
    struct recovery *r; /* order.backup_id is filled */
    struct drill_part *part;
    char series[257];
};
enum dr_rc drill_choose(void *choice, struct cancel *cancel, struct dr_err *err) DR_MUST_CHECK;

/* drill_record.c: evidence to the store, then the catalog's record. Pool thread. */
struct drill_saving {
    struct drill *d;
    struct drill_part *part;
    struct recovery *r;
};
enum dr_rc drill_save(void *saving, struct cancel *cancel, struct dr_err *err) DR_MUST_CHECK;

/* drill_code.c: opens the keyring with DR_RECOVERY_CODE only, once in 28 days. Pool thread. */
enum dr_rc drill_open_code(void *drill, struct cancel *cancel, struct dr_err *err) DR_MUST_CHECK;

/* ---- the series: one line a drill, as the catalog has it; any thread that may block ---- */
struct drill_line {
    int64_t at_ms;
    char level[12], procedure[40], backup_id[80], chosen_by[12], run[20], file[80], sha256[65];
    bool ok, rto_late, rpo_late;
    int64_t rto_ms, rto_target_ms, rpo_s, rpo_target_s; /* -1: unknown */
    const char *evidence; /* "there", "changed", "removed"; only where it was asked for */
};
/* Newest first; freed by free(). look: at the evidence files too. */
enum dr_rc drill_history(struct store *s, bool look, struct drill_line **out, size_t *count,
                         struct dr_err *err) DR_MUST_CHECK;

#endif
