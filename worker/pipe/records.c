/* Copies of records that outlive the call which handed them over. Owns nothing. Any thread. */
#include "worker/pipe/records.h"

#include <string.h>

#include "common/mem.h"

static struct pipe_bytes copied(unsigned char **room, struct pipe_bytes from)
{
    struct pipe_bytes to = {.data = from.len ? *room : NULL, .len = from.len};
    if (from.len)
        memcpy(*room, from.data, from.len);
    *room += from.len;
    return to;
}

struct pipe_file *pipe_file_copy(const struct pipe_file *f)
{
    size_t bytes = f->path.len + f->uname.len + f->gname.len + f->target.len;
    for (unsigned i = 0; i < f->xattr_count; i++)
        bytes += f->xattrs[i].name.len + f->xattrs[i].value.len;
    struct pipe_file *c = dr_xalloc(sizeof *c + f->xattr_count * sizeof *f->xattrs + bytes);
    struct pipe_xattr *xattrs = (struct pipe_xattr *)(c + 1);
    unsigned char *room = (unsigned char *)(xattrs + f->xattr_count);
    *c = *f;
    c->path = copied(&room, f->path);
    c->uname = copied(&room, f->uname);
    c->gname = copied(&room, f->gname);
    c->target = copied(&room, f->target);
    c->xattrs = f->xattr_count ? xattrs : NULL;
    for (unsigned i = 0; i < f->xattr_count; i++) {
        xattrs[i].name = copied(&room, f->xattrs[i].name);
        xattrs[i].value = copied(&room, f->xattrs[i].value);
    }
    return c;
}
