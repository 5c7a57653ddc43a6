/* Facts of the queue and of the configuration; folding backups into series. Pure. */
#include "worker/watch/facts.h"

#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "worker/backup/store.h"

void facts_configure(struct facts *f, const struct dr_config *c)
{
    const char *provider = dr_config_str(c, "OFFSITE_STORAGE_PROVIDER");
    f->has_database = dr_config_secret(c, "DATABASE_URL")->len > 0;
    f->has_files = dr_config_str(c, "BACKUP_FILES_PATHS")[0] != 0;
    f->has_config_files = dr_config_str(c, "BACKUP_CONFIG_PATHS")[0] != 0;
    f->has_keys = dr_config_str(c, "DR_SIGN_KEYS_FILE")[0] != 0;
    f->allow_unsigned = dr_config_bool(c, "DR_ALLOW_UNSIGNED");
    f->has_offsite = provider[0] && strcmp(provider, "none") != 0;
    f->database = f->has_database ? FACTS_UNKNOWN : FACTS_NOT_CONFIGURED;
    f->catalog = f->audit = f->store.head = f->has_store ? FACTS_UNKNOWN : FACTS_NOT_CONFIGURED;
}

/* Since when the message that is next in line waits: its own word where it has one that is in the
 * past, else since it was first seen there. */
static int64_t waits_since(const struct survey_lane *l, const struct survey_lane *before,
                           int64_t before_ms, int64_t now_ms, int64_t offset_ms)
{
    if (!l->waiting)
        return 0;
    int64_t ordered = l->next_iat_ms ? l->next_iat_ms - offset_ms : now_ms;
    if (l->next_iat_ms && ordered < now_ms)
        return ordered;
    if (before && before_ms && strcmp(l->next_mid, before->next_mid) == 0)
        return before_ms;
    return now_ms;
}

void facts_take_survey(struct facts *f, const struct survey *s, int64_t now_ms)
{
    for (unsigned i = 0; i < s->lane_count; i++) {
        const struct survey_lane *before = f->survey_ms ? &f->survey.lanes[i] : NULL;
        f->oldest_ms[i] = waits_since(&s->lanes[i], before, f->oldest_ms[i], now_ms, s->offset_ms);
    }
    f->survey = *s;
    f->survey_ms = now_ms;
}

bool facts_is_damaged(const struct store_entry *e)
{
    return !e->tombstoned_at_ms && store_is_damaged(e);
}

static struct facts_series *series_of(struct facts_store *f, const struct store_entry *e)
{
    for (unsigned i = 0; i < f->series_count; i++)
        if (strcmp(f->series[i].series, e->series) == 0 && strcmp(f->series[i].kind, e->kind) == 0)
            return &f->series[i];
    if (f->series_count == FACTS_SERIES) {
        f->more_series++;
        return NULL;
    }
    struct facts_series *s = &f->series[f->series_count++];
    memset(s, 0, sizeof *s);
    (void)snprintf(s->series, sizeof s->series, "%s", e->series);
    (void)snprintf(s->kind, sizeof s->kind, "%s", e->kind);
    return s;
}

static void fold_kept(struct facts_series *s, const struct store_entry *e)
{
    bool proven = e->verified_ok && e->verified_at_ms > 0;
    bool first = s->backups == 0;
    s->backups++;
    s->stored_bytes += e->stored_bytes;
    if (e->t_point_ms > s->newest_ms) {
        s->newest_ms = e->t_point_ms;
        s->newest_plain_bytes = e->plain_bytes;
        s->newest_stored_bytes = e->stored_bytes;
    }
    if (proven && e->t_point_ms > s->newest_proven_ms) {
        s->newest_proven_ms = e->t_point_ms;
        s->newest_took_ms = e->t_end_ms > e->t_point_ms ? e->t_end_ms - e->t_point_ms : 0;
    }
    if (first || e->verified_at_ms < s->oldest_proof_ms)
        s->oldest_proof_ms = e->verified_at_ms;
    if (first || e->t_point_ms < s->oldest_ms)
        s->oldest_ms = e->t_point_ms;
}

/* Emergency backups belong to a recovery, not to the rhythm of their series: they count as space,
 * not as freshness. */
void facts_fold(struct facts_store *f, const struct store_entry *list, size_t count)
{
    f->series_count = 0;
    f->more_series = 0;
    for (size_t i = 0; i < count; i++) {
        const struct store_entry *e = &list[i];
        struct facts_series *s = series_of(f, e);
        if (!s)
            continue;
        s->pinned += e->pinned;
        if (e->tombstoned_at_ms) {
            s->tombstoned++;
            continue;
        }
        if (facts_is_damaged(e)) {
            s->bad++;
            s->stored_bytes += e->stored_bytes;
            continue;
        }
        if (strcmp(e->class, "emergency") == 0)
            s->stored_bytes += e->stored_bytes;
        else
            fold_kept(s, e);
        if (e->drilled_at_ms > s->drilled_ms)
            s->drilled_ms = e->drilled_at_ms;
    }
}

bool facts_holds(const struct facts_series *s, const char *kind)
{
    return !kind || strcmp(s->kind, kind) == 0 || strcmp(s->kind, "full") == 0;
}

static const struct facts_series *newest_of(const struct facts_store *f, const char *kind)
{
    const struct facts_series *newest = NULL;
    for (unsigned i = 0; i < f->series_count; i++) {
        const struct facts_series *s = &f->series[i];
        if (facts_holds(s, kind) && s->newest_proven_ms &&
            (!newest || s->newest_proven_ms > newest->newest_proven_ms))
            newest = s;
    }
    return newest;
}

int64_t facts_recovery_point_ms(const struct facts_store *f, const char *kind)
{
    const struct facts_series *s = newest_of(f, kind);
    return s ? s->newest_proven_ms : 0;
}

int64_t facts_took_ms(const struct facts_store *f, const char *kind)
{
    const struct facts_series *s = newest_of(f, kind);
    return s ? s->newest_took_ms : 0;
}

bool facts_protects(const struct facts *f, const char *kind)
{
    return strcmp(kind, "database") == 0 ? f->has_database
           : strcmp(kind, "files") == 0  ? f->has_files
           : strcmp(kind, "config") == 0 ? f->has_config_files
                                         : false;
}
