/* fuzz: drjob. Any text as DR_SCHEDULES, and any bytes as what Redis holds of a schedule: what is
 * accepted has bounded fields and a next slot; what is refused names its field. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/job/schedule_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct job_task noop = {.type = "noop"}, verify = {.type = "verify"};
static const struct job_task *const tasks[] = {&noop, &verify, NULL};

static void check(const struct schedule *s)
{
    struct schedule_step step;
    if (!s->info.cron[0])
        return; /* switched off, or the one that was there before */
    schedule_decide(s, 1743296400000, 1743900000000, &step);
    if (step.next_ms <= step.slot_ms || (step.fire && step.slot_ms > 1743900000000) ||
        schedule_due(s, step.slot_ms) - step.slot_ms > s->jitter_ms)
        abort();
}

static void as_text(const uint8_t *data, size_t size)
{
    struct schedule_set *set = dr_xalloc(sizeof *set);
    struct dr_err err = {0};
    char *text = dr_xstrndup((const char *)data, size);
    struct schedule *s = schedule_add(set, "verify", "verify", &verify);
    if (schedule_put_zone(s, "UTC", NULL) || schedule_put_cron(s, "@daily", NULL) ||
        schedule_put_args(s, "", NULL))
        abort();
    if (schedule_parse(set, text, "UTC", tasks, &err)) {
        if (err.rc != DR_E_CONFIG || strncmp(err.field, "DR_SCHEDULES.", 13) != 0)
            abort();
    } else {
        for (unsigned i = 0; i < set->count; i++)
            check(&set->at[i]);
    }
    free(text);
    schedule_set_free(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dr_sched_info info;
    struct dr_sched_last last;
    uint8_t *exact = malloc(size + 1);
    if (!exact)
        return 0;
    memcpy(exact, data, size);
    if (dr_sched_info_read(exact, size, &info) &&
        (strlen(info.cron) >= sizeof info.cron || strlen(info.zone) >= sizeof info.zone))
        abort();
    if (dr_sched_last_read(exact, size, &last) && strlen(last.jid) > DR_JOB_ID_MAX)
        abort();
    free(exact);
    as_text(data, size);
    return 0;
}
