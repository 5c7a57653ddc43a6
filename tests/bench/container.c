/* What each stage of a container costs, and the whole: bench_container FILE [MIB] [THREADS].
 * FILE is written and read back; half of the plain bytes are noise, half are rows of text. */
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/container.h"
#include "worker/pipe/aead.h"
#include "worker/pipe/frame.h"

enum { BLOCK = 8 << 20 }; /* generated once, then repeated */

static unsigned char *block;

static void fill_block(void)
{
    size_t at = 0;
    block = dr_xalloc(BLOCK + 256);
    for (unsigned row = 0; at < BLOCK / 2; row++)
        at += (size_t)snprintf(
            (char *)block + at, 256,
            "%u\t2026-01-%02u 10:%02u:00+00\tcustomer%llu@example.com\t%llu.%02u\n", row,
            row % 28 + 1, row % 60, (unsigned long long)(dr_random_u64() % 100000),
            (unsigned long long)(dr_random_u64() % 5000), row % 100);
    dr_random_bytes(block + BLOCK / 2, BLOCK / 2);
}

struct lap {
    int64_t wall;
    struct timespec cpu;
};

static struct lap lap(void)
{
    struct lap l = {.wall = dr_clock_us()};
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &l.cpu);
    return l;
}

/* CPU seconds of all threads beside the wall's: a busy machine only disturbs the latter. */
static void report(const char *what, uint64_t bytes, struct lap begun)
{
    struct lap now = lap();
    double cpu = (double)(now.cpu.tv_sec - begun.cpu.tv_sec) +
                 (double)(now.cpu.tv_nsec - begun.cpu.tv_nsec) / 1e9;
    double wall = (double)(now.wall - begun.wall) / 1e6;
    printf("%-28s %6.0f MB/s  %6.3f s wall  %6.3f s CPU\n", what, (double)bytes / 1e6 / wall, wall,
           cpu);
}

static void stages(void)
{
    static const unsigned char key[32];
    unsigned char name[FRAME_NAME], md[32], *out = dr_xalloc(2 * FRAME_CUT_STORED);
    struct frame_codec *codec = NULL;
    struct aead_keys keys = {0};
    struct aead *a = NULL;
    struct dr_err err = {0};
    uint64_t stored = 0;
    size_t n = 0;
    unsigned mdlen;
    if (frame_codec_new(1, key, &codec, &err) || aead_new(&keys, &a, &err))
        abort();
    struct lap t = lap();
    for (unsigned i = 0; i < 8; i++)
        (void)EVP_Digest(block, BLOCK, md, &mdlen, EVP_sha256(), NULL);
    report("SHA-256", 8ull * BLOCK, t);
    t = lap();
    for (size_t at = 0; at < 8ull * BLOCK; at += FRAME_CUT)
        if (frame_name(codec, block + at % BLOCK, FRAME_CUT, name, &err))
            abort();
    report("chunk names", 8ull * BLOCK, t);
    t = lap();
    for (size_t at = 0; at < 4ull * BLOCK; at += FRAME_CUT) {
        if (frame_pack(codec, block + at % BLOCK, FRAME_CUT, out, &n, &err))
            abort();
        stored += n;
    }
    report("zstd level 1", 4ull * BLOCK, t);
    t = lap();
    for (size_t at = 0; at < 16ull * BLOCK; at += AEAD_CHUNK)
        if (aead_seal(a, at / AEAD_CHUNK, block + at % BLOCK, AEAD_CHUNK, out, &err))
            abort();
    report("AES-256-GCM, 16 KiB chunks", 16ull * BLOCK, t);
    printf("stored %.1f %% of the plain bytes\n", 100.0 * (double)stored / (4.0 * BLOCK));
    aead_free(a);
    frame_codec_free(codec);
    free(out);
}

static int fail(const struct dr_err *err)
{
    (void)fprintf(stderr, "%s\n", err->msg);
    return 1;
}

static int write_all(const struct keyring *keys, int fd, uint64_t total, unsigned threads)
{
    const struct container_spec spec = {.keys = keys,
                                        .backup_id = "bench",
                                        .series = "files:default",
                                        .level = 1,
                                        .threads = threads,
                                        .fd = fd};
    struct container_writer *w = NULL;
    struct container_sums sums;
    struct dr_err err = {0};
    struct lap begun = lap();
    int64_t filled;
    if (container_writer_new(&spec, &w, &err))
        return fail(&err);
    for (uint64_t at = 0; at < total;) {
        void *room;
        size_t n;
        if (container_reserve(w, &room, &n, &err))
            return fail(&err);
        n = total - at < n ? (size_t)(total - at) : n;
        n = BLOCK - at % BLOCK < n ? BLOCK - (size_t)(at % BLOCK) : n;
        memcpy(room, block + at % BLOCK, n);
        if (container_commit(w, n, &err))
            return fail(&err);
        at += n;
    }
    filled = dr_clock_us();
    if (container_finish(w, &sums, &err))
        return fail(&err);
    container_writer_free(w);
    report("write, all stages, with fsync", total, begun);
    printf("  of it after the last byte was given: %.3f s; %llu MB stored\n",
           (double)(dr_clock_us() - filled) / 1e6, (unsigned long long)sums.stored_bytes / 1000000);
    return 0;
}

static int read_back(const struct keyring *keys, const char *path, unsigned threads, bool whole)
{
    struct container *c = NULL;
    struct container_reader *r = NULL;
    const void *p;
    size_t n = 1;
    uint64_t total = 0;
    struct dr_err err = {0};
    struct lap begun = lap();
    if (container_open(open(path, O_RDONLY | O_CLOEXEC), keys, NULL, &c, &err))
        return fail(&err);
    const struct container_reader_spec spec = {
        .containers = &c, .count = 1, .whole = whole, .threads = threads};
    if (container_reader_new(&spec, &r, &err))
        return fail(&err);
    while (n > 0) {
        if (container_read(r, &p, &n, &err))
            return fail(&err);
        total += n;
    }
    report(whole ? "read back, payload hash too" : "read", total, begun);
    container_reader_free(r);
    container_close(c);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t mib = 977, threads = container_threads();
    struct dr_secret pass = {0};
    struct keyring *keys = NULL;
    struct dr_err err = {0};
    if (argc < 2 || (argc > 2 && !dr_parse_u64(argv[2], 1, 1 << 20, &mib)) ||
        (argc > 3 && !dr_parse_u64(argv[3], 0, CONTAINER_THREADS_MAX, &threads))) {
        (void)fprintf(stderr, "usage: bench_container FILE [MIB] [THREADS]\n");
        return 2;
    }
    fill_block();
    stages();
    dr_secret_set(&pass, "benchmark passphrase", 20);
    if (keyring_create("00112233445566778899aabbccddeeff", &pass, KEYRING_ROUNDS_MIN, &keys, &err))
        return fail(&err);
    int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int code = fd < 0 ? fail(&err) : write_all(keys, fd, mib << 20, (unsigned)threads);
    if (!code)
        code = read_back(keys, argv[1], (unsigned)threads, false);
    if (!code)
        code = read_back(keys, argv[1], (unsigned)threads, true);
    (void)close(fd);
    keyring_free(keys);
    dr_secret_free(&pass);
    free(block);
    return code;
}
