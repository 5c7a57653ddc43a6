/* Shared by the steps of file_system_recovery. Not for other folders. */
#ifndef DR_WORKER_RECOVERY_FS_INTERNAL_H
#define DR_WORKER_RECOVERY_FS_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "worker/backup/index.h"
#include "worker/backup/prove.h"
#include "worker/recovery/procedure.h"
#include "worker/recovery/swap.h"

enum { FS_OWNERS_MAX = 256, FS_NAMES_MAX = 20, FS_SKIPS_MAX_BYTES = 64 << 20 };

struct fs_root {
    char *path; /* absolute */
    bool mount; /* was a mount point */
    unsigned char content[32], meta[32];
    uint64_t entries, bytes; /* of the backup */
};

/* Which paths the backup knows, 16 bytes each: hash of the path, hash of type, size and mtime. Only
 * for dry runs and keep_newer. */
struct fs_known {
    uint64_t *slots; /* pairs; path hash 0: free */
    size_t count, cap;
    unsigned char key[16];
};

struct fs_loss { /* what a dry run finds in live */
    uint64_t changed, added, returning, bytes, live_entries;
    uint64_t carried; /* excluded, unreadable or (keep_newer) unknown: they stay */
    char *names[FS_NAMES_MAX];
    unsigned name_count;
};

struct fs {
    /* From the index, while the backup is proven. */
    struct fs_root *roots; /* sorted bytewise */
    unsigned root_count;
    char **skips; /* excluded or unreadable, absolute; NULL-ended once read */
    size_t skip_count, skip_cap, skip_bytes;
    uint64_t entries, files, bytes;
    uint32_t uids[FS_OWNERS_MAX], gids[FS_OWNERS_MAX];
    unsigned uid_count, gid_count;
    bool owners_many, has_capability;
    char device[256]; /* the first device node; "": none */
    bool wants_known;
    struct fs_known known;
    /* The target. */
    bool ignore_owner;
    const char **paths; /* of roots, NULL-ended; borrowed texts */
    struct swap *swap;
    bool live_lost;    /* no root is there: nothing to protect */
    bool live_damaged; /* it could not be backed up */
    bool committed;    /* services may have seen the new trees */
    struct prove_sums proven;
    uint64_t prove_ms, stage_ms, verified_files, verified_bytes;
    struct fs_loss loss;
    /* A drill's own: the scratch folder, and the smallest file with content. */
    struct staging *scratch;
    const char **at; /* scratch roots, or those of an exercise, NULL-ended; NULL: the roots */
    char *probe_path;
    uint64_t probe_size;
    unsigned char probe_sha256[32];
    char *report; /* dry run: msgpack pairs */
    size_t report_len;
    unsigned report_pairs;
};

struct fs *fs_of(struct recovery *r);

/* fs_drill.c: a drill's scratch trees, in pool threads but for the steps. */
enum dr_rc fs_drill_begin(struct recovery *r, struct dr_err *err) DR_MUST_CHECK; /* the intent */
enum dr_rc fs_drill_open(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;  /* f->at */
/* What live would have a recovery refused for; goes to r->obstacle. */
void fs_drill_look(struct recovery *r);
/* Removes what the journal says that a dead drill made. */
enum dr_rc fs_drill_sweep(struct recovery *r, struct cancel *cancel,
                          struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_drill_self_test(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_drill_remove(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
void fs_drill_evidence(struct recovery *r, json_t *into, json_t *lists);
void fs_drill_fini(struct fs *f);

/* fs_exercise.c: the roots of an exercise, made where they are missing (f->at). Pool thread. */
enum dr_rc fs_exercise_open(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;

/* fs_index.c: what the index says. */
enum dr_rc fs_index_record(void *arg, const char *object, const struct index_record *rec,
                           struct dr_err *err);
enum dr_rc fs_index_end(struct recovery *r, struct cancel *cancel,
                        struct dr_err *err) DR_MUST_CHECK; /* all roots are known now */
void fs_index_fini(struct fs *f);
bool fs_index_skips(const struct fs *f, const char *path); /* path: absolute */

/* fs_known.c */
void fs_known_add(struct fs_known *k, const struct pipe_file *f);
enum fs_match { FS_UNKNOWN, FS_CHANGED, FS_SAME };
enum fs_match fs_known_find(const struct fs_known *k, const char *path, const struct stat *st);
void fs_known_fini(struct fs_known *k);

/* fs_walk.c: what lies in a root now: names and stats only. Our own names, mounts and sockets are
 * left out. visit gets the path below the root and says whether to go into a directory. */
struct fs_walk {
    int fd; /* of the root */
    const char *root;
    enum dr_rc (*visit)(void *arg, const char *path, const struct stat *st, bool *into,
                        struct dr_err *err);
    void *arg;
    struct cancel *cancel;
};
enum dr_rc fs_walk(const struct fs_walk *w, struct dr_err *err) DR_MUST_CHECK;

/* Steps; their names begin with their file's. All in a fiber, the work in the pool. */
enum dr_rc fs_preflight(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_stage(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_stage_verify(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
/* A root as it was read again against the one of the backup. */
enum dr_rc fs_stage_compare(const struct fs_root *root, const struct pipe_root *found,
                            bool ignore_owner, struct dr_err *err) DR_MUST_CHECK;
/* Undo of fs_stage: removes what never was live. */
enum dr_rc fs_stage_undone(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_swap_quiesce(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_swap_release(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_swap(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_swap_back(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_after_start(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_after_check(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
void fs_after_keep(struct recovery *r, bool failed);
enum dr_rc fs_settle(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc fs_report(struct recovery *r, struct dr_err *err) DR_MUST_CHECK;

#endif
