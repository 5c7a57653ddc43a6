/* A crew over segments, each some small files or one large. Threads read and hash, the crew's drain
 * emits in the walk's order. The walk flushes before it touches what emitting touches: record,
 * digest, sums, links. Owns copies of the records and fds of its own. */
#include "worker/pipe/tree_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/pipe/crew.h"

enum {
    THREADS_MAX = 4,
    SEGMENTS_MAX = 2 * THREADS_MAX + 2,
    FILES_MAX = 24, /* of a segment; with SEGMENTS_MAX it bounds the open files */
    SEGMENT_BYTES = 1 << 20,
};

struct ahead_file {
    struct pipe_file *record;
    int fd;
    struct stat st;
    struct tree_look look;
};

struct segment {
    uint64_t bytes;
    unsigned count;
    struct ahead_file files[FILES_MAX];
};

struct tree_ahead {
    struct tree_walk *walk;
    struct crew *crew;
    struct segment *filling; /* NULL: none at hand */
    struct tree_reader readers[THREADS_MAX];
    unsigned threads;
    struct segment segments[SEGMENTS_MAX];
};

static enum dr_rc work(void *arg, unsigned worker, void *segment, struct dr_err *err)
{
    struct tree_ahead *a = arg;
    struct segment *s = segment;
    for (unsigned i = 0; i < s->count; i++) {
        struct ahead_file *f = &s->files[i];
        if (tree_content(a->walk, &a->readers[worker], f->fd, &f->st, &f->look, err))
            return err->rc;
        (void)close(f->fd);
        f->fd = -1;
    }
    return DR_OK;
}

static enum dr_rc emit_content(struct tree_walk *w, struct ahead_file *f, struct dr_err *err)
{
    uint32_t group = 0;
    f->record->has_sha256 = true;
    memcpy(f->record->sha256, f->look.sha256, sizeof f->record->sha256);
    if (f->st.st_nlink > 1)
        group = tree_links_add(&w->links, &f->st, f->record);
    return tree_emit_now(w, f->record, group, err);
}

/* As tree_file says it of a file that it reads itself. */
static enum dr_rc emit(struct tree_walk *w, struct ahead_file *f, struct dr_err *err)
{
    bool gone = f->look.failed == ENOENT || f->look.failed == ESTALE;
    bool failed = f->look.failed && !gone;
    enum dr_rc rc = DR_OK;
    if (failed && !w->spec->allow_unreadable) {
        errno = f->look.failed;
        return dr_fail_errno(err, DR_E_IO, "read /%.*s", (int)f->record->path.len,
                             (const char *)f->record->path.data);
    }
    if (!f->look.failed || f->record->size > TREE_BUFFER)
        rc = emit_content(w, f, err);
    if (!rc && (f->look.changed || f->look.failed))
        rc = tree_skip_now(w, f->record->path, failed ? "unreadable" : "changed", err);
    return rc;
}

static void drop(struct segment *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        if (s->files[i].fd >= 0)
            (void)close(s->files[i].fd);
        free(s->files[i].record);
    }
    s->count = 0;
    s->bytes = 0;
}

static enum dr_rc drain(void *arg, void *segment, struct dr_err *err)
{
    struct tree_ahead *a = arg;
    struct segment *s = segment;
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; !rc && i < s->count; i++)
        rc = emit(a->walk, &s->files[i], err);
    drop(s);
    return rc;
}

enum dr_rc tree_ahead_new(struct tree_walk *w, struct tree_ahead **out, struct dr_err *err)
{
    struct tree_ahead *a = dr_xalloc(sizeof *a);
    void *segments[SEGMENTS_MAX];
    enum dr_rc rc = DR_OK;
    a->walk = w;
    a->threads = w->spec->threads < THREADS_MAX ? w->spec->threads : THREADS_MAX;
    for (unsigned i = 0; i < SEGMENTS_MAX; i++)
        segments[i] = &a->segments[i];
    for (unsigned i = 0; !rc && i < a->threads; i++)
        rc = tree_reader_init(&a->readers[i], err);
    const struct crew_spec crew = {.threads = a->threads,
                                   .segments = segments,
                                   .count = 2 * a->threads + 2,
                                   .work = work,
                                   .drain = drain,
                                   .arg = a,
                                   .cancel = w->spec->cancel};
    if (!rc)
        rc = crew_new(&crew, &a->crew, err);
    if (rc)
        tree_ahead_free(a);
    else
        *out = a;
    return rc;
}

void tree_ahead_free(struct tree_ahead *a)
{
    if (!a)
        return;
    crew_free(a->crew);
    for (unsigned i = 0; i < SEGMENTS_MAX; i++)
        drop(&a->segments[i]);
    for (unsigned i = 0; i < a->threads; i++)
        tree_reader_fini(&a->readers[i]);
    free(a);
}

static enum dr_rc submit(struct tree_ahead *a, struct dr_err *err)
{
    if (!a->filling || !a->filling->count)
        return DR_OK;
    a->filling = NULL;
    return crew_submit(a->crew, err);
}

enum dr_rc tree_ahead_flush(struct tree_ahead *a, struct dr_err *err)
{
    if (!a)
        return DR_OK;
    return submit(a, err) ? err->rc : crew_flush(a->crew, err);
}

enum dr_rc tree_ahead_add(struct tree_ahead *a, int fd, const struct stat *st, struct dr_err *err)
{
    struct pipe_file record;
    void *segment;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) { /* too many are open: most of them by us */
        if (tree_ahead_flush(a, err))
            return err->rc;
        own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    }
    if (own < 0)
        return tree_unreadable(a->walk, "open", err);
    if (!a->filling) {
        if (crew_room(a->crew, &segment, err)) {
            (void)close(own);
            return err->rc;
        }
        a->filling = segment;
    }
    tree_fill(a->walk, st, 'f', &record);
    record.size = (uint64_t)st->st_size;
    struct segment *s = a->filling;
    s->files[s->count++] =
        (struct ahead_file){.record = pipe_file_copy(&record), .fd = own, .st = *st};
    s->bytes += record.size;
    return s->count == FILES_MAX || s->bytes >= SEGMENT_BYTES ? submit(a, err) : DR_OK;
}
