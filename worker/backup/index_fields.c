/* Fields of the index records as msgpack: types and lengths first, then the rules. */
#include <stdlib.h>
#include <string.h>

#include "common/wire/pull.h"
#include "worker/backup/index.h"
#include "worker/backup/index_internal.h"

enum dr_rc index_room(void **p, size_t *cap, size_t need, struct dr_err *err)
{
    if (need <= *cap)
        return DR_OK;
    void *more = realloc(*p, need);
    if (!more)
        return dr_fail(err, DR_E_NOMEM, "index: no memory for a record of %zu bytes", need);
    *p = more;
    *cap = need;
    return DR_OK;
}

static struct pipe_bytes pull_bytes(struct dr_pull *p)
{
    struct pipe_bytes b;
    b.data = dr_pull_bin(p, &b.len);
    return b;
}

static struct pipe_bytes pull_bytes_or_nil(struct dr_pull *p, bool *has)
{
    *has = !dr_pull_nil(p);
    return *has ? pull_bytes(p) : (struct pipe_bytes){NULL, 0};
}

static void pull_fixed(struct dr_pull *p, unsigned char *out, size_t len)
{
    struct pipe_bytes b = pull_bytes(p);
    if (b.len == len && b.data)
        memcpy(out, b.data, len);
    else
        p->bad = true;
}

static bool pull_fixed_or_nil(struct dr_pull *p, unsigned char *out, size_t len)
{
    if (dr_pull_nil(p))
        return false;
    pull_fixed(p, out, len);
    return true;
}

static uint32_t pull_u32(struct dr_pull *p)
{
    uint64_t v = dr_pull_uint(p);
    if (v > UINT32_MAX)
        p->bad = true;
    return (uint32_t)v;
}

static enum dr_rc pull_list(struct index_lists *l, struct dr_pull *p, struct pipe_bytes **out,
                            unsigned *count, struct dr_err *err)
{
    size_t n = dr_pull_array(p, 2);
    enum dr_rc rc = index_room(&l->entries, &l->entries_cap, n * sizeof **out, err);
    if (rc)
        return rc;
    *out = l->entries;
    *count = (unsigned)n;
    for (size_t i = 0; i < n; i++)
        (*out)[i] = pull_bytes(p);
    return DR_OK;
}

static void pull_chunk(struct dr_pull *p, struct index_chunk *c, const char **wrong)
{
    pull_fixed(p, c->name, sizeof c->name);
    c->container = pull_u32(p);
    c->offset = dr_pull_uint(p);
    c->stored_len = pull_u32(p);
    c->plain_len = pull_u32(p);
    if (!p->bad)
        *wrong = index_check_chunk(c);
}

static enum dr_rc pull_file(struct index_lists *l, struct dr_pull *p, struct pipe_file *f,
                            const char **wrong, struct dr_err *err)
{
    size_t len;
    f->path = pull_bytes(p);
    const unsigned char *type = dr_pull_str(p, &len);
    f->type = (char)(len == 1 ? *type : 0);
    f->mode = pull_u32(p);
    f->uid = pull_u32(p);
    f->gid = pull_u32(p);
    f->uname = pull_bytes(p);
    f->gname = pull_bytes(p);
    f->mtime_ns = dr_pull_int(p);
    f->size = dr_pull_uint(p);
    f->has_sha256 = pull_fixed_or_nil(p, f->sha256, sizeof f->sha256);
    f->target = pull_bytes_or_nil(p, &f->has_target);
    size_t n = dr_pull_array(p, 5);
    enum dr_rc rc = index_room(&l->entries, &l->entries_cap, n * sizeof(struct pipe_xattr), err);
    if (rc)
        return rc;
    struct pipe_xattr *x = l->entries;
    for (size_t i = 0; i < n; i++) {
        if (dr_pull_array(p, 2) != 2)
            p->bad = true;
        x[i].name = pull_bytes(p);
        x[i].value = pull_bytes(p);
    }
    f->xattrs = x;
    f->xattr_count = (unsigned)n;
    if (!p->bad)
        *wrong = index_check_file(f);
    return DR_OK;
}

static enum dr_rc pull_settings(struct index_lists *l, struct dr_pull *p,
                                struct index_properties *out, struct dr_err *err)
{
    size_t n = dr_pull_array(p, 5);
    enum dr_rc rc =
        index_room(&l->settings, &l->settings_cap, n * sizeof(struct index_setting), err);
    if (rc)
        return rc;
    out->settings = l->settings;
    out->setting_count = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        if (dr_pull_array(p, 2) != 2)
            p->bad = true;
        out->settings[i].role = pull_bytes(p);
        out->settings[i].value = pull_bytes(p);
    }
    return DR_OK;
}

enum { PROPERTY_CONNLIMIT = 10, PROPERTY_ACL, PROPERTY_SETTINGS, PROPERTIES };

/* Which property a key names; PROPERTIES: none that this version knows. */
static unsigned property(const unsigned char *key, size_t len)
{
    static const char *const keys[PROPERTIES] = {
        "name",   "owner",   "tablespace",  "encoding",  "provider", "collate", "ctype",
        "locale", "comment", "lc_monetary", "connlimit", "acl",      "settings"};
    unsigned i = 0;
    while (i < PROPERTIES && (strlen(keys[i]) != len || memcmp(keys[i], key, len) != 0))
        i++;
    return i;
}

static enum dr_rc pull_properties(struct index_lists *l, struct dr_pull *p,
                                  struct index_properties *out, struct dr_err *err)
{
    struct pipe_bytes *const texts[] = {
        &out->name,    &out->owner, &out->tablespace, &out->encoding, &out->provider,
        &out->collate, &out->ctype, &out->locale,     &out->comment,  &out->lc_monetary};
    size_t n = dr_pull_map(p, 2);
    unsigned seen = 0;
    bool has;
    enum dr_rc rc = DR_OK;
    out->connlimit = -1;
    for (size_t i = 0; i < n && !rc && !p->bad; i++) {
        size_t len;
        const unsigned char *key = dr_pull_str(p, &len);
        unsigned which = key ? property(key, len) : PROPERTIES;
        if (which < PROPERTIES && (seen & 1u << which))
            p->bad = true;
        seen |= 1u << which;
        if (which < PROPERTY_CONNLIMIT)
            *texts[which] = pull_bytes_or_nil(p, &has);
        else if (which == PROPERTY_CONNLIMIT)
            out->connlimit = dr_pull_int(p);
        else if (which == PROPERTY_ACL && (out->has_acl = !dr_pull_nil(p)))
            rc = pull_list(l, p, &out->acl, &out->acl_count, err);
        else if (which == PROPERTY_SETTINGS)
            rc = pull_settings(l, p, out, err);
        else if (which == PROPERTIES)
            dr_pull_skip(p, INDEX_DEPTH_MAX - 2); /* of a later version */
    }
    return rc;
}

static void pull_skip(struct dr_pull *p, struct pipe_skip *x, const char **wrong)
{
    size_t len;
    x->path = pull_bytes(p);
    const unsigned char *why = dr_pull_str(p, &len);
    x->why = p->bad ? NULL : index_why(why, len);
    if (!p->bad)
        *wrong = index_check_skip(x);
}

static enum dr_rc pull_table(struct index_lists *l, struct dr_pull *p, struct pipe_table *t,
                             const char **wrong, struct dr_err *err)
{
    struct pipe_bytes *columns = NULL;
    t->schema = pull_bytes(p);
    t->name = pull_bytes(p);
    enum dr_rc rc = pull_list(l, p, &columns, &t->column_count, err);
    if (rc)
        return rc;
    t->columns = columns;
    t->has_rows = !dr_pull_nil(p);
    if (t->has_rows)
        t->rows = dr_pull_uint(p);
    t->has_digest = pull_fixed_or_nil(p, t->digest, sizeof t->digest);
    if (!p->bad)
        *wrong = index_check_table(t);
    return DR_OK;
}

static void pull_root(struct dr_pull *p, struct pipe_root *r, const char **wrong)
{
    r->path = pull_bytes(p);
    r->mount = dr_pull_bool(p);
    pull_fixed(p, r->content, sizeof r->content);
    pull_fixed(p, r->meta, sizeof r->meta);
    if (!p->bad)
        *wrong = index_check_path(r->path);
}

static void pull_sequence(struct dr_pull *p, struct pipe_sequence *q)
{
    q->schema = pull_bytes(p);
    q->name = pull_bytes(p);
    q->last = dr_pull_int(p);
    q->called = dr_pull_bool(p);
}

static void pull_blobs(struct dr_pull *p, struct pipe_blobs *o)
{
    o->count = dr_pull_uint(p);
    o->bytes = dr_pull_uint(p);
    o->has_digest = pull_fixed_or_nil(p, o->digest, sizeof o->digest);
}

size_t index_field_count(enum index_type type)
{
    static const unsigned char counts[] = {6, 13, 4, 2, 5, 5, 2, 6, 3}; /* as index_letters */
    int letter = index_letter((char)type);
    return letter >= 0 ? counts[letter] : 0;
}

enum dr_rc index_pull(struct index_lists *l, struct dr_pull *p, struct index_record *rec,
                      const char **wrong, struct dr_err *err)
{
    *wrong = NULL;
    switch (rec->type) {
    case INDEX_STREAM:
        rec->stream.data = dr_pull_str(p, &rec->stream.len);
        if (!p->bad)
            *wrong = index_check_stream(rec->stream);
        return DR_OK;
    case INDEX_CHUNK:
        pull_chunk(p, &rec->chunk, wrong);
        return DR_OK;
    case INDEX_FILE:
        return pull_file(l, p, &rec->file, wrong, err);
    case INDEX_ROOT:
        pull_root(p, &rec->root, wrong);
        return DR_OK;
    case INDEX_SKIP:
        pull_skip(p, &rec->skip, wrong);
        return DR_OK;
    case INDEX_TABLE:
        return pull_table(l, p, &rec->table, wrong, err);
    case INDEX_SEQUENCE:
        pull_sequence(p, &rec->sequence);
        return DR_OK;
    case INDEX_BLOBS:
        pull_blobs(p, &rec->blobs);
        return DR_OK;
    case INDEX_PROPERTIES:
        return pull_properties(l, p, &rec->properties, err);
    default:
        p->bad = true;
        return DR_OK;
    }
}
