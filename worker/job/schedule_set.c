/* The table of schedules, and which slot is to be fired. */
#include "worker/job/schedule_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/civil.h"
#include "common/mem.h"
#include "common/wire/envelope.h"
#include "worker/job/schedule_internal.h"

enum {
    LATE_MS = 3600000,
    ON_TIME_MS = 60000, /* a slot that nobody fired for so long was missed */
    FIRST_SPAN_S = 60,
    SPAN_GROWS = 8,
};
static const int64_t LAST_MS = 253402300799000; /* the end of the year 9999 */

static const struct {
    const char *name, *cron, *lane, *args, *late, *needs;
} table[] = {
#define SCHEDULE(name, cron, lane, args, late, needs) {name, cron, lane, args, late, needs},
#include "worker/job/schedules.def"
#undef SCHEDULE
};

struct schedule *schedule_find(struct schedule_set *set, const char *name)
{
    for (unsigned i = 0; i < set->count; i++)
        if (strcmp(set->at[i].name, name) == 0)
            return &set->at[i];
    return NULL;
}

struct schedule *schedule_add(struct schedule_set *set, const char *name, const char *lane,
                              const struct job_task *task)
{
    if (set->count == SCHEDULES_MAX)
        return NULL;
    struct schedule *s = &set->at[set->count++];
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    s->lane = lane;
    s->task = task;
    s->misfire = SCHEDULE_ONCE;
    s->late_ms = LATE_MS;
    s->skip_overlap = true;
    return s;
}

const struct job_task *schedule_task(const struct job_task *const *tasks, const char *lane)
{
    while (*tasks && strcmp((*tasks)->type, lane) != 0)
        tasks++;
    return *tasks;
}

static bool is_set(const struct dr_config *c, const char *option)
{
    if (strcmp(option, "DATABASE_URL") == 0)
        return dr_config_secret(c, option)->len > 0;
    if (strcmp(option, "OFFSITE_STORAGE_PROVIDER") == 0)
        return strcmp(dr_config_str(c, option), "none") != 0;
    return dr_config_str(c, option)[0];
}

static bool configured(const struct dr_config *c, const char *needs)
{
    char copy[128], *rest = copy, *one;
    bool any = !needs[0];
    (void)snprintf(copy, sizeof copy, "%s", needs);
    while (!any && (one = strsep(&rest, "|")))
        any = is_set(c, one);
    return any;
}

static enum dr_rc add_table(struct schedule_set *set, const struct dr_config *c,
                            const struct job_task *const *tasks, struct dr_err *err)
{
    const char *zone = dr_config_str(c, "DR_TZ");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct dr_lane *row = dr_lane_find(table[i].lane, strlen(table[i].lane));
        struct schedule *s =
            row ? schedule_add(set, table[i].name, row->name, schedule_task(tasks, row->name))
                : NULL;
        if (!s)
            return dr_fail(err, DR_E_BUG, "schedules.def: %s", table[i].name);
        if (schedule_put_cron(s, table[i].cron, err) || schedule_put_late(s, table[i].late, err) ||
            schedule_put_zone(s, zone, err))
            return DR_E_CONFIG;
        if (!s->task || schedule_put_args(s, table[i].args, NULL))
            s->off = "not in this version";
        else if (!configured(c, table[i].needs))
            s->off = "not configured";
    }
    return DR_OK;
}

static void describe(struct schedule *s)
{
    static const char *const misfires[] = {"skip", "once", "all"};
    if (s->misfire == SCHEDULE_ALL)
        (void)snprintf(s->info.misfire, sizeof s->info.misfire, "all:%u", s->most);
    else
        (void)snprintf(s->info.misfire, sizeof s->info.misfire, "%s", misfires[s->misfire]);
    (void)snprintf(s->info.lane, sizeof s->info.lane, "%s", s->lane);
    (void)snprintf(s->info.overlap, sizeof s->info.overlap, "%s",
                   s->skip_overlap ? "skip" : "queue");
    s->info.late_ms = (uint64_t)s->late_ms;
    s->info.jitter_ms = (uint64_t)s->jitter_ms;
    const struct dr_sched_info own = s->info; /* not in s: gcc's -Wrestrict under ASan */
    (void)snprintf(s->when, sizeof s->when, "%s %s", own.cron, own.zone);
    dr_buf_init(&s->bytes, 65536);
    if (!s->off)
        dr_sched_info_pack(&s->info, s->args, &s->bytes);
}

/* Over name and definition of all that are served. */
static void hash(struct schedule_set *set)
{
    struct dr_buf all;
    char hex[DR_MID_TEXT];
    dr_buf_init(&all, 4 << 20);
    for (unsigned i = 0; i < set->count; i++)
        if (!set->at[i].off) {
            dr_buf_add(&all, set->at[i].name, strlen(set->at[i].name) + 1);
            dr_buf_add(&all, set->at[i].bytes.data, set->at[i].bytes.len);
        }
    dr_wire_mid(all.data ? all.data : (const unsigned char *)"", all.len, hex);
    (void)snprintf(set->hash, sizeof set->hash, "%.16s", hex);
    dr_buf_fini(&all);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct schedule *)a)->name, ((const struct schedule *)b)->name);
}

enum dr_rc schedule_set_load(const struct dr_config *c, const struct job_task *const *tasks,
                             struct schedule_set **out, struct dr_err *err)
{
    struct schedule_set *set = dr_xalloc(sizeof *set);
    struct dr_zone *zone = NULL;
    const char *tz = dr_config_str(c, "DR_TZ");
    struct dr_err why = {0};
    enum dr_rc rc = DR_OK;
    if (dr_zone_open(tz, &zone, &why)) {
        rc = dr_fail(err, DR_E_CONFIG, "DR_TZ: %s", why.msg);
        (void)dr_err_field(err, "DR_TZ", tz, strlen(tz));
    }
    dr_zone_free(zone);
    if (rc || (rc = add_table(set, c, tasks, err)) ||
        (rc = schedule_parse(set, dr_config_str(c, "DR_SCHEDULES"), tz, tasks, err))) {
        schedule_set_free(set);
        return rc;
    }
    qsort(set->at, set->count, sizeof set->at[0], by_name);
    for (unsigned i = 0; i < set->count; i++)
        describe(&set->at[i]);
    hash(set);
    *out = set;
    return DR_OK;
}

void schedule_set_free(struct schedule_set *set)
{
    if (!set)
        return;
    for (unsigned i = 0; i < set->count; i++) {
        dr_zone_free(set->at[i].zone);
        free(set->at[i].args_text);
        dr_buf_fini(&set->at[i].bytes);
    }
    free(set);
}

int64_t schedule_next(const struct schedule *s, int64_t after_ms)
{
    int64_t at = dr_cron_next(&s->cron, s->zone, dr_floor_div(after_ms, 1000));
    return at > LAST_MS / 1000 ? LAST_MS : at * 1000;
}

int64_t schedule_due(const struct schedule *s, int64_t slot_ms)
{
    char text[DR_SCHED_NAME_MAX + 32], hex[DR_MID_TEXT];
    if (s->jitter_ms == 0)
        return slot_ms;
    int n = snprintf(text, sizeof text, "%s:%lld", s->name, (long long)slot_ms);
    dr_wire_mid(text, (size_t)n, hex);
    hex[12] = 0;
    return slot_ms + strtoll(hex, NULL, 16) % (s->jitter_ms + 1);
}

/* The oldest of the newest `want` slots from low_ms to now_ms; INT64_MAX: there is none. */
static int64_t among_newest(const struct schedule *s, int64_t low_ms, int64_t now_ms, unsigned want)
{
    int64_t ring[SCHEDULE_MISFIRES_MAX], low = dr_floor_div(low_ms + 999, 1000),
                                         now = now_ms / 1000;
    for (int64_t span = FIRST_SPAN_S;; span *= SPAN_GROWS) {
        int64_t from = now - span > low ? now - span : low;
        unsigned n = 0;
        for (int64_t at = from - 1; (at = dr_cron_next(&s->cron, s->zone, at)) <= now; n++)
            ring[n % want] = at;
        if (n >= want || from == low)
            return n == 0 ? INT64_MAX : ring[n >= want ? n % want : 0] * 1000;
    }
}

void schedule_decide(const struct schedule *s, int64_t from_ms, int64_t now_ms,
                     struct schedule_step *out)
{
    int64_t on_time = now_ms - ON_TIME_MS - s->jitter_ms, oldest = now_ms - s->late_ms;
    if (oldest < on_time && s->misfire == SCHEDULE_SKIP)
        oldest = on_time;
    int64_t low = from_ms > oldest ? from_ms : oldest;
    *out = (struct schedule_step){.fire = true, .slot_ms = from_ms};
    if (from_ms < on_time || from_ms < oldest)
        out->slot_ms = among_newest(s, low, now_ms, s->misfire == SCHEDULE_ALL ? s->most : 1);
    if (out->slot_ms == INT64_MAX)
        *out = (struct schedule_step){.slot_ms = from_ms,
                                      .why = s->misfire == SCHEDULE_SKIP ? "misfire" : "late"};
    out->next_ms = schedule_next(s, out->fire ? out->slot_ms : now_ms);
}
