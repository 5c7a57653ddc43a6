/* What the parts of the swap share: roots with their fds, the list of pairs. */
#ifndef DR_WORKER_RECOVERY_SWAP_INTERNAL_H
#define DR_WORKER_RECOVERY_SWAP_INTERNAL_H

#include <stdint.h>
#include <sys/stat.h>

#include "worker/recovery/swap.h"

enum swap_pair_kind {
    PAIR_ENTRY, /* old entry of the root to before, new one into the root */
    PAIR_STAY,  /* a carried direct entry: it stays where it is */
    PAIR_CARRY  /* a carried path below a direct entry: from the old one's tree to the new one's */
};

struct swap_pair {
    char *name; /* below the root */
    unsigned root;
    enum swap_pair_kind kind;
    uint64_t old_ino, new_ino;   /* 0: none */
    uint32_t old_mode, new_mode; /* st_mode: a directory must be writable to be moved */
};

enum { SWAP_ROOTS_MAX = 256 };

struct swap_names { /* direct entries of a folder, sorted */
    struct swap_name {
        char *text;
        uint64_t ino;
        uint32_t mode; /* but for folders only the type is sure */
    } * list;
    size_t count, cap;
};

struct swap_side { /* metadata of a root */
    uint32_t mode, uid, gid;
    int64_t mtime_ns;
};

struct swap_root {
    char *path, *staged;
    int fd, lock, ours, fresh, before, failed; /* -1: not open */
    bool created;
    struct swap_side old_side, new_side;
    struct swap_names ahead; /* staged entries that were listed before they are planned */
    size_t first, count;     /* its entry pairs, sorted by name */
};

struct swap {
    char run[20], ours_name[24];
    struct swap_root *roots;
    unsigned count;
    struct swap_pair *pairs; /* entries of all roots, then carried paths */
    size_t pair_count, pair_cap, carried;
};

/* One folder a root, opened where it is there: *fd -1 otherwise. */
enum dr_rc swap_open_part(const struct swap_root *r, const char *name, int *fd,
                          struct dr_err *err) DR_MUST_CHECK;
enum dr_rc swap_make_part(const struct swap_root *r, const char *name, int *fd,
                          struct dr_err *err) DR_MUST_CHECK;
struct swap_pair *swap_add_pair(struct swap *s, unsigned root, enum swap_pair_kind kind,
                                const char *name);
void swap_drop_pairs(struct swap *s);
/* The entry pair that a carried path lies below; NULL: the path's first part is no pair. */
struct swap_pair *swap_find_entry(const struct swap *s, unsigned root, const char *path);
void swap_drop_names(struct swap_names *n);
/* The direct entries of the live root without ours and mount points, NULL-ended. */
enum dr_rc swap_live_names(const struct swap_root *r, char ***out,
                           struct dr_err *err) DR_MUST_CHECK;
void swap_free_names(char **names);
/* Inodes under the name of a pair in the folders of its root; 0: nothing is there. */
struct swap_look {
    uint64_t home, before, fresh, failed;
};
/* Whether a directory entry tells the inode that stat tells (mount points apart). */
bool swap_lists_inodes(int dir);
/* By stat; what is live in its place is not looked for elsewhere. */
struct swap_look swap_look_at(const struct swap *s, const struct swap_pair *p);
/* All pairs at once, an array as long as s->pairs; paths that are carried are left 0. */
enum dr_rc swap_look_all(const struct swap *s, struct swap_look **out,
                         struct dr_err *err) DR_MUST_CHECK;
/* Opens the parent of a path below dir without following anything: -1 with errno. *last points
 * into path. */
int swap_open_parent(int dir, const char *path, const char **last);
/* The roots of a run, as swap_open; paths are copied. */
enum dr_rc swap_open_roots(struct swap *s, const struct swap_spec *spec,
                           struct dr_err *err) DR_MUST_CHECK;
struct swap *swap_new(const char *run);
struct timespec swap_time(int64_t ns);
struct swap_side swap_side_of(const struct stat *st);

/* swap_file.c: reads a plan into pairs, and paths (SWAP_ROOTS_MAX + 1 slots, freed by the caller)
 * and sides of its roots; changes text. false: it is none. */
bool swap_file_parse(struct swap *s, char *text, char **paths, struct swap_root *roots);

/* The plan of a run, nothing opened or locked: whether each entry of `before` is one that the plan
 * moved there from that root. odd: the name of one that is not, "" when all are. */
struct swap_plan_file {
    int dirfd;
    const char *name, *sha256, *run;
};
enum dr_rc swap_find_odd(const struct swap_plan_file *file, const char *root, int before,
                         char odd[256], struct dr_err *err) DR_MUST_CHECK;

/* prune.c: a tree with whatever modes it has, however deep; what is not there is removed. REFUSED:
 * something is mounted in it. freed: bytes of its files are added; may be NULL. */
enum dr_rc prune_tree(int dir, const char *name, struct cancel *cancel,
                      struct dr_err *err) DR_MUST_CHECK;
enum dr_rc prune_counted(int dir, const char *name, uint64_t *freed, struct cancel *cancel,
                         struct dr_err *err) DR_MUST_CHECK;

#endif
