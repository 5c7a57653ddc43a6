/* What the index of a file backup says of roots, owners, sizes and of what was left out. Filled in
 * the thread that proves the backup; used when the proof is complete. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/recovery/fs_internal.h"

static void note_owner(uint32_t *list, unsigned *count, uint32_t id, bool *many)
{
    for (unsigned i = *count; i-- > 0;) /* the newest is the likeliest */
        if (list[i] == id)
            return;
    if (*count == FS_OWNERS_MAX)
        *many = true;
    else
        list[(*count)++] = id;
}

/* What a drill damages a copy of. */
static void note_probe(struct fs *f, const struct pipe_file *p)
{
    if (p->type != 'f' || !p->has_sha256 || !p->size || (f->probe_path && p->size >= f->probe_size))
        return;
    free(f->probe_path);
    f->probe_path = dr_xstrndup((const char *)p->path.data, p->path.len);
    f->probe_size = p->size;
    memcpy(f->probe_sha256, p->sha256, sizeof f->probe_sha256);
}

static void note_file(struct fs *f, const struct pipe_file *p)
{
    f->entries++;
    if (p->type == 'f' || p->type == 'h')
        f->files++;
    if (p->type == 'f')
        f->bytes += p->size;
    if ((p->type == 'c' || p->type == 'b') && !f->device[0] && p->path.len < sizeof f->device)
        memcpy(f->device, p->path.data, p->path.len); /* the rest is zero */
    if (p->type == 'c' || p->type == 'b')
        f->device[0] = f->device[0] ? f->device[0] : '?';
    note_owner(f->uids, &f->uid_count, p->uid, &f->owners_many);
    note_owner(f->gids, &f->gid_count, p->gid, &f->owners_many);
    for (unsigned i = 0; i < p->xattr_count; i++)
        if (p->xattrs[i].name.len > 9 && memcmp(p->xattrs[i].name.data, "security.", 9) == 0)
            f->has_capability = true;
    note_probe(f, p);
    if (f->wants_known)
        fs_known_add(&f->known, p);
}

static char *absolute(const struct pipe_bytes *path)
{
    char *text = dr_xalloc(path->len + 2);
    text[0] = '/';
    memcpy(text + 1, path->data, path->len);
    return text;
}

static enum dr_rc note_root(struct fs *f, const struct pipe_root *p, struct dr_err *err)
{
    struct fs_root *r;
    if (f->root_count == 256 || !p->path.len || memchr(p->path.data, 0, p->path.len) ||
        p->path.len >= PATH_MAX)
        return dr_fail(err, DR_E_INTEGRITY, "roots of the index");
    f->roots = dr_xrealloc(f->roots, (f->root_count + 1) * sizeof *f->roots);
    r = &f->roots[f->root_count++];
    *r = (struct fs_root){.path = absolute(&p->path), .mount = p->mount};
    memcpy(r->content, p->content, sizeof r->content);
    memcpy(r->meta, p->meta, sizeof r->meta);
    return DR_OK;
}

static enum dr_rc note_skip(struct fs *f, const struct pipe_skip *x, struct dr_err *err)
{
    if (strcmp(x->why, "changed") == 0 || !x->path.len || memchr(x->path.data, 0, x->path.len))
        return DR_OK;
    f->skip_bytes += x->path.len + 2 + sizeof(char *);
    if (f->skip_bytes > FS_SKIPS_MAX_BYTES)
        return dr_fail(err, DR_E_TOO_BIG, "the backup names more than %d MiB of excluded paths",
                       (int)(FS_SKIPS_MAX_BYTES >> 20));
    if (f->skip_count + 1 >= f->skip_cap) {
        f->skip_cap = f->skip_cap ? 2 * f->skip_cap : 64;
        f->skips = dr_xrealloc(f->skips, f->skip_cap * sizeof *f->skips);
    }
    f->skips[f->skip_count++] = absolute(&x->path);
    f->skips[f->skip_count] = NULL;
    return DR_OK;
}

enum dr_rc fs_index_record(void *arg, const char *object, const struct index_record *rec,
                           struct dr_err *err)
{
    struct fs *f = arg;
    if (strcmp(object, "files") != 0)
        return DR_OK;
    if (rec->type == INDEX_FILE)
        note_file(f, &rec->file);
    else if (rec->type == INDEX_ROOT)
        return note_root(f, &rec->root, err);
    else if (rec->type == INDEX_SKIP)
        return note_skip(f, &rec->skip, err);
    return DR_OK;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct fs_root *)a)->path, ((const struct fs_root *)b)->path);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The innermost root that holds an entry. */
static struct fs_root *root_of(struct fs *f, const struct pipe_bytes *path)
{
    struct fs_root *best = NULL;
    size_t best_len = 0;
    for (unsigned i = 0; i < f->root_count; i++) {
        const char *name = f->roots[i].path + 1;
        size_t len = strlen(name);
        if (len >= best_len && path->len >= len && memcmp(path->data, name, len) == 0 &&
            (path->len == len || path->data[len] == '/')) {
            best = &f->roots[i];
            best_len = len;
        }
    }
    return best;
}

static enum dr_rc count_root(void *arg, const struct index_record *rec, struct dr_err *err)
{
    struct fs *f = arg;
    struct fs_root *root;
    if (rec->type != INDEX_FILE)
        return DR_OK;
    root = root_of(f, &rec->file.path);
    if (!root) {
        (void)dr_fail(err, DR_E_INTEGRITY, "an entry outside of the roots");
        return dr_err_field(err, "path", rec->file.path.data, rec->file.path.len);
    }
    root->entries++;
    if (rec->file.type == 'f')
        root->bytes += rec->file.size;
    return DR_OK;
}

enum dr_rc fs_index_end(struct recovery *r, struct cancel *cancel, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    if (!f->root_count)
        return dr_fail(err, DR_E_INTEGRITY, "the index names no roots");
    qsort(f->roots, f->root_count, sizeof *f->roots, by_path);
    if (f->skip_count)
        qsort(f->skips, f->skip_count, sizeof *f->skips, by_text);
    f->paths = dr_xarray(f->root_count + 1, sizeof *f->paths);
    for (unsigned i = 0; i < f->root_count; i++)
        f->paths[i] = f->roots[i].path;
    if (f->root_count == 1) {
        f->roots[0].entries = f->entries;
        f->roots[0].bytes = f->bytes;
        return DR_OK;
    }
    return prove_each_record(r->backup, "files", cancel, count_root, f, err);
}

bool fs_index_skips(const struct fs *f, const char *path)
{
    return f->skip_count && bsearch(&path, f->skips, f->skip_count, sizeof *f->skips, by_text);
}

void fs_index_fini(struct fs *f)
{
    for (unsigned i = 0; i < f->root_count; i++)
        free(f->roots[i].path);
    for (size_t i = 0; i < f->skip_count; i++)
        free(f->skips[i]);
    free(f->roots);
    free(f->skips);
    free(f->paths);
    fs_known_fini(&f->known);
}
