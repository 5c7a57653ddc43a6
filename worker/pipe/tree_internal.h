/* What the parts of tree share: tree.c (roots, folders, order), tree_entry.c (one entry),
 * tree_file.c (content of a file), tree_ahead.c (contents by several threads), tree_list.c (names
 * of a folder), tree_meta.c (attributes, owners, links), tree_tar.c (the tar), tree_check.c
 * (mounts). */
#ifndef DR_WORKER_PIPE_TREE_INTERNAL_H
#define DR_WORKER_PIPE_TREE_INTERNAL_H

#include <sys/stat.h>

#include <openssl/evp.h>

#include "common/buf.h"
#include "worker/pipe/digest.h"
#include "worker/pipe/tree.h"

enum { TREE_BUFFER = 1 << 18, TREE_XATTRS_MAX = 768 << 10 };

/* Names of a folder, sorted; folders stand twice: as "name" and, where their entries belong, as
 * "name/". The byte before a name is its type (DT_*); 0: not wanted any more. */
struct tree_list {
    struct dr_buf bytes;
    char **names;
    size_t count;
};
/* root: leave out what is ours. fd stays open. */
enum dr_rc tree_list_read(struct tree_list *l, int fd, bool root, const char *path,
                          struct dr_err *err);
void tree_list_fini(struct tree_list *l);
/* "name/" is not wanted any more. */
void tree_list_forget(struct tree_list *l, const char *name);

/* Files with several names, of one root. */
struct tree_link {
    dev_t dev;
    ino_t ino;
    struct timespec ctime;
    uint32_t group; /* from 1 */
    uint64_t size;
    unsigned char sha256[32];
    char *path;
    size_t path_len;
};
struct tree_links {
    struct tree_link *list;
    size_t count, room;
    uint32_t *slots; /* open addressing, numbers into list + 1 */
    size_t slot_count;
};
struct tree_link *tree_links_find(struct tree_links *t, const struct stat *st);
/* Takes a copy of the path; replaces one of the same inode that has changed since. */
uint32_t tree_links_add(struct tree_links *t, const struct stat *st, const struct pipe_file *f);
void tree_links_fini(struct tree_links *t);

/* Names of users and groups, looked up once each. */
struct tree_owners {
    struct tree_owner {
        bool known;
        uint32_t id;
        char name[64];
    } users[64], groups[64];
};
void tree_owners_put(struct tree_owners *o, struct pipe_file *f);

/* Extended attributes of the kinds a backup has. */
struct tree_xattrs {
    struct dr_buf bytes; /* names and values */
    struct pipe_xattr *list;
    unsigned count, room;
    char *names; /* as the kernel lists them */
};
/* fd, or path when fd is negative. False: errno says why. */
bool tree_xattrs_read(struct tree_xattrs *x, int fd, const char *path);
void tree_xattrs_fini(struct tree_xattrs *x);

struct tree_tar;
enum dr_rc tree_tar_new(const struct pipe_sink *sink, struct tree_tar **out, struct dr_err *err);
void tree_tar_free(struct tree_tar *t);
enum dr_rc tree_tar_entry(struct tree_tar *t, const struct pipe_file *f, struct dr_err *err);
enum dr_rc tree_tar_data(struct tree_tar *t, const void *bytes, size_t len, struct dr_err *err);
enum dr_rc tree_tar_end(struct tree_tar *t, struct dr_err *err);

/* Who reads contents; of one thread at a time. */
struct tree_reader {
    EVP_MD *sha256;
    EVP_MD_CTX *hash;
    unsigned char *buffer; /* TREE_BUFFER + 1 bytes */
};
enum dr_rc tree_reader_init(struct tree_reader *r, struct dr_err *err);
void tree_reader_fini(struct tree_reader *r); /* zeroed or after init, also one that failed */

struct tree_ahead;

struct tree_walk {
    const struct tree_spec *spec;
    struct tree_sums sums;
    struct tree_tar *tar; /* NULL: none */
    struct digest_tree *digest;
    struct tree_reader reader;
    struct tree_ahead *ahead; /* NULL: contents are read as they come */
    struct tree_links links;
    struct tree_owners owners;
    struct tree_xattrs xattrs;
    struct dr_buf path; /* absolute, as it is called; NUL-terminated */
    char *target;       /* of a symlink */
};

/* tree_entry.c. The path stands in w->path; name lies in the folder dir. */
enum dr_rc tree_entry(struct tree_walk *w, int dir, const char *name, unsigned char type,
                      struct dr_err *err);
/* Opens the folder at w->path and, with entry, emits it; *fd -1: it is left out. */
enum dr_rc tree_folder(struct tree_walk *w, int dir, const char *name, bool entry, int *fd,
                       struct dr_err *err);
/* Fills in what stat knows; path from w->path. */
void tree_fill(struct tree_walk *w, const struct stat *st, char type, struct pipe_file *f);
/* Record, digest, sums; after those that are still read ahead. */
enum dr_rc tree_emit(struct tree_walk *w, const struct pipe_file *f, uint32_t group,
                     struct dr_err *err);
enum dr_rc tree_skip(struct tree_walk *w, const char *why, struct dr_err *err);
/* The same at once. path has no leading slash. */
enum dr_rc tree_emit_now(struct tree_walk *w, const struct pipe_file *f, uint32_t group,
                         struct dr_err *err);
enum dr_rc tree_skip_now(struct tree_walk *w, struct pipe_bytes path, const char *why,
                         struct dr_err *err);
/* errno says why: x "unreadable" or the failure; what is gone: x "changed". */
enum dr_rc tree_unreadable(struct tree_walk *w, const char *what, struct dr_err *err);
/* openat without following, waiting or, where we may, marking as read. */
int tree_open(int dir, const char *name, int flags);

/* tree_file.c: a regular file, open. */
enum dr_rc tree_file(struct tree_walk *w, int fd, const struct stat *st, struct dr_err *err);
/* One look at its content, of st->st_size bytes. */
struct tree_look {
    unsigned char sha256[32];
    int failed;   /* errno of a read, zeros for the rest; or 0 */
    bool changed; /* since st */
};
enum dr_rc tree_content(struct tree_walk *w, struct tree_reader *r, int fd, const struct stat *st,
                        struct tree_look *out, struct dr_err *err);

/* tree_ahead.c: a walk without a tar hashes several files at a time; what comes of them keeps its
 * place. Nobody but the walk's thread calls. */
enum dr_rc tree_ahead_new(struct tree_walk *w, struct tree_ahead **out, struct dr_err *err);
void tree_ahead_free(struct tree_ahead *a); /* NULL is allowed */
/* The regular file at w->path, its attributes in w->xattrs. fd is borrowed. */
enum dr_rc tree_ahead_add(struct tree_ahead *a, int fd, const struct stat *st, struct dr_err *err);
/* Whatever was added is emitted. NULL: nothing was. */
enum dr_rc tree_ahead_flush(struct tree_ahead *a, struct dr_err *err);

#endif
