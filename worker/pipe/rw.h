/* Whole reads and writes at an offset: short counts and EINTR are handled, the end is an error.
 * Any thread. */
#ifndef DR_WORKER_PIPE_RW_H
#define DR_WORKER_PIPE_RW_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* IO, or NO_SPACE. what names the file in the message. */
enum dr_rc rw_write_at(int fd, uint64_t offset, const void *bytes, size_t len, const char *what,
                       struct dr_err *err) DR_MUST_CHECK;
/* The bytes must be there: INTEGRITY with reason "short-file" when the file ends before. */
enum dr_rc rw_read_at(int fd, uint64_t offset, void *bytes, size_t len, const char *what,
                      struct dr_err *err) DR_MUST_CHECK;
/* Sequential, for pipes and terminals too. */
enum dr_rc rw_write(int fd, const void *bytes, size_t len, const char *what,
                    struct dr_err *err) DR_MUST_CHECK;

#endif
