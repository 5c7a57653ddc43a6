/* What tests/integration/test_pipe.py drives of worker/pipe, as a program.
 *   dr_pipe_probe dump KEY CUT      archive on standard input, in pieces of CUT bytes (0: as read)
 *   dr_pipe_probe rows KEY          COPY text on standard input
 *   dr_pipe_probe tree [-u] [-n] [-x GLOB] ROOT[=AT]...
 *                                   tar on standard output (-n: none), -u: unreadable allowed
 * Records go to standard error, one a line: letter, then fields as hex. Exit: of the error. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/str.h"
#include "worker/pipe/digest.h"
#include "worker/pipe/pgarchive.h"
#include "worker/pipe/tree.h"

static unsigned char buffer[1 << 20];

static void put(const void *bytes, size_t len)
{
    const unsigned char *p = bytes;

    fputc(' ', stderr);
    for (size_t i = 0; i < len; i++)
        fprintf(stderr, "%02x", p[i]);
    if (!len)
        fputc('-', stderr);
}

static void put_bytes(const struct pipe_bytes *b)
{
    put(b->data, b->len);
}

static enum dr_rc on_table(void *arg, const struct pipe_table *t, struct dr_err *err)
{
    (void)arg;
    (void)err;
    fputc('t', stderr);
    put_bytes(&t->schema);
    put_bytes(&t->name);
    fprintf(stderr, t->has_rows ? " %" PRIu64 : " nil", t->rows);
    put(t->digest, t->has_digest ? sizeof t->digest : 0);
    for (unsigned i = 0; i < t->column_count; i++)
        put_bytes(&t->columns[i]);
    fputc('\n', stderr);
    return DR_OK;
}

static enum dr_rc on_sequence(void *arg, const struct pipe_sequence *q, struct dr_err *err)
{
    (void)arg;
    (void)err;
    fputc('q', stderr);
    put_bytes(&q->schema);
    put_bytes(&q->name);
    fprintf(stderr, " %" PRId64 " %d\n", q->last, q->called);
    return DR_OK;
}

static enum dr_rc on_blobs(void *arg, const struct pipe_blobs *o, struct dr_err *err)
{
    (void)arg;
    (void)err;
    fprintf(stderr, "o %" PRIu64 " %" PRIu64, o->count, o->bytes);
    put(o->digest, o->has_digest ? sizeof o->digest : 0);
    fputc('\n', stderr);
    return DR_OK;
}

static enum dr_rc on_file(void *arg, const struct pipe_file *f, struct dr_err *err)
{
    (void)arg;
    (void)err;
    fputc('f', stderr);
    put_bytes(&f->path);
    fprintf(stderr, " %c %o %u %u", f->type, f->mode, f->uid, f->gid);
    put_bytes(&f->uname);
    put_bytes(&f->gname);
    fprintf(stderr, " %" PRId64 " %" PRIu64, f->mtime_ns, f->size);
    put(f->sha256, f->has_sha256 ? sizeof f->sha256 : 0);
    put(f->target.data, f->has_target ? f->target.len : 0);
    for (unsigned i = 0; i < f->xattr_count; i++) {
        put_bytes(&f->xattrs[i].name);
        put_bytes(&f->xattrs[i].value);
    }
    fputc('\n', stderr);
    return DR_OK;
}

static enum dr_rc on_root(void *arg, const struct pipe_root *r, struct dr_err *err)
{
    (void)arg;
    (void)err;
    fputc('r', stderr);
    put_bytes(&r->path);
    fprintf(stderr, " %d", r->mount);
    put(r->content, sizeof r->content);
    put(r->meta, sizeof r->meta);
    fputc('\n', stderr);
    return DR_OK;
}

static enum dr_rc on_skip(void *arg, const struct pipe_skip *x, struct dr_err *err)
{
    (void)arg;
    (void)err;
    fputc('x', stderr);
    put_bytes(&x->path);
    fprintf(stderr, " %s\n", x->why);
    return DR_OK;
}

static size_t take(size_t most)
{
    ssize_t n = read(STDIN_FILENO, buffer, most && most < sizeof buffer ? most : sizeof buffer);
    return n > 0 ? (size_t)n : 0;
}

static enum dr_rc dump(const unsigned char key[32], size_t cut, struct dr_err *err)
{
    struct pgarchive_events on = {.table = on_table, .sequence = on_sequence, .blobs = on_blobs};
    struct pgarchive *a = NULL;
    enum dr_rc rc = pgarchive_new(key, &on, &a, err);

    for (size_t n; !rc && (n = take(0));)
        for (size_t i = 0, m; !rc && i < n; i += m) {
            m = cut && cut < n - i ? cut : n - i;
            rc = pgarchive_feed(a, buffer + i, m, err);
        }
    if (!rc)
        rc = pgarchive_finish(a, NULL, err);
    if (!rc)
        fprintf(stderr, "v %u.%u %d %s\n", pgarchive_info(a)->major, pgarchive_info(a)->minor,
                pgarchive_supported(a), pgarchive_why(a));
    pgarchive_free(a);
    return rc;
}

static enum dr_rc rows(const unsigned char key[32])
{
    struct digest_rows d;
    unsigned char digest[16];
    uint64_t count;

    digest_rows_init(&d, key);
    for (size_t n; (n = take(0));)
        digest_rows_feed(&d, buffer, n);
    digest_rows_sums(&d, &count, digest);
    fprintf(stderr, "d %" PRIu64, count);
    put(digest, sizeof digest);
    fputc('\n', stderr);
    return DR_OK;
}

static enum dr_rc to_stdout(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    (void)arg;
    if (fwrite(bytes, 1, len, stdout) != len)
        return dr_fail_errno(err, DR_E_IO, "write");
    return DR_OK;
}

static enum dr_rc tree(int argc, char **argv, struct dr_err *err)
{
    struct pipe_sink sink = {to_stdout, NULL};
    const char *roots[16] = {0}, *at[16] = {0}, *globs[16] = {0};
    struct tree_spec spec = {.roots = roots, .exclude = globs, .tar = &sink};
    struct tree_sums sums;
    unsigned n = 0, x = 0;
    enum dr_rc rc;

    spec.on = (struct tree_events){on_file, on_root, on_skip, NULL};
    for (int i = 0; i < argc && n < 15 && x < 15; i++) {
        char *is;
        if (strcmp(argv[i], "-u") == 0) {
            spec.allow_unreadable = true;
        } else if (strcmp(argv[i], "-q") == 0) {
            spec.on = (struct tree_events){0};
        } else if (strcmp(argv[i], "-n") == 0) {
            spec.tar = NULL;
        } else if (strcmp(argv[i], "-x") == 0 && i + 1 < argc) {
            globs[x++] = argv[++i];
        } else {
            is = strchr(argv[i], '=');
            if (is) {
                *is = 0;
                spec.at = at;
            }
            roots[n] = argv[i];
            at[n++] = is ? is + 1 : argv[i];
        }
    }
    rc = tree_walk(&spec, &sums, err);
    if (!rc && fflush(stdout))
        rc = dr_fail_errno(err, DR_E_IO, "write");
    if (!rc)
        fprintf(stderr,
                "s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                sums.entries, sums.files, sums.bytes, sums.skipped, sums.unreadable, sums.changed);
    return rc;
}

int main(int argc, char **argv)
{
    struct dr_err err = {0};
    unsigned char key[32] = {0};
    enum dr_rc rc = DR_E_USAGE;

    if (argc > 2 && strcmp(argv[1], "tree") == 0)
        rc = tree(argc - 2, argv + 2, &err);
    else if (argc > 2 && !dr_unhex(argv[2], strlen(argv[2]), key, sizeof key))
        fprintf(stderr, "key: 64 hex digits\n");
    else if (argc == 4 && strcmp(argv[1], "dump") == 0)
        rc = dump(key, (size_t)strtoul(argv[3], NULL, 10), &err);
    else if (argc == 3 && strcmp(argv[1], "rows") == 0)
        rc = rows(key);
    if (rc)
        fprintf(stderr, "e %s %s\n", dr_rc_name(rc), err.msg);
    return dr_rc_exit(rc);
}
