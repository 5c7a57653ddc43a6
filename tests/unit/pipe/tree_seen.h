/* What a walk tells, kept: records, roots, skips, the tar. */
#ifndef DR_TESTS_TREE_SEEN_H
#define DR_TESTS_TREE_SEEN_H

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"
#include "tests/unit/pipe/tree_maker.h"
#include "worker/pipe/tree.h"

struct seen {
    struct pipe_file f;
    char path[PATH_MAX + 64], target[PATH_MAX + 64];
    struct dr_buf xattrs; /* name 00 hex 00 */
};
static struct seen *seen;
static size_t seen_count;
static struct pipe_root roots_seen[8];
static size_t root_count;
static char skips[4096]; /* "why path\n", paths below base */
static struct dr_buf tar;
static struct tree_sums sums;
static struct dr_err error;
static struct tree_spec spec;
static const char *root_list[8], *globs[8];
static void (*meddle)(const char *path); /* called after each record */
static bool restless;                    /* the tree changes while it is read */

static inline void copy(char *to, const struct pipe_bytes *b)
{
    assert_in_range(b->len, 0, PATH_MAX + 63);
    memcpy(to, b->data ? b->data : (const unsigned char *)"", b->len);
    to[b->len] = 0;
}

static inline enum dr_rc on_file(void *arg, const struct pipe_file *f, struct dr_err *err)
{
    struct seen *s;
    char hex[2 * 65536 + 1];

    (void)arg;
    (void)err;
    assert_in_range(seen_count, 0, 8191);
    s = &seen[seen_count++];
    s->f = *f;
    copy(s->path, &f->path);
    copy(s->target, &f->target);
    dr_buf_init(&s->xattrs, 1 << 20);
    for (unsigned i = 0; i < f->xattr_count; i++) {
        dr_buf_add(&s->xattrs, f->xattrs[i].name.data, f->xattrs[i].name.len);
        dr_buf_add(&s->xattrs, "", 1);
        dr_hex(f->xattrs[i].value.data, f->xattrs[i].value.len, hex);
        dr_buf_add(&s->xattrs, hex, strlen(hex) + 1);
    }
    if (meddle)
        meddle(s->path + strlen(base) - 1); /* the path has lost its first slash */
    return DR_OK;
}

static inline enum dr_rc on_root(void *arg, const struct pipe_root *r, struct dr_err *err)
{
    (void)arg;
    (void)err;
    roots_seen[root_count++] = *r;
    return DR_OK;
}

static inline enum dr_rc on_skip(void *arg, const struct pipe_skip *x, struct dr_err *err)
{
    char path[PATH_MAX + 64];
    size_t at = strlen(skips);

    (void)arg;
    (void)err;
    copy(path, &x->path);
    (void)snprintf(skips + at, sizeof skips - at, "%s %s\n", x->why, path + strlen(base) - 1);
    return DR_OK;
}

static inline enum dr_rc to_tar(void *arg, const void *bytes, size_t len, struct dr_err *err)
{
    (void)arg;
    dr_buf_add(&tar, bytes, len);
    return tar.failed ? dr_fail(err, DR_E_NO_SPACE, "the sink is full") : DR_OK;
}

static const struct pipe_sink sink = {to_tar, NULL};

static inline void forget(void)
{
    for (size_t i = 0; i < seen_count; i++)
        dr_buf_fini(&seen[i].xattrs);
    seen_count = root_count = 0;
    skips[0] = 0;
    dr_buf_fini(&tar);
    dr_buf_init(&tar, 64 << 20);
    dr_err_clear(&error);
}

static inline void fresh(void)
{
    forget();
    meddle = NULL;
    restless = false;
    memset(root_list, 0, sizeof root_list);
    memset(globs, 0, sizeof globs);
    spec = (struct tree_spec){.roots = root_list,
                              .exclude = globs,
                              .tar = &sink,
                              .on = {on_file, on_root, on_skip, NULL}};
}

static inline enum dr_rc walk(void)
{
    forget();
    return tree_walk(&spec, &sums, &error);
}

static inline const struct seen *find(const char *name)
{
    const char *path = full(name) + 1;

    for (size_t i = 0; i < seen_count; i++)
        if (strcmp(seen[i].path, path) == 0)
            return &seen[i];
    return NULL;
}

static inline int group_setup(void **state)
{
    (void)state;
    seen = dr_xarray(8192, sizeof *seen);
    dr_buf_init(&tar, 1);
    return 0;
}

static inline int group_teardown(void **state)
{
    (void)state;
    forget();
    dr_buf_fini(&tar);
    free(seen);
    return 0;
}

#endif
