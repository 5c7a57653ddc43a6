/* What an entry has besides content: extended attributes, names of its owners, other names of the
 * same file. Each structure owns its memory. */
#include "worker/pipe/tree_internal.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "common/mem.h"
#include "common/str.h"

enum { LIST_MAX = 65536, VALUE_MAX = 65536, LINKS_FIRST = 256 };

static bool wanted(const char *name)
{
    return dr_starts(name, "user.") || strcmp(name, "security.capability") == 0 ||
           strcmp(name, "system.posix_acl_access") == 0 ||
           strcmp(name, "system.posix_acl_default") == 0;
}

static int by_name(const void *a, const void *b)
{
    const struct pipe_xattr *x = a, *y = b;
    size_t n = x->name.len < y->name.len ? x->name.len : y->name.len;
    int order = memcmp(x->name.data, y->name.data, n);

    return order ? order : (x->name.len > y->name.len) - (x->name.len < y->name.len);
}

/* One value; false: errno. An attribute that went away since is no failure: *gone. */
static bool read_value(struct tree_xattrs *x, int fd, const char *path, const char *name,
                       bool *gone)
{
    unsigned char value[VALUE_MAX];
    ssize_t n = fd >= 0 ? fgetxattr(fd, name, value, sizeof value)
                        : lgetxattr(path, name, value, sizeof value);

    *gone = n < 0 && errno == ENODATA;
    if (n < 0)
        return *gone;
    if (x->count == x->room) {
        x->room = x->room ? 2 * x->room : 16;
        x->list = dr_xrealloc(x->list, x->room * sizeof *x->list);
    }
    x->list[x->count].name.len = strlen(name);
    x->list[x->count++].value.len = (size_t)n;
    dr_buf_add(&x->bytes, name, strlen(name));
    dr_buf_add(&x->bytes, value, (size_t)n);
    if (x->bytes.failed)
        errno = E2BIG;
    return !x->bytes.failed;
}

bool tree_xattrs_read(struct tree_xattrs *x, int fd, const char *path)
{
    const unsigned char *p;
    ssize_t n;
    bool gone;

    if (!x->names) {
        x->names = dr_xalloc(LIST_MAX);
        dr_buf_init(&x->bytes, TREE_XATTRS_MAX);
    }
    x->count = 0;
    n = fd >= 0 ? flistxattr(fd, x->names, LIST_MAX) : llistxattr(path, x->names, LIST_MAX);
    if (n <= 0)
        return n == 0 || errno == ENOTSUP || errno == ENOSYS;
    dr_buf_reset(&x->bytes);
    x->bytes.failed = false;
    for (const char *name = x->names; name < x->names + n; name += strlen(name) + 1)
        if (wanted(name) && !read_value(x, fd, path, name, &gone))
            return false;
    p = x->bytes.data; /* it does not move any more */
    for (unsigned i = 0; i < x->count; i++) {
        x->list[i].name.data = p;
        x->list[i].value.data = p + x->list[i].name.len;
        p = x->list[i].value.data + x->list[i].value.len;
    }
    if (x->count)
        qsort(x->list, x->count, sizeof *x->list, by_name);
    return true;
}

void tree_xattrs_fini(struct tree_xattrs *x)
{
    free(x->list);
    free(x->names);
    dr_buf_fini(&x->bytes);
}

static struct pipe_bytes owner(struct tree_owner *cache, uint32_t id, bool group)
{
    struct tree_owner *o = &cache[id % 64];
    char room[4096];
    struct passwd pw, *user = NULL;
    struct group gr, *g = NULL;
    const char *name = NULL;

    if (!o->known || o->id != id) {
        if (group && getgrgid_r(id, &gr, room, sizeof room, &g) == 0 && g)
            name = g->gr_name;
        if (!group && getpwuid_r(id, &pw, room, sizeof room, &user) == 0 && user)
            name = user->pw_name;
        o->known = true;
        o->id = id;
        o->name[0] = 0;
        if (name && strlen(name) < sizeof o->name)
            memcpy(o->name, name, strlen(name) + 1);
    }
    return (struct pipe_bytes){(const unsigned char *)o->name, strlen(o->name)};
}

void tree_owners_put(struct tree_owners *o, struct pipe_file *f)
{
    f->uname = owner(o->users, f->uid, false);
    f->gname = owner(o->groups, f->gid, true);
}

static size_t slot_of(const struct tree_links *t, dev_t dev, ino_t ino)
{
    uint64_t h = ((uint64_t)ino ^ ((uint64_t)dev << 40)) * 0x9e3779b97f4a7c15ULL;
    size_t i = (size_t)(h >> 20) & (t->slot_count - 1);

    while (t->slots[i] &&
           (t->list[t->slots[i] - 1].ino != ino || t->list[t->slots[i] - 1].dev != dev))
        i = (i + 1) & (t->slot_count - 1);
    return i;
}

struct tree_link *tree_links_find(struct tree_links *t, const struct stat *st)
{
    size_t i = t->slot_count ? slot_of(t, st->st_dev, st->st_ino) : 0;
    struct tree_link *k = t->slot_count && t->slots[i] ? &t->list[t->slots[i] - 1] : NULL;

    /* one that has changed since is another content: a file of its own */
    if (k && (k->ctime.tv_sec != st->st_ctim.tv_sec || k->ctime.tv_nsec != st->st_ctim.tv_nsec))
        return NULL;
    return k;
}

static void grow(struct tree_links *t)
{
    t->room = t->room ? 2 * t->room : LINKS_FIRST;
    t->list = dr_xrealloc(t->list, t->room * sizeof *t->list);
    free(t->slots);
    t->slot_count = 4 * t->room;
    t->slots = dr_xarray(t->slot_count, sizeof *t->slots);
    for (size_t i = 0; i < t->count; i++)
        t->slots[slot_of(t, t->list[i].dev, t->list[i].ino)] = (uint32_t)i + 1;
}

uint32_t tree_links_add(struct tree_links *t, const struct stat *st, const struct pipe_file *f)
{
    struct tree_link *k;

    if (t->count == t->room)
        grow(t);
    k = &t->list[t->count++];
    k->dev = st->st_dev;
    k->ino = st->st_ino;
    k->ctime = st->st_ctim;
    k->group = (uint32_t)t->count;
    k->size = f->size;
    memcpy(k->sha256, f->sha256, sizeof k->sha256);
    k->path = dr_xstrndup((const char *)f->path.data, f->path.len);
    k->path_len = f->path.len;
    t->slots[slot_of(t, k->dev, k->ino)] = k->group; /* the newest of one inode is found */
    return k->group;
}

void tree_links_fini(struct tree_links *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->list[i].path);
    free(t->list);
    free(t->slots);
    memset(t, 0, sizeof *t);
}
