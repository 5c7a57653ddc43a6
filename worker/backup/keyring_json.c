/* keyring.json as text. Strict: what is not listed is not there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/backup/keyring_internal.h"
#include "worker/backup/strict.h"

static bool members(const json_t *o, size_t n)
{
    return json_is_object(o) && json_object_size(o) == n;
}

static bool is(const json_t *o, const char *name, const char *a, const char *b, bool *first)
{
    const char *s;
    if (!strict_text(o, name, 1, 32, &s))
        return false;
    *first = strcmp(s, a) == 0;
    return *first || strcmp(s, b) == 0;
}

static bool read_wraps(const json_t *list, struct keyring_slot *s, unsigned *generations)
{
    size_t n = json_array_size(list);
    uint64_t g;
    if (n < 1 || (*generations && n != *generations))
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(list, i);
        if (!members(o, 2) || !strict_uint(o, "g", i + 1, i + 1, &g) ||
            !strict_hex(o, "wrap", s->wraps[i], AEAD_WRAP))
            return false;
    }
    *generations = (unsigned)n;
    return true;
}

static bool read_slot(const json_t *o, struct keyring_slot *s, unsigned *generations)
{
    const char *label;
    uint64_t rounds;
    int64_t created;
    bool passphrase, sha256;
    if (!members(o, 9) || !strict_hex(o, "id", s->id, SLOT_ID) ||
        !is(o, "kind", "passphrase", "recovery", &passphrase) ||
        !strict_text(o, "label", 0, KEYRING_LABEL_MAX, &label) || strchr(label, 0x7f) ||
        !strict_time(o, "created", &created) ||
        !is(o, "kdf", "pbkdf2-sha256", "pbkdf2-sha512", &sha256) ||
        !strict_uint(o, "iter", 0, UINT32_MAX, &rounds) ||
        !strict_hex(o, "salt", s->salt, SLOT_SALT) || !strict_hex(o, "kcv", s->kcv, SLOT_KCV))
        return false;
    s->recovery = !passphrase;
    s->kdf = sha256 ? DERIVE_PBKDF2_SHA256 : DERIVE_PBKDF2_SHA512;
    s->rounds = (uint32_t)rounds;
    (void)snprintf(s->label, sizeof s->label, "%s", label);
    dr_format_time(created, s->created);
    dr_hex(s->id, SLOT_ID, s->id_text);
    return read_wraps(strict_array(o, "keys", KEYRING_GENERATIONS_MAX), s, generations);
}

static bool read_slots(const json_t *list, struct keyring *k)
{
    size_t n = json_array_size(list);
    if (n < 1)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!read_slot(json_array_get(list, i), &k->slots[i], &k->generations))
            return false;
        for (size_t j = 0; j < i; j++)
            if (memcmp(k->slots[i].id, k->slots[j].id, SLOT_ID) == 0)
                return false;
    }
    k->slot_count = (unsigned)n;
    return true;
}

static bool read_gone(const json_t *list, struct keyring *k)
{
    size_t n = json_array_size(list);
    uint64_t g;
    if (!list)
        return false;
    k->gone = dr_xarray(n, sizeof *k->gone);
    k->gone_count = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(list, i);
        if (!members(o, 3) || !strict_hex(o, "id", k->gone[i].id, SLOT_ID) ||
            !strict_uint(o, "g", 1, k->generations, &g) ||
            !strict_hex(o, "sha256", k->gone[i].sha256, 32))
            return false;
        k->gone[i].generation = (unsigned)g;
    }
    return true;
}

static bool read_public(const json_t *list, struct keyring *k)
{
    uint64_t g;
    if (json_array_size(list) != k->generations)
        return false;
    for (unsigned i = 0; i < k->generations; i++) {
        const json_t *o = json_array_get(list, i);
        if (!members(o, 3) || !strict_uint(o, "g", i + 1, i + 1, &g) ||
            !strict_hex(o, "manifest", k->public[i][KEYRING_MANIFEST], 32) ||
            !strict_hex(o, "catalog", k->public[i][KEYRING_CATALOG], 32))
            return false;
    }
    return true;
}

static bool read_all(const json_t *root, struct keyring *k)
{
    unsigned char id[16];
    uint64_t v;
    if (!members(root, 6) || !strict_uint(root, "v", 1, 1, &v) ||
        !strict_hex(root, "store", id, sizeof id) ||
        !strict_hex(root, "mac", k->mac, sizeof k->mac))
        return false;
    dr_hex(id, sizeof id, k->store);
    return read_slots(strict_array(root, "slots", KEYRING_SLOTS_MAX), k) &&
           read_gone(strict_array(root, "retired", RETIRED_MAX), k) &&
           read_public(strict_array(root, "public", KEYRING_GENERATIONS_MAX), k);
}

static enum dr_rc check_slots(const struct keyring *k, struct dr_err *err)
{
    static const unsigned char zero[SLOT_SALT];
    for (unsigned i = 0; i < k->slot_count; i++) {
        const struct keyring_slot *s = &k->slots[i];
        if (s->rounds < KEYRING_ROUNDS_MIN || s->rounds > KEYRING_ROUNDS_MAX)
            return keyring_refuse(err, DR_E_INTEGRITY, "kdf-iter",
                                  "keyring: rounds of a slot are not 100,000..10,000,000");
        if (memcmp(s->salt, zero, sizeof zero) == 0)
            return keyring_refuse(err, DR_E_INTEGRITY, "kdf-salt", "keyring: a slot has no salt");
    }
    return DR_OK;
}

enum dr_rc keyring_parse(const void *json, size_t len, struct keyring *k, struct dr_err *err)
{
    json_t *root = len <= KEYRING_JSON_MAX ? strict_parse(json, len, NULL) : NULL;
    bool ok = root && len > MAC_TAIL && read_all(root, k);
    json_decref(root);
    if (!ok)
        return keyring_refuse(err, DR_E_KEY, "keyring-form", "keyring.json is damaged");
    return check_slots(k, err);
}

static void put_hex(struct dr_buf *b, const char *before, const void *bytes, size_t len,
                    const char *after)
{
    char digits[2 * AEAD_WRAP + 1];
    dr_hex(bytes, len, digits);
    dr_buf_printf(b, "%s\"%s\"%s", before, digits, after);
}

static void put_slot(struct dr_buf *b, const struct keyring *k, const struct keyring_slot *s)
{
    put_hex(b, "  {\n   \"id\": ", s->id, SLOT_ID, ",\n");
    dr_buf_printf(b,
                  "   \"kind\": \"%s\",\n   \"label\": ", s->recovery ? "recovery" : "passphrase");
    dr_buf_json(b, s->label, strlen(s->label));
    dr_buf_printf(b,
                  ",\n   \"created\": \"%s\",\n   \"kdf\": \"pbkdf2-sha%s\",\n   \"iter\": %u,\n",
                  s->created, s->kdf == DERIVE_PBKDF2_SHA512 ? "512" : "256", s->rounds);
    put_hex(b, "   \"salt\": ", s->salt, SLOT_SALT, ",\n");
    put_hex(b, "   \"kcv\": ", s->kcv, SLOT_KCV, ",\n   \"keys\": [\n");
    for (unsigned i = 0; i < k->generations; i++) {
        dr_buf_printf(b, "    {\n     \"g\": %u,\n", i + 1);
        put_hex(b, "     \"wrap\": ", s->wraps[i], AEAD_WRAP, "\n    }");
        dr_buf_str(b, i + 1 < k->generations ? ",\n" : "\n");
    }
    dr_buf_str(b, "   ]\n  }");
}

static void put_gone(struct dr_buf *b, const struct keyring *k)
{
    dr_buf_str(b, k->gone_count ? " \"retired\": [\n" : " \"retired\": [],\n");
    for (unsigned i = 0; i < k->gone_count; i++) {
        put_hex(b, "  {\n   \"id\": ", k->gone[i].id, SLOT_ID, ",\n");
        dr_buf_printf(b, "   \"g\": %u,\n", k->gone[i].generation);
        put_hex(b, "   \"sha256\": ", k->gone[i].sha256, 32, "\n  }");
        dr_buf_str(b, i + 1 < k->gone_count ? ",\n" : "\n ],\n");
    }
}

enum dr_rc keyring_write(const struct keyring *k, struct dr_buf *out, struct dr_err *err)
{
    unsigned char mac[32];
    size_t begin = out->len;
    dr_buf_printf(out, "{\n \"v\": 1,\n \"store\": \"%s\",\n \"slots\": [\n", k->store);
    for (unsigned i = 0; i < k->slot_count; i++) {
        put_slot(out, k, &k->slots[i]);
        dr_buf_str(out, i + 1 < k->slot_count ? ",\n" : "\n ],\n");
    }
    put_gone(out, k);
    dr_buf_str(out, " \"public\": [\n");
    for (unsigned i = 0; i < k->generations; i++) {
        dr_buf_printf(out, "  {\n   \"g\": %u,\n", i + 1);
        put_hex(out, "   \"manifest\": ", k->public[i][KEYRING_MANIFEST], 32, ",\n");
        put_hex(out, "   \"catalog\": ", k->public[i][KEYRING_CATALOG], 32, "\n  }");
        dr_buf_str(out, i + 1 < k->generations ? ",\n" : "\n ],\n");
    }
    dr_buf_str(out, " \"mac\": \"");
    if (out->failed)
        return dr_fail(err, DR_E_TOO_BIG, "keyring over %zu bytes", out->max);
    if (keyring_mac(k, out->data + begin, out->len - begin, mac, err))
        return DR_E_CRYPTO;
    out->len--; /* put_hex writes the quotes */
    put_hex(out, "", mac, sizeof mac, "\n}\n");
    return out->failed ? dr_fail(err, DR_E_TOO_BIG, "keyring over %zu bytes", out->max) : DR_OK;
}
