/* Whole reads and writes. */
#include "worker/pipe/rw.h"

#include <errno.h>
#include <unistd.h>

#include "worker/core/fault.h"

enum dr_rc rw_write_at(int fd, uint64_t offset, const void *bytes, size_t len, const char *what,
                       struct dr_err *err)
{
    const unsigned char *p = bytes;
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "writing %s", what);
        if (n == 0)
            return dr_fail(err, DR_E_IO, "writing %s: nothing is taken", what);
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return DR_OK;
}

enum dr_rc rw_read_at(int fd, uint64_t offset, void *bytes, size_t len, const char *what,
                      struct dr_err *err)
{
    unsigned char *p = bytes;
    enum dr_rc sector = fault_point("rw.read", err);
    if (sector)
        return sector;
    while (len > 0) {
        ssize_t n = pread(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "reading %s", what);
        if (n == 0) {
            enum dr_rc rc = dr_fail(err, DR_E_INTEGRITY, "reading %s: it ends at byte %llu", what,
                                    (unsigned long long)offset);
            (void)dr_err_reason(err, "short-file");
            return rc;
        }
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return DR_OK;
}

enum dr_rc rw_write(int fd, const void *bytes, size_t len, const char *what, struct dr_err *err)
{
    const unsigned char *p = bytes;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "writing %s", what);
        p += n;
        len -= (size_t)n;
    }
    return DR_OK;
}
