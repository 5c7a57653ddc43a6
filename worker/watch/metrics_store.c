/* What /metrics says of the store. */
#include <string.h>

#include "common/config.h"
#include "worker/watch/exposition.h"
#include "worker/watch/facts.h"
#include "worker/watch/gates.h"
#include "worker/watch/metrics.h"

static double age(int64_t then_ms, int64_t now_ms)
{
    return now_ms > then_ms ? (double)(now_ms - then_ms) / 1000 : 0;
}

static void gauge(struct dr_buf *b, const char *name, const char *help, uint64_t value)
{
    exposition_family(b, name, "gauge", help);
    exposition_uint(b, name, value, NULL);
}

enum of_series {
    NEWEST_AT,
    NEWEST_AGE,
    NEWEST_PLAIN,
    NEWEST_STORED,
    PROVEN_AGE,
    PROOF_AGE,
    KEPT,
    KEPT_BYTES,
    PINNED,
    TOMBSTONED,
    DAMAGED,
    OF_SERIES
};

static const struct {
    const char *name, *help;
} families[OF_SERIES] = {
    {"drworker_backup_newest_timestamp_seconds",
     "Consistent point of a series' newest backup, unix time."},
    {"drworker_backup_age_seconds", "Age of that point."},
    {"drworker_backup_newest_bytes", "Its size, plain."},
    {"drworker_backup_newest_stored_bytes", "Its size as it lies in the store."},
    {"drworker_backup_proven_age_seconds", "Age of the newest backup that was proven."},
    {"drworker_proof_age_seconds",
     "Age of the oldest proof among the kept backups of a series; of the oldest backup where one "
     "was never proven."},
    {"drworker_backups", "Kept backups."},
    {"drworker_backups_stored_bytes", "What they take."},
    {"drworker_backups_pinned", "Of them pinned."},
    {"drworker_backups_tombstoned", "In the trash."},
    {"drworker_backups_damaged", "Whose manifest or proof is bad."},
};

/* False: this series has nothing to say in that family. */
static bool value_of(const struct facts_series *s, enum of_series what, int64_t now_ms, double *out)
{
    bool any = s->newest_ms > 0;
    switch (what) {
    case NEWEST_AT:
        *out = (double)s->newest_ms / 1000;
        return any;
    case NEWEST_AGE:
        *out = age(s->newest_ms, now_ms);
        return any;
    case NEWEST_PLAIN:
        *out = (double)s->newest_plain_bytes;
        return any;
    case NEWEST_STORED:
        *out = (double)s->newest_stored_bytes;
        return any;
    case PROVEN_AGE:
        *out = age(s->newest_proven_ms, now_ms);
        return s->newest_proven_ms > 0;
    case PROOF_AGE:
        *out = age(s->oldest_proof_ms ? s->oldest_proof_ms : s->oldest_ms, now_ms);
        return any;
    case KEPT:
        *out = (double)s->backups;
        return true;
    case KEPT_BYTES:
        *out = (double)s->stored_bytes;
        return true;
    case PINNED:
        *out = (double)s->pinned;
        return true;
    case TOMBSTONED:
        *out = (double)s->tombstoned;
        return true;
    case DAMAGED:
        *out = (double)s->bad;
        return true;
    case OF_SERIES:
        break;
    }
    return false;
}

static void tell_series(const struct facts_store *f, struct dr_buf *b, int64_t now_ms)
{
    for (unsigned i = 0; i < OF_SERIES && f->series_count; i++) {
        exposition_family(b, families[i].name, "gauge", families[i].help);
        for (unsigned n = 0; n < f->series_count; n++) {
            const struct facts_series *s = &f->series[n];
            double value;
            if (value_of(s, (enum of_series)i, now_ms, &value))
                exposition_real(b, families[i].name, value, "kind", s->kind, "series", s->series,
                                NULL);
        }
    }
    if (f->more_series)
        gauge(b, "drworker_series_untold", "Backups whose series found no place here.",
              f->more_series);
}

static void tell_drills(const struct facts_store *f, struct dr_buf *b, int64_t now_ms)
{
    static const struct {
        const char *name, *help;
    } drill_families[] = {
        {"drworker_drill_rto_seconds",
         "Recovery time of the last drill that measured one; one that "
         "failed leaves it as it was. Absent: none did."},
        {"drworker_drill_rto_target_seconds", "What it shall be at the most."},
        {"drworker_drill_rpo_seconds", "Age of the newest usable backup at the last drill that "
                                       "found one. Absent: none did."},
        {"drworker_drill_rpo_target_seconds", "What it shall be at the most."},
        {"drworker_drill_ok", "1: it restored, and what it restored was what had been backed up."},
        {"drworker_drill_age_seconds", "How long ago the last drill was."},
    };
    for (size_t i = 0; i < sizeof drill_families / sizeof drill_families[0] && f->drill_count;
         i++) {
        exposition_family(b, drill_families[i].name, "gauge", drill_families[i].help);
        for (unsigned n = 0; n < f->drill_count; n++) {
            const struct facts_drill *d = &f->drills[n];
            const double values[] = {(double)d->rto_ms / 1000,
                                     (double)d->rto_target_ms / 1000,
                                     (double)d->rpo_s,
                                     (double)d->rpo_target_s,
                                     d->ok,
                                     age(d->at_ms, now_ms)};
            if (values[i] < 0)
                continue; /* a number that was not measured is none, least of all 0 */
            exposition_real(b, drill_families[i].name, values[i], "procedure", d->procedure, NULL);
        }
    }
}

static void tell_disk(const struct facts_disk *d, struct dr_buf *b)
{
    if (!d->known)
        return;
    gauge(b, "drworker_disk_free_bytes", "Free on the volume of BACKUP_DIRECTORY.", d->free_bytes);
    gauge(b, "drworker_disk_bytes", "Size of that volume.", d->total_bytes);
    gauge(b, "drworker_disk_reserve_bytes", "What is kept for recovery.", d->reserve_bytes);
    if (!d->inodes)
        return;
    gauge(b, "drworker_disk_free_inodes", "Free inodes of that volume.", d->free_inodes);
    gauge(b, "drworker_disk_inodes", "Its inodes.", d->inodes);
    gauge(b, "drworker_disk_reserve_inodes", "What is kept for recovery.", d->reserve_inodes);
}

/* Held against each other: both by the kind of what is protected, whatever backups hold it. */
static void tell_targets(const struct facts *f, const struct dr_config *c, struct dr_buf *b,
                         int64_t now_ms)
{
    static const char *const targets[][2] = {{"database", "DR_RPO_DATABASE_S"},
                                             {"files", "DR_RPO_FILES_S"},
                                             {"config", "DR_RPO_FILES_S"}};
    enum { KINDS = sizeof targets / sizeof targets[0] };
    exposition_family(b, "drworker_recovery_point_target_seconds", "gauge",
                      "How old the newest proven backup of what is protected may be.");
    for (size_t i = 0; i < KINDS; i++)
        if (facts_protects(f, targets[i][0]))
            exposition_uint(b, "drworker_recovery_point_target_seconds",
                            (uint64_t)dr_config_int(c, targets[i][1]), "kind", targets[i][0], NULL);
    exposition_family(b, "drworker_recovery_point_slack_seconds", "gauge",
                      "How far over that target is no alarm yet: ten minutes and twice the time "
                      "that the newest one took.");
    for (size_t i = 0; i < KINDS; i++)
        if (facts_protects(f, targets[i][0]))
            exposition_uint(b, "drworker_recovery_point_slack_seconds",
                            (uint64_t)gates_slack_s(facts_took_ms(&f->store, targets[i][0])),
                            "kind", targets[i][0], NULL);
    exposition_family(b, "drworker_recovery_point_age_seconds", "gauge",
                      "Age of the newest proven backup that holds it; absent: there is none.");
    for (size_t i = 0; i < KINDS; i++) {
        int64_t newest_ms = facts_recovery_point_ms(&f->store, targets[i][0]);
        if (facts_protects(f, targets[i][0]) && newest_ms)
            exposition_real(b, "drworker_recovery_point_age_seconds", age(newest_ms, now_ms),
                            "kind", targets[i][0], NULL);
    }
}

void metrics_write_store(const struct facts *f, const struct dr_config *c, struct dr_buf *b,
                         int64_t now_ms)
{
    const struct facts_store *s = &f->store;
    if (!f->has_store || !s->at_ms)
        return;
    gauge(b, "drworker_store_readable", "1: catalog and journals could be read.", s->ok);
    tell_targets(f, c, b, now_ms);
    tell_series(s, b, now_ms);
    tell_drills(s, b, now_ms);
    tell_disk(&s->disk, b);
    gauge(b, "drworker_catalog_records", "Records of the signed catalog.", s->head_seq);
    if (f->catalog == FACTS_GOOD || f->catalog == FACTS_BAD)
        gauge(b, "drworker_catalog_intact", "1: the last audit found the whole chain intact.",
              f->catalog == FACTS_GOOD);
    if (f->audit == FACTS_GOOD || f->audit == FACTS_BAD) {
        gauge(b, "drworker_audit_intact", "1: the last walk found the whole audit log intact.",
              f->audit == FACTS_GOOD);
        gauge(b, "drworker_audit_records", "Its records at that walk.", f->audit_records);
    }
    if (s->head == FACTS_GOOD || s->head == FACTS_BAD)
        gauge(b, "drworker_catalog_head_current",
              "0: Redis, or this worker, has seen a newer head, or another one.",
              s->head == FACTS_GOOD);
    gauge(b, "drworker_key_slots", "Slots of the keyring.", s->key_slots);
    gauge(b, "drworker_key_slots_proven", "Of them known to open it.", s->key_slots_proven);
    gauge(b, "drworker_recoveries_open", "Recoveries whose journal is open.", s->open_runs);
    exposition_family(b, "drworker_recovery_silence_seconds", "gauge",
                      "Since when the most silent of them has written nothing; 0: none is open.");
    exposition_real(b, "drworker_recovery_silence_seconds",
                    s->open_run_ms ? age(s->open_run_ms, now_ms) : 0, NULL);
}
