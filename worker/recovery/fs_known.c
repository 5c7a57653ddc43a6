/* A set of paths with a hint of their content, open addressing. The hash is keyed at random: names
 * are made by users. Pool threads. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "worker/recovery/fs_internal.h"

enum { NS = 1000000000 };

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t hash(const struct fs_known *k, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    uint64_t seed[2], h;
    memcpy(seed, k->key, sizeof seed);
    h = seed[0] ^ len;
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = mix(h ^ word) + seed[1];
    }
    for (; len; p++, len--)
        h = mix(h ^ *p) + seed[1];
    return h ? h : 1;
}

static uint64_t hint(const struct fs_known *k, char type, uint64_t size, int64_t mtime_ns)
{
    struct {
        uint64_t type, size;
        int64_t mtime_ns;
    } all = {(unsigned char)type, size, mtime_ns};
    return hash(k, &all, sizeof all);
}

static void insert(struct fs_known *k, uint64_t path, uint64_t what)
{
    size_t at = path & (k->cap - 1);
    while (k->slots[2 * at] && k->slots[2 * at] != path)
        at = (at + 1) & (k->cap - 1);
    k->count += !k->slots[2 * at];
    k->slots[2 * at] = path;
    k->slots[2 * at + 1] = what;
}

static void grow(struct fs_known *k)
{
    struct fs_known old = *k;
    k->cap = old.cap ? 2 * old.cap : 4096;
    k->count = 0;
    k->slots = dr_xarray(2 * k->cap, sizeof *k->slots);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[2 * i])
            insert(k, old.slots[2 * i], old.slots[2 * i + 1]);
    free(old.slots);
}

void fs_known_add(struct fs_known *k, const struct pipe_file *f)
{
    char type = f->type == 'h' ? 'f' : f->type;
    if (!k->cap)
        dr_random_bytes(k->key, sizeof k->key);
    if (2 * k->count >= k->cap)
        grow(k);
    /* A folder's size and time say nothing of what it holds. */
    insert(k, hash(k, f->path.data, f->path.len),
           type == 'd' ? 0 : hint(k, type, f->size, f->mtime_ns));
}

static char type_of(mode_t mode)
{
    if (S_ISREG(mode))
        return 'f';
    if (S_ISLNK(mode))
        return 'l';
    return S_ISFIFO(mode) ? 'p' : '?';
}

enum fs_match fs_known_find(const struct fs_known *k, const char *path, const struct stat *st)
{
    uint64_t h = k->cap ? hash(k, path, strlen(path)) : 0;
    size_t at = k->cap ? h & (k->cap - 1) : 0;
    int64_t mtime_ns = (int64_t)st->st_mtim.tv_sec * NS + st->st_mtim.tv_nsec;
    if (!k->cap)
        return FS_UNKNOWN;
    while (k->slots[2 * at] && k->slots[2 * at] != h)
        at = (at + 1) & (k->cap - 1);
    if (!k->slots[2 * at])
        return FS_UNKNOWN;
    if (S_ISDIR(st->st_mode))
        return k->slots[2 * at + 1] == 0 ? FS_SAME : FS_CHANGED;
    return k->slots[2 * at + 1] == hint(k, type_of(st->st_mode),
                                        S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0, mtime_ns)
               ? FS_SAME
               : FS_CHANGED;
}

void fs_known_fini(struct fs_known *k)
{
    free(k->slots);
    *k = (struct fs_known){0};
}
