/* The names of one folder in the order of their paths. A folder "a" comes before its neighbour
 * "a-b", its entries "a/.." after it: so it stands in the list as "a" and as "a/". Owns the list.
 */
#include "worker/pipe/tree_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum { DENTS = 1 << 16 };

bool tree_own_name(const char *name)
{
    if (strcmp(name, ".dr-lock") == 0)
        return true;
    return strncmp(name, ".dr-", 4) == 0 &&
           strspn(name + 4, "abcdefghijklmnopqrstuvwxyz234567") == 16 && !name[20];
}

static void put(struct tree_list *l, unsigned char type, const char *name, const char *end)
{
    dr_buf_add(&l->bytes, &type, 1);
    dr_buf_add(&l->bytes, name, strlen(name));
    dr_buf_add(&l->bytes, end, strlen(end) + 1);
    l->count++;
}

static unsigned char type_of(int fd, const char *name)
{
    struct stat st;

    return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (unsigned char)IFTODT(st.st_mode)
                                                            : DT_REG;
}

static void put_all(struct tree_list *l, int fd, bool root, const char *dents, size_t len)
{
    for (size_t at = 0; at < len;) {
        const struct dirent64 *d = (const struct dirent64 *)(const void *)(dents + at);
        unsigned char type = d->d_type;
        at += d->d_reclen;
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
            (root && tree_own_name(d->d_name)))
            continue;
        if (type == DT_UNKNOWN)
            type = type_of(fd, d->d_name);
        put(l, type, d->d_name, "");
        if (type == DT_DIR)
            put(l, type, d->d_name, "/");
    }
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum dr_rc tree_list_read(struct tree_list *l, int fd, bool root, const char *path,
                          struct dr_err *err)
{
    char *dents = dr_xalloc(DENTS), *p;
    enum dr_rc rc = DR_OK;
    ssize_t n;

    memset(l, 0, sizeof *l);
    dr_buf_init(&l->bytes, SIZE_MAX / 4);
    while ((n = getdents64(fd, dents, DENTS)) > 0)
        put_all(l, fd, root, dents, (size_t)n);
    if (n < 0)
        rc = dr_fail_errno(err, DR_E_IO, "list %s", path);
    if (!rc && l->bytes.failed)
        rc = dr_fail(err, DR_E_NOMEM, "names of %s", path);
    free(dents);
    if (rc) {
        tree_list_fini(l);
        return rc;
    }
    l->names = dr_xarray(l->count + 1, sizeof *l->names);
    p = (char *)l->bytes.data;
    for (size_t i = 0; i < l->count; i++) {
        l->names[i] = p + 1;
        p += strlen(p + 1) + 2;
    }
    if (l->count)
        qsort(l->names, l->count, sizeof *l->names, by_bytes);
    return DR_OK;
}

void tree_list_fini(struct tree_list *l)
{
    free(l->names);
    dr_buf_fini(&l->bytes);
    memset(l, 0, sizeof *l);
}

void tree_list_forget(struct tree_list *l, const char *name)
{
    char key[NAME_MAX + 2], *p = key, **found;
    size_t len = strlen(name);

    if (len > NAME_MAX)
        return;
    memcpy(key, name, len);
    memcpy(key + len, "/", 2);
    found = bsearch(&p, l->names, l->count, sizeof *l->names, by_bytes);
    if (found)
        (*found)[-1] = 0;
}
