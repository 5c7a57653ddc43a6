/* Index writer: one record at a time into a buffer, then into the sink. The mutex keeps chunk
 * records, which come from the container writer's threads, apart from the others. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/pack.h"
#include "worker/backup/index.h"
#include "worker/backup/index_internal.h"

enum { LENGTH_BYTES = 4 };

struct index_writer {
    struct pipe_sink sink;
    pthread_mutex_t mutex;
    struct dr_buf record; /* length and array of the record being written */
    uint64_t counts[INDEX_LETTERS];
    bool ended;
    struct dr_err err; /* the first one */
};

enum dr_rc index_writer_new(const struct pipe_sink *sink, struct index_writer **out,
                            struct dr_err *err)
{
    struct index_writer *w = dr_xalloc(sizeof *w);
    w->sink = *sink;
    dr_buf_init(&w->record, INDEX_RECORD_MAX + LENGTH_BYTES);
    if (pthread_mutex_init(&w->mutex, NULL) != 0) {
        free(w);
        return dr_fail(err, DR_E_NOMEM, "index: no mutex");
    }
    *out = w;
    return DR_OK;
}

void index_writer_free(struct index_writer *w)
{
    if (!w)
        return;
    (void)pthread_mutex_destroy(&w->mutex);
    dr_buf_fini(&w->record);
    free(w);
}

/* Opens a record under the mutex; close_record follows always. */
static struct dr_buf *open_record(struct index_writer *w, const char *tag, size_t fields)
{
    (void)pthread_mutex_lock(&w->mutex);
    dr_buf_reset(&w->record);
    dr_buf_u32be(&w->record, 0);
    dr_pack_array(&w->record, fields);
    dr_pack_text(&w->record, tag);
    return &w->record;
}

static enum dr_rc close_record(struct index_writer *w, char type, const char *wrong,
                               struct dr_err *err)
{
    struct dr_buf *b = &w->record;
    int letter = index_letter(type);
    if (!w->err.rc) {
        if (wrong)
            (void)dr_fail(&w->err, DR_E_INVALID, "index record '%c': %s", type, wrong);
        else if (w->ended)
            (void)dr_fail(&w->err, DR_E_BUG, "index record '%c' behind the end", type);
        else if (letter >= 0 && type != 's' && w->counts[index_letter('s')] == 0)
            (void)dr_fail(&w->err, DR_E_BUG, "index record '%c' before any stream", type);
        else if (b->failed)
            (void)dr_fail(&w->err, DR_E_TOO_BIG, "index record '%c' over %d bytes", type,
                          INDEX_RECORD_MAX);
    }
    if (!w->err.rc) {
        dr_put_u32be(b->data, (uint32_t)(b->len - LENGTH_BYTES));
        if (!w->sink.write(w->sink.arg, b->data, b->len, &w->err) && letter >= 0)
            w->counts[letter]++;
    }
    enum dr_rc rc = w->err.rc;
    if (rc && err && !err->rc)
        *err = w->err;
    (void)pthread_mutex_unlock(&w->mutex);
    return rc;
}

static void put_bytes(struct dr_buf *b, struct pipe_bytes v)
{
    dr_pack_bin(b, v.len ? (const void *)v.data : "", v.len);
}

static void put_bytes_or_nil(struct dr_buf *b, bool has, struct pipe_bytes v)
{
    if (has)
        put_bytes(b, v);
    else
        dr_pack_nil(b);
}

static void put_digest(struct dr_buf *b, bool has, const unsigned char digest[16])
{
    if (has)
        dr_pack_bin(b, digest, 16);
    else
        dr_pack_nil(b);
}

enum dr_rc index_put_stream(struct index_writer *w, const char *name, struct dr_err *err)
{
    const struct pipe_bytes v = {(const unsigned char *)name, strlen(name)};
    dr_pack_text(open_record(w, "s", 2), name);
    return close_record(w, 's', index_check_stream(v), err);
}

enum dr_rc index_put_chunk(struct index_writer *w, const struct index_chunk *c, struct dr_err *err)
{
    struct dr_buf *b = open_record(w, "c", 6);
    dr_pack_bin(b, c->name, sizeof c->name);
    dr_pack_uint(b, c->container);
    dr_pack_uint(b, c->offset);
    dr_pack_uint(b, c->stored_len);
    dr_pack_uint(b, c->plain_len);
    return close_record(w, 'c', index_check_chunk(c), err);
}

enum dr_rc index_put_file(struct index_writer *w, const struct pipe_file *f, struct dr_err *err)
{
    struct dr_buf *b = open_record(w, "f", 13);
    put_bytes(b, f->path);
    dr_pack_str(b, &f->type, 1);
    dr_pack_uint(b, f->mode);
    dr_pack_uint(b, f->uid);
    dr_pack_uint(b, f->gid);
    put_bytes(b, f->uname);
    put_bytes(b, f->gname);
    dr_pack_int(b, f->mtime_ns);
    dr_pack_uint(b, f->size);
    put_bytes_or_nil(b, f->has_sha256, (struct pipe_bytes){f->sha256, sizeof f->sha256});
    put_bytes_or_nil(b, f->has_target, f->target);
    dr_pack_array(b, f->xattr_count);
    for (unsigned i = 0; i < f->xattr_count; i++) {
        dr_pack_array(b, 2);
        put_bytes(b, f->xattrs[i].name);
        put_bytes(b, f->xattrs[i].value);
    }
    return close_record(w, 'f', index_check_file(f), err);
}

enum dr_rc index_put_root(struct index_writer *w, const struct pipe_root *r, struct dr_err *err)
{
    struct dr_buf *b = open_record(w, "r", 5);
    put_bytes(b, r->path);
    dr_pack_bool(b, r->mount);
    dr_pack_bin(b, r->content, sizeof r->content);
    dr_pack_bin(b, r->meta, sizeof r->meta);
    return close_record(w, 'r', index_check_path(r->path), err);
}

enum dr_rc index_put_skip(struct index_writer *w, const struct pipe_skip *x, struct dr_err *err)
{
    struct dr_buf *b = open_record(w, "x", 3);
    put_bytes(b, x->path);
    dr_pack_text(b, x->why ? x->why : "");
    return close_record(w, 'x', index_check_skip(x), err);
}

enum dr_rc index_put_table(struct index_writer *w, const struct pipe_table *t, struct dr_err *err)
{
    struct dr_buf *b = open_record(w, "t", 6);
    put_bytes(b, t->schema);
    put_bytes(b, t->name);
    dr_pack_array(b, t->column_count);
    for (unsigned i = 0; i < t->column_count; i++)
        put_bytes(b, t->columns[i]);
    if (t->has_rows)
        dr_pack_uint(b, t->rows);
    else
        dr_pack_nil(b);
    put_digest(b, t->has_digest, t->digest);
    return close_record(w, 't', index_check_table(t), err);
}

enum dr_rc index_put_sequence(struct index_writer *w, const struct pipe_sequence *q,
                              struct dr_err *err)
{
    struct dr_buf *b = open_record(w, "q", 5);
    put_bytes(b, q->schema);
    put_bytes(b, q->name);
    dr_pack_int(b, q->last);
    dr_pack_bool(b, q->called);
    return close_record(w, 'q', NULL, err);
}

enum dr_rc index_put_blobs(struct index_writer *w, const struct pipe_blobs *o, struct dr_err *err)
{
    struct dr_buf *b = open_record(w, "o", 4);
    dr_pack_uint(b, o->count);
    dr_pack_uint(b, o->bytes);
    put_digest(b, o->has_digest, o->digest);
    return close_record(w, 'o', NULL, err);
}

static void put_named(struct dr_buf *b, const char *key, struct pipe_bytes v)
{
    dr_pack_text(b, key);
    put_bytes_or_nil(b, v.data != NULL, v);
}

enum dr_rc index_put_properties(struct index_writer *w, const struct index_properties *p,
                                struct dr_err *err)
{
    struct dr_buf *b = open_record(w, "p", 2);
    dr_pack_map(b, 13);
    put_named(b, "name", p->name);
    put_named(b, "owner", p->owner);
    put_named(b, "tablespace", p->tablespace);
    put_named(b, "encoding", p->encoding);
    put_named(b, "provider", p->provider);
    put_named(b, "collate", p->collate);
    put_named(b, "ctype", p->ctype);
    put_named(b, "locale", p->locale);
    put_named(b, "comment", p->comment);
    put_named(b, "lc_monetary", p->lc_monetary);
    dr_pack_text(b, "connlimit");
    dr_pack_int(b, p->connlimit);
    dr_pack_text(b, "acl");
    if (p->has_acl)
        dr_pack_array(b, p->acl_count);
    else
        dr_pack_nil(b);
    for (unsigned i = 0; p->has_acl && i < p->acl_count; i++)
        put_bytes(b, p->acl[i]);
    dr_pack_text(b, "settings");
    dr_pack_array(b, p->setting_count);
    for (unsigned i = 0; i < p->setting_count; i++) {
        dr_pack_array(b, 2);
        put_bytes(b, p->settings[i].role);
        put_bytes(b, p->settings[i].value);
    }
    return close_record(w, 'p', NULL, err);
}

enum dr_rc index_end(struct index_writer *w, struct dr_err *err)
{
    struct dr_buf *b = open_record(w, "end", 2);
    size_t kinds = 0;
    for (int i = 0; i < INDEX_LETTERS; i++)
        kinds += w->counts[i] > 0;
    dr_pack_map(b, kinds);
    for (int i = 0; i < INDEX_LETTERS; i++)
        if (w->counts[i]) {
            dr_pack_str(b, &index_letters[i], 1);
            dr_pack_uint(b, w->counts[i]);
        }
    enum dr_rc rc = close_record(w, 'e', NULL, err);
    w->ended = true;
    return rc;
}
