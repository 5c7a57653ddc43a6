/* Containers against the golden vectors: read, written again byte by byte, and every mutation of
 * negatives.json refused with its class and without a byte of output. */
#include "tests/unit/backup/vectors.h"

#include <openssl/evp.h>
#include <sys/mman.h>

#include "worker/backup/container_internal.h"
#include "worker/backup/keyring_internal.h"

static json_t *root;
static struct keyring *keys;
static struct dr_secret passphrase;

static int load(void **state)
{
    struct bytes b = vec_read(VECTORS, "store/keyring.json");
    (void)state;
    root = vec_json("vectors.json");
    vec_secret(vec_str(json_object_get(root, "secrets"), "passphrase"), &passphrase);
    enum dr_rc rc = keyring_open(b.data, b.len, NULL, &passphrase, &keys, NULL);
    free(b.data);
    return (int)rc;
}

static int unload(void **state)
{
    (void)state;
    keyring_free(keys);
    dr_secret_free(&passphrase);
    json_decref(root);
    return 0;
}

static int memfile(const struct bytes *b)
{
    int fd = memfd_create("container", MFD_CLOEXEC);
    assert_true(fd >= 0);
    if (b)
        assert_int_equal(write(fd, b->data, b->len), (ssize_t)b->len);
    return fd;
}

static void check_sha256(const void *p, size_t len, const json_t *v, const char *name)
{
    unsigned char want[32], got[32];
    size_t n = 0;
    vec_hex(v, name, want, sizeof want);
    assert_int_equal(EVP_Q_digest(NULL, "SHA256", NULL, p, len, got, &n), 1);
    assert_memory_equal(got, want, sizeof want);
}

struct listed { /* chunks of a vector, given as references */
    const json_t *chunks;
    size_t at;
    uint64_t offset;
};

static enum dr_rc next_listed(void *arg, struct container_ref *out, bool *end, struct dr_err *err)
{
    struct listed *l = arg;
    const json_t *c = json_array_get(l->chunks, l->at++);
    (void)err;
    *end = !c;
    if (!c)
        return DR_OK;
    vec_hex(c, "name", out->name, sizeof out->name);
    out->container = 0;
    out->offset = l->offset;
    out->stored_len = (uint32_t)vec_int(c, "stored_len");
    out->plain_len = (uint32_t)vec_int(c, "plain_len");
    l->offset += out->stored_len;
    return DR_OK;
}

/* Everything a reader says; plain (may be NULL) gets the bytes. */
static enum dr_rc read_all(struct container *c, struct listed *l, bool whole, unsigned threads,
                           struct bytes *plain, struct container_sums *sums, struct dr_err *err)
{
    struct container_reader *r = NULL;
    const void *p = NULL;
    size_t len = 0;
    const struct container_reader_spec spec = {.containers = &c,
                                               .count = 1,
                                               .next = l ? next_listed : NULL,
                                               .arg = l,
                                               .whole = whole,
                                               .threads = threads};
    enum dr_rc rc = container_reader_new(&spec, &r, err);
    while (!rc && !(rc = container_read(r, &p, &len, err)) && len > 0) {
        plain->data = dr_xrealloc(plain->data, plain->len + len);
        memcpy(plain->data + plain->len, p, len);
        plain->len += len;
    }
    if (!rc)
        rc = container_reader_sums(r, sums, err);
    container_reader_free(r);
    return rc;
}

static void check_read(const json_t *v, const struct bytes *file, bool listed, unsigned threads)
{
    const struct container_expect expect = {.backup_id = vec_str(v, "backup_id"),
                                            .series = vec_str(v, "series"),
                                            .index = (uint32_t)vec_int(v, "object_index")};
    struct container_sums sums;
    struct container *c = NULL;
    struct bytes plain = {0};
    struct listed l = {.chunks = json_object_get(v, "chunks")};
    struct dr_err err = {0};
    unsigned char want[32];
    if (container_open(memfile(file), keys, &expect, &c, &err) ||
        read_all(c, listed ? &l : NULL, true, threads, &plain, &sums, &err))
        fail_msg("%s: %s", vec_str(v, "file"), err.msg);
    assert_int_equal(plain.len, vec_int(v, "plain_length"));
    check_sha256(plain.data ? plain.data : (unsigned char *)"", plain.len, v, "plain_sha256");
    vec_hex(v, "sha256_payload", want, sizeof want);
    assert_memory_equal(sums.sha256_payload, want, sizeof want);
    vec_hex(v, "root", want, sizeof want);
    assert_memory_equal(sums.root, want, sizeof want);
    assert_int_equal(sums.plain_bytes, plain.len);
    assert_int_equal(sums.stored_bytes, vec_int(v, "stored_bytes"));
    assert_int_equal(sums.generation, vec_int(v, "generation"));
    assert_int_equal(sums.chunks, json_array_size(json_object_get(v, "chunks")));
    container_close(c);
    free(plain.data);
}

static void test_read(void **state)
{
    const json_t *v;
    size_t i;
    (void)state;
    json_array_foreach(json_object_get(root, "containers"), i, v)
    {
        struct bytes file = vec_read(VECTORS, vec_str(v, "file"));
        for (unsigned threads = 0; threads < 3; threads++) {
            check_read(v, &file, false, threads);
            check_read(v, &file, true, threads);
        }
        free(file.data);
    }
    assert_int_equal(i, 16);
}

static void test_read_by_passphrase(void **state)
{
    const json_t *v;
    size_t i;
    (void)state;
    json_array_foreach(json_object_get(root, "containers"), i, v)
    {
        struct bytes file = vec_read(VECTORS, vec_str(v, "file")), plain = {0};
        struct container *c = NULL;
        struct container_sums sums;
        assert_int_equal(container_open_secret(memfile(&file), &passphrase, &c, NULL), DR_OK);
        assert_int_equal(read_all(c, NULL, false, 1, &plain, &sums, NULL), DR_OK);
        check_sha256(plain.data ? plain.data : (unsigned char *)"", plain.len, v, "plain_sha256");
        container_close(c);
        free(plain.data);
        free(file.data);
    }
}

struct written {
    const json_t *chunks;
    size_t count;
    uint64_t offset;
};

static enum dr_rc on_chunk(void *arg, const struct container_chunk *c, struct dr_err *err)
{
    struct written *w = arg;
    const json_t *v = json_array_get(w->chunks, w->count++);
    unsigned char name[16];
    (void)err;
    assert_non_null(v);
    vec_hex(v, "name", name, sizeof name);
    assert_memory_equal(c->name, name, sizeof name);
    assert_int_equal(c->plain_len, vec_int(v, "plain_len"));
    assert_int_equal(c->offset, w->offset);
    w->offset += c->stored_len;
    return DR_OK;
}

static struct bytes golden_plain(const struct bytes *file)
{
    struct bytes plain = {0};
    struct container *c = NULL;
    struct container_sums sums;
    assert_int_equal(container_open(memfile(file), keys, NULL, &c, NULL), DR_OK);
    assert_int_equal(read_all(c, NULL, true, 0, &plain, &sums, NULL), DR_OK);
    container_close(c);
    return plain;
}

/* The same random inputs give the same file. With comp 1 the frames are this zstd's own, so only
 * what stands before and beside them must be equal. */
static void check_written(const json_t *v, const struct bytes *file)
{
    const json_t *chunks = json_object_get(v, "chunks");
    size_t len = vec_int(v, "plain_length"), n = 0;
    struct bytes plain = golden_plain(file);
    bool zstd = vec_int(v, "comp") == 1;
    struct container_random random;
    struct container_writer *w = NULL;
    struct container_sums sums;
    struct written seen = {.chunks = chunks};
    int fd = memfile(NULL);
    const struct container_spec spec = {.keys = keys,
                                        .backup_id = vec_str(v, "backup_id"),
                                        .series = vec_str(v, "series"),
                                        .index = (uint32_t)vec_int(v, "object_index"),
                                        .level = zstd ? 1 : 0,
                                        .fd = fd,
                                        .on_chunk = on_chunk,
                                        .arg = &seen};
    vec_hex(v, "file_key", random.file_key, sizeof random.file_key);
    vec_hex(v, "file_nonce", random.nonce, sizeof random.nonce);
    vec_hex(v, "payload_salt", random.salt, sizeof random.salt);
    assert_int_equal(container_writer_new_with(&spec, &random, &w, NULL), DR_OK);
    for (size_t i = 0; i < len; i++) {
        if (!zstd)
            assert_int_equal(plain.data[i], (7 * i + 3) % 256);
        assert_int_equal(container_write(w, plain.data + i, 1, NULL), DR_OK);
    }
    assert_int_equal(container_finish(w, &sums, NULL), DR_OK);
    container_writer_free(w);
    assert_int_equal(seen.count, json_array_size(chunks));
    unsigned char want[32], *got = dr_xalloc(sums.stored_bytes);
    vec_hex(v, "root", want, sizeof want);
    assert_memory_equal(sums.root, want, sizeof want);
    assert_int_equal(sums.plain_bytes, len);
    assert_int_equal(pread(fd, got, sums.stored_bytes, 0), (ssize_t)sums.stored_bytes);
    n = zstd ? AT_CHUNKS : file->len;
    assert_memory_equal(got, file->data, n);
    if (!zstd || len == 0) {
        assert_int_equal(sums.stored_bytes, file->len);
        vec_hex(v, "sha256_payload", want, sizeof want);
        assert_memory_equal(sums.sha256_payload, want, sizeof want);
    }
    free(got);
    free(plain.data);
    (void)close(fd);
}

/* comp 1: the golden frames sealed by our cipher give the golden payload. */
static void check_sealed(const json_t *v, const struct bytes *file)
{
    struct bytes frames = vec_read(VECTORS, vec_str(v, "payload_input"));
    unsigned char file_key[AEAD_KEY], salt[AEAD_SALT], out[AEAD_SEALED];
    struct aead_keys payload;
    struct aead *a = NULL;
    size_t at = AT_CHUNKS;
    vec_hex(v, "file_key", file_key, sizeof file_key);
    vec_hex(v, "payload_salt", salt, sizeof salt);
    assert_int_equal(aead_derive(file_key, salt, file->data, PART_A, &payload, NULL), DR_OK);
    assert_memory_equal(payload.commitment, file->data + CONTAINER_HEADER + AEAD_SALT,
                        AEAD_COMMITMENT);
    assert_int_equal(aead_new(&payload, &a, NULL), DR_OK);
    for (size_t i = 0; i <= frames.len; i += AEAD_CHUNK) {
        size_t len = frames.len - i < AEAD_CHUNK ? frames.len - i : AEAD_CHUNK;
        assert_int_equal(aead_seal(a, i / AEAD_CHUNK, frames.data + i, len, out, NULL), DR_OK);
        assert_memory_equal(out, file->data + at, len + AEAD_TAG);
        at += len + AEAD_TAG;
    }
    assert_int_equal(at, file->len);
    aead_free(a);
    free(frames.data);
}

static void test_write(void **state)
{
    const json_t *v;
    size_t i;
    (void)state;
    json_array_foreach(json_object_get(root, "containers"), i, v)
    {
        struct bytes file = vec_read(VECTORS, vec_str(v, "file"));
        check_written(v, &file);
        if (vec_int(v, "comp") == 1)
            check_sealed(v, &file);
        free(file.data);
    }
}

static void test_chunked_known(void **state)
{
    const json_t *known = json_object_get(root, "chunked_known"), *v;
    unsigned char key[AEAD_KEY], salt[AEAD_SALT];
    struct aead_keys keys_of;
    size_t i;
    (void)state;
    vec_hex(known, "key", key, sizeof key);
    vec_hex(known, "salt", salt, sizeof salt);
    assert_int_equal(aead_derive(key, salt, "", 0, &keys_of, NULL), DR_OK);
    json_array_foreach(json_object_get(known, "cases"), i, v)
    {
        size_t len = vec_int(v, "length"), total = vec_int(v, "total"), at = AEAD_PREFIX;
        unsigned char *plain = dr_xalloc(len + 1), *out = dr_xalloc(total);
        struct aead *a = NULL;
        assert_int_equal(aead_new(&keys_of, &a, NULL), DR_OK);
        for (size_t j = 0; j < len; j++)
            plain[j] = (unsigned char)(7 * j + 3);
        memcpy(out, salt, sizeof salt);
        memcpy(out + AEAD_SALT, keys_of.commitment, AEAD_COMMITMENT);
        for (size_t j = 0; j <= len; j += AEAD_CHUNK) {
            size_t n = len - j < AEAD_CHUNK ? len - j : AEAD_CHUNK;
            assert_true(at + n + AEAD_TAG <= total);
            assert_int_equal(aead_seal(a, j / AEAD_CHUNK, plain + j, n, out + at, NULL), DR_OK);
            at += n + AEAD_TAG;
        }
        assert_int_equal(at, total);
        check_sha256(out, total, v, "sha256");
        aead_free(a);
        free(plain);
        free(out);
    }
    assert_true(i >= 5);
}

static void test_names(void **state)
{
    const json_t *v;
    unsigned char key[FRAME_NAME_KEY], name[FRAME_NAME], want[FRAME_NAME];
    struct frame_codec *codec = NULL;
    size_t i;
    (void)state;
    assert_int_equal(keyring_derive(keys, 1, "chunk-name", key, sizeof key, NULL), DR_OK);
    assert_int_equal(frame_codec_new(0, key, &codec, NULL), DR_OK);
    json_array_foreach(json_object_get(root, "chunk_names"), i, v)
    {
        struct bytes plain = vec_unhex(vec_str(v, "plain"));
        vec_hex(v, "name", want, sizeof want);
        assert_int_equal(frame_name(codec, plain.data, plain.len, name, NULL), DR_OK);
        assert_memory_equal(name, want, sizeof want);
        free(plain.data);
    }
    assert_true(i >= 4);
    frame_codec_free(codec);
    json_array_foreach(json_object_get(root, "backup_id_fields"), i, v)
    {
        vec_hex(v, "field", want, sizeof want);
        assert_int_equal(container_backup_field(vec_str(v, "backup_id"), name, NULL), DR_OK);
        assert_memory_equal(name, want, sizeof want);
    }
}

static void check_refused(const json_t *c)
{
    struct bytes file = vec_read(VECTORS, vec_str(c, "base")), plain = {0};
    const char *text = json_string_value(json_object_get(c, "secret"));
    const json_t *op;
    struct dr_secret secret = {0};
    struct dr_err err = {0};
    struct container *opened = NULL;
    struct container_sums sums;
    size_t i;
    json_array_foreach(json_object_get(c, "ops"), i, op)
    {
        vec_op(op, &file);
    }
    vec_secret(text ? text : (const char *)passphrase.bytes, &secret);
    enum dr_rc rc = container_open_secret(memfile(&file), &secret, &opened, &err);
    if (!rc)
        rc = read_all(opened, NULL, false, 0, &plain, &sums, &err);
    if (strcmp(err.reason, vec_str(c, "expect")) != 0 || dr_rc_exit(rc) != (int)vec_int(c, "exit"))
        fail_msg("%s: '%s' (%s), not '%s'", vec_str(c, "case"), err.reason, err.msg,
                 vec_str(c, "expect"));
    container_close(opened);
    dr_secret_free(&secret);
    free(plain.data);
    free(file.data);
}

static void test_negatives(void **state)
{
    json_t *all = vec_json("negatives.json");
    const json_t *c;
    size_t i, count = 0;
    (void)state;
    json_array_foreach(json_object_get(all, "cases"), i, c)
    {
        if (strcmp(vec_str(c, "on"), "container") != 0)
            continue;
        check_refused(c);
        count++;
    }
    assert_int_equal(count, 327);
    json_decref(all);
}

/* In a store: what the header says against what the manifest says, then the slot. */
static void test_binding(void **state)
{
    const json_t *v = json_array_get(json_object_get(root, "containers"), 6);
    struct bytes file = vec_read(VECTORS, vec_str(v, "file"));
    static const struct {
        size_t at;
        const char *reason;
    } flips[] = {{12, "file-wrap"},      {16, "header-binding"}, {35, "header-binding"},
                 {40, "header-binding"}, {60, "header-slot"},    {67, "header-slot"},
                 {100, "header-slot"},   {120, "header-slot"},   {176, "header-slot"},
                 {185, "file-wrap"},     {256, "commitment"}};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(flips); i++) {
        const struct container_expect expect = {.backup_id = vec_str(v, "backup_id"),
                                                .series = vec_str(v, "series"),
                                                .index = (uint32_t)vec_int(v, "object_index")};
        struct container *c = NULL;
        struct dr_err err = {0};
        file.data[flips[i].at] ^= 1;
        assert_int_equal(container_open(memfile(&file), keys, &expect, &c, &err), DR_E_INTEGRITY);
        assert_string_equal(err.reason, flips[i].reason);
        file.data[flips[i].at] ^= 1;
    }
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),   cmocka_unit_test(test_read_by_passphrase),
        cmocka_unit_test(test_write),  cmocka_unit_test(test_chunked_known),
        cmocka_unit_test(test_names),  cmocka_unit_test(test_negatives),
        cmocka_unit_test(test_binding)};
    return cmocka_run_group_tests(tests, load, unload);
}
