/* A walk over file trees: one tar stream, an `f` record an entry, an `r` a root, an `x` a path that
 * was left out, and the digests of each root (formats 6, formats-bytes 3 and 4).
 *
 * Blocking: for a pool thread. Memory does not grow with the tree, only with the entries of one
 * folder and with the number of files that have several names.
 *
 * Order: root after root; within one, bytewise by path; the `r` records after the last entry of
 * all. A root inside another one is skipped where it is met and walked as itself. Names
 * `.dr-[a-z2-7]{16}` and `.dr-lock` directly in a root are ours and left out without a word,
 * sockets too. Hard links are found within one root. A file is read between two stats: one that
 * changed is read again when it is small, else (and when it goes on changing) gets an `x` "changed"
 * beside its `f`; the tar entry keeps the size of the first look, cut or padded with zeros, and the
 * hash is of the bytes in the tar. A path that is gone when its turn comes gets `x` "changed" and
 * no `f`. An unreadable path fails the walk, or with allow_unreadable gets `x` "unreadable" and no
 * `f`; a file that fails in the middle of a long read gets both, zeros for the rest. */
#ifndef DR_WORKER_PIPE_TREE_H
#define DR_WORKER_PIPE_TREE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/pipe/records.h"
#include "worker/pipe/sink.h"

struct cancel;

enum { TREE_ROOTS_MAX = 256, TREE_PATH_MAX = 65536 };

/* Any may be NULL. A return other than DR_OK ends the walk. */
struct tree_events {
    enum dr_rc (*file)(void *arg, const struct pipe_file *f, struct dr_err *err);
    enum dr_rc (*root)(void *arg, const struct pipe_root *r, struct dr_err *err);
    enum dr_rc (*skipped)(void *arg, const struct pipe_skip *x, struct dr_err *err);
    void *arg;
};

struct tree_spec {
    const char *const *roots;   /* absolute, normalised, sorted bytewise, NULL-ended; not "/" */
    const char *const *at;      /* where root i really lies (a staged tree to be verified); NULL: at
                                   the root itself. With it, mounts are not looked at */
    const char *const *exclude; /* globs (exclude.h), NULL-ended; NULL: none */
    const char *spool_dir;      /* for digests that wait (digest.h); NULL: /var/tmp */
    bool allow_unreadable;
    const struct pipe_sink *tar; /* NULL: no tar, records and digests only */
    struct tree_events on;
    unsigned threads; /* without a tar: that read contents, beside the caller's; then a file that
                         changes is not read again, and events come from other threads, one at a
                         time. At most a few are used; 0: the caller reads */
    struct cancel *cancel;
    _Atomic uint64_t *progress; /* bytes of file content; NULL: not wanted */
};

struct tree_sums {
    uint64_t files;      /* entries with content: f and h */
    uint64_t entries;    /* all `f` records */
    uint64_t bytes;      /* of content, hard links counted once */
    uint64_t skipped;    /* `x` records */
    uint64_t unreadable; /* of these */
    uint64_t changed;    /* of these */
};

/* Errors: PREFLIGHT as tree_check_roots; IO or NO_SPACE naming the path; CANCELLED; what the sink
 * or an event said. After an error the tar is worth nothing. */
enum dr_rc tree_walk(const struct tree_spec *spec, struct tree_sums *out,
                     struct dr_err *err) DR_MUST_CHECK;

/* Roots must be absolute, normalised, sorted, distinct folders, reached without a symbolic link,
 * and nest only at mount points; a mount below a root must be a root itself or excluded. PREFLIGHT
 * names root and mount. Blocking. tree_walk asks it itself unless `at` is given. */
enum dr_rc tree_check_roots(const char *const *roots, const char *const *exclude,
                            struct dr_err *err) DR_MUST_CHECK;

/* A name directly in a root that is ours: `.dr-lock` or `.dr-[a-z2-7]{16}`. */
bool tree_own_name(const char *name);

#endif
