/* Tars made by hand, header by header, so that they may say anything, with the index records that
 * belong to them. */
#ifndef DR_TESTS_TAR_MAKER_H
#define DR_TESTS_TAR_MAKER_H

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"
#include "worker/pipe/records.h"

static struct dr_buf tar;
static struct pipe_file *files;
static unsigned file_count;

static void fresh(void)
{
    dr_buf_reset(&tar);
    file_count = 0;
}

static void header(const char *name, size_t name_len, char type, const char *link, uint64_t size)
{
    unsigned char h[512] = {0};
    unsigned sum = 0;
    memcpy(h, name, name_len > 100 ? 100 : name_len);
    (void)snprintf((char *)h + 100, 8, "%07o", 0644u);
    (void)snprintf((char *)h + 108, 8, "%07o", 0u);
    (void)snprintf((char *)h + 116, 8, "%07o", 0u);
    (void)snprintf((char *)h + 124, 12, "%011llo", (unsigned long long)size);
    (void)snprintf((char *)h + 136, 12, "%011o", 1u);
    memset(h + 148, ' ', 8);
    h[156] = (unsigned char)type;
    if (link)
        memcpy(h + 157, link, strlen(link) > 100 ? 100 : strlen(link));
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    for (unsigned i = 0; i < sizeof h; i++)
        sum += h[i];
    (void)snprintf((char *)h + 148, 8, "%06o", sum);
    dr_buf_add(&tar, h, sizeof h);
}

static void body(const void *bytes, size_t len)
{
    static const unsigned char pad[512];
    dr_buf_add(&tar, bytes, len);
    dr_buf_add(&tar, pad, (512 - len % 512) % 512);
}

static void add_pax(const char *key, const char *value)
{
    char record[20000];
    size_t len = strlen(key) + strlen(value) + 3, digits = 1;
    for (size_t n = 10; len + digits >= n; n *= 10)
        digits++;
    (void)snprintf(record, sizeof record, "%zu %s=%s\n", len + digits, key, value);
    header("pax", 3, 'x', NULL, strlen(record));
    body(record, strlen(record));
}

static struct pipe_file *record(const char *path, char type)
{
    files = dr_xrealloc(files, (file_count + 1) * sizeof *files);
    struct pipe_file *f = &files[file_count++];
    *f = (struct pipe_file){.type = type, .mode = type == 'd' ? 0755 : 0644, .mtime_ns = 1};
    f->path = (struct pipe_bytes){(const unsigned char *)path, strlen(path)};
    f->uid = geteuid();
    f->gid = getegid();
    return f;
}

static struct pipe_file *add(const char *path, char type, const char *what)
{
    static const char tar_types[] = "f0d5l2h1p6c3b4";
    struct pipe_file *f = record(path, type);
    char t = strchr(tar_types, type)[1];
    size_t len = strlen(path), size = type == 'f' ? strlen(what) : 0;
    bool is_link = type == 'l' || type == 'h';
    if (len > 100)
        add_pax("path", path);
    if (is_link && strlen(what) > 100)
        add_pax("linkpath", what);
    header(path, len, t, is_link ? what : NULL, size);
    if (type == 'f') {
        body(what, size);
        f->size = size;
        f->has_sha256 = true;
        (void)SHA256((const unsigned char *)what, size, f->sha256);
    }
    if (is_link) {
        f->target = (struct pipe_bytes){(const unsigned char *)what, strlen(what)};
        f->has_target = true;
    }
    if (type == 'h') /* content of the target, as long as it is "data" */
        f->size = 4;
    return f;
}

#endif
