/* Restores a tar stream below staging directories. libarchive parses the tar (tar only, no filter),
 * the extraction is ours: component by component below a directory fd, nothing followed, nothing
 * replaced. The index's file records come in lock-step and decide: an entry whose path, type, size,
 * link or content differs from its record is refused, as is everything unsafe.
 *
 * Regular files are hashed while they are written, several beside each other; hard links go to
 * entries already restored; symlinks come last and are never followed; directories get their
 * metadata at the end, the deepest first. Nothing is fsynced. Memory does not grow with the tree:
 * directories and links that wait for the end stand in an unlinked file in the first root.
 * Blocking, for pool threads. */
#ifndef DR_WORKER_PIPE_EXTRACT_H
#define DR_WORKER_PIPE_EXTRACT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/pipe/records.h"
#include "worker/pipe/sink.h"

struct cancel;

struct extract_root {
    const char *path; /* absolute, normalised: what the entries call it */
    int fd;           /* of the empty directory that stands for it; borrowed */
};

struct extract_spec {
    const struct pipe_source *tar;
    const struct extract_root *roots; /* an entry goes to the innermost that holds it */
    unsigned root_count;
    /* The next file record in tar order, valid until the next call; NULL: there is none. */
    enum dr_rc (*next)(void *arg, const struct pipe_file **out, struct dr_err *err);
    void *arg;
    /* DR_RESTORE_OWNER=ignore: owners stay ours, set-id bits of others' files are dropped, and
     * attributes that need a privilege are left out. */
    bool ignore_owner;
    unsigned threads; /* that write files, beside the caller's; at most a few are used */
    struct cancel *cancel;
    _Atomic uint64_t *progress; /* bytes of files written; NULL: nobody asks */
};

struct extract_sums {
    uint64_t entries, files, bytes;
};

/* Errors: INTEGRITY, reason tar-unsafe (absolute, "..", below what is no directory, twice the same
 * name, a link to what is not there), tar-index (the two disagree) or tar-format; REFUSED for
 * device nodes; NO_SPACE, IO, CANCELLED. What was written by then stays for the caller to remove.
 */
enum dr_rc extract_tree(const struct extract_spec *spec, struct extract_sums *out,
                        struct dr_err *err) DR_MUST_CHECK;

#endif
