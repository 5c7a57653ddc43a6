/* The lock-step of tar and index, and what is made of each entry. Owns the archive handle, the
 * spool and one fd at a time. Pool threads. */
#include "worker/pipe/extract.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/core/cancel.h"
#include "worker/pipe/file_writer.h"
#include "worker/pipe/inode.h"
#include "worker/pipe/place.h"
#include "worker/pipe/spool.h"

enum {
    TARGET_MAX = 4095, /* bytes of a symlink */
    COPY_BYTES = 1 << 17,
};

struct extract {
    const struct extract_spec *spec;
    struct archive *archive;
    struct place *place, *targets; /* two chains: a hard link's target may lie far away */
    struct spool *spool;
    struct file_writer *files;
    struct dr_err source_err;
    struct extract_sums sums;
};

static enum dr_rc refuse(const struct pipe_bytes *path, const char *reason, const char *what,
                         struct dr_err *err)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "%s", what);
    (void)dr_err_field(err, "path", path->data, path->len);
    return dr_err_reason(err, reason);
}

static enum dr_rc failed(const struct pipe_bytes *path, const char *what, struct dr_err *err)
{
    (void)dr_fail_errno(err, DR_E_IO, "%s", what);
    return dr_err_field(err, "path", path->data, path->len);
}

static ssize_t read_tar(struct archive *a, void *arg, const void **bytes)
{
    struct extract *x = arg;
    size_t len = 0;
    if (x->spec->tar->read(x->spec->tar->arg, bytes, &len, &x->source_err)) {
        archive_set_error(a, EIO, "source");
        return -1;
    }
    return (ssize_t)len;
}

/* What the source said comes before what libarchive makes of it. */
static enum dr_rc tar_failed(struct extract *x, struct dr_err *err)
{
    const char *why = archive_error_string(x->archive);
    if (x->source_err.rc && err) {
        *err = x->source_err;
        return err->rc;
    }
    (void)dr_fail(err, DR_E_INTEGRITY, "tar: %s", why ? why : "cannot be read");
    return dr_err_reason(err, "tar-format");
}

static bool same(const struct pipe_bytes *a, const char *b, size_t len)
{
    return a->len == len && memcmp(a->data, b, len) == 0;
}

static char type_of(struct archive_entry *e)
{
    if (archive_entry_hardlink(e))
        return 'h';
    switch (archive_entry_filetype(e)) {
    case AE_IFREG:
        return 'f';
    case AE_IFDIR:
        return 'd';
    case AE_IFLNK:
        return 'l';
    case AE_IFIFO:
        return 'p';
    case AE_IFCHR:
        return 'c';
    case AE_IFBLK:
        return 'b';
    default:
        return '?';
    }
}

/* What kind of entry, how large, where a link leads. */
static const char *differs(struct archive_entry *e, char type, const struct pipe_file *f)
{
    const char *link = NULL;
    if (type != f->type)
        return "the tar's type differs from its index";
    if (type == 'f' && (archive_entry_size(e) < 0 || (uint64_t)archive_entry_size(e) != f->size))
        return "the tar's size differs from its index";
    if (type != 'l' && type != 'h')
        return NULL;
    link = type == 'l' ? archive_entry_symlink(e) : archive_entry_hardlink(e);
    if (!link || !same(&f->target, link, strlen(link)))
        return "the tar's link differs from its index";
    return NULL;
}

/* Names are compared as raw bytes: in the C locale libarchive hands them over untouched, with a
 * warning for those that are no ASCII; that is the one warning which is none here. */
static enum dr_rc agree(struct archive_entry *e, const struct pipe_file *f, struct dr_err *err)
{
    const char *name = archive_entry_pathname(e), *why;
    char type = type_of(e);
    size_t len = name ? strlen(name) : 0;
    struct pipe_bytes path = {(const unsigned char *)name, len};
    if (len > 1 && type == 'd' && name[len - 1] == '/')
        path.len = --len;
    why = name ? place_unsafe(&path) : "an entry without a name";
    if (why)
        return refuse(&path, "tar-unsafe", why, err);
    if (strchr("cb", type) || strchr("cb", f->type)) {
        (void)dr_fail(err, DR_E_REFUSED, "device nodes are never restored");
        return dr_err_field(err, "path", name, len);
    }
    why = same(&f->path, name, len) ? differs(e, type, f)
                                    : "the tar holds another entry than its index";
    return why ? refuse(&path, "tar-index", why, err) : DR_OK;
}

static enum dr_rc cancelled(const struct extract *x, struct dr_err *err)
{
    const struct cancel *c = x->spec->cancel;
    return cancel_pending(c) ? dr_fail(err, DR_E_CANCELLED, "%s", cancel_reason(c)) : DR_OK;
}

/* The entry's data; holes stay holes. */
static enum dr_rc put_data(struct extract *x, const struct pipe_file *f, struct dr_err *err)
{
    uint64_t at = 0;
    for (;;) {
        const void *bytes;
        size_t len;
        la_int64_t offset;
        int rc = archive_read_data_block(x->archive, &bytes, &len, &offset);
        if (rc == ARCHIVE_EOF)
            return DR_OK;
        if (rc != ARCHIVE_OK)
            return tar_failed(x, err);
        if (offset < 0 || (uint64_t)offset < at || (uint64_t)offset > f->size ||
            len > f->size - (uint64_t)offset)
            return refuse(&f->path, "tar-index", "the tar holds more data than its index", err);
        if (cancelled(x, err) || file_writer_add(x->files, bytes, len, (uint64_t)offset, err))
            return err->rc;
        at = (uint64_t)offset + len;
    }
}

/* `dir` and `name` say where; twice the same name ends here. */
static enum dr_rc make_failed(const struct pipe_file *f, const char *what, struct dr_err *err)
{
    if (errno == EEXIST)
        return refuse(&f->path, "tar-unsafe", "the archive holds this name twice", err);
    return failed(&f->path, what, err);
}

static enum dr_rc begin_file(struct extract *x, const struct pipe_file *f, int dir,
                             const char *name, struct dr_err *err)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? make_failed(f, "create file", err) : file_writer_begin(x->files, f, fd, err);
}

static enum dr_rc make_file(struct extract *x, const struct pipe_file *f, int dir, const char *name,
                            struct dr_err *err)
{
    x->sums.files++;
    x->sums.bytes += f->size;
    if (begin_file(x, f, dir, name, err) || put_data(x, f, err))
        return err->rc;
    return file_writer_end(x->files, err);
}

static enum dr_rc make_fifo(struct extract *x, const struct pipe_file *f, int dir, const char *name,
                            struct dr_err *err)
{
    enum dr_rc rc;
    int fd;
    if (mkfifoat(dir, name, 0600) != 0)
        return make_failed(f, "create fifo", err);
    fd = openat(dir, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return failed(&f->path, "open fifo", err);
    rc = inode_apply(fd, f, x->spec->ignore_owner, err);
    (void)close(fd);
    return rc;
}

/* One file system seen through two mounts: a name of the other root cannot be linked. */
static enum dr_rc copy_file(struct extract *x, const struct pipe_file *f, int from, int dir,
                            const char *name, struct dr_err *err)
{
    char *buf;
    ssize_t n = -1;
    uint64_t at = 0;
    if (begin_file(x, f, dir, name, err))
        return err->rc;
    buf = dr_xalloc(COPY_BYTES);
    enum dr_rc rc = DR_OK;
    while (!rc && n != 0) {
        n = read(from, buf, COPY_BYTES);
        if (n < 0)
            rc = failed(&f->path, "read the link's target", err);
        else
            rc = file_writer_add(x->files, buf, (size_t)n, at, err);
        at += n > 0 ? (uint64_t)n : 0;
    }
    free(buf);
    return rc ? rc : file_writer_end(x->files, err);
}

/* *wait: the target is not there yet; a symlink may still come. */
static enum dr_rc make_link(struct extract *x, const struct pipe_file *f, int dir, const char *name,
                            bool *wait, struct dr_err *err)
{
    char target[NAME_MAX + 1];
    struct stat st;
    int tdir, from;
    enum dr_rc rc;
    if (file_writer_flush(x->files, err) ||
        place_parent(x->targets, &f->target, &tdir, target, err))
        return err->rc;
    if (!target[0] || fstatat(tdir, target, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        *wait = true;
        return DR_OK;
    }
    if (S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && (uint64_t)st.st_size != f->size))
        return refuse(&f->path, "tar-unsafe", "a hard link to what it cannot be", err);
    x->sums.files++;
    if (linkat(tdir, target, dir, name, 0) == 0)
        return DR_OK;
    if (errno != EXDEV || !S_ISREG(st.st_mode))
        return make_failed(f, "create hard link", err);
    from = openat(tdir, target, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (from < 0)
        return failed(&f->target, "open the link's target", err);
    rc = copy_file(x, f, from, dir, name, err);
    (void)close(from);
    return rc;
}

static enum dr_rc make_symlink(struct extract *x, const struct pipe_file *f, int dir,
                               const char *name, struct dr_err *err)
{
    char target[TARGET_MAX + 1];
    if (!f->target.len || f->target.len > TARGET_MAX || memchr(f->target.data, 0, f->target.len))
        return refuse(&f->path, "tar-index", "a symbolic link to nothing", err);
    memcpy(target, f->target.data, f->target.len);
    target[f->target.len] = 0;
    if (symlinkat(target, dir, name) != 0)
        return make_failed(f, "create symbolic link", err);
    return inode_apply_link(dir, name, f, x->spec->ignore_owner, err);
}

static enum dr_rc make(struct extract *x, const struct pipe_file *f, struct dr_err *err)
{
    char name[NAME_MAX + 1];
    bool wait = false;
    int dir;
    if (place_parent(x->place, &f->path, &dir, name, err))
        return err->rc;
    if (!name[0] && f->type != 'd')
        return refuse(&f->path, "tar-unsafe", "a root that is no directory", err);
    x->sums.entries++;
    switch (f->type) {
    case 'f':
        return make_file(x, f, dir, name, err);
    case 'p':
        return make_fifo(x, f, dir, name, err);
    case 'h':
        if (make_link(x, f, dir, name, &wait, err))
            return err->rc;
        return wait ? spool_add(x->spool, f, err) : DR_OK;
    case 'd':
        if (name[0] && mkdirat(dir, name, 0700) != 0)
            return make_failed(f, "create directory", err);
        return spool_add(x->spool, f, err);
    default:
        return spool_add(x->spool, f, err);
    }
}

/* Links, now that nothing below them can be asked for any more. */
static enum dr_rc make_late(struct extract *x, const struct pipe_file *f, struct dr_err *err)
{
    char name[NAME_MAX + 1];
    bool missing = false;
    int dir;
    if (place_parent(x->place, &f->path, &dir, name, err))
        return err->rc;
    if (f->type == 'l')
        return make_symlink(x, f, dir, name, err);
    if (make_link(x, f, dir, name, &missing, err))
        return err->rc;
    return missing ? refuse(&f->path, "tar-unsafe", "a hard link to what is not there", err)
                   : DR_OK;
}

static enum dr_rc finish_directory(struct extract *x, const struct pipe_file *f, struct dr_err *err)
{
    char name[NAME_MAX + 1];
    enum dr_rc rc;
    int dir, fd;
    if (place_parent(x->place, &f->path, &dir, name, err))
        return err->rc;
    fd = openat(dir, name[0] ? name : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return failed(&f->path, "open directory", err);
    rc = inode_apply(fd, f, x->spec->ignore_owner, err);
    (void)close(fd);
    return rc;
}

static enum dr_rc run_late(struct extract *x,
                           enum dr_rc (*fn)(struct extract *, const struct pipe_file *,
                                            struct dr_err *),
                           const char *types, bool backwards, struct dr_err *err)
{
    struct pipe_file f;
    spool_rewind(x->spool, backwards);
    while (backwards ? spool_prior(x->spool, &f) : spool_next(x->spool, &f)) {
        if (!strchr(types, f.type))
            continue;
        if (cancelled(x, err))
            return err->rc;
        if (fn(x, &f, err)) {
            if (err && !err->field[0])
                (void)dr_err_field(err, "path", f.path.data, f.path.len);
            return err->rc;
        }
    }
    return DR_OK;
}

/* One entry of both; *end when both ended together. */
static enum dr_rc step(struct extract *x, bool *end, struct dr_err *err)
{
    struct archive_entry *e = NULL;
    const struct pipe_file *f = NULL;
    int rc = archive_read_next_header(x->archive, &e);
    if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN && rc != ARCHIVE_EOF)
        return tar_failed(x, err);
    if (x->spec->next(x->spec->arg, &f, err))
        return err->rc;
    *end = rc == ARCHIVE_EOF;
    if (*end && f)
        return refuse(&f->path, "tar-index", "the tar ends before its index", err);
    if (*end)
        return DR_OK;
    if (!f) {
        (void)dr_fail(err, DR_E_INTEGRITY, "the tar holds more entries than its index");
        return dr_err_reason(err, "tar-index");
    }
    if (agree(e, f, err))
        return err->rc;
    if (make(x, f, err)) {
        if (err && !err->field[0])
            (void)dr_err_field(err, "path", f->path.data, f->path.len);
        return err->rc;
    }
    return DR_OK;
}

/* To its end: only there everything is proven. */
static enum dr_rc drain(struct extract *x, struct dr_err *err)
{
    const void *bytes;
    size_t len = 1;
    while (len)
        if (cancelled(x, err) || x->spec->tar->read(x->spec->tar->arg, &bytes, &len, err))
            return err->rc;
    return DR_OK;
}

/* Files are written behind the stream's back: what is wrong with one of them came before. */
static enum dr_rc first_error(struct extract *x, struct dr_err *err)
{
    struct dr_err before = {0};
    if (file_writer_flush(x->files, &before))
        *err = before;
    return err->rc;
}

static enum dr_rc run(struct extract *x, struct dr_err *err)
{
    bool end = false;
    if (archive_read_support_format_tar(x->archive) != ARCHIVE_OK ||
        archive_read_open(x->archive, x, NULL, read_tar, NULL) != ARCHIVE_OK)
        return tar_failed(x, err);
    while (!end)
        if (cancelled(x, err) || step(x, &end, err))
            return first_error(x, err);
    if (drain(x, err) || file_writer_flush(x->files, err) || spool_seal(x->spool, err))
        return first_error(x, err);
    if (run_late(x, make_late, "l", false, err) || run_late(x, make_late, "h", false, err))
        return err->rc;
    return run_late(x, finish_directory, "d", true, err);
}

enum dr_rc extract_tree(const struct extract_spec *spec, struct extract_sums *out,
                        struct dr_err *err)
{
    struct extract x = {.spec = spec};
    const struct file_writer_spec files = {.threads = spec->threads,
                                           .ignore_owner = spec->ignore_owner,
                                           .cancel = spec->cancel,
                                           .progress = spec->progress};
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    locale_t before = plain ? uselocale(plain) : (locale_t)0;
    struct dr_err own = {0};
    enum dr_rc rc = DR_OK;
    err = err ? err : &own;
    if (place_new(spec->roots, spec->root_count, &x.place, err) ||
        place_new(spec->roots, spec->root_count, &x.targets, err) || !spec->root_count ||
        spool_new(spec->roots[0].fd, &x.spool, err) || file_writer_new(&files, &x.files, err)) {
        rc = err->rc ? err->rc : dr_fail(err, DR_E_INVALID, "no roots");
        goto out;
    }
    x.archive = archive_read_new();
    if (!plain || !x.archive)
        rc = dr_fail(err, DR_E_NOMEM, "extraction");
    else
        rc = run(&x, err);
    if (!rc && out)
        *out = x.sums;
out:
    (void)archive_read_free(x.archive);
    file_writer_free(x.files);
    spool_free(x.spool);
    place_free(x.targets);
    place_free(x.place);
    if (plain) {
        (void)uselocale(before);
        freelocale(plain);
    }
    return rc;
}
