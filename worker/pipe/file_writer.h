/* Regular files of a restore, written by several threads: the caller hands over bytes in the order
 * of the stream, whole small files are written side by side, of a large one the pieces are written
 * while those before them are hashed. A file whose content is the record's gets its metadata and is
 * closed; nothing is fsynced. One caller; blocking, for pool threads.
 *
 * Errors come late, from any call that follows, the first of the stream's order first: INTEGRITY
 * with reason tar-index when the content differs from its record, IO, NO_SPACE, the token's kind.
 * They name the file. */
#ifndef DR_WORKER_PIPE_FILE_WRITER_H
#define DR_WORKER_PIPE_FILE_WRITER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/pipe/records.h"

enum { FILE_WRITER_THREADS_MAX = 4 };

struct cancel;
struct file_writer;

struct file_writer_spec {
    unsigned threads;  /* more than FILE_WRITER_THREADS_MAX are as many; 0: the caller's own */
    bool ignore_owner; /* as in extract.h */
    struct cancel *cancel;
    _Atomic uint64_t *progress; /* bytes written; NULL: nobody asks */
};

enum dr_rc file_writer_new(const struct file_writer_spec *spec, struct file_writer **out,
                           struct dr_err *err) DR_MUST_CHECK;
void file_writer_free(struct file_writer *w); /* closes what is open; NULL is allowed */

/* One file at a time. The record is copied; fd, empty and open for writing, is the writer's from
 * here on, whatever this returns. */
enum dr_rc file_writer_begin(struct file_writer *w, const struct pipe_file *f, int fd,
                             struct dr_err *err) DR_MUST_CHECK;
/* at grows, at + len is at most the record's size; what is left out is a hole. Bytes are copied. */
enum dr_rc file_writer_add(struct file_writer *w, const void *bytes, size_t len, uint64_t at,
                           struct dr_err *err) DR_MUST_CHECK;
enum dr_rc file_writer_end(struct file_writer *w, struct dr_err *err) DR_MUST_CHECK;
/* Every file that was ended is complete. */
enum dr_rc file_writer_flush(struct file_writer *w, struct dr_err *err) DR_MUST_CHECK;

#endif
