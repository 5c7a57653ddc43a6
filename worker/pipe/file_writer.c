/* A crew over segments of 1 MiB, each a list of pieces. A file that begins and ends in one segment
 * is written, hashed and finished by the thread that works on it. Of a larger one only the writing
 * happens there, one thread at a time (the inode's lock would make the others spin); its hash goes
 * through the pieces in order, in the crew's drain. A struct output belongs to the caller until its
 * last piece is submitted, then to the crew; who finishes it frees it. */
#include "worker/pipe/file_writer.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/core/cancel.h"
#include "worker/pipe/crew.h"
#include "worker/pipe/inode.h"
#include "worker/pipe/rw.h"

enum {
    SEGMENT_BYTES = 1 << 20,
    PIECES_MAX = 24, /* a segment; with SEGMENTS_MAX it bounds the open files */
    SEGMENTS_MAX = 2 * FILE_WRITER_THREADS_MAX + 2,
    WRITE_BACK_BYTES = 128 << 10, /* smaller files are left to the sync of the whole */
};

struct output {
    struct pipe_file *record;
    int fd;
    bool whole;      /* in one segment */
    uint64_t hashed; /* bytes of the file so far */
    pthread_mutex_t writing;
};

struct piece {
    struct output *file; /* NULL: finished */
    uint64_t at;
    const unsigned char *bytes;
    size_t len;
    bool last;
};

struct segment {
    unsigned char *bytes;
    size_t used;
    unsigned count;
    struct piece pieces[PIECES_MAX];
};

struct file_writer {
    struct file_writer_spec spec;
    struct crew *crew;
    EVP_MD *sha256;
    EVP_MD_CTX *ctx[FILE_WRITER_THREADS_MAX], *in_order; /* whole files; the larger ones */
    struct segment segments[SEGMENTS_MAX];
    unsigned segment_count;
    struct segment *filling; /* NULL: none at hand */
    struct output *open;     /* between begin and end */
    bool spans;              /* an earlier segment has pieces of `open` */
};

static const unsigned char zeros[65536];

static struct output *output_new(const struct pipe_file *f, int fd)
{
    struct output *o = dr_xalloc(sizeof *o);
    o->record = pipe_file_copy(f);
    o->fd = fd;
    (void)pthread_mutex_init(&o->writing, NULL);
    return o;
}

static void output_free(struct output *o)
{
    if (!o)
        return;
    if (o->fd >= 0)
        (void)close(o->fd);
    (void)pthread_mutex_destroy(&o->writing);
    free(o->record);
    free(o);
}

static enum dr_rc named(const struct output *o, struct dr_err *err)
{
    if (err->field[0])
        return err->rc;
    return dr_err_field(err, "path", o->record->path.data, o->record->path.len);
}

static enum dr_rc hash(EVP_MD_CTX *ctx, struct output *o, const void *bytes, size_t len,
                       struct dr_err *err)
{
    o->hashed += len;
    return EVP_DigestUpdate(ctx, bytes, len) == 1 ? DR_OK : dr_fail(err, DR_E_CRYPTO, "SHA-256");
}

static enum dr_rc hash_hole(struct file_writer *w, EVP_MD_CTX *ctx, struct output *o, uint64_t end,
                            struct dr_err *err)
{
    while (o->hashed < end) {
        uint64_t left = end - o->hashed;
        enum dr_rc why = cancel_fired(w->spec.cancel);
        if (why)
            return dr_fail(err, why, "%s", cancel_reason(w->spec.cancel));
        if (hash(ctx, o, zeros, left < sizeof zeros ? (size_t)left : sizeof zeros, err))
            return err->rc;
    }
    return DR_OK;
}

/* The bytes are there: are they the right ones? Then the metadata. */
static enum dr_rc finish(struct file_writer *w, EVP_MD_CTX *ctx, struct piece *p,
                         struct dr_err *err)
{
    struct output *o = p->file;
    const struct pipe_file *f = o->record;
    unsigned char got[sizeof f->sha256];
    if (o->hashed < f->size && ftruncate(o->fd, (off_t)f->size) != 0)
        return dr_fail_errno(err, DR_E_IO, "set size");
    if (hash_hole(w, ctx, o, f->size, err))
        return err->rc;
    if (EVP_DigestFinal_ex(ctx, got, NULL) != 1)
        return dr_fail(err, DR_E_CRYPTO, "SHA-256");
    if (!f->has_sha256 || memcmp(got, f->sha256, sizeof got) != 0) {
        (void)dr_fail(err, DR_E_INTEGRITY, "the content differs from its index");
        return dr_err_reason(err, "tar-index");
    }
    if (inode_apply(o->fd, f, w->spec.ignore_owner, err))
        return err->rc;
    if (f->size >= WRITE_BACK_BYTES) /* a hint: the sync of the whole finds little left */
        (void)sync_file_range(o->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    int closed = close(o->fd);
    o->fd = -1;
    if (closed != 0)
        return dr_fail_errno(err, DR_E_IO, "close file");
    output_free(o);
    p->file = NULL;
    return DR_OK;
}

static enum dr_rc hash_piece(struct file_writer *w, EVP_MD_CTX *ctx, struct piece *p,
                             struct dr_err *err)
{
    struct output *o = p->file;
    if (o->hashed == 0 && EVP_DigestInit_ex2(ctx, w->sha256, NULL) != 1)
        return dr_fail(err, DR_E_CRYPTO, "SHA-256");
    if (hash_hole(w, ctx, o, p->at, err) || hash(ctx, o, p->bytes, p->len, err))
        return err->rc;
    return p->last ? finish(w, ctx, p, err) : DR_OK;
}

static enum dr_rc write_piece(struct file_writer *w, struct piece *p, struct dr_err *err)
{
    struct output *o = p->file;
    (void)pthread_mutex_lock(&o->writing);
    enum dr_rc rc = rw_write_at(o->fd, p->at, p->bytes, p->len, "file", err);
    (void)pthread_mutex_unlock(&o->writing);
    if (!rc && w->spec.progress)
        atomic_fetch_add(w->spec.progress, p->len);
    return rc;
}

static enum dr_rc work(void *arg, unsigned worker, void *segment, struct dr_err *err)
{
    struct file_writer *w = arg;
    struct segment *s = segment;
    for (unsigned i = 0; i < s->count; i++) {
        struct piece *p = &s->pieces[i];
        enum dr_rc rc = write_piece(w, p, err);
        if (!rc && p->file->whole)
            rc = hash_piece(w, w->ctx[worker], p, err);
        if (rc)
            return named(p->file, err);
    }
    return DR_OK;
}

static enum dr_rc drain(void *arg, void *segment, struct dr_err *err)
{
    struct file_writer *w = arg;
    struct segment *s = segment;
    for (unsigned i = 0; i < s->count; i++) {
        struct piece *p = &s->pieces[i];
        if (p->file && !p->file->whole && hash_piece(w, w->in_order, p, err))
            return named(p->file, err);
    }
    s->used = s->count = 0;
    return DR_OK;
}

static enum dr_rc submit(struct file_writer *w, struct dr_err *err)
{
    struct segment *s = w->filling;
    if (!s || !s->count)
        return DR_OK;
    w->spans = w->spans || (w->open && s->pieces[s->count - 1].file == w->open);
    w->filling = NULL;
    return crew_submit(w->crew, err);
}

/* A new piece of the open file, in a segment that has room for it. */
static enum dr_rc piece_new(struct file_writer *w, uint64_t at, struct piece **out,
                            struct dr_err *err)
{
    void *segment;
    if (w->filling && (w->filling->count == PIECES_MAX || w->filling->used == SEGMENT_BYTES) &&
        submit(w, err))
        return err->rc;
    if (!w->filling) {
        if (crew_room(w->crew, &segment, err))
            return err->rc;
        w->filling = segment;
    }
    struct segment *s = w->filling;
    *out = &s->pieces[s->count++];
    **out = (struct piece){.file = w->open, .at = at, .bytes = s->bytes + s->used};
    return DR_OK;
}

/* The last piece of the open file, if it lies in the segment at hand. */
static struct piece *piece_at_hand(struct file_writer *w)
{
    struct segment *s = w->filling;
    struct piece *p = s && s->count ? &s->pieces[s->count - 1] : NULL;
    return p && p->file == w->open ? p : NULL;
}

enum dr_rc file_writer_begin(struct file_writer *w, const struct pipe_file *f, int fd,
                             struct dr_err *err)
{
    if (w->open) {
        (void)close(fd);
        return dr_fail(err, DR_E_BUG, "a file within a file");
    }
    w->open = output_new(f, fd);
    w->spans = false;
    return DR_OK;
}

enum dr_rc file_writer_add(struct file_writer *w, const void *bytes, size_t len, uint64_t at,
                           struct dr_err *err)
{
    const unsigned char *from = bytes;
    while (len > 0) {
        struct piece *p = piece_at_hand(w);
        if (!p || p->at + p->len != at || w->filling->used == SEGMENT_BYTES)
            if (piece_new(w, at, &p, err))
                return err->rc;
        size_t room = SEGMENT_BYTES - w->filling->used, n = len < room ? len : room;
        memcpy(w->filling->bytes + w->filling->used, from, n);
        w->filling->used += n;
        p->len += n;
        from += n, at += n, len -= n;
    }
    return DR_OK;
}

enum dr_rc file_writer_end(struct file_writer *w, struct dr_err *err)
{
    struct piece *p = piece_at_hand(w);
    if (!p && piece_new(w, 0, &p, err)) /* nothing to write: it only ends the file */
        return err->rc;
    p->last = true;
    if (!w->spans)
        w->open->whole = true;
    w->open = NULL;
    return DR_OK;
}

enum dr_rc file_writer_flush(struct file_writer *w, struct dr_err *err)
{
    return submit(w, err) ? err->rc : crew_flush(w->crew, err);
}

static enum dr_rc contexts(struct file_writer *w, unsigned workers, struct dr_err *err)
{
    w->sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    w->in_order = EVP_MD_CTX_new();
    bool all = w->sha256 && w->in_order;
    for (unsigned i = 0; i < workers; i++) {
        w->ctx[i] = EVP_MD_CTX_new();
        all = all && w->ctx[i];
    }
    return all ? DR_OK : dr_fail(err, DR_E_CRYPTO, "SHA-256 is not there");
}

enum dr_rc file_writer_new(const struct file_writer_spec *spec, struct file_writer **out,
                           struct dr_err *err)
{
    struct file_writer *w = dr_xalloc(sizeof *w);
    void *segments[SEGMENTS_MAX];
    w->spec = *spec;
    if (w->spec.threads > FILE_WRITER_THREADS_MAX)
        w->spec.threads = FILE_WRITER_THREADS_MAX;
    w->segment_count = w->spec.threads ? 2 * w->spec.threads + 2 : 1;
    for (unsigned i = 0; i < w->segment_count; i++) {
        w->segments[i].bytes = dr_xalloc(SEGMENT_BYTES);
        segments[i] = &w->segments[i];
    }
    const struct crew_spec crew = {.threads = w->spec.threads,
                                   .segments = segments,
                                   .count = w->segment_count,
                                   .work = work,
                                   .drain = drain,
                                   .arg = w,
                                   .cancel = spec->cancel};
    enum dr_rc rc = contexts(w, w->spec.threads ? w->spec.threads : 1, err);
    if (!rc)
        rc = crew_new(&crew, &w->crew, err);
    if (rc)
        file_writer_free(w);
    else
        *out = w;
    return rc;
}

/* What was ended and not finished hangs on its last piece. */
static void drop_outputs(struct file_writer *w)
{
    for (unsigned i = 0; i < w->segment_count; i++)
        for (unsigned k = 0; k < w->segments[i].count; k++)
            if (w->segments[i].pieces[k].last)
                output_free(w->segments[i].pieces[k].file);
    output_free(w->open);
}

void file_writer_free(struct file_writer *w)
{
    if (!w)
        return;
    crew_free(w->crew);
    drop_outputs(w);
    for (unsigned i = 0; i < w->segment_count; i++)
        free(w->segments[i].bytes);
    for (unsigned i = 0; i < FILE_WRITER_THREADS_MAX; i++)
        EVP_MD_CTX_free(w->ctx[i]);
    EVP_MD_CTX_free(w->in_order);
    EVP_MD_free(w->sha256);
    free(w);
}
