/* Secrets for children, in memory only. Any thread. */
#include "worker/core/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool write_all(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

int proc_memfd(const char *name, const void *bytes, size_t len, struct dr_err *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    /* 0600: libpq ignores a password file that others might read, and a memfd begins as 0777. */
    if (fd < 0 || fchmod(fd, 0600) != 0 || !write_all(fd, bytes, len) ||
        lseek(fd, 0, SEEK_SET) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
        (void)dr_fail_errno(err, DR_E_IO, "memfd %s", name);
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    return fd;
}
