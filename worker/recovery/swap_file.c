/* The plan of a swap as text, one fact a line, fields separated by one blank, names in hex:
 *   drworker-swap 1 <run>
 *   root <path> <created 0|1> <mode uid gid mtime_ns before> <mode uid gid mtime_ns after>
 *   entry|stay|carry <root> <old inode> <new inode> <old mode> <new mode> <name>
 *   end <lines>
 * Modes are octal. Pool threads. */
#include "worker/recovery/swap.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/digest.h"
#include "worker/backup/disk.h"
#include "worker/recovery/swap_internal.h"

enum { PLAN_MAX_BYTES = 1 << 30, ROOTS_MAX = SWAP_ROOTS_MAX, HEX_MAX = 2 * 4096 * 256 };

static const char *const kinds[] = {"entry", "stay", "carry"};

static void put_hex(struct dr_buf *b, const char *s)
{
    static const char digits[] = "0123456789abcdef";
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        char two[2] = {digits[c >> 4], digits[c & 15]};
        dr_buf_add(b, two, 2);
    }
}

static void put_side(struct dr_buf *b, const struct swap_side *side)
{
    dr_buf_printf(b, " %o %u %u %" PRId64, side->mode, side->uid, side->gid, side->mtime_ns);
}

enum dr_rc swap_save(const struct swap *s, int dirfd, const char *name, char sha256[65],
                     struct dr_err *err)
{
    struct dr_buf b;
    enum dr_rc rc;
    dr_buf_init(&b, PLAN_MAX_BYTES);
    dr_buf_printf(&b, "drworker-swap 1 %s\n", s->run);
    for (unsigned i = 0; i < s->count; i++) {
        const struct swap_root *r = &s->roots[i];
        dr_buf_str(&b, "root ");
        put_hex(&b, r->path);
        dr_buf_printf(&b, " %d", r->created);
        put_side(&b, &r->old_side);
        put_side(&b, &r->new_side);
        dr_buf_str(&b, "\n");
    }
    for (size_t i = 0; i < s->pair_count; i++) {
        const struct swap_pair *p = &s->pairs[i];
        dr_buf_printf(&b, "%s %u %" PRIu64 " %" PRIu64 " %o %o ", kinds[p->kind], p->root,
                      p->old_ino, p->new_ino, p->old_mode, p->new_mode);
        put_hex(&b, p->name);
        dr_buf_str(&b, "\n");
    }
    dr_buf_printf(&b, "end %zu\n", s->count + s->pair_count);
    if (b.failed) {
        dr_buf_fini(&b);
        return dr_fail(err, DR_E_TOO_BIG, "the list of renames");
    }
    dr_sha256_hex(b.data, b.len, sha256);
    rc = disk_replace(dirfd, name, b.data, b.len, err);
    dr_buf_fini(&b);
    return rc;
}

/* ---- reading ---- */

struct reader {
    char *at;
    char **paths;
};

/* The next field, ended by a blank or the line's end; NULL: none. */
static char *field(struct reader *in)
{
    char *begin = in->at, *end = begin + strcspn(begin, " \n");
    if (end == begin || !*end)
        return NULL;
    in->at = *end == ' ' ? end + 1 : end; /* the newline stays, for line_end */
    if (*end == ' ')
        *end = 0;
    return begin;
}

static bool line_end(struct reader *in)
{
    if (*in->at != '\n')
        return false;
    *in->at++ = 0;
    return true;
}

static bool number(struct reader *in, unsigned base, uint64_t max, uint64_t *out)
{
    char *text = field(in), *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    *out = strtoull(text, &end, (int)base);
    return (*end == 0 || *end == '\n') && *out <= max;
}

static bool side(struct reader *in, struct swap_side *out)
{
    uint64_t mode, uid, gid;
    char *text, *end;
    if (!number(in, 8, 07777, &mode) || !number(in, 10, UINT32_MAX, &uid) ||
        !number(in, 10, UINT32_MAX, &gid) || !(text = field(in)))
        return false;
    *out =
        (struct swap_side){(uint32_t)mode, (uint32_t)uid, (uint32_t)gid, strtoll(text, &end, 10)};
    return end != text && (*end == 0 || *end == '\n');
}

/* Decodes in place; no NUL, no empty name. The text ends at the line's end or was ended. */
static char *unhex(char *text)
{
    size_t len = text ? strcspn(text, "\n") : 0;
    char *out;
    if (!len || len % 2 || len > HEX_MAX)
        return NULL;
    out = dr_xalloc(len / 2 + 1);
    if (!dr_unhex(text, len, out, len / 2) || strlen(out) != len / 2) {
        free(out);
        return NULL;
    }
    return out;
}

static bool read_root(struct reader *in, unsigned i, struct swap_root *r)
{
    uint64_t created;
    in->paths[i] = unhex(field(in));
    if (!in->paths[i] || in->paths[i][0] != '/' || !number(in, 10, 1, &created) ||
        !side(in, &r->old_side) || !side(in, &r->new_side) || !line_end(in))
        return false;
    r->created = created;
    return true;
}

static bool safe_name(const char *name, enum swap_pair_kind kind)
{
    if ((kind == PAIR_CARRY) != (strchr(name, '/') != NULL))
        return false;
    for (const char *part = name;; part++) {
        size_t len = strcspn(part, "/");
        if (len == 0 || (len == 1 && part[0] == '.') || (len == 2 && !strncmp(part, "..", 2)))
            return false;
        part += len;
        if (!*part)
            return true;
    }
}

static bool read_pair(struct reader *in, struct swap *s, unsigned roots, enum swap_pair_kind kind)
{
    uint64_t root, old_ino, new_ino, old_mode, new_mode;
    char *name;
    struct swap_pair *p;
    if (!number(in, 10, roots - 1, &root) || !number(in, 10, UINT64_MAX, &old_ino) ||
        !number(in, 10, UINT64_MAX, &new_ino) || !number(in, 8, 0177777, &old_mode) ||
        !number(in, 8, 0177777, &new_mode))
        return false;
    name = unhex(field(in));
    if (!name || !safe_name(name, kind) || !line_end(in)) {
        free(name);
        return false;
    }
    p = swap_add_pair(s, (unsigned)root, kind, name);
    free(name);
    p->old_ino = old_ino;
    p->new_ino = new_ino;
    p->old_mode = (uint32_t)old_mode;
    p->new_mode = (uint32_t)new_mode;
    return true;
}

static bool read_first_line(struct reader *in, const struct swap *s)
{
    uint64_t version;
    char *word = field(in);
    if (!word || strcmp(word, "drworker-swap") != 0 || !number(in, 10, 1, &version))
        return false;
    word = field(in);
    return word && strncmp(word, s->run, strlen(s->run)) == 0 && line_end(in);
}

static bool read_line(struct reader *in, const char *word, struct swap *s, struct swap_root *roots,
                      unsigned *count)
{
    if (strcmp(word, "root") == 0)
        return *count < ROOTS_MAX && !s->pair_count && read_root(in, *count, &roots[*count]) &&
               ++*count;
    for (unsigned kind = 0; kind < 3 && *count; kind++)
        if (strcmp(word, kinds[kind]) == 0)
            return read_pair(in, s, *count, (enum swap_pair_kind)kind);
    return false;
}

bool swap_file_parse(struct swap *s, char *text, char **paths, struct swap_root *roots)
{
    struct reader in = {text, paths};
    unsigned count = 0;
    uint64_t lines;
    char *word;
    if (!read_first_line(&in, s))
        return false;
    while ((word = field(&in)) && strcmp(word, "end") != 0)
        if (!read_line(&in, word, s, roots, &count))
            return false;
    return word && number(&in, 10, UINT32_MAX, &lines) && line_end(&in) && !*in.at &&
           lines == count + s->pair_count;
}

/* Where each root's entries begin, for swap_find_entry. */
static bool find_ranges(struct swap *s)
{
    for (size_t i = 0; i < s->pair_count; i++) {
        struct swap_root *r = &s->roots[s->pairs[i].root];
        if (s->pairs[i].kind == PAIR_CARRY)
            continue;
        if (!r->count)
            r->first = i;
        else if (r->first + r->count != i || strcmp(s->pairs[i - 1].name, s->pairs[i].name) >= 0)
            return false;
        r->count++;
    }
    return true;
}

static void free_paths(char **paths)
{
    for (unsigned i = 0; paths[i]; i++)
        free(paths[i]);
    free(paths);
}

static enum dr_rc load(struct swap *s, struct dr_buf *text, struct dr_err *err)
{
    struct swap_root *sides = dr_xarray(ROOTS_MAX, sizeof *sides);
    char **paths = dr_xarray(ROOTS_MAX + 1, sizeof *paths);
    enum dr_rc rc = DR_OK;
    if (!text->len || !swap_file_parse(s, (char *)text->data, paths, sides))
        rc = dr_fail(err, DR_E_INTEGRITY, "the list of renames cannot be read");
    else
        rc = swap_open_roots(
            s, &(struct swap_spec){.roots = (const char *const *)paths, .run = s->run}, err);
    for (unsigned i = 0; i < s->count && !rc; i++) {
        s->roots[i].created = sides[i].created;
        s->roots[i].old_side = sides[i].old_side;
        s->roots[i].new_side = sides[i].new_side;
    }
    if (!rc && !find_ranges(s))
        rc = dr_fail(err, DR_E_INTEGRITY, "the list of renames is not sorted");
    free_paths(paths);
    free(sides);
    return rc;
}

static enum dr_rc read_plan(int dirfd, const char *name, const char *sha256, struct dr_buf *text,
                            struct dr_err *err)
{
    char got[65];
    enum dr_rc rc = disk_read(dirfd, name, text, err);
    if (rc)
        return rc;
    dr_sha256_hex(text->data, text->len, got);
    return strcmp(got, sha256) != 0
               ? dr_fail(err, DR_E_INTEGRITY, "%s differs from what its journal says", name)
               : DR_OK;
}

enum dr_rc swap_load(int dirfd, const char *name, const char *sha256, const char *run,
                     struct swap **out, struct dr_err *err)
{
    struct dr_buf text;
    struct swap *s = swap_new(run);
    enum dr_rc rc;
    dr_buf_init(&text, PLAN_MAX_BYTES);
    rc = read_plan(dirfd, name, sha256, &text, err);
    if (!rc)
        rc = load(s, &text, err);
    dr_buf_fini(&text);
    if (rc)
        swap_close(s);
    else
        *out = s;
    return rc;
}

/* ---- what lies in `before` that the plan did not put there ---- */

static enum dr_rc find_odd(const struct swap *s, unsigned root, int before, char odd[256],
                           struct dr_err *err)
{
    int fd = openat(before, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    if (!d) {
        (void)dr_fail_errno(err, DR_E_IO, "list an old tree");
        if (fd >= 0)
            (void)close(fd);
        return err->rc;
    }
    while (!odd[0] && (e = readdir(d))) {
        struct stat st;
        const struct swap_pair *p;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        p = swap_find_entry(s, root, e->d_name);
        if (!p || !p->old_ino ||
            (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
             st.st_ino != p->old_ino))
            (void)snprintf(odd, 256, "%s", e->d_name);
    }
    (void)closedir(d);
    return DR_OK;
}

/* Takes paths' number of roots without opening one. */
static void set_roots(struct swap *s, char **paths)
{
    while (paths[s->count])
        s->count++;
    s->roots = dr_xarray(s->count + 1, sizeof *s->roots);
    for (unsigned i = 0; i < s->count; i++) {
        struct swap_root *r = &s->roots[i];
        r->fd = r->lock = r->ours = r->fresh = r->before = r->failed = -1;
    }
}

enum dr_rc swap_find_odd(const struct swap_plan_file *file, const char *root, int before,
                         char odd[256], struct dr_err *err)
{
    struct swap *s = swap_new(file->run);
    struct swap_root *sides = dr_xarray(ROOTS_MAX, sizeof *sides);
    char **paths = dr_xarray(ROOTS_MAX + 1, sizeof *paths);
    struct dr_buf text;
    unsigned i = 0;
    odd[0] = 0;
    dr_buf_init(&text, PLAN_MAX_BYTES);
    enum dr_rc rc = read_plan(file->dirfd, file->name, file->sha256, &text, err);
    if (!rc && (!text.len || !swap_file_parse(s, (char *)text.data, paths, sides)))
        rc = dr_fail(err, DR_E_INTEGRITY, "the list of renames cannot be read");
    set_roots(s, paths);
    if (!rc && !find_ranges(s))
        rc = dr_fail(err, DR_E_INTEGRITY, "the list of renames is not sorted");
    while (!rc && i < s->count && strcmp(paths[i], root) != 0)
        i++;
    if (!rc && i == s->count)
        rc = dr_fail(err, DR_E_INTEGRITY, "the list of renames does not name root %s", root);
    if (!rc)
        rc = find_odd(s, i, before, odd, err);
    dr_buf_fini(&text);
    free_paths(paths);
    free(sides);
    swap_close(s);
    return rc;
}
