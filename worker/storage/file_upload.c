/* Unfinished uploads of the `file` row: FILE_UPLOADS/<id>.data takes the parts at their offsets,
 * <id>.parts is a line a part, appended once its bytes are on disk; its first line is the key. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/str.h"
#include "worker/storage/file_internal.h"

enum { PARTS_FILE_MAX = 4 << 20, PARTS_MAX = 10000, UPLOADS_MAX = 10000 };

struct upload {
    int root, dir, data, parts;
    char data_name[FILE_NAME_MAX], parts_name[FILE_NAME_MAX];
};

static void upload_close(struct upload *u)
{
    const int fds[] = {u->parts, u->data, u->dir, u->root};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
}

static enum storage_class no_upload(struct dr_err *err)
{
    return storage_fail(err, STORAGE_NO_UPLOAD, "no such upload");
}

/* Opens the folder, and both files unless they are to be made. */
static enum storage_class upload_open(const struct storage_call *c, const char *id, bool make,
                                      struct upload *u, struct dr_err *err)
{
    *u = (struct upload){-1, -1, -1, -1, "", ""};
    if (!file_id_valid(id))
        return no_upload(err);
    (void)snprintf(u->data_name, sizeof u->data_name, "%s.data", id);
    (void)snprintf(u->parts_name, sizeof u->parts_name, "%s.parts", id);
    enum storage_class class = file_open_root(c, &u->root, err);
    if (class != STORAGE_OK)
        return class;
    u->dir = file_open_uploads(u->root, make);
    if (u->dir < 0)
        return errno == ENOENT ? no_upload(err) : file_errno(c, err, FILE_UPLOADS);
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT | O_EXCL : 0);
    u->data = openat(u->dir, u->data_name, flags, 0600);
    if (u->data >= 0)
        u->parts = openat(u->dir, u->parts_name, flags | O_APPEND, 0600);
    if (u->parts < 0)
        return errno == ENOENT ? no_upload(err) : file_errno(c, err, FILE_UPLOADS);
    return STORAGE_OK;
}

enum storage_class file_begin(const struct storage_call *c, struct storage_answer *out,
                              struct dr_err *err)
{
    struct upload u;
    char line[FILE_KEY_MAX + 2];
    int n = snprintf(line, sizeof line, "%s\n", c->key);
    if (n < 2 || n >= (int)sizeof line || strchr(c->key, '\n'))
        return storage_fail(err, STORAGE_PERMANENT, "key");
    enum storage_class class = upload_open(c, c->token, true, &u, err);
    if (class == STORAGE_OK &&
        (write(u.parts, line, (size_t)n) != n || fsync(u.parts) != 0 || fsync(u.dir) != 0))
        class = file_errno(c, err, "upload");
    if (class == STORAGE_OK)
        out->upload_id = dr_xstrdup(c->token);
    upload_close(&u);
    return class;
}

enum storage_class file_part(const struct storage_call *c, const void *payload,
                             struct storage_answer *out, struct dr_err *err)
{
    struct upload u;
    char hex[65], line[160];
    if (c->part_number < 1 || c->part_number > PARTS_MAX || c->offset > INT64_MAX - c->length)
        return storage_fail(err, STORAGE_PERMANENT, "part %u", c->part_number);
    dr_hex(c->payload.sha256, 32, hex);
    int n = snprintf(line, sizeof line, "%u %" PRIu64 " %" PRIu64 " %s\n", c->part_number,
                     c->offset, c->length, hex);
    enum storage_class class = upload_open(c, c->upload_id, false, &u, err);
    if (class == STORAGE_OK &&
        (!file_write_all(u.data, payload, c->length, (off_t)c->offset) || fdatasync(u.data) != 0 ||
         write(u.parts, line, (size_t)n) != n || fdatasync(u.parts) != 0))
        class = file_errno(c, err, "part");
    if (class == STORAGE_OK)
        memcpy(out->etag, hex, sizeof hex);
    upload_close(&u);
    return class;
}

static int by_number(const void *a, const void *b)
{
    const struct storage_part *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

/* "number offset length sha256"; what was torn by a crash is no part. */
static bool read_line(char *line, struct storage_part *p)
{
    uint64_t number;
    char *word[4], *save = NULL;
    for (int i = 0; i < 4; i++)
        if (!(word[i] = strtok_r(i ? NULL : line, " ", &save)))
            return false;
    if (!dr_parse_u64(word[0], 1, PARTS_MAX, &number) ||
        !dr_parse_u64(word[1], 0, INT64_MAX, &p->offset) ||
        !dr_parse_u64(word[2], 0, INT64_MAX, &p->length) || strlen(word[3]) != 64 ||
        !dr_unhex(word[3], 64, p->sha256, 32))
        return false;
    p->number = (unsigned)number;
    p->has_sha256 = true;
    memcpy(p->etag, word[3], 65);
    return true;
}

static void put_part(struct storage_answer *out, const struct storage_part *p)
{
    for (size_t i = 0; i < out->part_count; i++)
        if (out->parts[i].number == p->number) { /* sent again: the last one counts */
            out->parts[i] = *p;
            return;
        }
    out->parts = dr_xrealloc(out->parts, (out->part_count + 1) * sizeof *out->parts);
    out->parts[out->part_count++] = *p;
}

/* The text of <id>.parts, NUL-ended; NULL with errno. */
static char *read_text(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return NULL;
    if (st.st_size > PARTS_FILE_MAX) {
        errno = EFBIG;
        return NULL;
    }
    char *text = dr_try_alloc((size_t)st.st_size + 1);
    if (text && pread(fd, text, (size_t)st.st_size, 0) != st.st_size) {
        free(text);
        errno = EIO;
        return NULL;
    }
    return text;
}

static enum storage_class parts_of(const struct storage_call *c, const struct upload *u,
                                   struct storage_answer *out, struct dr_err *err)
{
    char *text = read_text(u->parts), *line, *end;
    if (!text)
        return file_errno(c, err, "parts");
    end = strchr(text, '\n');
    bool ours =
        end && (size_t)(end - text) == strlen(c->key) && strncmp(text, c->key, strlen(c->key)) == 0;
    for (line = end ? end + 1 : NULL; ours && line && (end = strchr(line, '\n')); line = end + 1) {
        struct storage_part p = {0};
        *end = 0;
        if (read_line(line, &p))
            put_part(out, &p);
    }
    free(text);
    if (!ours)
        return no_upload(err);
    if (out->part_count)
        qsort(out->parts, out->part_count, sizeof *out->parts, by_number);
    return STORAGE_OK;
}

enum storage_class file_parts(const struct storage_call *c, struct storage_answer *out,
                              struct dr_err *err)
{
    struct upload u;
    enum storage_class class = upload_open(c, c->upload_id, false, &u, err);
    if (class == STORAGE_OK)
        class = parts_of(c, &u, out, err);
    upload_close(&u);
    return class;
}

/* Every part that is named is there, and together they are the object without a gap. */
static bool whole(const struct storage_call *c, const struct storage_answer *have, int data)
{
    struct stat st;
    uint64_t at = 0;
    if (have->part_count != c->part_count || fstat(data, &st) != 0)
        return false;
    for (size_t i = 0; i < c->part_count; i++) {
        const struct storage_part *p = &have->parts[i];
        if (p->number != c->parts[i].number || p->offset != at ||
            strcmp(p->etag, c->parts[i].etag) != 0)
            return false;
        at += p->length;
    }
    return at == c->size && (uint64_t)st.st_size == c->size;
}

enum storage_class file_complete(const struct storage_call *c, struct storage_answer *out,
                                 struct dr_err *err)
{
    struct upload u;
    struct file_place place = {.root = -1, .dir = -1};
    struct storage_answer have = {0};
    struct stat st;
    enum storage_class class = upload_open(c, c->upload_id, false, &u, err);
    if (class == STORAGE_OK)
        class = parts_of(c, &u, &have, err);
    if (class == STORAGE_OK && !whole(c, &have, u.data))
        class = storage_fail(err, STORAGE_NO_UPLOAD, "it has other parts than were sent");
    if (class == STORAGE_OK)
        class = file_open_place(c, true, &place, err);
    if (class == STORAGE_OK)
        class = file_publish(c, u.data, u.dir, u.data_name, &place, err);
    if (class == STORAGE_OK && fstat(u.data, &st) == 0) {
        (void)unlinkat(u.dir, u.parts_name, 0);
        out->size = (uint64_t)st.st_size;
        file_etag(out, st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec, st.st_ino, out->etag);
    }
    storage_answer_fini(&have);
    file_place_close(&place);
    upload_close(&u);
    return class;
}

enum storage_class file_abort(const struct storage_call *c, struct dr_err *err)
{
    struct upload u;
    enum storage_class class = upload_open(c, c->upload_id, false, &u, NULL);
    bool there = u.dir >= 0; /* one of the two may be left over */
    if (there && ((unlinkat(u.dir, u.data_name, 0) != 0 && errno != ENOENT) ||
                  (unlinkat(u.dir, u.parts_name, 0) != 0 && errno != ENOENT)))
        class = file_errno(c, err, "abort");
    else if (there || class == STORAGE_NO_UPLOAD)
        class = STORAGE_OK;
    else
        class = storage_fail(err, class, "%s", c->target->bucket);
    upload_close(&u);
    return class;
}

static void put_upload(const struct storage_call *c, int dir, const char *name,
                       struct storage_answer *out)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    char *text = fd >= 0 && fstat(fd, &st) == 0 ? read_text(fd) : NULL;
    char *end = text ? strchr(text, '\n') : NULL;
    if (fd >= 0)
        (void)close(fd);
    if (end) {
        *end = 0;
        if (dr_starts(text, c->key ? c->key : "")) {
            out->entries = dr_xrealloc(out->entries, (out->entry_count + 1) * sizeof *out->entries);
            out->entries[out->entry_count++] =
                (struct storage_entry){.key = dr_xstrdup(text),
                                       .upload_id = dr_xstrndup(name, FILE_ID),
                                       .at_unix_s = st.st_mtim.tv_sec};
        }
    }
    free(text);
}

enum storage_class file_uploads(const struct storage_call *c, struct storage_answer *out,
                                struct dr_err *err)
{
    int root, dir;
    enum storage_class class = file_open_root(c, &root, err);
    if (class != STORAGE_OK)
        return class;
    dir = file_open_uploads(root, false);
    DIR *list = dir >= 0 ? fdopendir(dir) : NULL;
    if (!list && errno != ENOENT)
        class = file_errno(c, err, FILE_UPLOADS);
    for (struct dirent *e; list && out->entry_count < UPLOADS_MAX && (e = readdir(list));) {
        const char *dot = strchr(e->d_name, '.');
        if (dot == e->d_name + FILE_ID && strcmp(dot, ".parts") == 0)
            put_upload(c, dir, e->d_name, out);
    }
    if (list)
        (void)closedir(list);
    (void)close(root);
    return class;
}
