/* The mount of an open directory (its id stands in fdinfo), looked up in mountinfo: paths would lie
 * under bind mounts. */
#include "worker/backup/nfs.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"

enum { MOUNTINFO_MAX = 4 << 20 };

/* procfs files have no size and come in pieces. */
static void read_proc(const char *path, struct dr_buf *out)
{
    char piece[8192];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    while ((n = read(fd, piece, sizeof piece)) > 0)
        dr_buf_add(out, piece, (size_t)n);
    (void)close(fd);
}

static const char *has_option(const char *options, size_t len, char out[64])
{
    for (size_t at = 0; at < len;) {
        size_t n = strcspn(options + at, ",\n");
        if (n > len - at)
            n = len - at;
        const char *o = options + at;
        bool off = (n == 6 && strncmp(o, "nolock", 6) == 0) ||
                   (n > 11 && strncmp(o, "local_lock=", 11) == 0 &&
                    !(n == 15 && strncmp(o + 11, "none", 4) == 0));
        if (off) {
            (void)snprintf(out, 64, "%.*s", (int)n, o);
            return out;
        }
        at += n + 1;
    }
    return NULL;
}

const char *nfs_local_locks(const char *mountinfo, const char *mount_id, char out[64])
{
    size_t id = strlen(mount_id);
    for (const char *line = mountinfo; line && *line;) {
        const char *end = strchr(line, '\n'), *tail = strstr(line, " - ");
        if (strncmp(line, mount_id, id) == 0 && line[id] == ' ' && tail && (!end || tail < end)) {
            /* "- fstype source super-options"; no blank inside any of them */
            const char *type = tail + 3, *source = strchr(type, ' ');
            const char *options = source ? strchr(source + 1, ' ') : NULL;
            if (strncmp(type, "nfs", 3) != 0 || !options || (end && options > end))
                return NULL;
            options++;
            return has_option(options, end ? (size_t)(end - options) : strlen(options), out);
        }
        line = end ? end + 1 : NULL;
    }
    return NULL;
}

enum dr_rc nfs_check(int dirfd, const char *path, struct dr_err *err)
{
    char where[64], id[32] = "", option[64];
    const char *at, *bad = NULL;
    struct dr_buf info, mounts;
    dr_buf_init(&info, 4096);
    dr_buf_init(&mounts, MOUNTINFO_MAX);
    (void)snprintf(where, sizeof where, "/proc/self/fdinfo/%d", dirfd);
    read_proc(where, &info);
    if (info.data && (at = strstr((const char *)info.data, "mnt_id:"))) {
        (void)sscanf(at + 7, " %31[0-9]", id);
        read_proc("/proc/self/mountinfo", &mounts);
        if (id[0] && mounts.data)
            bad = nfs_local_locks((const char *)mounts.data, id, option);
    }
    dr_buf_fini(&info);
    dr_buf_fini(&mounts);
    if (!bad)
        return DR_OK;
    return dr_fail(err, DR_E_REFUSED,
                   "%s lies on an NFS mount with %s: locks stay on this machine, workers elsewhere "
                   "would not see them; mount it without that option",
                   path, bad);
}
