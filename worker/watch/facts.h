/* What the worker knows of queue, store and disk: plain data, collected in the background and when
 * `health` asks; gates and metrics only look at it. Loop thread; facts_look_at_store is for pool
 * threads, on a struct of its own. Times are unix milliseconds of this host unless they say so. */
#ifndef DR_WORKER_WATCH_FACTS_H
#define DR_WORKER_WATCH_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/backup/manifest.h"
#include "worker/queue/survey.h"

struct store;
struct store_entry;
struct dr_config;

enum { FACTS_SERIES = 64, FACTS_DRILLS = 8, FACTS_WHY = 160 };

/* Of one series, what is kept; damaged manifests are counted by kind alone. */
struct facts_series {
    char series[MANIFEST_SERIES_MAX + 1], kind[12];
    uint64_t backups, stored_bytes;   /* tombstoned ones not counted */
    uint64_t pinned, tombstoned, bad; /* bad: damaged, or proven to be */
    int64_t newest_ms;                /* consistent point of the newest backup; 0: none */
    int64_t newest_proven_ms;         /* of the newest one that was proven; 0: none */
    int64_t newest_took_ms;           /* from that point to the end of its run */
    int64_t oldest_proof_ms; /* least recent proof among the kept; 0: one was never proven */
    int64_t drilled_ms;      /* last drill of any of them; 0: never */
    int64_t oldest_ms;       /* consistent point of the oldest kept */
    uint64_t newest_plain_bytes, newest_stored_bytes;
};

struct facts_drill { /* the newest drill of a procedure */
    char procedure[40];
    bool ok;
    int64_t at_ms, rto_target_ms, rpo_target_s;
    /* Of the newest one that measured it: one that failed says nothing, and does not take back what
     * was known. -1: none did. */
    int64_t rto_ms, rpo_s;
};

struct facts_disk {
    bool known;
    uint64_t free_bytes, total_bytes, reserve_bytes;
    uint64_t free_inodes, inodes, reserve_inodes; /* inodes 0: that file system has no count */
};

enum facts_found { FACTS_NOT_CONFIGURED, FACTS_UNKNOWN, FACTS_GOOD, FACTS_BAD };

struct facts_store {
    int64_t at_ms; /* 0: never looked */
    bool ok;
    char why[FACTS_WHY]; /* of not ok */
    struct facts_series series[FACTS_SERIES];
    unsigned series_count;
    uint64_t more_series; /* that found no place */
    struct facts_drill drills[FACTS_DRILLS];
    unsigned drill_count;
    uint64_t head_seq;
    char head_sha256[65];
    /* The head that Redis had seen before the disk was looked at, and what it says of the disk's.
     * seen_seq 0: none. */
    uint64_t seen_seq;
    char seen_sha256[65], seen_store[33];
    enum facts_found head;
    char head_why[FACTS_WHY];
    unsigned key_slots, key_slots_proven;
    unsigned open_runs;
    int64_t open_run_ms; /* last record of the open run that is silent the longest; 0: none */
    struct facts_disk disk;
    int64_t head_mtime_ns, listed_ms; /* when the catalog was read last, and of what age it was */
};

struct facts {
    /* queue */
    int64_t survey_ms; /* 0: never answered */
    struct survey survey;
    int64_t oldest_ms[SURVEY_LANES]; /* since when the next in line waits; 0: nothing waits */
    /* store and disk */
    bool has_store;
    struct facts_store store;
    /* what only `health` looks at */
    enum facts_found catalog, audit, database;
    int64_t catalog_ms;
    char catalog_why[FACTS_WHY], audit_why[FACTS_WHY], database_why[FACTS_WHY];
    unsigned unrecorded, trash_unknown; /* folders of backups/ and trash/ without a record */
    uint64_t audit_records;
    /* configuration */
    bool has_database, has_files, has_config_files, allow_unsigned, has_keys, has_offsite;
    char schedule[72]; /* hash of our own schedule, as in wk:<wid>; "": unknown */
};

void facts_configure(struct facts *f, const struct dr_config *c);
/* Takes a new survey; what waits next keeps its time where it is the same message as before. */
void facts_take_survey(struct facts *f, const struct survey *s, int64_t now_ms);
/* Backups, keys, open runs, disk, the head against f->seen_*. was: what stands in f from the last
 * look; the catalog is read again only when its head changed, or after five minutes. Blocking. */
void facts_look_at_store(struct store *s, const struct dr_config *c, struct facts_store *f);
/* A full backup holds what backups of the other kinds hold. kind NULL: all. */
bool facts_holds(const struct facts_series *s, const char *kind);
/* Consistent point of the newest proven backup that holds the kind; 0: there is none. */
int64_t facts_recovery_point_ms(const struct facts_store *f, const char *kind);
/* How long that one took; 0: there is none. */
int64_t facts_took_ms(const struct facts_store *f, const char *kind);
/* The kinds that something protects: database, files, config. */
bool facts_protects(const struct facts *f, const char *kind);
/* Kept, but its manifest is not believed, or its last proof failed. */
bool facts_is_damaged(const struct store_entry *e);
/* Pure: the series of a list of backups. */
void facts_fold(struct facts_store *f, const struct store_entry *list, size_t count);

#endif
