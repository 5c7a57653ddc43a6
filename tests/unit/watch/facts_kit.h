/* Facts by which everything is configured and well, and the limits that they are judged by. */
#ifndef DR_TESTS_FACTS_KIT_H
#define DR_TESTS_FACTS_KIT_H

#include <stdio.h>

#include "worker/watch/gates.h"

static const struct gate_limits kit_limits = {.rpo_database_s = 3600,
                                              .rpo_files_s = 86400,
                                              .rpo_full_s = 86400,
                                              .proof_max_s = 1000,
                                              .drill_max_s = 2000,
                                              .clock_ms = 5000,
                                              .clock_critical_ms = 60000,
                                              .late_s = 300,
                                              .late_critical_s = 3600,
                                              .run_silent_s = 3600};

/* But for the backups: there is none. */
static inline void kit_well(struct facts *f, int64_t now_ms)
{
    f->has_store = f->has_database = f->has_keys = true;
    f->catalog = f->audit = f->database = f->store.head = FACTS_GOOD;
    f->survey_ms = f->survey.now_ms = f->survey.retention_ms = f->store.at_ms = now_ms;
    f->survey.worker_count = 2;
    f->survey.schedule_count = 1;
    f->survey.schedules[0].due_ms = now_ms + 60000;
    f->store.ok = true;
    f->store.key_slots = f->store.key_slots_proven = 2;
    f->store.disk = (struct facts_disk){.known = true,
                                        .free_bytes = 500,
                                        .total_bytes = 1000,
                                        .reserve_bytes = 50,
                                        .free_inodes = 500,
                                        .inodes = 1000,
                                        .reserve_inodes = 50};
    f->store.series_count = 0;
}

/* One backup of that kind, proven and drilled just now. */
static inline struct facts_series *kit_series(struct facts *f, const char *kind, int64_t newest_ms)
{
    unsigned n = f->store.series_count++;
    struct facts_series *s = &f->store.series[n];
    *s = (struct facts_series){.backups = 1,
                               .newest_ms = newest_ms,
                               .newest_proven_ms = newest_ms,
                               .oldest_ms = newest_ms,
                               .oldest_proof_ms = f->store.at_ms - 5000,
                               .drilled_ms = f->store.at_ms - 5000};
    (void)snprintf(s->series, sizeof s->series, "s%u", n);
    (void)snprintf(s->kind, sizeof s->kind, "%s", kind);
    return s;
}

#endif
