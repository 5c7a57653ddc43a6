/* The tar of a walk, written by libarchive: restricted pax, blocks of its own size so that data
 * passes without being copied. Two writers take turns on one sink: with hdrcharset=BINARY every
 * entry gets a pax header of 1 KiB, without it a name that is no ASCII is translated by the locale.
 * So only entries with such a name go to the second. Owns both writers; the sink is borrowed. */
#include "worker/pipe/tree_internal.h"

#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>

#include "common/mem.h"

struct tree_tar {
    struct pipe_sink sink;
    struct archive *plain, *binary, *last; /* last: of the entry at hand */
    struct archive_entry *entry;
    struct dr_buf text;
    struct dr_err err; /* of the sink */
    bool ended;        /* it is written to no more */
};

/* Never fails: a writer of libarchive 3.6 that failed leaks its output. The error waits in t->err.
 */
static la_ssize_t to_sink(struct archive *a, void *arg, const void *bytes, size_t len)
{
    struct tree_tar *t = arg;

    (void)a;
    if (!t->ended)
        t->ended = t->sink.write(t->sink.arg, bytes, len, &t->err) != DR_OK;
    return (la_ssize_t)len;
}

/* What came of a call: the sink's error, else the library's. */
static enum dr_rc outcome(struct tree_tar *t, struct archive *a, bool ok, struct dr_err *err)
{
    const char *why = archive_error_string(a);

    if (t->err.rc && err && !err->rc)
        *err = t->err;
    if (t->err.rc || ok)
        return t->err.rc;
    return dr_fail(err, DR_E_IO, "tar: %s", why ? why : "no memory");
}

static struct archive *writer(struct tree_tar *t, const char *options)
{
    struct archive *a = archive_write_new();

    if (a && archive_write_set_format_pax_restricted(a) == ARCHIVE_OK &&
        archive_write_set_options(a, options) == ARCHIVE_OK &&
        archive_write_set_bytes_per_block(a, 0) == ARCHIVE_OK &&
        archive_write_open(a, t, NULL, to_sink, NULL) == ARCHIVE_OK)
        return a;
    archive_write_free(a);
    return NULL;
}

enum dr_rc tree_tar_new(const struct pipe_sink *sink, struct tree_tar **out, struct dr_err *err)
{
    struct tree_tar *t = dr_xalloc(sizeof *t);

    t->sink = *sink;
    dr_buf_init(&t->text, 4 * (size_t)TREE_PATH_MAX);
    t->plain = writer(t, "xattrheader=SCHILY");
    t->binary = writer(t, "xattrheader=SCHILY,hdrcharset=BINARY");
    t->entry = archive_entry_new();
    if (!t->plain || !t->binary || !t->entry) {
        tree_tar_free(t);
        return dr_fail(err, DR_E_NOMEM, "tar writer");
    }
    *out = t;
    return DR_OK;
}

void tree_tar_free(struct tree_tar *t)
{
    if (!t)
        return;
    t->ended = true; /* closing writes a trailer */
    archive_write_free(t->plain);
    archive_write_free(t->binary);
    archive_entry_free(t->entry);
    dr_buf_fini(&t->text);
    free(t);
}

static bool ascii(const struct pipe_bytes *b)
{
    for (size_t i = 0; i < b->len; i++)
        if (b->data[i] >= 0x80)
            return false;
    return true;
}

/* libarchive wants strings with a NUL. */
static const char *text(struct tree_tar *t, const struct pipe_bytes *b)
{
    dr_buf_reset(&t->text);
    dr_buf_add(&t->text, b->data, b->len);
    dr_buf_add(&t->text, "", 1);
    return (const char *)t->text.data;
}

static mode_t type_of(const struct pipe_file *f)
{
    switch (f->type) {
    case 'd':
        return AE_IFDIR;
    case 'l':
        return AE_IFLNK;
    case 'p':
        return AE_IFIFO;
    case 'c':
        return AE_IFCHR;
    case 'b':
        return AE_IFBLK;
    default:
        return AE_IFREG;
    }
}

static void fill(struct tree_tar *t, const struct pipe_file *f)
{
    struct archive_entry *e = t->entry;
    int64_t s = f->mtime_ns / 1000000000, ns = f->mtime_ns % 1000000000;
    char *end;

    archive_entry_clear(e);
    archive_entry_copy_pathname(e, text(t, &f->path));
    archive_entry_set_filetype(e, type_of(f));
    archive_entry_set_perm(e, (mode_t)f->mode);
    archive_entry_set_uid(e, f->uid);
    archive_entry_set_gid(e, f->gid);
    archive_entry_copy_uname(e, text(t, &f->uname));
    archive_entry_copy_gname(e, text(t, &f->gname));
    archive_entry_set_mtime(e, ns < 0 ? s - 1 : s, (long)(ns < 0 ? ns + 1000000000 : ns));
    archive_entry_set_size(e, f->type == 'f' ? (la_int64_t)f->size : 0);
    if (f->type == 'l')
        archive_entry_copy_symlink(e, text(t, &f->target));
    else if (f->type == 'h')
        archive_entry_copy_hardlink(e, text(t, &f->target));
    if (f->type == 'c' || f->type == 'b') {
        archive_entry_set_rdevmajor(e, (dev_t)strtoul(text(t, &f->target), &end, 10));
        archive_entry_set_rdevminor(e, (dev_t)strtoul(end + 1, NULL, 10));
    }
    for (unsigned i = 0; i < f->xattr_count; i++)
        archive_entry_xattr_add_entry(e, text(t, &f->xattrs[i].name), f->xattrs[i].value.data,
                                      f->xattrs[i].value.len);
}

enum dr_rc tree_tar_entry(struct tree_tar *t, const struct pipe_file *f, struct dr_err *err)
{
    bool plain = ascii(&f->path) && ascii(&f->target) && ascii(&f->uname) && ascii(&f->gname);
    struct archive *a = plain ? t->plain : t->binary;
    enum dr_rc rc;

    for (unsigned i = 0; i < f->xattr_count && plain; i++)
        if (!ascii(&f->xattrs[i].name))
            a = t->binary;
    if (t->last && t->last != a) { /* pads the entry before this one */
        rc = outcome(t, t->last, archive_write_finish_entry(t->last) == ARCHIVE_OK, err);
        if (rc)
            return rc;
    }
    t->last = a;
    fill(t, f);
    return outcome(t, a, archive_write_header(a, t->entry) == ARCHIVE_OK, err);
}

enum dr_rc tree_tar_data(struct tree_tar *t, const void *bytes, size_t len, struct dr_err *err)
{
    return outcome(t, t->last, archive_write_data(t->last, bytes, len) == (la_ssize_t)len, err);
}

enum dr_rc tree_tar_end(struct tree_tar *t, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;

    if (t->last)
        rc = outcome(t, t->last, archive_write_finish_entry(t->last) == ARCHIVE_OK, err);
    return rc ? rc : outcome(t, t->plain, archive_write_close(t->plain) == ARCHIVE_OK, err);
}
