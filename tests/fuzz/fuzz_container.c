/* fuzz: drbackup. A container under a fixed key: any header and chunk borders (the bytes as a
 * file), and any decrypted payload (the bytes sealed first), walked and read by references. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/container_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct refs {
    const uint8_t *data;
    size_t size;
};

static enum dr_rc next(void *arg, struct container_ref *out, bool *end, struct dr_err *err)
{
    struct refs *r = arg;
    (void)err;
    memset(out, 0, sizeof *out);
    *end = r->size < 8;
    if (*end)
        return DR_OK;
    out->container = r->data[0] & 1;
    out->offset = dr_get_u16be(r->data + 1);
    out->stored_len = dr_get_u16be(r->data + 3);
    out->plain_len = dr_get_u16be(r->data + 5);
    memset(out->name, r->data[7], sizeof out->name);
    r->data += 8;
    r->size -= 8;
    return DR_OK;
}

static struct keyring *keyring(void)
{
    static struct keyring *keys;
    struct dr_secret pass = {0};
    if (keys)
        return keys;
    dr_secret_set(&pass, "a passphrase for fuzzing", 24);
    if (keyring_create("00112233445566778899aabbccddeeff", &pass, KEYRING_ROUNDS_MIN, &keys, NULL))
        abort();
    dr_secret_free(&pass);
    return keys;
}

static void read_all(struct container *c, struct refs *refs, bool whole)
{
    const struct container_reader_spec spec = {
        .containers = &c, .count = 1, .next = refs ? next : NULL, .arg = refs, .whole = whole};
    struct container_reader *r = NULL;
    struct dr_err err = {0};
    const void *p;
    size_t n = 1;
    if (container_reader_new(&spec, &r, &err) == DR_OK)
        while (n > 0 && container_read(r, &p, &n, &err) == DR_OK)

            ;
    container_reader_free(r);
}

static int memfile(const void *bytes, size_t len)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
        abort();
    return fd;
}

/* A whole container whose decrypted payload is data. */
static int sealed(const uint8_t *data, size_t size, unsigned level)
{
    static const struct container_random random;
    const struct container_spec spec = {
        .keys = keyring(), .backup_id = "fuzz", .series = "files:default", .level = level};
    unsigned char *file = dr_xalloc(AT_CHUNKS + size + (size / AEAD_CHUNK + 1) * AEAD_TAG);
    struct aead_keys payload;
    struct aead *a = NULL;
    size_t at = AT_CHUNKS;
    if (container_header(&spec, &random, file, &payload, NULL) || aead_new(&payload, &a, NULL))
        abort();
    memcpy(file + CONTAINER_HEADER, random.salt, AEAD_SALT);
    memcpy(file + CONTAINER_HEADER + AEAD_SALT, payload.commitment, AEAD_COMMITMENT);
    for (size_t i = 0; i <= size; i += AEAD_CHUNK) {
        size_t n = size - i < AEAD_CHUNK ? size - i : AEAD_CHUNK;
        if (aead_seal(a, i / AEAD_CHUNK, data + i, n, file + at, NULL))
            abort();
        at += n + AEAD_TAG;
    }
    int fd = memfile(file, at);
    aead_free(a);
    free(file);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct container *c = NULL;
    struct dr_err err = {0};
    if (size < 2)
        return 0;
    unsigned how = data[0];
    data++;
    size--;
    int fd = how & 1 ? sealed(data, size, how >> 1 & 1) : memfile(data, size);
    if (container_open(fd, keyring(), NULL, &c, &err) == DR_OK) {
        struct refs refs = {.data = data, .size = size};
        read_all(c, NULL, how & 4);
        read_all(c, &refs, how & 4);
    } else if (how & 1) {
        abort(); /* sealed by ourselves */
    }
    container_close(c);
    return 0;
}
