/* The retention plan: which backups are kept, which are given up, and every reason for it. Pure: no
 * clock, no disk, no locks; the same input gives the same plan in any order of its items. Any
 * thread; a plan has one owner. Source: formats.md 4, anchors/dr.md 2.
 *
 * The ladder is restic's `forget --keep-within-*`: of each hour, day, ISO week, month and year
 * inside its range the newest backup is kept. Around it stand rules that only ever keep more: the
 * valid scheduled backups of a series that the ladder would keep alone are always kept. Manual and
 * critical backups go up ladders of their own, so that neither class displaces another's.
 *
 * Two phases: plan the live backups, tombstone what it gives up; later plan live and tombstoned
 * ones together and purge, after the grace time, the tombstoned ones which that plan gives up as
 * well. */
#ifndef DR_WORKER_BACKUP_RETAIN_H
#define DR_WORKER_BACKUP_RETAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/err.h"

struct store_entry;

enum {
    RETAIN_HASH_TEXT = 65,
    RETAIN_POLICY_TEXT_MAX = 1024,
    RETAIN_DIAGNOSIS_DAYS = 7, /* what is not valid is kept for so long */
    RETAIN_SETTLED_DAYS = 7    /* deletions of younger ones want no confirmation */
};

struct retain_policy { /* RETENTION_*, see options.def for ranges */
    int hourly_hours, daily_days, weekly_weeks, monthly_months, yearly_years; /* 0: rule off */
    int critical_days, min_keep, grace_hours, max_delete, clock_skew_s;
    bool keep_oldest;
    char tz[65];
};
/* CONFIG with name, value and range: a rule is malformed, or all five are 0. warning: "" or a
 * sentence (a rule that a coarser one makes useless); may be NULL. The zone's name is not opened.
 */
enum dr_rc retain_policy_read(const struct dr_config *c, struct retain_policy *out,
                              char warning[160], struct dr_err *err) DR_MUST_CHECK;
/* Its values as the plan hash holds them: `NAME=value\n`, sorted. */
void retain_policy_text(const struct retain_policy *p, struct dr_buf *out);

/* retain_words.def: every reason, in the order in which they are told. */
enum retain_reason {
#define RETAIN_WORD(name, word, side, help) RETAIN_##name,
#include "worker/backup/retain_words.def"
#undef RETAIN_WORD
    RETAIN_REASONS
};
typedef uint64_t retain_mask; /* 1 << reason */
#define RETAIN_BIT(name) ((retain_mask)1 << RETAIN_##name)
const char *retain_word(enum retain_reason r);
/* `["daily","minimum"]` */
void retain_words_json(retain_mask m, struct dr_buf *out);

enum retain_class { RETAIN_SCHEDULED, RETAIN_MANUAL, RETAIN_CRITICAL, RETAIN_EMERGENCY };
enum retain_proof {
    RETAIN_UNPROVEN, /* never read back, partial, or its record is missing */
    RETAIN_PROVEN,   /* read back when it was made */
    RETAIN_DEEP,     /* and proven again since, from the disk or by a drill */
    RETAIN_DAMAGED   /* the last proof failed */
};

struct retain_item {
    const char *id;     /* borrowed, unique, no control characters */
    const char *series; /* borrowed; never mixed. "": unknown, then never given up */
    const char *source; /* borrowed; server's identity and major version, or NULL; the last of each
                           in a series is kept */
    int64_t t_ms;       /* its consistent point */
    int64_t end_ms;     /* when it was complete; 0: as t_ms */
    uint64_t seq;       /* order of recording in the series; 0: unknown */
    uint64_t bytes;     /* stored */
    int64_t drilled_ms; /* last drill that passed; 0: none */
    int64_t held_until_ms; /* legal hold, lock of the storage; 0: none */
    enum retain_class class;
    enum retain_proof proof;
    bool offsite;                 /* confirmed off-site */
    bool pinned, leased, journal; /* by a person; being read; named by an open recovery */
    bool suspect;                 /* good by hash, but something was not read or not restored */
    bool frozen;              /* something is wrong with its series: nothing of it is given up */
    bool acknowledged;        /* a person has seen that its time is wrong: no alarm any more */
    const char *const *bases; /* borrowed: ids of backups whose chunks it needs */
    size_t base_count;
};

struct retain_verdict {
    bool keep;
    bool confirm;        /* given up only by a confirmed plan hash */
    retain_mask reasons; /* at least one */
};

struct retain_input {
    const struct retain_policy *policy;
    const struct retain_item *items;
    size_t count;
    int64_t now_ms;
    int32_t (*offset)(const void *zone, int64_t utc_s); /* seconds east of UTC; NULL: UTC */
    const void *zone;
    bool offsite_configured;
    bool clock_wrong;           /* the host's clock is not to be trusted: nothing is given up */
    const char *applied_policy; /* retain_policy_text of the last plan applied; NULL: none yet */
};

struct retain_plan {
    size_t count, kept, given_up;
    struct retain_verdict *verdicts; /* of each item, in their order */
    bool needs_confirmation;         /* some verdict has confirm */
    retain_mask confirm;             /* why: words of side C */
    uint64_t delete_bytes;
    char hash[RETAIN_HASH_TEXT];
};
/* INVALID: an id twice, or one with a control character. */
enum dr_rc retain_plan(const struct retain_input *in, struct retain_plan **out,
                       struct dr_err *err) DR_MUST_CHECK;
void retain_plan_free(struct retain_plan *p);
/* The hash of a plan that gives up these; ids are sorted in place. */
enum dr_rc retain_plan_hash(const struct retain_policy *policy, const char **ids, size_t n,
                            char out[RETAIN_HASH_TEXT], struct dr_err *err) DR_MUST_CHECK;

/* What the catalog knows of a backup; the rest (leased, journal, bases, ..) is the caller's.
 * Borrows from e. A backup whose manifest is not believed has no series: it is never given up. */
void retain_item_of(const struct store_entry *e, struct retain_item *out);

#endif
