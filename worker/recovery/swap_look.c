/* Where inodes lie: in one pass over each folder where its listing tells them, else by a stat a
 * name. With 50,000 entries a pass takes a fifth of the time of the stats. Pool threads. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/recovery/swap_internal.h"

enum { XFS_MAGIC = 0x58465342 };

/* Others invent numbers (FUSE), or show another layer's (overlay) or a subvolume's own. */
bool swap_lists_inodes(int dir)
{
    struct statfs fs;
    return fstatfs(dir, &fs) == 0 &&
           (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_MAGIC || fs.f_type == TMPFS_MAGIC);
}

static uint64_t inode_at(int dir, const char *name)
{
    struct stat st;
    return dir >= 0 && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_ino : 0;
}

struct swap_look swap_look_at(const struct swap *s, const struct swap_pair *p)
{
    const struct swap_root *r = &s->roots[p->root];
    struct swap_look at = {.home = inode_at(r->fd, p->name),
                           .before = inode_at(r->before, p->name)};
    if (p->new_ino && at.home != p->new_ino) {
        at.fresh = inode_at(r->fresh, p->name);
        at.failed = inode_at(r->failed, p->name);
    }
    return at;
}

enum { FOLDERS = 4 };

static void folders_of(const struct swap_root *r, int fds[FOLDERS])
{
    fds[0] = r->fd;
    fds[1] = r->before;
    fds[2] = r->fresh;
    fds[3] = r->failed;
}

static uint64_t *field_of(struct swap_look *at, unsigned folder)
{
    uint64_t *fields[FOLDERS] = {&at->home, &at->before, &at->fresh, &at->failed};
    return fields[folder];
}

static enum dr_rc list_folder(const struct swap *s, unsigned root, int dir, unsigned folder,
                              struct swap_look *out, struct dr_err *err)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    if (!d) {
        (void)dr_fail_errno(err, DR_E_IO, "list root %s", s->roots[root].path);
        if (fd >= 0)
            (void)close(fd);
        return err->rc;
    }
    for (errno = 0; (e = readdir(d)); errno = 0) {
        const struct swap_pair *p = swap_find_entry(s, root, e->d_name);
        if (p)
            *field_of(&out[p - s->pairs], folder) = e->d_ino;
    }
    int kept = errno;
    (void)closedir(d);
    errno = kept;
    return kept ? dr_fail_errno(err, DR_E_IO, "list root %s", s->roots[root].path) : DR_OK;
}

static enum dr_rc look_root(const struct swap *s, unsigned root, struct swap_look *out,
                            struct dr_err *err)
{
    const struct swap_root *r = &s->roots[root];
    int fds[FOLDERS];
    if (!swap_lists_inodes(r->fd)) {
        for (size_t i = r->first; i < r->first + r->count; i++)
            out[i] = swap_look_at(s, &s->pairs[i]);
        return DR_OK;
    }
    folders_of(r, fds);
    for (unsigned i = 0; i < FOLDERS; i++)
        if (fds[i] >= 0 && list_folder(s, root, fds[i], i, out, err))
            return err->rc;
    return DR_OK;
}

enum dr_rc swap_look_all(const struct swap *s, struct swap_look **out, struct dr_err *err)
{
    struct swap_look *all = dr_xarray(s->pair_count + 1, sizeof *all);
    for (unsigned i = 0; i < s->count; i++)
        if (look_root(s, i, all, err)) {
            free(all);
            return err->rc;
        }
    *out = all;
    return DR_OK;
}
