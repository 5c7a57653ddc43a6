/* Writing a container. The caller fills segments; compressors name and compress their chunks; the
 * holder of the drain turn encrypts, hashes and writes them in order. The encrypted chunk that is
 * not full yet is carried from one segment to the next. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/str.h"
#include "worker/backup/container_internal.h"
#include "worker/pipe/crew.h"
#include "worker/pipe/rw.h"

enum {
    CUTS = 16, /* chunks a segment */
    SEGMENT = CUTS * FRAME_CUT,
    SEGMENT_STORED = CUTS * FRAME_CUT_STORED,
    SEALED_MAX = (SEGMENT_STORED / AEAD_CHUNK + 2) * AEAD_SEALED,
    FLUSH_EVERY = 8 << 20 /* the kernel is told to begin writing, so that fsync finds little left */
};

struct segment {
    size_t len, stored_len;
    unsigned cuts;
    struct container_chunk chunks[CUTS];
    unsigned char *plain, *stored; /* the same when nothing is compressed */
};

struct container_writer {
    struct container_spec spec;
    struct crew *crew;
    struct frame_codec *codecs[CONTAINER_THREADS_MAX];
    unsigned workers, segment_count;
    struct segment *segments[CREW_SEGMENTS_MAX];
    struct segment *filling; /* the caller's */
    bool finished;
    /* below: of the drain turn */
    struct aead *aead;
    EVP_MD_CTX *payload_hash, *root;
    unsigned char *sealed, carry[AEAD_CHUNK];
    size_t carry_len;
    uint64_t next_chunk, written, flushed, looked, payload_plain;
    struct container_sums sums;
};

static void segment_free(struct segment *s)
{
    if (!s)
        return;
    if (s->stored != s->plain)
        free(s->stored);
    free(s->plain);
    free(s);
}

static struct segment *segment_new(bool compress)
{
    struct segment *s = dr_xalloc(sizeof *s);
    s->plain = dr_try_alloc(SEGMENT);
    s->stored = compress ? dr_try_alloc(SEGMENT_STORED) : s->plain;
    if (s->plain && s->stored)
        return s;
    segment_free(s);
    return NULL;
}

static enum dr_rc work(void *arg, unsigned worker, void *segment, struct dr_err *err)
{
    struct container_writer *w = arg;
    struct segment *s = segment;
    struct frame_codec *codec = w->codecs[worker];
    enum dr_rc rc = DR_OK;
    s->cuts = 0;
    s->stored_len = 0;
    for (size_t at = 0; !rc && at < s->len; at += FRAME_CUT) {
        size_t len = s->len - at < FRAME_CUT ? s->len - at : FRAME_CUT, stored = len;
        struct container_chunk *c = &s->chunks[s->cuts++];
        rc = frame_name(codec, s->plain + at, len, c->name, err);
        if (!rc && w->spec.level)
            rc = frame_pack(codec, s->plain + at, len, s->stored + s->stored_len, &stored, err);
        c->plain_len = (uint32_t)len;
        c->stored_len = (uint32_t)stored;
        s->stored_len += stored;
    }
    return rc;
}

/* Begins writing back what is complete: sync_file_range is a hint, its errors come back in fsync.
 */
static void write_back(struct container_writer *w)
{
    if (w->written - w->flushed < FLUSH_EVERY)
        return;
    (void)sync_file_range(w->spec.fd, (off_t)w->flushed, (off_t)(w->written - w->flushed),
                          SYNC_FILE_RANGE_WRITE);
    w->flushed = w->written;
}

/* Others write to the same volume: what was room when this one began need not be. */
static enum dr_rc has_room(struct container_writer *w, size_t len, struct dr_err *err)
{
    if (!w->spec.room || w->written + len - w->looked < CONTAINER_LOOK)
        return DR_OK;
    w->looked = w->written + len;
    return w->spec.room(w->spec.room_arg, len, err);
}

static enum dr_rc put(struct container_writer *w, const unsigned char *bytes, size_t len,
                      bool payload, struct dr_err *err)
{
    enum dr_rc rc = has_room(w, len, err);
    if (rc)
        return rc;
    if (payload && EVP_DigestUpdate(w->payload_hash, bytes, len) != 1)
        return aead_crypto_failed(err, "SHA-256");
    rc = rw_write_at(w->spec.fd, w->written, bytes, len, "container", err);
    w->written += len;
    write_back(w);
    return rc;
}

/* Full chunks of what is carried and given are sealed and written; the rest is carried. */
static enum dr_rc seal(struct container_writer *w, const unsigned char *p, size_t len,
                       struct dr_err *err)
{
    size_t out = 0;
    enum dr_rc rc = DR_OK;
    while (!rc && w->carry_len + len >= AEAD_CHUNK) {
        const unsigned char *chunk = p;
        size_t take = AEAD_CHUNK - w->carry_len;
        if (w->carry_len) {
            memcpy(w->carry + w->carry_len, p, take);
            chunk = w->carry;
        }
        rc = aead_seal(w->aead, w->next_chunk++, chunk, AEAD_CHUNK, w->sealed + out, err);
        out += AEAD_SEALED;
        w->carry_len = 0;
        p += take;
        len -= take;
    }
    memcpy(w->carry + w->carry_len, p, len);
    w->carry_len += len;
    return rc || out == 0 ? rc : put(w, w->sealed, out, true, err);
}

static enum dr_rc count_chunk(struct container_writer *w, struct container_chunk *c,
                              struct dr_err *err)
{
    unsigned char text[FRAME_NAME + 4];
    c->offset = w->payload_plain;
    w->payload_plain += c->stored_len;
    w->sums.plain_bytes += c->plain_len;
    w->sums.chunks++;
    memcpy(text, c->name, FRAME_NAME);
    dr_put_u32be(text + FRAME_NAME, c->plain_len);
    if (EVP_DigestUpdate(w->root, text, sizeof text) != 1)
        return aead_crypto_failed(err, "SHA-256");
    return w->spec.on_chunk ? w->spec.on_chunk(w->spec.arg, c, err) : DR_OK;
}

static enum dr_rc drain(void *arg, void *segment, struct dr_err *err)
{
    struct container_writer *w = arg;
    struct segment *s = segment;
    enum dr_rc rc = DR_OK;
    for (unsigned i = 0; !rc && i < s->cuts; i++)
        rc = count_chunk(w, &s->chunks[i], err);
    if (!rc)
        rc = seal(w, s->stored, s->stored_len, err);
    if (!rc && w->spec.progress)
        atomic_fetch_add(w->spec.progress, s->len);
    return rc;
}

static enum dr_rc set_up_codecs(struct container_writer *w, struct dr_err *err)
{
    unsigned char name_key[FRAME_NAME_KEY];
    enum dr_rc rc = keyring_derive(w->spec.keys, 1, "chunk-name", name_key, sizeof name_key, err);
    for (unsigned i = 0; !rc && i < w->workers; i++) {
        rc = frame_codec_new(w->spec.level, name_key, &w->codecs[i], err);
        if (!rc && w->spec.rows)
            rc = frame_codec_rows(w->codecs[i], err);
    }
    dr_wipe(name_key, sizeof name_key);
    return rc;
}

static enum dr_rc begin_file(struct container_writer *w, const struct container_random *random,
                             struct dr_err *err)
{
    unsigned char header[CONTAINER_HEADER], prefix[AEAD_PREFIX];
    struct aead_keys keys = {0};
    enum dr_rc rc = container_header(&w->spec, random, header, &keys, err);
    memcpy(prefix, random->salt, AEAD_SALT);
    memcpy(prefix + AEAD_SALT, keys.commitment, AEAD_COMMITMENT);
    if (!rc)
        rc = aead_new(&keys, &w->aead, err);
    dr_wipe(&keys, sizeof keys);
    if (!rc && (!w->payload_hash || !w->root ||
                EVP_DigestInit_ex2(w->payload_hash, EVP_sha256(), NULL) != 1 ||
                EVP_DigestInit_ex2(w->root, EVP_sha256(), NULL) != 1))
        rc = aead_crypto_failed(err, "SHA-256");
    if (!rc)
        rc = put(w, header, sizeof header, false, err);
    return rc ? rc : put(w, prefix, sizeof prefix, true, err);
}

static enum dr_rc set_up(struct container_writer *w, const struct container_random *random,
                         struct dr_err *err)
{
    struct crew_spec crew = {.threads = w->spec.threads,
                             .work = work,
                             .drain = drain,
                             .arg = w,
                             .cancel = w->spec.cancel};
    w->workers = w->spec.threads ? w->spec.threads : 1;
    w->sums.generation = keyring_generation(w->spec.keys);
    w->payload_hash = EVP_MD_CTX_new();
    w->root = EVP_MD_CTX_new();
    w->sealed = dr_try_alloc(SEALED_MAX);
    unsigned want = w->spec.threads ? 2 * w->spec.threads + 2 : 1;
    while (w->segment_count < want) {
        struct segment *s = segment_new(w->spec.level > 0);
        if (!s)
            break;
        w->segments[w->segment_count++] = s;
    }
    if (!w->sealed || w->segment_count < want)
        return dr_fail(err, DR_E_NOMEM, "container: no memory for %u segments", want);
    enum dr_rc rc = set_up_codecs(w, err);
    if (!rc)
        rc = begin_file(w, random, err);
    crew.segments = (void *const *)w->segments;
    crew.count = want;
    return rc ? rc : crew_new(&crew, &w->crew, err);
}

enum dr_rc container_writer_new_with(const struct container_spec *spec,
                                     const struct container_random *random,
                                     struct container_writer **out, struct dr_err *err)
{
    if (spec->threads > CONTAINER_THREADS_MAX)
        return dr_fail(err, DR_E_BUG, "container: %u threads", spec->threads);
    struct container_writer *w = dr_xalloc(sizeof *w);
    w->spec = *spec;
    enum dr_rc rc = set_up(w, random, err);
    if (rc)
        container_writer_free(w);
    else
        *out = w;
    return rc;
}

enum dr_rc container_writer_new(const struct container_spec *spec, struct container_writer **out,
                                struct dr_err *err)
{
    struct container_random random;
    dr_random_bytes(&random, sizeof random);
    enum dr_rc rc = container_writer_new_with(spec, &random, out, err);
    dr_wipe(&random, sizeof random);
    return rc;
}

void container_writer_free(struct container_writer *w)
{
    if (!w)
        return;
    crew_free(w->crew);
    for (unsigned i = 0; i < w->segment_count; i++)
        segment_free(w->segments[i]);
    for (unsigned i = 0; i < w->workers; i++)
        frame_codec_free(w->codecs[i]);
    aead_free(w->aead);
    EVP_MD_CTX_free(w->payload_hash);
    EVP_MD_CTX_free(w->root);
    free(w->sealed);
    dr_wipe(w, sizeof *w); /* carry holds plain bytes */
    free(w);
}

enum dr_rc container_reserve(struct container_writer *w, void **room, size_t *len,
                             struct dr_err *err)
{
    if (w->finished)
        return dr_fail(err, DR_E_BUG, "container: written after its end");
    if (!w->filling) {
        void *segment = NULL;
        enum dr_rc rc = crew_room(w->crew, &segment, err);
        if (rc)
            return rc;
        w->filling = segment;
        w->filling->len = 0;
    }
    *room = w->filling->plain + w->filling->len;
    *len = SEGMENT - w->filling->len;
    return DR_OK;
}

enum dr_rc container_commit(struct container_writer *w, size_t len, struct dr_err *err)
{
    if (!w->filling || len > SEGMENT - w->filling->len)
        return len == 0 ? DR_OK : dr_fail(err, DR_E_BUG, "container: more committed than reserved");
    w->filling->len += len;
    if (w->filling->len < SEGMENT)
        return DR_OK;
    w->filling = NULL;
    return crew_submit(w->crew, err);
}

enum dr_rc container_write(struct container_writer *w, const void *bytes, size_t len,
                           struct dr_err *err)
{
    const unsigned char *p = bytes;
    enum dr_rc rc = DR_OK;
    while (!rc && len > 0) {
        void *room = NULL;
        size_t n = 0;
        rc = container_reserve(w, &room, &n, err);
        if (rc)
            break;
        n = n < len ? n : len;
        memcpy(room, p, n);
        rc = container_commit(w, n, err);
        p += n;
        len -= n;
    }
    return rc;
}

/* The last encrypted chunk is always shorter than a full one, and may be empty. */
static enum dr_rc end_file(struct container_writer *w, struct dr_err *err)
{
    enum dr_rc rc = aead_seal(w->aead, w->next_chunk, w->carry, w->carry_len, w->sealed, err);
    if (!rc)
        rc = put(w, w->sealed, w->carry_len + AEAD_TAG, true, err);
    if (rc)
        return rc;
    if (EVP_DigestFinal_ex(w->payload_hash, w->sums.sha256_payload, NULL) != 1 ||
        EVP_DigestFinal_ex(w->root, w->sums.root, NULL) != 1)
        return aead_crypto_failed(err, "SHA-256");
    if (fsync(w->spec.fd) != 0)
        return dr_fail_errno(err, DR_E_IO, "container: fsync");
    w->sums.stored_bytes = w->written;
    return DR_OK;
}

enum dr_rc container_finish(struct container_writer *w, struct container_sums *out,
                            struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    if (w->finished)
        return dr_fail(err, DR_E_BUG, "container: finished twice");
    w->finished = true;
    if (w->filling)
        rc = crew_submit(w->crew, err);
    w->filling = NULL;
    if (!rc)
        rc = crew_flush(w->crew, err);
    if (!rc)
        rc = end_file(w, err);
    if (!rc)
        *out = w->sums;
    return rc;
}

static enum dr_rc sink_write(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    return container_write(arg, bytes, len, err);
}

struct pipe_sink container_writer_sink(struct container_writer *w)
{
    return (struct pipe_sink){.write = sink_write, .arg = w};
}
