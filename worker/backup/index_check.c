/* Rules of the index records: paths that cannot leave their root, fields that fit their type. */
#include <string.h>

#include "worker/backup/index_internal.h"

const char index_letters[] = "cfopqrstx";

int index_letter(char type)
{
    const char *at = type ? strchr(index_letters, type) : NULL;
    return at ? (int)(at - index_letters) : -1;
}

static bool has_nul(struct pipe_bytes b)
{
    return b.len > 0 && memchr(b.data, 0, b.len) != NULL;
}

static bool equals(struct pipe_bytes b, const char *s)
{
    return b.len == strlen(s) && memcmp(b.data, s, b.len) == 0;
}

static int order(struct pipe_bytes a, struct pipe_bytes b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

const char *index_check_stream(struct pipe_bytes name)
{
    static const char *const names[] = {"database", "globals", "files", "config"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (equals(name, names[i]))
            return NULL;
    return "stream of no known name";
}

const char *index_check_chunk(const struct index_chunk *c)
{
    if (c->plain_len == 0 || c->plain_len > 262144)
        return "chunk length outside 1..262144";
    if (c->stored_len == 0 || c->stored_len > 2 * 262144)
        return "stored length of a chunk";
    return NULL;
}

const char *index_check_path(struct pipe_bytes path)
{
    if (path.len == 0 || has_nul(path))
        return "empty path, or NUL in it";
    for (size_t i = 0, begin = 0; i <= path.len; i++) {
        if (i < path.len && path.data[i] != '/')
            continue;
        size_t n = i - begin;
        if (n == 0 || (n == 1 && path.data[begin] == '.') ||
            (n == 2 && path.data[begin] == '.' && path.data[begin + 1] == '.'))
            return "path with an empty, . or .. part";
        begin = i + 1;
    }
    return NULL;
}

static const char *check_device(struct pipe_bytes b)
{
    unsigned colons = 0;
    size_t digits = 0;
    for (size_t i = 0; i < b.len; i++) {
        if (b.data[i] >= '0' && b.data[i] <= '9') {
            digits++;
        } else if (b.data[i] != ':' || digits == 0 || colons++ > 0) {
            return "device that is not major:minor";
        } else {
            digits = 0;
        }
    }
    return colons == 1 && digits > 0 && b.len <= 21 ? NULL : "device that is not major:minor";
}

static const char *check_target(const struct pipe_file *f)
{
    if (!f->has_target)
        return strchr("lhcb", f->type) ? "target missing" : NULL;
    switch (f->type) {
    case 'l':
        return f->target.len == 0 || has_nul(f->target) ? "empty target, or NUL in it" : NULL;
    case 'h':
        return index_check_path(f->target);
    case 'c':
    case 'b':
        return check_device(f->target);
    default:
        return "target of what has none";
    }
}

static bool known_xattr(struct pipe_bytes name)
{
    return (name.len > 5 && memcmp(name.data, "user.", 5) == 0) ||
           equals(name, "security.capability") || equals(name, "system.posix_acl_access") ||
           equals(name, "system.posix_acl_default");
}

static const char *check_xattrs(const struct pipe_file *f)
{
    for (unsigned i = 0; i < f->xattr_count; i++) {
        if (has_nul(f->xattrs[i].name) || !known_xattr(f->xattrs[i].name))
            return "xattr of a name that is never kept";
        if (i > 0 && order(f->xattrs[i - 1].name, f->xattrs[i].name) >= 0)
            return "xattrs not sorted";
    }
    return NULL;
}

const char *index_check_file(const struct pipe_file *f)
{
    const char *why = index_check_path(f->path);
    if (why)
        return why;
    if (!f->type || !strchr("fdlhpcb", f->type))
        return "type of a file";
    if (f->mode > 07777)
        return "mode over 07777";
    if (has_nul(f->uname) || has_nul(f->gname))
        return "NUL in an owner's name";
    if (f->type == 'f' || f->type == 'h') {
        if (!f->has_sha256)
            return "file without sha256";
    } else if (f->has_sha256 || f->size != 0) {
        return "size or sha256 of what is no file";
    }
    if ((why = check_target(f)))
        return why;
    return check_xattrs(f);
}

const char *index_why(const unsigned char *text, size_t len)
{
    static const char *const whys[] = {"excluded", "unreadable", "changed"};
    for (size_t i = 0; i < sizeof whys / sizeof whys[0]; i++)
        if (equals((struct pipe_bytes){text, len}, whys[i]))
            return whys[i];
    return NULL;
}

const char *index_check_skip(const struct pipe_skip *x)
{
    if (!x->why || !index_why((const unsigned char *)x->why, strlen(x->why)))
        return "reason of a skipped path";
    return index_check_path(x->path);
}

const char *index_check_table(const struct pipe_table *t)
{
    if (t->has_digest && !t->has_rows)
        return "digest without rows";
    return has_nul(t->schema) || has_nul(t->name) || t->name.len == 0 ? "name of a table" : NULL;
}
