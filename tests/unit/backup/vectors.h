/* The golden files for unit tests: vectors.json, negatives.json and its ops, files in and out. */
#ifndef DR_TESTS_VECTORS_H
#define DR_TESTS_VECTORS_H

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/str.h"
#include "tests/unit/cm.h"

#define VECTORS DR_SOURCE_DIR "/tests/vectors/"

struct bytes {
    unsigned char *data;
    size_t len;
};

static inline struct bytes vec_read(const char *folder, const char *name)
{
    char path[4096];
    struct stat st;
    struct bytes b = {0};
    (void)snprintf(path, sizeof path, "%s%s", folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        fail_msg("%s is not there", path);
    b.data = dr_xalloc((size_t)st.st_size + 1);
    while (b.len < (size_t)st.st_size) {
        ssize_t n = read(fd, b.data + b.len, (size_t)st.st_size - b.len);
        assert_true(n > 0);
        b.len += (size_t)n;
    }
    (void)close(fd);
    return b;
}

static inline void vec_write(const char *folder, const char *name, struct bytes b)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, b.data, b.len), (ssize_t)b.len);
    (void)close(fd);
}

static inline json_t *vec_json(const char *name)
{
    struct bytes b = vec_read(VECTORS, name);
    json_t *root = json_loadb((const char *)b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
    free(b.data);
    assert_non_null(root);
    return root;
}

static inline const char *vec_str(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    if (!s)
        fail_msg("vector without %s", name);
    return s;
}

static inline size_t vec_int(const json_t *o, const char *name)
{
    assert_true(json_is_integer(json_object_get(o, name)));
    return (size_t)json_integer_value(json_object_get(o, name));
}

static inline struct bytes vec_unhex(const char *s)
{
    struct bytes b = {.data = dr_xalloc(strlen(s) / 2 + 1), .len = strlen(s) / 2};
    assert_true(dr_unhex(s, strlen(s), b.data, b.len));
    return b;
}

static inline void vec_hex(const json_t *o, const char *name, void *out, size_t len)
{
    const char *s = vec_str(o, name);
    assert_true(dr_unhex(s, strlen(s), out, len));
}

static inline void vec_secret(const char *text, struct dr_secret *out)
{
    dr_secret_set(out, text, strlen(text));
}

/* One op of negatives.json on the bytes of a file. */
static inline void vec_op(const json_t *op, struct bytes *b)
{
    const char *kind = vec_str(op, "op");
    const json_t *hex = json_object_get(op, "bytes");
    struct bytes more = hex ? vec_unhex(json_string_value(hex)) : (struct bytes){0};
    size_t at = (size_t)json_integer_value(json_object_get(op, "at"));
    b->data = dr_xrealloc(b->data, b->len + more.len + 1);
    if (strcmp(kind, "xor") == 0) {
        unsigned char with;
        vec_hex(op, "with", &with, 1);
        assert_true(at < b->len);
        b->data[at] ^= with;
    } else if (strcmp(kind, "cut") == 0) {
        b->len = vec_int(op, "to");
    } else if (strcmp(kind, "append") == 0) {
        memcpy(b->data + b->len, more.data, more.len);
        b->len += more.len;
    } else if (strcmp(kind, "put") == 0) {
        assert_true(at + more.len <= b->len);
        memcpy(b->data + at, more.data, more.len);
    } else if (strcmp(kind, "swap") == 0) {
        size_t and = vec_int(op, "and"), length = vec_int(op, "length");
        for (size_t i = 0; i < length; i++) {
            unsigned char c = b->data[at + i];
            b->data[at + i] = b->data[and+i];
            b->data[and+i] = c;
        }
    } else if (strcmp(kind, "delete") == 0) {
        size_t length = vec_int(op, "length");
        memmove(b->data + at, b->data + at + length, b->len - at - length);
        b->len -= length;
    } else if (strcmp(kind, "copy") == 0) {
        free(b->data);
        *b = vec_read(VECTORS, vec_str(op, "from"));
    } else {
        fail_msg("op %s", kind);
    }
    free(more.data);
}

#endif
