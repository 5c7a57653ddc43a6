/* Reading containers. The holder of the fill turn takes the next references (or measures the next
 * frames), reads and decrypts them; all threads decompress and check names; the caller takes the
 * segments in order. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/backup/container_internal.h"
#include "worker/backup/container_range.h"
#include "worker/pipe/crew.h"

enum {
    SEGMENT = 1 << 20,            /* plain bytes */
    STORED = SEGMENT + 65536,     /* and as they lie in containers */
    PIECES = 256,                 /* chunks */
    WINDOW = 4 * FRAME_STORED_MAX /* frames are looked for in so much */
};

struct piece {
    unsigned char name[FRAME_NAME];
    uint32_t stored_len, plain_len;
    bool raw;
};

struct segment {
    unsigned count;
    size_t plain_len, stored_len;
    struct piece pieces[PIECES];
    bool raw; /* nothing to decompress: the stored bytes are the plain ones */
    unsigned char *plain, *stored;
};

struct container_reader {
    struct container_reader_spec spec;
    const struct container **containers;
    struct crew *crew;
    struct frame_codec *codecs[CONTAINER_THREADS_MAX];
    unsigned workers, segment_count;
    struct segment *segments[CREW_SEGMENTS_MAX];
    bool named;
    /* below: of the fill turn */
    struct container_range **ranges; /* one a container, made when first used */
    struct container_ref ref;        /* asked for, did not fit the last segment */
    bool has_ref, no_more;
    uint64_t position; /* where the next chunk of containers[0] must begin */
    unsigned char *window;
    size_t window_at, window_len;
    uint64_t window_next; /* payload offset behind the window */
    unsigned char sha256[32];
    /* below: of the caller */
    EVP_MD_CTX *root;
    struct container_sums sums;
    bool ended;
};

static void segment_free(struct segment *s)
{
    if (!s)
        return;
    free(s->plain);
    free(s->stored);
    free(s);
}

static struct segment *segment_new(void)
{
    struct segment *s = dr_xalloc(sizeof *s);
    s->plain = dr_try_alloc(SEGMENT);
    s->stored = dr_try_alloc(STORED);
    if (s->plain && s->stored)
        return s;
    segment_free(s);
    return NULL;
}

static bool fits(const struct segment *s, size_t stored_len, size_t plain_len)
{
    return s->count < PIECES && plain_len <= SEGMENT - s->plain_len &&
           stored_len <= STORED - s->stored_len;
}

static struct piece *add_piece(struct segment *s, size_t stored_len, size_t plain_len, bool raw)
{
    struct piece *p = &s->pieces[s->count++];
    p->stored_len = (uint32_t)stored_len;
    p->plain_len = (uint32_t)plain_len;
    p->raw = raw;
    s->raw = s->raw && raw;
    s->stored_len += stored_len;
    s->plain_len += plain_len;
    return p;
}

static enum dr_rc range_of(struct container_reader *r, uint32_t n, struct container_range **out,
                           struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    if (!r->ranges[n])
        rc = container_range_new(r->containers[n], r->spec.whole && n == 0, &r->ranges[n], err);
    *out = r->ranges[n];
    return rc;
}

static enum dr_rc read_range(struct container_reader *r, uint32_t n, uint64_t offset, void *to,
                             size_t len, struct dr_err *err)
{
    struct container_range *range;
    enum dr_rc rc = range_of(r, n, &range, err);
    return rc || len == 0 ? rc : container_range_read(range, offset, to, len, err);
}

/* All that is left of containers[0]: nothing but its last encrypted chunk. */
static enum dr_rc end_container(struct container_reader *r, struct dr_err *err)
{
    struct container_range *range;
    if (r->position != r->containers[0]->plain)
        return container_refuse(err, "chunk-order", "bytes after the last chunk that is named");
    enum dr_rc rc = range_of(r, 0, &range, err);
    return rc ? rc : container_range_end(range, r->spec.whole ? r->sha256 : NULL, err);
}

static enum dr_rc check_ref(struct container_reader *r, struct dr_err *err)
{
    const struct container_ref *f = &r->ref;
    if (f->container >= r->spec.count || !r->containers[f->container])
        return container_refuse(err, "chunk-range", "a chunk of a container that is not there");
    bool raw = r->containers[f->container]->header[AT_COMP] == COMP_NONE;
    if (f->plain_len < 1 || f->plain_len > FRAME_PLAIN_MAX || f->stored_len < 1 ||
        f->stored_len > FRAME_STORED_MAX || (raw && f->stored_len != f->plain_len))
        return container_refuse(err, "chunk-range", "a chunk of an impossible length");
    if (!r->spec.whole || f->container != 0)
        return DR_OK;
    if (f->offset != r->position)
        return container_refuse(err, "chunk-order", "a gap or an overlap before a chunk");
    r->position += f->stored_len;
    return DR_OK;
}

/* The next reference into r->ref; no_more at the end. */
static enum dr_rc next_ref(struct container_reader *r, struct dr_err *err)
{
    bool end = false;
    if (r->has_ref || r->no_more)
        return DR_OK;
    enum dr_rc rc = r->spec.next(r->spec.arg, &r->ref, &end, err);
    r->no_more = !rc && end;
    r->has_ref = !rc && !end;
    return rc || end ? rc : check_ref(r, err);
}

/* References that follow each other in one container are read at once. */
static enum dr_rc fill_refs(struct container_reader *r, struct segment *s, bool *last,
                            struct dr_err *err)
{
    uint32_t container = 0;
    uint64_t begin = 0;
    size_t run = 0, done = 0; /* length of the run; stored bytes before it */
    enum dr_rc rc = next_ref(r, err);
    while (!rc && r->has_ref && fits(s, r->ref.stored_len, r->ref.plain_len)) {
        const struct container_ref *f = &r->ref;
        if (run && (f->container != container || f->offset != begin + run)) {
            rc = read_range(r, container, begin, s->stored + done, run, err);
            done += run;
            run = 0;
        }
        if (run == 0) {
            container = f->container;
            begin = f->offset;
        }
        run += f->stored_len;
        struct piece *p = add_piece(s, f->stored_len, f->plain_len,
                                    r->containers[container]->header[AT_COMP] == COMP_NONE);
        memcpy(p->name, f->name, FRAME_NAME);
        r->has_ref = false;
        if (!rc)
            rc = next_ref(r, err);
    }
    if (!rc)
        rc = read_range(r, container, begin, s->stored + done, run, err);
    *last = r->no_more;
    return rc || !r->no_more || !r->spec.whole ? rc : end_container(r, err);
}

/* comp 0, walked: the payload is the stream, cut where writers cut. */
static enum dr_rc fill_raw(struct container_reader *r, struct segment *s, bool *last,
                           struct dr_err *err)
{
    uint64_t begin = r->position, left = r->containers[0]->plain - begin;
    while (left > 0) {
        size_t len = left < FRAME_CUT ? (size_t)left : FRAME_CUT;
        if (!fits(s, len, len))
            break;
        (void)add_piece(s, len, len, true);
        left -= len;
    }
    enum dr_rc rc = read_range(r, 0, begin, s->stored, s->stored_len, err);
    r->position += s->stored_len;
    *last = left == 0;
    return rc || left > 0 ? rc : end_container(r, err);
}

/* More of the payload behind what is left of the window. */
static enum dr_rc refill(struct container_reader *r, struct dr_err *err)
{
    uint64_t left = r->containers[0]->plain - r->window_next;
    size_t rest = r->window_len - r->window_at, room = WINDOW - rest;
    size_t take = left < room ? (size_t)left : room;
    memmove(r->window, r->window + r->window_at, rest);
    r->window_at = 0;
    r->window_len = rest + take;
    enum dr_rc rc = read_range(r, 0, r->window_next, r->window + rest, take, err);
    r->window_next += take;
    return rc;
}

static enum dr_rc fill_frames(struct container_reader *r, struct segment *s, bool *last,
                              struct dr_err *err)
{
    uint64_t total = r->containers[0]->plain;
    enum dr_rc rc = DR_OK;
    while (!rc && r->position < total) {
        size_t stored_len = 0, plain_len = 0, have = r->window_len - r->window_at;
        const unsigned char *p = r->window + r->window_at;
        if (have > 0)
            rc = frame_measure(p, have, r->window_next == total, &stored_len, &plain_len, err);
        if (!rc && stored_len == 0) {
            rc = refill(r, err);
            continue;
        }
        if (rc || !fits(s, stored_len, plain_len))
            break;
        memcpy(s->stored + s->stored_len, p, stored_len);
        (void)add_piece(s, stored_len, plain_len, false);
        r->window_at += stored_len;
        r->position += stored_len;
    }
    *last = r->position == total;
    return rc || !*last ? rc : end_container(r, err);
}

static enum dr_rc fill(void *arg, void *segment, bool *last, struct dr_err *err)
{
    struct container_reader *r = arg;
    struct segment *s = segment;
    s->count = 0;
    s->plain_len = s->stored_len = 0;
    s->raw = true;
    if (r->spec.next)
        return fill_refs(r, s, last, err);
    if (r->containers[0]->header[AT_COMP] == COMP_NONE)
        return fill_raw(r, s, last, err);
    return fill_frames(r, s, last, err);
}

static enum dr_rc unpack(struct frame_codec *codec, const struct piece *p,
                         const unsigned char *stored, unsigned char *plain, bool measure,
                         struct dr_err *err)
{
    size_t stored_len = p->stored_len, plain_len = p->plain_len;
    enum dr_rc rc = DR_OK;
    if (p->raw) {
        memcpy(plain, stored, p->plain_len);
        return DR_OK;
    }
    if (measure)
        rc = frame_measure(stored, p->stored_len, true, &stored_len, &plain_len, err);
    if (!rc && (stored_len != p->stored_len || plain_len != p->plain_len))
        return container_refuse(err, "frame", "a chunk is not as long as the index says");
    return rc ? rc : frame_unpack(codec, stored, stored_len, plain, plain_len, err);
}

static enum dr_rc work(void *arg, unsigned worker, void *segment, struct dr_err *err)
{
    struct container_reader *r = arg;
    struct segment *s = segment;
    struct frame_codec *codec = r->codecs[worker];
    unsigned char name[FRAME_NAME];
    const unsigned char *stored = s->stored;
    size_t at = 0;
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; !rc && i < s->count; i++) {
        struct piece *p = &s->pieces[i];
        if (!s->raw)
            rc = unpack(codec, p, stored, s->plain + at, r->spec.next, err);
        if (!rc && r->named)
            rc = frame_name(codec, (s->raw ? s->stored : s->plain) + at, p->plain_len, name, err);
        if (!rc && r->spec.next && memcmp(name, p->name, sizeof name) != 0)
            rc = container_refuse(err, "chunk-name", "a chunk is not the one the index names");
        else if (r->named)
            memcpy(p->name, name, sizeof name);
        stored += p->stored_len;
        at += p->plain_len;
    }
    return rc;
}

static enum dr_rc set_up_codecs(struct container_reader *r, struct dr_err *err)
{
    const struct container *c = r->containers[0];
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; !rc && i < r->workers; i++)
        rc = frame_codec_new(0, r->named ? container_secrets(c)->name_key : NULL, &r->codecs[i],
                             err);
    return rc;
}

static enum dr_rc set_up(struct container_reader *r, struct dr_err *err)
{
    struct crew_spec crew = {
        .threads = r->spec.threads, .fill = fill, .work = work, .arg = r, .cancel = r->spec.cancel};
    unsigned want = r->spec.threads ? 2 * r->spec.threads + 2 : 1;
    r->workers = r->spec.threads ? r->spec.threads : 1;
    r->root = EVP_MD_CTX_new();
    r->window = dr_try_alloc(WINDOW);
    while (r->segment_count < want) {
        struct segment *s = segment_new();
        if (!s)
            break;
        r->segments[r->segment_count++] = s;
    }
    if (!r->window || r->segment_count < want)
        return dr_fail(err, DR_E_NOMEM, "container: no memory for %u segments", want);
    if (!r->root || EVP_DigestInit_ex2(r->root, EVP_sha256(), NULL) != 1)
        return aead_crypto_failed(err, "SHA-256");
    crew.segments = (void *const *)r->segments;
    crew.count = want;
    enum dr_rc rc = set_up_codecs(r, err);
    return rc ? rc : crew_new(&crew, &r->crew, err);
}

enum dr_rc container_reader_new(const struct container_reader_spec *spec,
                                struct container_reader **out, struct dr_err *err)
{
    if (spec->threads > CONTAINER_THREADS_MAX || spec->count < 1)
        return dr_fail(err, DR_E_BUG, "container: %u threads, %u containers", spec->threads,
                       spec->count);
    if (!spec->next && container_incremental(spec->containers[0]))
        return container_refuse(err, "incremental", "its stream is not in it alone");
    struct container_reader *r = dr_xalloc(sizeof *r);
    r->spec = *spec;
    r->containers = dr_xarray(spec->count, sizeof(struct container *));
    r->ranges = dr_xarray(spec->count, sizeof *r->ranges);
    r->named = true;
    for (unsigned i = 0; i < spec->count; i++) {
        r->containers[i] = spec->containers[i];
        r->named = r->named && (!spec->containers[i] || spec->containers[i]->has_names);
    }
    enum dr_rc rc = spec->next && !r->named
                        ? dr_fail(err, DR_E_BUG, "container: chunks cannot be named without keys")
                        : set_up(r, err);
    if (rc)
        container_reader_free(r);
    else
        *out = r;
    return rc;
}

void container_reader_free(struct container_reader *r)
{
    if (!r)
        return;
    crew_free(r->crew);
    for (unsigned i = 0; i < r->segment_count; i++)
        segment_free(r->segments[i]);
    for (unsigned i = 0; i < r->workers; i++)
        frame_codec_free(r->codecs[i]);
    for (unsigned i = 0; i < r->spec.count; i++)
        container_range_free(r->ranges[i]);
    EVP_MD_CTX_free(r->root);
    free(r->ranges);
    free(r->containers);
    free(r->window);
    free(r);
}

static enum dr_rc count(struct container_reader *r, const struct segment *s, struct dr_err *err)
{
    unsigned char text[FRAME_NAME + 4];
    for (unsigned i = 0; r->named && i < s->count; i++) {
        memcpy(text, s->pieces[i].name, FRAME_NAME);
        dr_put_u32be(text + FRAME_NAME, s->pieces[i].plain_len);
        if (EVP_DigestUpdate(r->root, text, sizeof text) != 1)
            return aead_crypto_failed(err, "SHA-256");
    }
    r->sums.chunks += s->count;
    r->sums.plain_bytes += s->plain_len;
    if (r->spec.progress)
        atomic_fetch_add(r->spec.progress, s->plain_len);
    return DR_OK;
}

enum dr_rc container_read(struct container_reader *r, const void **bytes, size_t *len,
                          struct dr_err *err)
{
    void *segment = NULL;
    *len = 0;
    *bytes = NULL;
    enum dr_rc rc = r->ended ? DR_OK : crew_take(r->crew, &segment, err);
    if (rc || r->ended)
        return rc;
    const struct segment *s = segment;
    while (!rc && s && s->plain_len == 0) { /* only the last one may be empty */
        rc = crew_take(r->crew, &segment, err);
        s = segment;
    }
    if (!rc && !s)
        r->ended = true;
    if (rc || !s)
        return rc;
    *bytes = s->raw ? s->stored : s->plain;
    *len = s->plain_len;
    return count(r, s, err);
}

enum dr_rc container_reader_sums(struct container_reader *r, struct container_sums *out,
                                 struct dr_err *err)
{
    if (!r->ended)
        return dr_fail(err, DR_E_BUG, "container: sums before its end");
    *out = r->sums;
    out->generation = container_generation(r->containers[0]);
    out->stored_bytes = r->containers[0]->stored;
    memcpy(out->sha256_payload, r->sha256, sizeof r->sha256);
    EVP_MD_CTX *root = EVP_MD_CTX_new();
    bool ok = root && EVP_MD_CTX_copy_ex(root, r->root) == 1 &&
              EVP_DigestFinal_ex(root, out->root, NULL) == 1;
    EVP_MD_CTX_free(root);
    if (!r->named)
        memset(out->root, 0, sizeof out->root);
    return ok ? DR_OK : aead_crypto_failed(err, "SHA-256");
}

static enum dr_rc source_read(void *arg, const void **bytes, size_t *len, struct dr_err *err)
{
    return container_read(arg, bytes, len, err);
}

struct pipe_source container_reader_source(struct container_reader *r)
{
    return (struct pipe_source){.read = source_read, .arg = r};
}
