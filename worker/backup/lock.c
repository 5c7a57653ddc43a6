/* OFD locks with the inode looked at again. Waiting is asking: a blocking F_OFD_SETLKW could not be
 * given up, and a stopped holder would hold the thread for ever. */
#include "worker/backup/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

enum { PAUSE_MIN_US = 500, PAUSE_MAX_US = 20000 };

static void pause_us(unsigned *us)
{
    unsigned with_jitter = *us / 2 + (unsigned)((double)*us * dr_random_unit());
    const struct timespec t = {0, (long)with_jitter * 1000};
    (void)nanosleep(&t, NULL);
    *us = *us * 2 > PAUSE_MAX_US ? PAUSE_MAX_US : *us * 2;
}

static bool same_file(int dirfd, const char *path, int fd)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && fstatat(dirfd, path, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int open_it(int dirfd, const char *path, enum lock_kind kind)
{
    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    if (kind == LOCK_ALONE_MAKE)
        return openat(dirfd, path, flags | O_RDWR | O_CREAT, 0600);
    return openat(dirfd, path, flags | (kind == LOCK_SHARED ? O_RDONLY : O_RDWR));
}

enum dr_rc lock_take(int dirfd, const char *path, enum lock_kind kind, uint64_t wait_ms, int *fd,
                     struct dr_err *err)
{
    const struct flock f = {.l_type = kind == LOCK_SHARED ? F_RDLCK : F_WRLCK,
                            .l_whence = SEEK_SET};
    int64_t until = dr_clock_ms() + (int64_t)wait_ms;
    unsigned us = PAUSE_MIN_US;
    for (;;) {
        int got = open_it(dirfd, path, kind);
        if (got < 0)
            return dr_fail_errno(err, errno == ENOENT ? DR_E_NOT_FOUND : DR_E_IO, "open %s", path);
        while (fcntl(got, F_OFD_SETLK, &f) != 0) {
            if (errno != EAGAIN && errno != EACCES && errno != EINTR) {
                enum dr_rc rc = dr_fail_errno(err, DR_E_IO, "lock %s", path);
                (void)close(got);
                return rc;
            }
            if (dr_clock_ms() >= until) {
                (void)close(got);
                return dr_fail(err, DR_E_LOCKED, "%s: somebody else holds its lock", path);
            }
            pause_us(&us);
        }
        if (same_file(dirfd, path, got)) {
            *fd = got;
            return DR_OK;
        }
        (void)close(got); /* replaced while we waited */
    }
}

bool lock_is_shared(int dirfd, const char *path)
{
    struct flock f = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open_it(dirfd, path, LOCK_SHARED);
    if (fd < 0)
        return false;
    bool shared = fcntl(fd, F_OFD_GETLK, &f) == 0 && f.l_type == F_RDLCK;
    (void)close(fd);
    return shared;
}

void lock_drop(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}
