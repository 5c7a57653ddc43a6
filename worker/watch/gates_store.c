/* The gates of what lies in the store. */
#include <stdio.h>
#include <string.h>

#include "worker/watch/gates_internal.h"

enum { SLACK_S = 600 };
enum { WEIGHT_BACKUP = 4, WEIGHT_PROOF = 3 };

/* What is kept of one kind, over all its series. */
struct kind {
    uint64_t backups, bad;
    int64_t oldest_proof_ms, oldest_ms, drilled_ms;
};

static struct kind fold_kind(const struct facts_store *s, const char *name)
{
    struct kind k = {0};
    for (unsigned i = 0; i < s->series_count; i++) {
        const struct facts_series *one = &s->series[i];
        if (!facts_holds(one, name))
            continue;
        k.bad += one->bad;
        if (one->drilled_ms > k.drilled_ms)
            k.drilled_ms = one->drilled_ms;
        if (!one->backups)
            continue;
        int64_t proof_ms = one->oldest_proof_ms ? one->oldest_proof_ms : one->oldest_ms;
        if (!k.backups || proof_ms < k.oldest_proof_ms)
            k.oldest_proof_ms = proof_ms;
        if (!k.backups || one->oldest_ms < k.oldest_ms)
            k.oldest_ms = one->oldest_ms;
        k.backups += one->backups;
    }
    return k;
}

/* A rhythm as long as the RPO passes it for as long as each backup takes, which is worth no call:
 * one that is read back, too, and that takes somewhat longer than the last one. */
int64_t gates_slack_s(int64_t took_ms)
{
    return SLACK_S + 2 * took_ms / 1000;
}

/* Over the limit is a warning, over twice the limit critical. */
static void judge_age(struct gate *at, int64_t newest_ms, int64_t took_ms, int64_t now_ms,
                      int64_t rpo_s)
{
    char age[GATE_SPAN], limit[GATE_SPAN];
    int64_t age_s = newest_ms < now_ms ? (now_ms - newest_ms) / 1000 : 0;
    gate_measure(at, age_s, rpo_s, "s");
    at->slack = gates_slack_s(took_ms);
    gate_span(age_s, age);
    gate_span(rpo_s, limit);
    gate_is(at,
            age_s > 2 * rpo_s ? GATE_CRITICAL
            : age_s > rpo_s   ? GATE_WARNING
                              : GATE_OK,
            "the newest proven one is %s old, RPO is %s", age, limit);
}

/* Of a store that cannot be read nothing is known of its backups. */
static void cannot_read(const struct facts *f, struct gate *at)
{
    at->unseen = true;
    gate_is(at, GATE_CRITICAL, "the store cannot be read: %s", f->store.why);
}

static void judge_kind(const struct facts *f, const char *name, const char *kind, int64_t rpo_s,
                       int64_t now_ms, struct gates *g)
{
    struct gate *at = gate_add(g, name, WEIGHT_BACKUP);
    int64_t newest_ms = facts_recovery_point_ms(&f->store, kind);
    if (!f->has_store)
        gate_is(at, GATE_NOT_CONFIGURED, "BACKUP_DIRECTORY is not set");
    else if (!facts_protects(f, kind))
        gate_is(at, GATE_NOT_CONFIGURED, "nothing of the kind %s is protected", kind);
    else if (!f->store.ok)
        cannot_read(f, at);
    else if (!newest_ms)
        gate_is(at, GATE_CRITICAL, "there is no proven backup");
    else
        judge_age(at, newest_ms, facts_took_ms(&f->store, kind), now_ms, rpo_s);
}

/* A full recovery goes back to the oldest of what it needs. */
static void judge_full(const struct facts *f, const struct gate_limits *l, int64_t now_ms,
                       struct gates *g)
{
    static const char *const kinds[] = {"database", "files", "config"};
    struct gate *at = gate_add(g, "backup-full", WEIGHT_BACKUP);
    int64_t oldest_ms = 0, took_ms = 0;
    unsigned configured = 0, there = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int64_t newest_ms = facts_recovery_point_ms(&f->store, kinds[i]);
        if (!facts_protects(f, kinds[i]))
            continue;
        configured++;
        if (!newest_ms || (there++ && newest_ms >= oldest_ms))
            continue;
        oldest_ms = newest_ms;
        took_ms = facts_took_ms(&f->store, kinds[i]);
    }
    if (!f->has_store || !configured)
        gate_is(at, GATE_NOT_CONFIGURED, "nothing is protected");
    else if (!f->store.ok)
        cannot_read(f, at);
    else if (there < configured)
        gate_is(at, GATE_CRITICAL, "a part of the system has no proven backup");
    else
        judge_age(at, oldest_ms, took_ms, now_ms, l->rpo_full_s);
}

static void judge_proof(const struct facts *f, const struct gate_limits *l, int64_t now_ms,
                        struct gates *g)
{
    struct gate *at = gate_add(g, "proof", WEIGHT_PROOF);
    struct kind all = fold_kind(&f->store, NULL);
    char age[GATE_SPAN];
    if (!f->has_store || (!all.backups && !all.bad)) {
        gate_is(at, GATE_NOT_CONFIGURED, "there is no backup to prove");
        return;
    }
    if (all.bad) {
        gate_measure(at, (int64_t)all.bad, 0, "backups");
        gate_is(at, GATE_CRITICAL, "%llu damaged", (unsigned long long)all.bad);
        return;
    }
    int64_t age_s = all.oldest_proof_ms < now_ms ? (now_ms - all.oldest_proof_ms) / 1000 : 0;
    gate_measure(at, age_s, l->proof_max_s, "s");
    gate_span(age_s, age);
    gate_is(at,
            age_s > 2 * l->proof_max_s ? GATE_CRITICAL
            : age_s > l->proof_max_s   ? GATE_WARNING
                                       : GATE_OK,
            "the oldest proof is %s old", age);
}

/* No drill is no proof of restorability: forgiven only as long as the backups are young. */
static enum gate_status drill_of(const struct kind *k, const struct gate_limits *l, int64_t now_ms,
                                 int64_t *age_s)
{
    int64_t since_ms = k->drilled_ms ? k->drilled_ms : k->oldest_ms;
    *age_s = since_ms < now_ms ? (now_ms - since_ms) / 1000 : 0;
    if (!k->drilled_ms)
        return *age_s > l->drill_max_s ? GATE_CRITICAL : GATE_WARNING;
    return *age_s > 2 * l->drill_max_s ? GATE_CRITICAL
           : *age_s > l->drill_max_s   ? GATE_WARNING
                                       : GATE_OK;
}

/* What the last drills themselves found; GATE_OK: nothing. */
static enum gate_status drill_found(const struct facts_store *s, const struct facts_drill **which)
{
    enum gate_status worst = GATE_OK;
    for (unsigned i = 0; i < s->drill_count; i++) {
        const struct facts_drill *d = &s->drills[i];
        bool late = d->rto_ms > d->rto_target_ms || d->rpo_s > d->rpo_target_s;
        enum gate_status is = !d->ok ? GATE_CRITICAL : late ? GATE_WARNING : GATE_OK;
        if (is > worst) {
            worst = is;
            *which = d;
        }
    }
    return worst;
}

static void judge_drill(const struct facts *f, const struct gate_limits *l, int64_t now_ms,
                        struct gates *g)
{
    static const char *const kinds[] = {"database", "files"}; /* that a procedure restores */
    struct gate *at = gate_add(g, "drill", WEIGHT_PROOF);
    const struct facts_drill *found = NULL;
    enum gate_status worst = GATE_NOT_CONFIGURED;
    char age[GATE_SPAN];
    for (size_t i = 0; f->has_store && i < sizeof kinds / sizeof kinds[0]; i++) {
        struct kind k = fold_kind(&f->store, kinds[i]);
        int64_t age_s;
        if (!k.backups)
            continue;
        enum gate_status is = drill_of(&k, l, now_ms, &age_s);
        if (is < worst || (is == worst && age_s <= at->value))
            continue;
        worst = is;
        gate_measure(at, age_s, l->drill_max_s, "s");
        gate_span(age_s, age);
        gate_is(at, is,
                k.drilled_ms ? "the last drill of %s was %s ago"
                             : "no backup of %s was ever restored for a test; the oldest is %s old",
                kinds[i], age);
    }
    /* A drill that found the only backup damaged is told, though none is left to rehearse with. */
    bool told = drill_found(&f->store, &found) > worst && found;
    if (told && (worst != GATE_NOT_CONFIGURED || !found->ok))
        gate_is(at, found->ok ? GATE_WARNING : GATE_CRITICAL,
                found->ok ? "the last drill of %s missed its RTO or RPO"
                          : "the last drill of %s failed",
                found->procedure);
    else if (worst == GATE_NOT_CONFIGURED)
        gate_is(at, worst, "there is no backup to rehearse with");
}

static void judge_catalog(const struct facts *f, struct gates *g)
{
    struct gate *at = gate_add(g, "catalog", WEIGHT_PROOF);
    switch (f->catalog) {
    case FACTS_NOT_CONFIGURED:
        gate_is(at, GATE_NOT_CONFIGURED, "BACKUP_DIRECTORY is not set");
        break;
    case FACTS_UNKNOWN:
        gate_is(at, GATE_WARNING, "its chain was not looked at%s%s", f->catalog_why[0] ? ": " : "",
                f->catalog_why);
        break;
    case FACTS_BAD:
        gate_is(at, GATE_CRITICAL, "%s", f->catalog_why);
        break;
    case FACTS_GOOD:
        gate_measure(at, (int64_t)f->unrecorded + f->trash_unknown, 0, "backups");
        if (f->unrecorded && f->trash_unknown)
            gate_is(at, GATE_WARNING, "%u in backups/ and %u in trash/ have no record",
                    f->unrecorded, f->trash_unknown);
        else if (f->unrecorded)
            gate_is(at, GATE_WARNING, "%u backups lie in the store without a record",
                    f->unrecorded);
        else if (f->trash_unknown)
            gate_is(at, GATE_WARNING,
                    "%u in trash/ have no record: nothing purges them, look and remove them",
                    f->trash_unknown);
        else
            gate_is(at, GATE_OK, "the chain of %llu records is intact",
                    (unsigned long long)f->store.head_seq);
        break;
    }
}

/* A chain that nobody could look at is neither whole nor broken. */
static void judge_audit(const struct facts *f, struct gates *g)
{
    struct gate *at = gate_add(g, "audit", WEIGHT_PROOF);
    if (f->audit == FACTS_NOT_CONFIGURED)
        gate_is(at, GATE_NOT_CONFIGURED, "BACKUP_DIRECTORY is not set");
    else if (f->audit == FACTS_UNKNOWN)
        gate_is(at, GATE_WARNING, "its chain was not looked at%s%s", f->audit_why[0] ? ": " : "",
                f->audit_why);
    else
        gate_measure(at, (int64_t)f->audit_records, 0, "records");
    if (f->audit == FACTS_BAD)
        gate_is(at, GATE_CRITICAL, "%s", f->audit_why);
    if (f->audit == FACTS_GOOD)
        gate_is(at, GATE_OK, "the chain of %llu records is intact, its head signed",
                (unsigned long long)f->audit_records);
}

static void judge_head(const struct facts *f, struct gates *g)
{
    static const enum gate_status means[] = {GATE_NOT_CONFIGURED, GATE_WARNING, GATE_OK,
                                             GATE_CRITICAL};
    struct gate *at = gate_add(g, "catalog-head", WEIGHT_PROOF);
    const struct facts_store *s = &f->store;
    if (!f->has_store) {
        gate_is(at, GATE_NOT_CONFIGURED, "BACKUP_DIRECTORY is not set");
        return;
    }
    if (s->head == FACTS_GOOD || s->head == FACTS_BAD)
        gate_measure(at, (int64_t)s->head_seq, (int64_t)s->seen_seq, "records");
    gate_is(at, means[s->head], "%s%s", s->head_why,
            s->head == FACTS_BAD ? ": the store was put back" : "");
}

static void judge_room(const struct facts *f, bool inodes, struct gates *g)
{
    const struct facts_disk *d = &f->store.disk;
    struct gate *at = gate_add(g, inodes ? "inodes" : "disk", 2);
    uint64_t free_now = inodes ? d->free_inodes : d->free_bytes,
             total = inodes ? d->inodes : d->total_bytes,
             reserve = inodes ? d->reserve_inodes : d->reserve_bytes;
    if (!f->has_store || !d->known || !total) {
        gate_is(at, GATE_NOT_CONFIGURED, "%s",
                f->has_store ? "that file system does not tell" : "BACKUP_DIRECTORY is not set");
        return;
    }
    gate_measure(at, (int64_t)free_now, (int64_t)reserve, inodes ? "inodes" : "bytes");
    gate_is(at,
            free_now < reserve       ? GATE_CRITICAL
            : free_now / 2 < reserve ? GATE_WARNING
                                     : GATE_OK,
            "%.1f %% free, %.1f %% are kept for recovery%s",
            100.0 * (double)free_now / (double)total, 100.0 * (double)reserve / (double)total,
            free_now < reserve ? ": backups are refused" : "");
}

static void judge_keys(const struct facts *f, struct gates *g)
{
    struct gate *at = gate_add(g, "key-slots", 2);
    const struct facts_store *s = &f->store;
    if (!f->has_store) {
        gate_is(at, GATE_NOT_CONFIGURED, "BACKUP_DIRECTORY is not set");
        return;
    }
    gate_measure(at, s->key_slots_proven, 2, "slots");
    if (s->key_slots_proven >= 2)
        gate_is(at, GATE_OK, "%u of %u slots are known to open the keyring", s->key_slots_proven,
                s->key_slots);
    else if (s->key_slots < 2)
        gate_is(at, GATE_WARNING,
                "one lost passphrase loses everything: `drworker keys add-recovery`");
    else
        gate_is(at, GATE_WARNING,
                "%u of %u slots is known to open the keyring: a drill with the recovery code "
                "proves the other",
                s->key_slots_proven, s->key_slots);
}

static void judge_runs(const struct facts *f, const struct gate_limits *l, int64_t now_ms,
                       struct gates *g)
{
    struct gate *at = gate_add(g, "open-runs", 2);
    const struct facts_store *s = &f->store;
    char age[GATE_SPAN];
    if (!f->has_store) {
        gate_is(at, GATE_NOT_CONFIGURED, "BACKUP_DIRECTORY is not set");
        return;
    }
    int64_t silent_s =
        s->open_run_ms && s->open_run_ms < now_ms ? (now_ms - s->open_run_ms) / 1000 : 0;
    gate_measure(at, silent_s, l->run_silent_s, "s");
    gate_span(silent_s, age);
    if (!s->open_runs)
        gate_is(at, GATE_OK, "no recovery is under way");
    else
        gate_is(at, silent_s > l->run_silent_s ? GATE_CRITICAL : GATE_OK,
                "%u under way; one of them has written nothing for %s", s->open_runs, age);
}

void gates_judge_store(const struct facts *f, const struct gate_limits *l, int64_t now_ms,
                       struct gates *out)
{
    judge_kind(f, "backup-database", "database", l->rpo_database_s, now_ms, out);
    judge_kind(f, "backup-files", "files", l->rpo_files_s, now_ms, out);
    judge_kind(f, "backup-config", "config", l->rpo_files_s, now_ms, out);
    judge_full(f, l, now_ms, out);
    judge_proof(f, l, now_ms, out);
    judge_drill(f, l, now_ms, out);
    judge_catalog(f, out);
    judge_audit(f, out);
    judge_head(f, out);
    judge_room(f, false, out);
    judge_room(f, true, out);
    judge_keys(f, out);
    judge_runs(f, l, now_ms, out);
}
