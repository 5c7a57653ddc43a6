/* Records as bytes: u32 length, fields, u32 length again, so that they can be read backwards. The
 * file is mapped for reading. Owns file and mapping. Pool threads. */
#include "worker/pipe/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"

enum {
    FLUSH_BYTES = 1 << 18,
    RECORD_MAX = 2 << 20, /* an index record has at most 1 MiB */
};

struct spool {
    int fd;
    struct dr_buf out;
    unsigned char *map;
    size_t size, at;
    struct pipe_xattr *xattrs;
    unsigned xattr_cap;
};

/* O_TMPFILE is missing on some network file systems. */
static int open_unlinked(int dir)
{
    static const char name[] = ".dr-spool";
    int fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT))
        return fd;
    fd = openat(dir, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && unlinkat(dir, name, 0) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

enum dr_rc spool_new(int dir, struct spool **out, struct dr_err *err)
{
    int fd = open_unlinked(dir);
    struct spool *s;
    if (fd < 0)
        return dr_fail_errno(err, DR_E_IO, "temporary file in the staging folder");
    s = dr_xalloc(sizeof *s);
    s->fd = fd;
    dr_buf_init(&s->out, FLUSH_BYTES + RECORD_MAX);
    *out = s;
    return DR_OK;
}

void spool_free(struct spool *s)
{
    if (!s)
        return;
    if (s->map)
        (void)munmap(s->map, s->size);
    (void)close(s->fd);
    dr_buf_fini(&s->out);
    free(s->xattrs);
    free(s);
}

static enum dr_rc flush(struct spool *s, struct dr_err *err)
{
    for (size_t done = 0; done < s->out.len;) {
        ssize_t n = write(s->fd, s->out.data + done, s->out.len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "write to the staging folder");
        done += (size_t)n;
    }
    s->size += s->out.len;
    dr_buf_reset(&s->out);
    return DR_OK;
}

static void put(struct dr_buf *b, const struct pipe_bytes *bytes)
{
    dr_buf_u32be(b, (uint32_t)bytes->len);
    dr_buf_add(b, bytes->data, bytes->len);
}

enum dr_rc spool_add(struct spool *s, const struct pipe_file *f, struct dr_err *err)
{
    struct dr_buf *b = &s->out;
    size_t begin = b->len;
    dr_buf_u32be(b, 0);
    dr_buf_add(b, &f->type, 1);
    dr_buf_u32be(b, f->mode);
    dr_buf_u32be(b, f->uid);
    dr_buf_u32be(b, f->gid);
    dr_buf_u64be(b, (uint64_t)f->mtime_ns);
    dr_buf_u64be(b, f->size);
    put(b, &f->path);
    put(b, &f->target);
    dr_buf_u32be(b, f->xattr_count);
    for (unsigned i = 0; i < f->xattr_count; i++) {
        put(b, &f->xattrs[i].name);
        put(b, &f->xattrs[i].value);
    }
    if (b->failed)
        return dr_fail(err, DR_E_TOO_BIG, "file record");
    uint32_t len = (uint32_t)(b->len - begin - 4);
    dr_put_u32be(b->data + begin, len);
    dr_buf_u32be(b, len);
    return b->len >= FLUSH_BYTES ? flush(s, err) : DR_OK;
}

enum dr_rc spool_seal(struct spool *s, struct dr_err *err)
{
    void *map;
    if (flush(s, err))
        return err->rc;
    if (!s->size)
        return DR_OK;
    map = mmap(NULL, s->size, PROT_READ, MAP_PRIVATE, s->fd, 0);
    if (map == MAP_FAILED)
        return dr_fail_errno(err, DR_E_NOMEM, "map the temporary file");
    s->map = map;
    return DR_OK;
}

void spool_rewind(struct spool *s, bool to_end)
{
    s->at = to_end ? s->size : 0;
}

static uint32_t get_u32(const unsigned char **p)
{
    uint32_t v = dr_get_u32be(*p);
    *p += 4;
    return v;
}

static uint64_t get_u64(const unsigned char **p)
{
    uint64_t v = dr_get_u64be(*p);
    *p += 8;
    return v;
}

static struct pipe_bytes get(const unsigned char **p)
{
    struct pipe_bytes b = {NULL, get_u32(p)};
    b.data = *p;
    *p += b.len;
    return b;
}

/* The file is ours and nobody else can open it: what was written is what is read. */
static void decode(struct spool *s, const unsigned char *p, struct pipe_file *f)
{
    *f = (struct pipe_file){.type = (char)*p++};
    f->mode = get_u32(&p);
    f->uid = get_u32(&p);
    f->gid = get_u32(&p);
    f->mtime_ns = (int64_t)get_u64(&p);
    f->size = get_u64(&p);
    f->path = get(&p);
    f->target = get(&p);
    f->has_target = f->target.len > 0;
    f->xattr_count = get_u32(&p);
    if (f->xattr_count > s->xattr_cap) {
        s->xattr_cap = f->xattr_count;
        s->xattrs = dr_xrealloc(s->xattrs, s->xattr_cap * sizeof *s->xattrs);
    }
    for (unsigned i = 0; i < f->xattr_count; i++) {
        s->xattrs[i].name = get(&p);
        s->xattrs[i].value = get(&p);
    }
    f->xattrs = s->xattrs;
}

bool spool_next(struct spool *s, struct pipe_file *f)
{
    if (s->at >= s->size)
        return false;
    uint32_t len = dr_get_u32be(s->map + s->at);
    decode(s, s->map + s->at + 4, f);
    s->at += (size_t)len + 8;
    return true;
}

bool spool_prior(struct spool *s, struct pipe_file *f)
{
    if (s->at == 0)
        return false;
    s->at -= (size_t)dr_get_u32be(s->map + s->at - 4) + 8;
    decode(s, s->map + s->at + 4, f);
    return true;
}
