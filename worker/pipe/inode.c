/* Owner, attributes, mode, times of one inode. Owns nothing. Any thread. */
#include "worker/pipe/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/str.h"

enum {
    NS = 1000000000,
    NAMES_MAX = 65536,
    VALUE_MAX = 65536,
};

static const char *const acl_names[] = {"system.posix_acl_access", "system.posix_acl_default"};

static struct timespec to_timespec(int64_t ns)
{
    int64_t s = ns / NS, rest = ns % NS;
    if (rest < 0) {
        rest += NS;
        s--;
    }
    return (struct timespec){.tv_sec = s, .tv_nsec = (long)rest};
}

static bool is_ours(const char *name)
{
    return dr_starts(name, "user.") || strcmp(name, "security.capability") == 0 ||
           strcmp(name, acl_names[0]) == 0 || strcmp(name, acl_names[1]) == 0;
}

static enum dr_rc set_xattr(int fd, const struct pipe_xattr *x, bool ignore_owner,
                            struct dr_err *err)
{
    char name[XATTR_NAME_MAX + 1];
    if (x->name.len == 0 || x->name.len > XATTR_NAME_MAX)
        return dr_fail(err, DR_E_INTEGRITY, "attribute name of %zu bytes", x->name.len);
    memcpy(name, x->name.data, x->name.len);
    name[x->name.len] = 0;
    if (strlen(name) != x->name.len || !is_ours(name)) {
        (void)dr_fail(err, DR_E_INTEGRITY, "attribute refused");
        return dr_err_field(err, "xattr", x->name.data, x->name.len);
    }
    if (fsetxattr(fd, name, x->value.data, x->value.len, 0) == 0)
        return DR_OK;
    if (ignore_owner && errno == EPERM && dr_starts(name, "security."))
        return DR_OK;
    return dr_fail_errno(err, DR_E_IO, "set attribute %s", name);
}

enum dr_rc inode_apply(int fd, const struct pipe_file *f, bool ignore_owner, struct dr_err *err)
{
    struct stat st;
    mode_t mode = f->mode & 07777;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, to_timespec(f->mtime_ns)};
    if (!ignore_owner && fchown(fd, f->uid, f->gid) != 0)
        return dr_fail_errno(err, DR_E_IO, "set owner %u:%u", f->uid, f->gid);
    if (ignore_owner && (mode & (S_ISUID | S_ISGID))) {
        if (fstat(fd, &st) != 0)
            return dr_fail_errno(err, DR_E_IO, "fstat");
        if (st.st_uid != f->uid)
            mode &= ~(mode_t)S_ISUID;
        if (st.st_gid != f->gid)
            mode &= ~(mode_t)S_ISGID;
    }
    for (unsigned i = 0; i < f->xattr_count; i++)
        if (set_xattr(fd, &f->xattrs[i], ignore_owner, err))
            return err->rc;
    if (fchmod(fd, mode) != 0)
        return dr_fail_errno(err, DR_E_IO, "set mode");
    if (futimens(fd, times) != 0)
        return dr_fail_errno(err, DR_E_IO, "set times");
    return DR_OK;
}

enum dr_rc inode_apply_link(int dir, const char *name, const struct pipe_file *f, bool ignore_owner,
                            struct dr_err *err)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, to_timespec(f->mtime_ns)};
    if (f->xattr_count)
        return dr_fail(err, DR_E_INTEGRITY, "a symbolic link with attributes");
    if (!ignore_owner && fchownat(dir, name, f->uid, f->gid, AT_SYMLINK_NOFOLLOW) != 0)
        return dr_fail_errno(err, DR_E_IO, "set owner %u:%u", f->uid, f->gid);
    if (utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) != 0)
        return dr_fail_errno(err, DR_E_IO, "set times");
    return DR_OK;
}

enum dr_rc inode_bare(int fd, struct dr_err *err)
{
    for (unsigned i = 0; i < 2; i++)
        if (fremovexattr(fd, acl_names[i]) != 0 && errno != ENODATA && errno != ENOTSUP)
            return dr_fail_errno(err, DR_E_IO, "remove inherited ACL");
    if (fchmod(fd, 0700) != 0)
        return dr_fail_errno(err, DR_E_IO, "set mode");
    return DR_OK;
}

static enum dr_rc copy_one(int from, int to, const char *name, char *value, struct dr_err *err)
{
    ssize_t len = fgetxattr(from, name, value, VALUE_MAX);
    if (len < 0)
        return dr_fail_errno(err, DR_E_IO, "get attribute %s", name);
    if (fsetxattr(to, name, value, (size_t)len, 0) != 0)
        return dr_fail_errno(err, DR_E_IO, "set attribute %s", name);
    return DR_OK;
}

static ssize_t list_names(int fd, char *names, struct dr_err *err)
{
    ssize_t len = flistxattr(fd, names, NAMES_MAX);
    if (len < 0 && errno == ENOTSUP)
        return 0;
    if (len < 0)
        (void)dr_fail_errno(err, DR_E_IO, "list attributes");
    return len;
}

enum dr_rc inode_copy_xattrs(int from, int to, struct dr_err *err)
{
    char *names = dr_xalloc(2 * NAMES_MAX + VALUE_MAX), *has = names + NAMES_MAX;
    char *value = has + NAMES_MAX;
    enum dr_rc rc = DR_OK;
    ssize_t len = list_names(from, names, err), has_len = len < 0 ? -1 : list_names(to, has, err);
    if (len < 0 || has_len < 0)
        rc = err->rc;
    for (char *n = has; !rc && n < has + has_len; n += strlen(n) + 1)
        if (is_ours(n) && !memmem(names, (size_t)len, n, strlen(n) + 1) &&
            fremovexattr(to, n) != 0 && errno != ENODATA)
            rc = dr_fail_errno(err, DR_E_IO, "remove attribute %s", n);
    for (char *n = names; !rc && n < names + len; n += strlen(n) + 1)
        if (is_ours(n))
            rc = copy_one(from, to, n, value, err);
    free(names);
    return rc;
}
