/* Index reader: one record at a time from a source that cuts anywhere. A record that lies whole in
 * the source's piece is read in place, else it is put together in a buffer of at most 1 MiB. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"
#include "common/wire/pull.h"
#include "worker/backup/index.h"
#include "worker/backup/index_internal.h"

enum { LENGTH_BYTES = 4 };

struct index_reader {
    struct pipe_source source;
    const char **streams;
    uint32_t containers;
    const unsigned char *piece; /* borrowed from the source */
    size_t piece_len;
    bool source_ended, done, rooted; /* rooted: this stream's roots have begun */
    unsigned streams_read;
    uint64_t counts[INDEX_LETTERS];
    unsigned char *whole; /* a record that was cut */
    size_t whole_cap;
    struct index_lists lists;
};

enum dr_rc index_reader_new(const struct pipe_source *source, const char *const *streams,
                            uint32_t containers, struct index_reader **out, struct dr_err *err)
{
    (void)err;
    struct index_reader *r = dr_xalloc(sizeof *r);
    r->source = *source;
    if (streams) {
        size_t n = 0;
        while (streams[n])
            n++;
        r->streams = dr_xarray(n + 1, sizeof *r->streams);
        memcpy(r->streams, streams, n * sizeof *streams);
    }
    r->containers = containers;
    *out = r;
    return DR_OK;
}

void index_reader_free(struct index_reader *r)
{
    if (!r)
        return;
    free(r->streams);
    free(r->whole);
    free(r->lists.entries);
    free(r->lists.settings);
    free(r);
}

unsigned index_stream_number(const struct index_reader *r)
{
    return r->streams_read ? r->streams_read - 1 : 0;
}

static enum dr_rc refuse(struct dr_err *err, const char *class, const char *what)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "index: %s", what);
    return dr_err_reason(err, class);
}

/* More of the source; piece_len stays 0 at its end. */
static enum dr_rc fill(struct index_reader *r, struct dr_err *err)
{
    const void *bytes = NULL;
    size_t len = 0;
    if (r->piece_len > 0 || r->source_ended)
        return DR_OK;
    enum dr_rc rc = r->source.read(r->source.arg, &bytes, &len, err);
    if (rc)
        return rc;
    r->piece = bytes;
    r->piece_len = len;
    r->source_ended = len == 0;
    return DR_OK;
}

/* n bytes in one piece; *got fewer only at the source's end. */
static enum dr_rc take(struct index_reader *r, size_t n, const unsigned char **out, size_t *got,
                       struct dr_err *err)
{
    void *whole = r->whole;
    enum dr_rc rc = fill(r, err);
    if (rc)
        return rc;
    if (r->piece_len >= n) {
        *out = r->piece;
        *got = n;
        r->piece += n;
        r->piece_len -= n;
        return DR_OK;
    }
    *got = 0;
    while (*got < n) {
        if ((rc = fill(r, err)))
            return rc;
        if (r->piece_len == 0)
            break;
        size_t k = r->piece_len < n - *got ? r->piece_len : n - *got;
        if ((rc = index_room(&whole, &r->whole_cap, *got + k, err)))
            return rc;
        r->whole = whole;
        memcpy(r->whole + *got, r->piece, k);
        *got += k;
        r->piece += k;
        r->piece_len -= k;
    }
    *out = r->whole;
    return DR_OK;
}

static enum dr_rc read_end(struct index_reader *r, struct dr_pull *p, struct dr_err *err)
{
    size_t n = dr_pull_map(p, 2);
    unsigned seen = 0, want = 0;
    for (size_t i = 0; i < n && !p->bad; i++) {
        size_t len;
        const unsigned char *key = dr_pull_str(p, &len);
        int letter = len == 1 ? index_letter((char)*key) : -1;
        uint64_t count = dr_pull_uint(p);
        if (p->bad)
            break;
        if (letter < 0 || (seen & 1u << letter) || r->counts[letter] != count)
            return refuse(err, "index-counts", "its end counts other records");
        seen |= 1u << letter;
    }
    for (int i = 0; i < INDEX_LETTERS; i++)
        want |= r->counts[i] ? 1u << i : 0;
    if (!dr_pull_done(p))
        return refuse(err, "index-record", "record 'end' is malformed");
    if (want & ~seen)
        return refuse(err, "index-counts", "its end leaves out records");
    if (r->streams && r->streams[r->streams_read])
        return refuse(err, "index-order", "it ends before its last stream");
    enum dr_rc rc = fill(r, err);
    if (!rc && r->piece_len > 0)
        rc = refuse(err, "index-trailing", "bytes follow its end");
    r->done = !rc;
    return rc;
}

/* What the order of records demands before a record counts. */
static enum dr_rc admit(struct index_reader *r, const struct index_record *rec, struct dr_err *err)
{
    if (rec->type == INDEX_STREAM) {
        const char *want = r->streams ? r->streams[r->streams_read] : NULL;
        if (r->streams && !(want && strlen(want) == rec->stream.len &&
                            memcmp(want, rec->stream.data, rec->stream.len) == 0))
            return refuse(err, "index-order", "its streams are not the manifest's objects");
        r->streams_read++;
        r->rooted = false;
    } else if (r->streams_read == 0) {
        return refuse(err, "index-order", "a record before the first stream");
    }
    if (rec->type == INDEX_FILE && r->rooted)
        return refuse(err, "index-order", "a file behind the stream's roots");
    if (rec->type == INDEX_CHUNK && rec->chunk.container >= r->containers)
        return refuse(err, "index-record", "a chunk in a container that has no name");
    if (rec->type == INDEX_ROOT)
        r->rooted = true;
    r->counts[index_letter((char)rec->type)]++;
    return DR_OK;
}

static enum dr_rc read_record(struct index_reader *r, const unsigned char *bytes, size_t len,
                              struct index_record *rec, struct dr_err *err)
{
    const char *wrong = NULL;
    struct dr_pull p;
    size_t tag_len;
    dr_pull_init(&p, bytes, len);
    size_t fields = dr_pull_array(&p, 1);
    const unsigned char *tag = dr_pull_str(&p, &tag_len);
    if (!p.bad && fields == 2 && tag_len == 3 && memcmp(tag, "end", 3) == 0) {
        rec->type = INDEX_END;
        return read_end(r, &p, err);
    }
    if (p.bad || tag_len != 1 || index_letter((char)*tag) < 0)
        return refuse(err, "index-record", "a record of no known kind");
    memset(rec, 0, sizeof *rec);
    rec->type = (enum index_type) * tag;
    if (fields != index_field_count(rec->type))
        return refuse(err, "index-record", "a record with too few or too many fields");
    enum dr_rc rc = index_pull(&r->lists, &p, rec, &wrong, err);
    if (rc)
        return rc;
    if (!dr_pull_done(&p))
        return refuse(err, "index-record", "a record with a field of the wrong type");
    if (wrong)
        return refuse(err, "index-record", wrong);
    return admit(r, rec, err);
}

enum dr_rc index_next(struct index_reader *r, struct index_record *rec, bool *end,
                      struct dr_err *err)
{
    const unsigned char *at;
    size_t got;
    if (r->done)
        return dr_fail(err, DR_E_BUG, "index: read behind its end");
    enum dr_rc rc = take(r, LENGTH_BYTES, &at, &got, err);
    if (rc)
        return rc;
    if (got < LENGTH_BYTES)
        return refuse(err, "index-truncated", "it ends before its end record");
    size_t len = dr_get_u32be(at);
    if (len == 0 || len > INDEX_RECORD_MAX)
        return refuse(err, "index-length", "record length outside 1..1048576");
    if ((rc = take(r, len, &at, &got, err)))
        return rc;
    if (got < len)
        return refuse(err, "index-truncated", "it ends inside a record");
    rc = read_record(r, at, len, rec, err);
    *end = !rc && r->done;
    return rc;
}
