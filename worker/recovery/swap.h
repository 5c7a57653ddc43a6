/* Swap of file trees by entries. Each root holds `.dr-<run>` with `new` (the staged tree), `before`
 * (where the old entries are afterwards) and `failed` (what was live in between, after an undo of a
 * committed swap). The plan is a list of pairs: an old entry's inode and a new one's under one
 * name; it stands in a file before the first rename, and after a crash at any rename the inodes
 * tell what happened. Where the file system can exchange names, the staged folder itself becomes
 * `before` and one rename serves both entries; else each moves by itself.
 *
 * A direct entry of a root that is a mount point stays in place. Carried paths (what the backup
 * left out on purpose) move from the old tree into the new one and back with it. One owner;
 * blocking, for pool threads. */
#ifndef DR_WORKER_RECOVERY_SWAP_H
#define DR_WORKER_RECOVERY_SWAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/core/cancel.h"

struct swap;

enum swap_state {
    SWAP_BEFORE, /* nothing has moved */
    SWAP_MIXED,
    SWAP_AFTER, /* every pair is in place in every root */
};

struct swap_spec {
    const char *const *roots; /* absolute, sorted bytewise, NULL-ended */
    const char *run;          /* [a-z2-7]{16} */
    bool create;              /* missing roots are made (0700) */
    bool look;                /* only look: missing roots stay so, nothing is locked or made */
};

/* Opens the roots, and locks `<root>/.dr-lock` of each in order, without waiting. LOCKED names the
 * root; NOT_FOUND; PREFLIGHT when a root is no directory or not writable. The locks go with
 * swap_close. */
enum dr_rc swap_open(const struct swap_spec *spec, struct swap **out,
                     struct dr_err *err) DR_MUST_CHECK;
void swap_close(struct swap *s); /* NULL is allowed */
unsigned swap_count(const struct swap *s);
int swap_root_fd(const struct swap *s, unsigned root);  /* borrowed; -1: missing */
bool swap_created(const struct swap *s, unsigned root); /* by this swap_open */

/* An empty `.dr-<run>/new`, owned by us, 0700, without inherited ACL; leftovers of this run are
 * removed, but a filled `before` is NEEDS_HUMAN. *fd is borrowed. */
enum dr_rc swap_stage(struct swap *s, unsigned root, struct cancel *cancel, int *fd,
                      struct dr_err *err) DR_MUST_CHECK;
const char *swap_root_path(const struct swap *s, unsigned root);
const char *swap_staged_path(const struct swap *s, unsigned root); /* <root>/.dr-<run>/new */
/* The staged trees are on disk. */
enum dr_rc swap_sync(struct swap *s, struct dr_err *err) DR_MUST_CHECK;

/* Whether the renames can work: PREFLIGHT names a mount deeper than a direct entry, a staged entry
 * where a mount is, an entry that may not be moved. */
enum dr_rc swap_check(struct swap *s, struct dr_err *err) DR_MUST_CHECK;

/* The staged entries, so that swap_plan, while the services are down, lists the live ones only.
 * From here on the staged trees do not change. */
enum dr_rc swap_list_staged(struct swap *s, struct dr_err *err) DR_MUST_CHECK;
/* The pairs as the trees stand now. keep_owner: the roots keep the owner they have. */
enum dr_rc swap_plan(struct swap *s, bool keep_owner, struct dr_err *err) DR_MUST_CHECK;
/* After swap_plan: what lies at path (below the root, bytes) is carried. Nothing there in the live
 * tree, or something there in the new one: nothing is done. */
enum dr_rc swap_carry(struct swap *s, unsigned root, const void *path, size_t len,
                      struct dr_err *err) DR_MUST_CHECK;
/* Old entries that lie in `before` of that root, or that went to `failed`: what is kept. */
bool swap_keeps(const struct swap *s, unsigned root, bool failed);
/* Of the folder `new`, `before` or `failed` of that root; 0: there is none. */
uint64_t swap_part_inode(const struct swap *s, unsigned root, const char *part);
uint64_t swap_pairs(const struct swap *s);
uint64_t swap_carried(const struct swap *s);

/* The plan as a text file: written, fsynced, its SHA-256 (hex) told. Load opens and locks the roots
 * it names; INTEGRITY when the hash differs. */
enum dr_rc swap_save(const struct swap *s, int dirfd, const char *name, char sha256[65],
                     struct dr_err *err) DR_MUST_CHECK;
enum dr_rc swap_load(int dirfd, const char *name, const char *sha256, const char *run,
                     struct swap **out, struct dr_err *err) DR_MUST_CHECK;

/* All renames in order, then the roots' metadata, then one syncfs a file system. After an error
 * swap_undo restores. */
enum dr_rc swap_run(struct swap *s, struct dr_err *err) DR_MUST_CHECK;
/* The last part of swap_run again, for who takes over a swap whose renames are all in place. */
enum dr_rc swap_finish(struct swap *s, struct dr_err *err) DR_MUST_CHECK;
/* By inodes; moves nothing. A new entry that is nowhere was live and has been replaced since; an
 * old one that was moved away and is nowhere is NEEDS_HUMAN and named. */
enum dr_rc swap_observe(struct swap *s, enum swap_state *out, struct dr_err *err) DR_MUST_CHECK;
/* From any state back to the old trees, synced; may be called again after it failed. committed:
 * services may have run on the new trees, so everything that is live now goes to `failed`. */
enum dr_rc swap_undo(struct swap *s, bool committed, struct dr_err *err) DR_MUST_CHECK;

/* Removes what is ours and holds nothing that was ever live: `new` and an empty `before`; roots
 * that swap_open created when they are empty otherwise. */
enum dr_rc swap_discard(struct swap *s, struct cancel *cancel, struct dr_err *err) DR_MUST_CHECK;

#endif
