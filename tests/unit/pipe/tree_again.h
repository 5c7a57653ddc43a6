/* What a walk told, once more another way: digests from the records, the tar read by libarchive. */
#ifndef DR_TESTS_TREE_AGAIN_H
#define DR_TESTS_TREE_AGAIN_H

#include "tests/unit/pipe/tree_walked.h"

#include <archive.h>
#include <archive_entry.h>
#include <openssl/evp.h>

static inline void hash(const struct dr_buf *b, unsigned char out[32])
{
    assert_int_equal(
        EVP_Digest(b->data ? b->data : (const void *)"", b->len, out, NULL, EVP_sha256(), NULL), 1);
}

static inline bool in_root(const char *path, const char *root)
{
    size_t len = strlen(root);
    return strncmp(path, root, len) == 0 && (!path[len] || path[len] == '/');
}

static inline bool belongs(const char *path, size_t r)
{
    const char *best = NULL;

    for (size_t i = 0; root_list[i]; i++)
        if (in_root(path, root_list[i] + 1) && (!best || strlen(root_list[i]) > strlen(best)))
            best = root_list[i];
    return best == root_list[r];
}

static inline const char *target_of(const struct seen *s)
{
    if (s->f.type == 'f')
        for (size_t i = 0; i < seen_count; i++)
            if (seen[i].f.type == 'h' && strcmp(seen[i].target, s->path) == 0)
                return s->path;
    return s->f.has_target ? s->target : "";
}

/* Root digests from the records; strictly sorted within each root. */
static inline void check_roots(void)
{
    for (size_t r = 0; root_list[r]; r++) {
        struct dr_buf content, meta;
        unsigned char sum[32];
        const char *last = "";
        dr_buf_init(&content, 16 << 20);
        dr_buf_init(&meta, 16 << 20);
        for (size_t i = 0; i < seen_count; i++) {
            const struct seen *s = &seen[i];
            char hex[65] = "";
            size_t from = content.len;
            if (!belongs(s->path, r))
                continue;
            if (strcmp(last, s->path) >= 0)
                fail_msg("%s comes after %s", s->path, last);
            last = s->path;
            if (s->f.has_sha256)
                dr_hex(s->f.sha256, 32, hex);
            dr_buf_printf(&content, "%s%c%c%c%llu%c%s%c%s%c", s->path, 0,
                          s->f.type == 'h' ? 'f' : s->f.type, 0, (unsigned long long)s->f.size, 0,
                          hex, 0, target_of(s), 0);
            dr_buf_add(&meta, content.data + from, content.len - from);
            dr_buf_printf(&meta, "%04o%c%u%c%u%c%lld%c", s->f.mode, 0, s->f.uid, 0, s->f.gid, 0,
                          (long long)s->f.mtime_ns, 0);
            dr_buf_add(&meta, s->xattrs.data, s->xattrs.len);
            dr_buf_add(&meta, "", 1);
        }
        hash(&content, sum);
        assert_memory_equal(sum, roots_seen[r].content, 32);
        hash(&meta, sum);
        assert_memory_equal(sum, roots_seen[r].meta, 32);
        dr_buf_fini(&content);
        dr_buf_fini(&meta);
    }
    assert_null(root_list[root_count]);
}

/* One entry of the tar against its record. */
static inline void check_entry(struct archive *a, struct archive_entry *e, const struct seen *s)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    unsigned char block[65536], sum[32];
    const char *path = archive_entry_pathname(e);
    uint64_t size = 0;
    la_ssize_t n;

    assert_memory_equal(path, s->path, strlen(s->path));
    assert_string_equal(path + strlen(s->path), s->f.type == 'd' ? "/" : "");
    assert_int_equal(archive_entry_perm(e), s->f.mode);
    assert_int_equal(archive_entry_uid(e), s->f.uid);
    assert_int_equal(archive_entry_gid(e), s->f.gid);
    assert_int_equal(archive_entry_mtime(e), s->f.mtime_ns < 0
                                                 ? (s->f.mtime_ns - 999999999) / 1000000000
                                                 : s->f.mtime_ns / 1000000000);
    if (s->f.type == 'h')
        assert_string_equal(archive_entry_hardlink(e), s->target);
    else
        assert_null(archive_entry_hardlink(e));
    if (s->f.type == 'l')
        assert_string_equal(archive_entry_symlink(e), s->target);
    assert_int_equal(archive_entry_xattr_reset(e), s->f.xattr_count);
    assert_int_equal(EVP_DigestInit(c, EVP_sha256()), 1);
    while ((n = archive_read_data(a, block, sizeof block)) > 0) {
        EVP_DigestUpdate(c, block, (size_t)n);
        size += (uint64_t)n;
    }
    assert_int_equal(n, 0);
    EVP_DigestFinal(c, sum, NULL);
    EVP_MD_CTX_free(c);
    if (s->f.type == 'f') {
        assert_int_equal(size, s->f.size);
        assert_memory_equal(sum, s->f.sha256, 32);
    } else {
        assert_int_equal(size, 0);
    }
}

static inline void check_tar(void)
{
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    int r;

    assert_int_equal(archive_read_support_format_tar(a), ARCHIVE_OK);
    assert_int_equal(archive_read_open_memory(a, tar.data, tar.len), ARCHIVE_OK);
    for (size_t i = 0; i < seen_count; i++) {
        r = archive_read_next_header(a, &e);
        if (r != ARCHIVE_OK)
            fail_msg("%s: %s", seen[i].path, archive_error_string(a));
        check_entry(a, e, &seen[i]);
    }
    assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_EOF);
    archive_read_free(a);
}

#endif
