/* /proc/self/mountinfo: fifth field of each line, spaces and the like as \040. Owns its list. */
#include "worker/pipe/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"

enum { TEXT_MAX = 16 << 20, FIELDS_BEFORE = 4 };

struct mounts {
    char **paths; /* sorted, distinct */
    size_t count;
};

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The field at p, ended by a blank: decoded into a string of its own. */
static char *decode(const char *p, size_t len)
{
    char *out = dr_xalloc(len + 1);
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (p[i] == '\\' && len - i > 3 && p[i + 1] >= '0' && p[i + 1] <= '3') {
            out[n++] = (char)((p[i + 1] - '0') << 6 | ((p[i + 2] & 7) << 3) | (p[i + 3] & 7));
            i += 3;
        } else {
            out[n++] = p[i];
        }
    }
    return out;
}

/* The mount point of one line; NULL: not such a line. */
static char *mount_point(const char *line, size_t len)
{
    const char *p = line, *end = line + len, *blank;

    for (int i = 0; i < FIELDS_BEFORE; i++) {
        p = memchr(p, ' ', (size_t)(end - p));
        if (!p)
            return NULL;
        p++;
    }
    blank = memchr(p, ' ', (size_t)(end - p));
    return blank && *p == '/' ? decode(p, (size_t)(blank - p)) : NULL;
}

enum dr_rc mounts_parse(const char *text, size_t len, struct mounts **out, struct dr_err *err)
{
    struct mounts *m = dr_xalloc(sizeof *m);
    const char *end = text + len;
    size_t room = 0, kept = 0;

    for (const char *nl; text < end; text = nl + 1) {
        char *path;
        nl = memchr(text, '\n', (size_t)(end - text));
        if (!nl)
            nl = end;
        path = mount_point(text, (size_t)(nl - text));
        if (!path) {
            mounts_free(m);
            return dr_fail(err, DR_E_MALFORMED, "mountinfo: a line without mount point");
        }
        if (m->count == room) {
            room = room ? 2 * room : 64;
            m->paths = dr_xrealloc(m->paths, room * sizeof *m->paths);
        }
        m->paths[m->count++] = path;
    }
    if (m->count)
        qsort(m->paths, m->count, sizeof *m->paths, by_bytes);
    for (size_t i = 0; i < m->count; i++) {
        if (kept && strcmp(m->paths[kept - 1], m->paths[i]) == 0)
            free(m->paths[i]);
        else
            m->paths[kept++] = m->paths[i];
    }
    m->count = kept;
    *out = m;
    return DR_OK;
}

enum dr_rc mounts_read(struct mounts **out, struct dr_err *err)
{
    struct dr_buf text;
    char block[16384];
    enum dr_rc rc = DR_OK;
    int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);

    dr_buf_init(&text, TEXT_MAX);
    if (fd < 0)
        return dr_fail_errno(err, DR_E_IO, "open /proc/self/mountinfo");
    for (;;) {
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = dr_fail_errno(err, DR_E_IO, "read /proc/self/mountinfo");
        if (n <= 0)
            break;
        dr_buf_add(&text, block, (size_t)n);
    }
    close(fd);
    if (!rc && text.failed)
        rc = dr_fail(err, DR_E_TOO_BIG, "/proc/self/mountinfo over %d bytes", TEXT_MAX);
    if (!rc)
        rc = mounts_parse((const char *)text.data, text.len, out, err);
    dr_buf_fini(&text);
    return rc;
}

void mounts_free(struct mounts *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->count; i++)
        free(m->paths[i]);
    free(m->paths);
    free(m);
}

bool mounts_has(const struct mounts *m, const char *path)
{
    return m->count && bsearch(&path, m->paths, m->count, sizeof *m->paths, by_bytes);
}

const char *mounts_below(const struct mounts *m, const char *path, size_t i)
{
    size_t len = strlen(path);

    while (len && path[len - 1] == '/')
        len--;
    for (size_t k = 0; k < m->count; k++) {
        const char *p = m->paths[k];
        if (strncmp(p, path, len) == 0 && p[len] == '/' && p[len + 1] && i-- == 0)
            return p;
    }
    return NULL;
}
