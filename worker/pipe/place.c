/* Chains of directory fds below the roots. Owns the fds it opens, not the roots'. Pool threads. */
#include "worker/pipe/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"

enum {
    PARTS_MAX = 4096,
    OPEN_MAX = 64, /* levels whose fd is kept */
};

struct level {
    size_t end; /* of its path below the root */
    int fd;     /* -1: closed again, a chain may be deep */
};

struct place {
    const struct extract_root *roots;
    unsigned count, root; /* root of the chain */
    struct dr_buf path;   /* of the chain's last level */
    struct level *levels;
    unsigned depth, cap;
};

enum dr_rc place_new(const struct extract_root *roots, unsigned count, struct place **out,
                     struct dr_err *err)
{
    struct place *p;
    for (unsigned i = 0; i < count; i++)
        if (roots[i].path[0] != '/')
            return dr_fail(err, DR_E_INVALID, "root %s is not absolute", roots[i].path);
    p = dr_xalloc(sizeof *p);
    p->roots = roots;
    p->count = count;
    dr_buf_init(&p->path, (size_t)PARTS_MAX * (NAME_MAX + 1));
    *out = p;
    return DR_OK;
}

static void cut(struct place *p, unsigned depth)
{
    while (p->depth > depth) {
        struct level *l = &p->levels[--p->depth];
        if (l->fd >= 0)
            (void)close(l->fd);
    }
    p->path.len = depth ? p->levels[depth - 1].end : 0;
}

void place_free(struct place *p)
{
    if (!p)
        return;
    cut(p, 0);
    free(p->levels);
    dr_buf_fini(&p->path);
    free(p);
}

const char *place_unsafe(const struct pipe_bytes *path)
{
    const unsigned char *s = path->data, *end = s + path->len;
    unsigned parts = 0;
    if (!path->len)
        return "an empty path";
    if (*s == '/')
        return "an absolute path";
    if (memchr(s, 0, path->len))
        return "a NUL in the path";
    for (;;) {
        const unsigned char *slash = memchr(s, '/', (size_t)(end - s));
        size_t len = (size_t)((slash ? slash : end) - s);
        if (len == 0 || (len == 1 && s[0] == '.'))
            return "an empty part or `.` in the path";
        if (len == 2 && s[0] == '.' && s[1] == '.')
            return "`..` in the path";
        if (len > NAME_MAX)
            return "a part of more than 255 bytes in the path";
        if (++parts > PARTS_MAX)
            return "more than 4096 parts in the path";
        if (!slash)
            return NULL;
        s = slash + 1;
    }
}

static enum dr_rc unsafe(const struct pipe_bytes *path, const char *why, struct dr_err *err)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "entry refused: %s", why);
    (void)dr_err_field(err, "path", path->data, path->len);
    return dr_err_reason(err, "tar-unsafe");
}

/* The innermost root; *below is the path below it. */
static bool find_root(const struct place *p, const struct pipe_bytes *path, unsigned *root,
                      struct pipe_bytes *below)
{
    size_t best = 0;
    bool found = false;
    for (unsigned i = 0; i < p->count; i++) {
        const char *name = p->roots[i].path + 1;
        size_t len = strlen(name);
        bool holds = len == 0 || (path->len >= len && memcmp(path->data, name, len) == 0 &&
                                  (path->len == len || path->data[len] == '/'));
        if (!holds || (found && len < best))
            continue;
        found = true;
        best = len;
        *root = i;
        below->data = path->data + len + (len && path->len > len);
        below->len = path->len - (size_t)(below->data - path->data);
    }
    return found;
}

/* How many levels of the chain lie on the way to dir. */
static unsigned common_depth(const struct place *p, const struct pipe_bytes *dir)
{
    unsigned n = 0;
    while (n < p->depth && p->levels[n].end <= dir->len &&
           memcmp(p->path.data, dir->data, p->levels[n].end) == 0 &&
           (dir->len == p->levels[n].end || dir->data[p->levels[n].end] == '/'))
        n++;
    while (n && p->levels[n - 1].fd < 0) /* closed: opened again from above */
        n--;
    return n;
}

static void push(struct place *p, size_t end, int fd)
{
    if (p->depth == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 16;
        p->levels = dr_xrealloc(p->levels, p->cap * sizeof *p->levels);
    }
    p->levels[p->depth++] = (struct level){end, fd};
    if (p->depth > OPEN_MAX) {
        struct level *old = &p->levels[p->depth - 1 - OPEN_MAX];
        (void)close(old->fd);
        old->fd = -1;
    }
}

static enum dr_rc descend(struct place *p, const struct pipe_bytes *dir, int *out,
                          struct dr_err *err)
{
    cut(p, common_depth(p, dir));
    for (;;) {
        size_t at = p->depth ? p->levels[p->depth - 1].end : 0;
        int top = p->depth ? p->levels[p->depth - 1].fd : p->roots[p->root].fd;
        if (at >= dir->len) {
            *out = top;
            return DR_OK;
        }
        char name[NAME_MAX + 1];
        size_t from = at + (at > 0);
        const unsigned char *slash = memchr(dir->data + from, '/', dir->len - from);
        size_t end = slash ? (size_t)(slash - dir->data) : dir->len;
        memcpy(name, dir->data + from, end - from);
        name[end - from] = 0;
        int fd = openat(top, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
            return unsafe(dir, "it lies below what is no directory", err);
        if (fd < 0)
            return dr_fail_errno(err, DR_E_IO, "open directory");
        dr_buf_add(&p->path, dir->data + at, end - at);
        push(p, end, fd);
    }
}

enum dr_rc place_parent(struct place *p, const struct pipe_bytes *path, int *dir,
                        char name[NAME_MAX + 1], struct dr_err *err)
{
    struct pipe_bytes below = {NULL, 0}, parent;
    unsigned root = 0;
    const char *why = place_unsafe(path);
    if (why)
        return unsafe(path, why, err);
    if (!find_root(p, path, &root, &below))
        return unsafe(path, "it lies outside of the roots", err);
    if (root != p->root)
        cut(p, 0);
    p->root = root;
    name[0] = 0;
    *dir = p->roots[root].fd;
    if (!below.len)
        return DR_OK;
    const unsigned char *slash = memrchr(below.data, '/', below.len);
    size_t from = slash ? (size_t)(slash + 1 - below.data) : 0;
    parent = (struct pipe_bytes){below.data, from ? from - 1 : 0};
    memcpy(name, below.data + from, below.len - from);
    name[below.len - from] = 0;
    return descend(p, &parent, dir, err);
}
