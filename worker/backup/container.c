/* Opening a container: its header, its keys, the start of its payload. Order of the checks: form,
 * lengths, binding, slot, wraps, commitment. */
#include "worker/backup/container.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/str.h"
#include "worker/backup/container_internal.h"
#include "worker/backup/derive.h"
#include "worker/backup/keyring_internal.h"
#include "worker/pipe/rw.h"

static const unsigned char magic[8] = {0x44, 0x52, 0x42, 0x4b, 0x55, 0x50, 0x01, 0x0a};

enum dr_rc container_refuse(struct dr_err *err, const char *reason, const char *why)
{
    enum dr_rc rc = dr_fail(err, DR_E_INTEGRITY, "container: %s", why);
    (void)dr_err_reason(err, reason);
    return rc;
}

void container_file_aad(const unsigned char header[CONTAINER_HEADER], unsigned char aad[FILE_AAD])
{
    memcpy(aad, header, PART_A);
    memcpy(aad + PART_A, header + AT_GENERATION, 4);
}

enum dr_rc container_backup_field(const char *backup_id, unsigned char out[16], struct dr_err *err)
{
    unsigned char digest[32];
    size_t n = 0;
    if (EVP_Q_digest(NULL, "SHA256", NULL, backup_id, strlen(backup_id), digest, &n) != 1)
        return aead_crypto_failed(err, "SHA-256");
    memcpy(out, digest, 16);
    return DR_OK;
}

static bool zero(const unsigned char *p, size_t len)
{
    unsigned char seen = 0;
    while (len-- > 0)
        seen |= p[len];
    return seen == 0;
}

/* Everything that can be said of a header without a key. */
static enum dr_rc check_form(const unsigned char h[CONTAINER_HEADER], struct dr_err *err)
{
    uint32_t rounds = dr_get_u32be(h + 64);
    if (memcmp(h, magic, sizeof magic) != 0)
        return container_refuse(err, "magic", "not a .drb file");
    if (dr_get_u16be(h + 8) != CONTAINER_HEADER)
        return container_refuse(err, "header-length", "header length");
    if (h[10] != 1)
        return container_refuse(err, "version", "version of a later program");
    if (h[11] != 1)
        return container_refuse(err, "aead", "unknown cipher");
    if (h[AT_COMP] != COMP_NONE && h[AT_COMP] != COMP_ZSTD)
        return container_refuse(err, "comp", "unknown compression");
    if (h[13] != 0)
        return container_refuse(err, "reserved", "reserved byte");
    if (dr_get_u16be(h + AT_FLAGS) & ~FLAG_INCREMENTAL)
        return container_refuse(err, "flags", "unknown flag");
    if (h[AT_BLOCK] != DERIVE_PBKDF2_SHA256 && h[AT_BLOCK] != DERIVE_PBKDF2_SHA512)
        return container_refuse(err, "kdf-id", "unknown key derivation");
    if (!zero(h + AT_BLOCK + 1, 3))
        return container_refuse(err, "reserved", "reserved bytes");
    if (rounds < KEYRING_ROUNDS_MIN || rounds > KEYRING_ROUNDS_MAX)
        return container_refuse(err, "kdf-iter", "rounds are not 100,000..10,000,000");
    if (zero(h + 68, 32))
        return container_refuse(err, "kdf-salt", "no salt");
    if (dr_get_u32be(h + AT_GENERATION) == 0)
        return container_refuse(err, "generation", "generation 0");
    if (!zero(h + AT_PADDING, CONTAINER_HEADER - AT_PADDING))
        return container_refuse(err, "padding", "bytes after the header's last field");
    return DR_OK;
}

static enum dr_rc read_start(struct container *c, struct dr_err *err)
{
    struct stat st;
    if (fstat(c->fd, &st) != 0)
        return dr_fail_errno(err, DR_E_IO, "container");
    c->stored = (uint64_t)st.st_size;
    if (!S_ISREG(st.st_mode))
        return dr_fail(err, DR_E_INVALID, "container: not a regular file");
    if (c->stored < CONTAINER_HEADER)
        return container_refuse(err, "header-short", "ends within its header");
    enum dr_rc rc = rw_read_at(c->fd, 0, c->header, CONTAINER_HEADER, "container", err);
    if (!rc)
        rc = check_form(c->header, err);
    if (rc)
        return rc;
    if (c->stored < AT_CHUNKS)
        return container_refuse(err, "payload-length", "ends within the start of its payload");
    rc = rw_read_at(c->fd, CONTAINER_HEADER, c->prefix, AEAD_PREFIX, "container", err);
    return rc ? rc : aead_layout(c->stored - AT_CHUNKS, &c->chunks, &c->plain, err);
}

static enum dr_rc check_binding(const struct container *c, const struct keyring *keys,
                                const struct container_expect *expect, struct dr_err *err)
{
    unsigned char want[16];
    enum dr_rc rc = DR_OK;
    bool same = true;
    if (expect->backup_id) {
        rc = container_backup_field(expect->backup_id, want, err);
        same = memcmp(want, c->header + AT_BACKUP, sizeof want) == 0;
    }
    if (!rc && expect->index != CONTAINER_INDEX_ANY)
        same = same && dr_get_u32be(c->header + AT_INDEX) == expect->index;
    if (!rc && expect->series) {
        rc = keyring_series_tag(keys, expect->series, want, err);
        same = same && memcmp(want, c->header + AT_SERIES, sizeof want) == 0;
    }
    return rc || same ? rc
                      : container_refuse(err, "header-binding",
                                         "belongs to another backup, object or series");
}

/* file key = unwrapped with the repository key's file-wrap key. */
static enum dr_rc open_payload(struct container *c, const unsigned char wrap_key[AEAD_KEY],
                               const unsigned char *name_key, struct dr_err *err)
{
    unsigned char aad[FILE_AAD], file_key[AEAD_KEY];
    struct container_secrets s = {0};
    enum dr_rc rc;
    container_file_aad(c->header, aad);
    if (!aead_unwrap(wrap_key, aad, sizeof aad, c->header + AT_FILE_KEY, file_key))
        return container_refuse(err, "file-wrap", "the header was changed: its file key is not");
    rc = aead_derive(file_key, c->prefix, c->header, PART_A, &s.payload, err);
    if (!rc && CRYPTO_memcmp(s.payload.commitment, c->prefix + AEAD_SALT, AEAD_COMMITMENT) != 0)
        rc = container_refuse(err, "commitment", "the payload does not belong to its header");
    if (!rc) {
        c->has_names = name_key;
        if (name_key)
            memcpy(s.name_key, name_key, sizeof s.name_key);
        dr_secret_set(&c->secrets, &s, sizeof s);
    }
    dr_wipe(&s, sizeof s);
    dr_wipe(file_key, sizeof file_key);
    return rc;
}

static enum dr_rc open_by_keyring(struct container *c, const struct keyring *keys,
                                  const struct container_expect *expect, struct dr_err *err)
{
    unsigned char wrap_key[AEAD_KEY], name_key[FRAME_NAME_KEY];
    enum dr_rc rc = read_start(c, err);
    if (!rc && expect)
        rc = check_binding(c, keys, expect, err);
    if (!rc && !keyring_knows_block(keys, c->header + AT_BLOCK))
        rc = container_refuse(err, "header-slot", "written with a key slot of another keyring");
    if (!rc)
        rc = keyring_derive(keys, container_generation(c), "file-wrap", wrap_key, sizeof wrap_key,
                            err);
    if (!rc)
        rc = keyring_derive(keys, 1, "chunk-name", name_key, sizeof name_key, err);
    if (!rc)
        rc = open_payload(c, wrap_key, name_key, err);
    dr_wipe(wrap_key, sizeof wrap_key);
    dr_wipe(name_key, sizeof name_key);
    return rc;
}

/* Passphrase -> KEK -> repository key of the header -> file-wrap key. */
static enum dr_rc unlock(const struct container *c, const struct dr_secret *secret,
                         unsigned char wrap_key[AEAD_KEY], struct dr_err *err)
{
    const unsigned char *block = c->header + AT_BLOCK;
    unsigned char kek[DERIVE_KEY], kcv[SLOT_KCV], rk[AEAD_KEY] = {0}, aad[SLOT_AAD];
    enum dr_rc rc = derive_kek((enum derive_kdf)block[0], secret->bytes, secret->len, block + 16,
                               SLOT_SALT, dr_get_u32be(block + 12), kek, err);
    if (!rc)
        rc = derive_key(kek, "kcv", kcv, sizeof kcv, err);
    if (!rc && CRYPTO_memcmp(kcv, block + 48, SLOT_KCV) != 0)
        rc =
            keyring_refuse(err, DR_E_KEY, "wrong-secret", "the passphrase does not open this file");
    if (!rc)
        rc = derive_key(kek, "wrap", wrap_key, AEAD_KEY, err);
    keyring_slot_aad(block, aad);
    if (!rc && !aead_unwrap(wrap_key, aad, sizeof aad, block + 64, rk))
        rc = container_refuse(err, "rk-wrap", "the header was changed: its repository key is not");
    if (!rc)
        rc = derive_key(rk, "file-wrap", wrap_key, AEAD_KEY, err);
    dr_wipe(kek, sizeof kek);
    dr_wipe(rk, sizeof rk);
    return rc;
}

static enum dr_rc open_by_secret(struct container *c, const struct dr_secret *secret,
                                 struct dr_err *err)
{
    struct dr_secret text = {0};
    unsigned char wrap_key[AEAD_KEY];
    enum dr_rc rc = read_start(c, err);
    if (!rc)
        rc = derive_secret(secret, &text, err);
    if (!rc)
        rc = unlock(c, &text, wrap_key, err);
    if (!rc)
        rc = open_payload(c, wrap_key, NULL, err);
    if (!rc && container_incremental(c))
        rc = container_refuse(err, "incremental",
                              "incremental: other files of its chain hold the rest");
    dr_wipe(wrap_key, sizeof wrap_key);
    dr_secret_free(&text);
    return rc;
}

static enum dr_rc give(struct container *c, enum dr_rc rc, struct container **out)
{
    if (rc)
        container_close(c);
    else
        *out = c;
    return rc;
}

enum dr_rc container_open(int fd, const struct keyring *keys, const struct container_expect *expect,
                          struct container **out, struct dr_err *err)
{
    struct container *c = dr_xalloc(sizeof *c);
    c->fd = fd;
    return give(c, open_by_keyring(c, keys, expect, err), out);
}

enum dr_rc container_open_secret(int fd, const struct dr_secret *secret, struct container **out,
                                 struct dr_err *err)
{
    struct container *c = dr_xalloc(sizeof *c);
    c->fd = fd;
    return give(c, open_by_secret(c, secret, err), out);
}

void container_close(struct container *c)
{
    if (!c)
        return;
    (void)close(c->fd);
    dr_secret_free(&c->secrets);
    free(c);
}

const struct container_secrets *container_secrets(const struct container *c)
{
    return (const struct container_secrets *)(const void *)c->secrets.bytes;
}

unsigned container_generation(const struct container *c)
{
    return dr_get_u32be(c->header + AT_GENERATION);
}

bool container_incremental(const struct container *c)
{
    return dr_get_u16be(c->header + AT_FLAGS) & FLAG_INCREMENTAL;
}

uint64_t container_stored_bytes(const struct container *c)
{
    return c->stored;
}

unsigned container_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    if (n < 1)
        return 1;
    return n > CONTAINER_THREADS_MAX ? CONTAINER_THREADS_MAX : (unsigned)n;
}

enum dr_rc container_header(const struct container_spec *spec,
                            const struct container_random *random,
                            unsigned char header[CONTAINER_HEADER], struct aead_keys *payload,
                            struct dr_err *err)
{
    unsigned char wrap_key[AEAD_KEY], aad[FILE_AAD];
    enum dr_rc rc;
    memset(header, 0, CONTAINER_HEADER);
    memcpy(header, magic, sizeof magic);
    dr_put_u16be(header + 8, CONTAINER_HEADER);
    header[10] = 1;
    header[11] = 1;
    header[AT_COMP] = spec->level ? COMP_ZSTD : COMP_NONE;
    dr_put_u32be(header + AT_INDEX, spec->index);
    if ((rc = container_backup_field(spec->backup_id, header + AT_BACKUP, err)) ||
        (rc = keyring_series_tag(spec->keys, spec->series, header + AT_SERIES, err)) ||
        (rc = keyring_header_block(spec->keys, header + AT_BLOCK, err)) ||
        (rc = keyring_derive(spec->keys, 0, "file-wrap", wrap_key, sizeof wrap_key, err)))
        return rc;
    container_file_aad(header, aad);
    rc = aead_wrap(wrap_key, random->nonce, aad, sizeof aad, random->file_key, header + AT_FILE_KEY,
                   err);
    dr_wipe(wrap_key, sizeof wrap_key);
    return rc ? rc : aead_derive(random->file_key, random->salt, header, PART_A, payload, err);
}
