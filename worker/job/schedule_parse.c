/* DR_SCHEDULES: entries separated by newlines or `|`:
 *   NAME=CRON[;zone=..][;misfire=skip|once|all:N][;late=2h][;overlap=skip|queue][;jitter=30s]
 *            [;lane=..][;args=k=v,..]
 *   NAME=off
 * CRON may be empty for a schedule that is there already; lane makes a new one. */
#include "worker/job/schedule_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"
#include "common/wire/lanes.h"
#include "common/wire/scan.h"
#include "common/wire/sched.h"

enum { LATE_MIN_MS = 60000, LATE_MAX_MS = 7 * 86400000, JITTER_MAX_MS = 3600000 };

enum dr_rc schedule_bad(const struct schedule *s, const char *what, const char *value,
                        const char *wanted, struct dr_err *err)
{
    char field[64];
    (void)snprintf(field, sizeof field, "DR_SCHEDULES.%s.%s", s->name, what);
    (void)dr_fail(err, DR_E_CONFIG, "DR_SCHEDULES: %s: %s: %s", s->name, what, wanted);
    (void)dr_err_field(err, field, value, strlen(value));
    return DR_E_CONFIG;
}

enum dr_rc schedule_put_cron(struct schedule *s, const char *text, struct dr_err *err)
{
    struct dr_err why = {0};
    if (strlen(text) >= sizeof s->info.cron)
        return schedule_bad(s, "cron", text, "too long", err);
    if (dr_cron_parse(text, &s->cron, &why))
        return schedule_bad(s, strcmp(why.field, "cron") == 0 ? "cron" : why.field, why.value,
                            why.msg, err);
    (void)snprintf(s->info.cron, sizeof s->info.cron, "%s", text);
    return DR_OK;
}

enum dr_rc schedule_put_zone(struct schedule *s, const char *text, struct dr_err *err)
{
    struct dr_err why = {0};
    struct dr_zone *zone = NULL;
    if (dr_zone_open(text, &zone, &why))
        return schedule_bad(s, "zone", text, why.msg, err);
    dr_zone_free(s->zone);
    s->zone = zone;
    (void)snprintf(s->info.zone, sizeof s->info.zone, "%s", text);
    return DR_OK;
}

enum dr_rc schedule_put_late(struct schedule *s, const char *text, struct dr_err *err)
{
    uint64_t ms;
    if (!dr_parse_duration_ms(text, &ms) || ms < LATE_MIN_MS || ms > LATE_MAX_MS)
        return schedule_bad(s, "late", text, "not a duration from 1m to 7d", err);
    s->late_ms = (int64_t)ms;
    return DR_OK;
}

static enum dr_rc put_jitter(struct schedule *s, const char *text, struct dr_err *err)
{
    uint64_t ms;
    if (!dr_parse_duration_ms(text, &ms) || ms > JITTER_MAX_MS)
        return schedule_bad(s, "jitter", text, "not a duration from 0 to 1h", err);
    s->jitter_ms = (int64_t)ms;
    return DR_OK;
}

static enum dr_rc put_misfire(struct schedule *s, const char *text, struct dr_err *err)
{
    uint64_t n = 0;
    if (strcmp(text, "skip") == 0)
        s->misfire = SCHEDULE_SKIP;
    else if (strcmp(text, "once") == 0)
        s->misfire = SCHEDULE_ONCE;
    else if (dr_starts(text, "all:") && dr_parse_u64(text + 4, 1, SCHEDULE_MISFIRES_MAX, &n))
        s->misfire = SCHEDULE_ALL;
    else
        return schedule_bad(s, "misfire", text, "not skip, once or all:N with N from 1 to 100",
                            err);
    s->most = (unsigned)n;
    return DR_OK;
}

static enum dr_rc put_overlap(struct schedule *s, const char *text, struct dr_err *err)
{
    if (strcmp(text, "skip") != 0 && strcmp(text, "queue") != 0)
        return schedule_bad(s, "overlap", text, "not skip or queue", err);
    s->skip_overlap = text[0] == 's';
    return DR_OK;
}

/* Into s->args, sorted; values stay in s->args_text. */
static enum dr_rc split_args(struct schedule *s, struct dr_err *err)
{
    char *rest = s->args_text, *one;
    size_t n = 0;
    memset(s->args, 0, sizeof s->args);
    while (*s->args_text && (one = strsep(&rest, ","))) {
        char *value = strchr(one, '=');
        if (!value || n == DR_SCHED_ARGS_MAX)
            return schedule_bad(s, "args", one, "not up to 16 of NAME=VALUE, joined by commas",
                                err);
        *value++ = 0;
        size_t at = n++;
        for (; at > 0 && strcmp(s->args[at - 1][0], one) > 0; at--)
            memcpy(s->args[at], s->args[at - 1], sizeof s->args[0]);
        s->args[at][0] = one;
        s->args[at][1] = value;
    }
    return DR_OK;
}

/* The message of a slot, signed with a key that is nobody's, through the checks it will meet. */
static enum dr_rc try_message(const struct schedule *s, struct dr_err *err)
{
    static unsigned char zeros[32];
    const struct dr_secret key = {.bytes = zeros, .len = sizeof zeros};
    const struct dr_sched_spec spec = {.ns = "dr",
                                       .lane = s->lane,
                                       .name = s->name,
                                       .slot_ms = 1,
                                       .late_ms = 1,
                                       .args = s->args,
                                       .key = &key};
    const struct dr_envelope_ctx ctx = {
        .ns = "dr", .lane = s->lane, .sched_key = &key, .now_ms = 1};
    char id[DR_JOB_ID_MAX + 1], dig[DR_DIG_TEXT];
    struct dr_buf raw;
    struct dr_envelope *e = NULL;
    struct dr_refusal refusal;
    dr_buf_init(&raw, DR_WIRE_RAW_MAX);
    enum dr_rc rc = dr_sched_build(&spec, &raw, id, dig, err);
    if (!rc)
        rc = dr_envelope_check(&ctx, raw.data, raw.len, &e, &refusal, err);
    if (!rc && s->task->decode) {
        void *state = dr_xalloc(s->task->state_bytes + 1);
        rc = s->task->decode(e->args, state, err);
        if (s->task->fini)
            s->task->fini(state);
        free(state);
    }
    dr_envelope_free(e);
    dr_buf_fini(&raw);
    return rc;
}

enum dr_rc schedule_put_args(struct schedule *s, const char *text, struct dr_err *err)
{
    struct dr_err why = {0};
    free(s->args_text);
    s->args_text = dr_xstrdup(text);
    if (split_args(s, err))
        return DR_E_CONFIG;
    return try_message(s, &why) ? schedule_bad(s, "args", text, why.msg, err) : DR_OK;
}

static char *trim(char *s)
{
    size_t n;
    while (*s == ' ' || *s == '\t' || *s == '\r')
        s++;
    for (n = strlen(s); n > 0 && strchr(" \t\r", s[n - 1]); n--)
        s[n - 1] = 0;
    return s;
}

static const struct setting {
    const char *name;
    enum dr_rc (*put)(struct schedule *s, const char *text, struct dr_err *err);
} settings[] = {{"zone", schedule_put_zone}, {"misfire", put_misfire}, {"late", schedule_put_late},
                {"overlap", put_overlap},    {"jitter", put_jitter},   {"args", schedule_put_args}};
enum { SETTINGS = sizeof settings / sizeof settings[0], LANE = SETTINGS };

/* `key=value` parts into values[]; NULL where a key was not given. */
static enum dr_rc read_settings(const struct schedule *s, char *rest, char *values[SETTINGS + 1],
                                struct dr_err *err)
{
    for (char *part; (part = strsep(&rest, ";"));) {
        char *key = trim(part), *value = strchr(key, '=');
        unsigned i = 0;
        if (!*key)
            continue;
        if (value)
            *value++ = 0;
        key = trim(key);
        while (i < SETTINGS && strcmp(key, settings[i].name) != 0)
            i++;
        if (!value || (i == SETTINGS && strcmp(key, "lane") != 0))
            return schedule_bad(s, key, value ? value : "",
                                "not zone, misfire, late, overlap, jitter, lane or args", err);
        if (values[i])
            return schedule_bad(s, key, value, "stands twice", err);
        values[i] = trim(value);
    }
    return DR_OK;
}

static enum dr_rc find_or_add(struct schedule_set *set, const struct schedule *named,
                              const char *cron, const char *lane, const char *zone,
                              const struct job_task *const *tasks, struct schedule **out,
                              struct dr_err *err)
{
    *out = schedule_find(set, named->name);
    if (*out)
        return lane && strcmp(lane, (*out)->lane) != 0
                   ? schedule_bad(named, "lane", lane, "this schedule has a lane", err)
                   : DR_OK;
    const struct dr_lane *row = lane ? dr_lane_find(lane, strlen(lane)) : NULL;
    if (!lane)
        return schedule_bad(named, "lane", "", "no such schedule; a new one needs its lane", err);
    const struct job_task *task = row ? schedule_task(tasks, lane) : NULL;
    if (!task || strcmp(lane, "execute") == 0 || strcmp(lane, "configure") == 0)
        return schedule_bad(named, "lane", lane, "no task of this worker that can be scheduled",
                            err);
    if (!cron[0])
        return schedule_bad(named, "cron", "", "a new schedule needs one", err);
    if (!(*out = schedule_add(set, named->name, row->name, task)))
        return schedule_bad(named, "name", named->name, "more than 32 schedules", err);
    return schedule_put_zone(*out, zone, err);
}

static enum dr_rc apply(struct schedule *s, const char *cron, char *const *values,
                        struct dr_err *err)
{
    if (cron[0] && schedule_put_cron(s, cron, err))
        return DR_E_CONFIG;
    for (unsigned i = 0; i < SETTINGS; i++)
        if (values[i] && settings[i].put(s, values[i], err))
            return DR_E_CONFIG;
    if (!s->args_text && schedule_put_args(s, "", err))
        return DR_E_CONFIG;
    if (s->jitter_ms >= s->late_ms)
        return schedule_bad(s, "jitter", values[4] ? values[4] : "", "not shorter than late", err);
    if (s->misfire == SCHEDULE_ALL && s->skip_overlap)
        return schedule_bad(s, "misfire", values[1] ? values[1] : "all", "needs overlap=queue",
                            err);
    return DR_OK;
}

static bool name_ok(const char *s)
{
    return strlen(s) <= DR_SCHED_NAME_MAX && !strchr(s, ':') && dr_job_id_valid(s, strlen(s));
}

static enum dr_rc one(struct schedule_set *set, char *entry, const char *zone,
                      const struct job_task *const *tasks, struct dr_err *err)
{
    struct schedule named = {0}, *s;
    char *values[SETTINGS + 1] = {0}, *rest = strchr(entry, '=');
    if (rest)
        *rest++ = 0;
    (void)snprintf(named.name, sizeof named.name, "%s", trim(entry));
    if (!rest || !name_ok(trim(entry)))
        return schedule_bad(&named, "name", entry,
                            "not NAME=CRON, or not a name of 1 to 43 letters", err);
    char *cron = trim(strsep(&rest, ";"));
    bool off = strcmp(cron, "off") == 0;
    if (read_settings(&named, rest, values, err))
        return DR_E_CONFIG;
    if (off && (s = schedule_find(set, named.name))) {
        s->off = "off";
        return DR_OK;
    }
    if (off)
        return schedule_bad(&named, "name", named.name, "no such schedule", err);
    if (find_or_add(set, &named, cron, values[LANE], zone, tasks, &s, err))
        return DR_E_CONFIG;
    return apply(s, cron, values, err);
}

enum dr_rc schedule_parse(struct schedule_set *set, const char *text, const char *zone,
                          const struct job_task *const *tasks, struct dr_err *err)
{
    char *copy = dr_xstrdup(text), *rest = copy, *entry;
    char seen[SCHEDULES_MAX][DR_SCHED_NAME_MAX + 1];
    unsigned n = 0;
    enum dr_rc rc = DR_OK;
    set->none = strcmp(trim(copy), "off") == 0;
    while (!set->none && !rc && (entry = strsep(&rest, "\n|"))) {
        struct schedule named = {0};
        entry = trim(entry);
        if (!*entry)
            continue;
        (void)snprintf(named.name, sizeof named.name, "%.*s", (int)strcspn(entry, "= \t"), entry);
        for (unsigned i = 0; i < n && !rc; i++)
            if (strcmp(seen[i], named.name) == 0)
                rc = schedule_bad(&named, "name", named.name, "stands twice", err);
        if (n < SCHEDULES_MAX)
            memcpy(seen[n++], named.name, sizeof named.name);
        if (!rc)
            rc = one(set, entry, zone, tasks, err);
    }
    free(copy);
    return rc;
}
