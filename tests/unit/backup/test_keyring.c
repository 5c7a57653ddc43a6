/* Keys against the golden vectors: PBKDF2, HKDF, codes, keyring.json, signatures; what is refused.
 */
#include "tests/unit/backup/vectors.h"

#include "common/clock.h"
#include "worker/backup/keyring_internal.h"

static json_t *root;

static int load(void **state)
{
    (void)state;
    root = vec_json("vectors.json");
    return 0;
}

static int unload(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static const char *secret_text(const char *name)
{
    return vec_str(json_object_get(root, "secrets"), name);
}

/* The golden keyring, opened by a secret of vectors.json. */
static struct keyring *golden(const char *secret_name)
{
    struct bytes b = vec_read(VECTORS, "store/keyring.json");
    struct dr_secret secret = {0};
    struct keyring *k = NULL;
    struct dr_err err = {0};
    vec_secret(secret_text(secret_name), &secret);
    if (keyring_open(b.data, b.len, vec_str(json_object_get(root, "store"), "store_id"), &secret,
                     &k, &err))
        fail_msg("%s", err.msg);
    dr_secret_free(&secret);
    free(b.data);
    return k;
}

static void test_pbkdf2(void **state)
{
    const json_t *list = json_object_get(root, "pbkdf2"), *v;
    size_t i;
    (void)state;
    json_array_foreach(list, i, v)
    {
        struct bytes secret = vec_unhex(vec_str(v, "secret")), salt = vec_unhex(vec_str(v, "salt"));
        struct bytes want = vec_unhex(vec_str(v, "starts"));
        unsigned char out[DERIVE_KEY];
        assert_int_equal(derive_kek((enum derive_kdf)vec_int(v, "kdf"), secret.data, secret.len,
                                    salt.data, salt.len, (unsigned)vec_int(v, "rounds"), out, NULL),
                         DR_OK);
        assert_memory_equal(out, want.data, want.len);
        free(secret.data);
        free(salt.data);
        free(want.data);
    }
    assert_true(i >= 6);
}

static void test_derive(void **state)
{
    const json_t *list = json_object_get(root, "derive"), *v, *o;
    size_t i, j, count = 0;
    (void)state;
    json_array_foreach(list, i, v)
    {
        unsigned char key[DERIVE_KEY], out[2048];
        vec_hex(v, "key", key, sizeof key);
        json_array_foreach(json_object_get(v, "out"), j, o)
        {
            struct bytes want = vec_unhex(vec_str(o, "out"));
            assert_int_equal(want.len, vec_int(o, "length"));
            assert_int_equal(derive_key(key, vec_str(o, "label"), out, want.len, NULL), DR_OK);
            assert_memory_equal(out, want.data, want.len);
            free(want.data);
            count++;
        }
    }
    assert_true(count >= 16);
}

static void test_codes(void **state)
{
    const json_t *codes = json_object_get(root, "recovery_codes"), *v;
    unsigned char key[DERIVE_KEY], want[DERIVE_KEY];
    char text[DERIVE_CODE_TEXT];
    size_t i;
    (void)state;
    json_array_foreach(json_object_get(codes, "good"), i, v)
    {
        const char *code = vec_str(v, "code");
        vec_hex(v, "key", want, sizeof want);
        assert_int_equal(derive_code_text(want, text, NULL), DR_OK);
        assert_string_equal(text, code);
        assert_int_equal(derive_code_read(code, strlen(code), key, NULL), DR_OK);
        assert_memory_equal(key, want, sizeof key);
    }
    json_array_foreach(json_object_get(codes, "read_also"), i, v)
    {
        const char *code = vec_str(v, "text");
        vec_hex(v, "key", want, sizeof want);
        assert_int_equal(derive_code_read(code, strlen(code), key, NULL), DR_OK);
        assert_memory_equal(key, want, sizeof key);
    }
    json_array_foreach(json_object_get(codes, "bad"), i, v)
    {
        const char *code = vec_str(v, "text");
        struct dr_err err = {0};
        assert_int_equal(derive_code_read(code, strlen(code), key, &err), DR_E_KEY);
        assert_string_equal(err.reason, vec_str(v, "class"));
    }
    assert_true(i >= 4);
}

/* Every single letter changed is noticed. */
static void test_code_typos(void **state)
{
    unsigned char key[DERIVE_KEY];
    char code[DERIVE_CODE_TEXT];
    (void)state;
    for (size_t at = 5; at < strlen(secret_text("recovery_code")); at++) {
        struct dr_err err = {0};
        (void)snprintf(code, sizeof code, "%s", secret_text("recovery_code"));
        if (code[at] == '-')
            continue;
        code[at] = code[at] == 'A' ? 'B' : 'A';
        assert_int_equal(derive_code_read(code, strlen(code), key, &err), DR_E_KEY);
        assert_true(err.reason[0]);
    }
}

static void test_open_and_write(void **state)
{
    static const char *const secrets[] = {"passphrase", "recovery_code"};
    struct bytes file = vec_read(VECTORS, "store/keyring.json");
    const json_t *keys = json_object_get(json_object_get(root, "store"), "repository_keys");
    (void)state;
    for (size_t i = 0; i < CM_COUNT(secrets); i++) {
        struct keyring *k = golden(secrets[i]);
        struct dr_buf out;
        unsigned char want[32];
        dr_buf_init(&out, KEYRING_JSON_MAX);
        assert_int_equal(keyring_write(k, &out, NULL), DR_OK);
        assert_int_equal(out.len, file.len);
        assert_memory_equal(out.data, file.data, file.len);
        vec_hex(keys, "1", want, sizeof want);
        assert_memory_equal(k->keys.bytes, want, sizeof want);
        vec_hex(keys, "2", want, sizeof want);
        assert_memory_equal(k->keys.bytes + 32, want, sizeof want);
        assert_int_equal(keyring_generation(k), 2);
        dr_buf_fini(&out);
        keyring_free(k);
    }
    free(file.data);
}

/* The golden slots again from their random inputs. */
static void test_slots_sealed(void **state)
{
    const json_t *random = json_object_get(root, "random_inputs");
    struct keyring *k = golden("passphrase");
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const struct keyring_slot *was = &k->slots[i];
        struct keyring_slot_random r;
        struct keyring_slot s = *was;
        unsigned char code[DERIVE_KEY];
        const char *pass = secret_text("passphrase");
        char name[64];
        (void)snprintf(name, sizeof name, "slot %s id", was->label);
        vec_hex(random, name, r.id, sizeof r.id);
        (void)snprintf(name, sizeof name, "slot %s salt", was->label);
        vec_hex(random, name, r.salt, sizeof r.salt);
        for (unsigned g = 1; g <= 2; g++) {
            (void)snprintf(name, sizeof name, "slot %s nonce %u", was->label, g);
            vec_hex(random, name, r.nonces[g - 1], AEAD_NONCE);
        }
        vec_hex(random, "recovery code", code, sizeof code);
        memset(s.kcv, 0, sizeof s.kcv);
        memset(s.wraps, 0, sizeof s.wraps);
        assert_int_equal(keyring_slot_seal(k, &s, was->recovery ? (const void *)code : pass,
                                           was->recovery ? sizeof code : strlen(pass), &r, NULL),
                         DR_OK);
        assert_memory_equal(&s, was, sizeof s);
    }
    keyring_free(k);
}

static void test_public_and_series(void **state)
{
    struct keyring *k = golden("passphrase");
    const json_t *v;
    unsigned char want[32], got[32];
    size_t i;
    (void)state;
    json_array_foreach(json_object_get(root, "public_keys"), i, v)
    {
        unsigned g = (unsigned)vec_int(v, "g");
        vec_hex(v, "manifest", want, sizeof want);
        assert_int_equal(keyring_public(k, KEYRING_MANIFEST, g, got, NULL), DR_OK);
        assert_memory_equal(got, want, sizeof want);
        vec_hex(v, "catalog", want, sizeof want);
        assert_int_equal(keyring_public(k, KEYRING_CATALOG, g, got, NULL), DR_OK);
        assert_memory_equal(got, want, sizeof want);
    }
    char seal[65];
    assert_int_equal(keyring_seal_public(k, got, NULL), DR_OK);
    dr_hex(got, 32, seal);
    assert_string_equal(seal, vec_str(root, "seal_public"));
    json_array_foreach(json_object_get(root, "series_tags"), i, v)
    {
        vec_hex(v, "tag", want, 16);
        assert_int_equal(keyring_series_tag(k, vec_str(v, "series"), got, NULL), DR_OK);
        assert_memory_equal(got, want, 16);
    }
    assert_true(i >= 4);
    keyring_free(k);
}

static void test_signatures(void **state)
{
    static const char folder[] = "store/backups/20260103T030405Z-files-x5umaroa/";
    struct keyring *k = golden("passphrase");
    struct bytes m, sig;
    char name[128];
    unsigned char again[64];
    (void)state;
    (void)snprintf(name, sizeof name, "%smanifest.json", folder);
    m = vec_read(VECTORS, name);
    (void)snprintf(name, sizeof name, "%smanifest.sig", folder);
    sig = vec_read(VECTORS, name);
    assert_int_equal(keyring_verify_any(k, KEYRING_MANIFEST, m.data, m.len, sig.data), 2);
    assert_int_equal(keyring_sign(k, KEYRING_MANIFEST, 2, m.data, m.len, again, NULL), DR_OK);
    assert_memory_equal(again, sig.data, 64);
    assert_false(keyring_verify(k, KEYRING_MANIFEST, 1, m.data, m.len, sig.data));
    assert_false(keyring_verify(k, KEYRING_CATALOG, 2, m.data, m.len, sig.data));
    m.data[0] ^= 1;
    assert_int_equal(keyring_verify_any(k, KEYRING_MANIFEST, m.data, m.len, sig.data), 0);
    free(m.data);
    free(sig.data);
    keyring_free(k);
}

static void test_blocks(void **state)
{
    struct keyring *k = golden("recovery_code"), *j = golden("passphrase");
    const json_t *c = json_array_get(json_object_get(root, "containers"), 0);
    struct bytes old = vec_read(VECTORS, "store/backups/20260102T030405Z-database-jpfikvy7/"
                                         "database.drb");
    unsigned char block[KEYRING_BLOCK], want[KEYRING_BLOCK];
    (void)state;
    vec_hex(c, "slot_block", want, sizeof want);
    assert_int_equal(keyring_header_block(k, block, NULL), DR_OK); /* not the slot that opened it */
    assert_memory_equal(block, want, sizeof want);
    assert_true(keyring_knows_block(j, block));
    assert_true(keyring_knows_block(j, old.data + 52)); /* of the retired slot */
    for (size_t i = 0; i < sizeof block; i++) {
        block[i] ^= 1;
        assert_false(keyring_knows_block(j, block));
        block[i] ^= 1;
        old.data[52 + i] ^= 1;
        assert_false(keyring_knows_block(j, old.data + 52));
        old.data[52 + i] ^= 1;
    }
    free(old.data);
    keyring_free(k);
    keyring_free(j);
}

/* All of negatives.json that a keyring alone can be judged by. */
static void test_negatives(void **state)
{
    json_t *all = vec_json("negatives.json");
    const json_t *c;
    struct dr_secret secret = {0};
    size_t i, count = 0;
    (void)state;
    vec_secret(secret_text("passphrase"), &secret);
    json_array_foreach(json_object_get(all, "cases"), i, c)
    {
        const json_t *op = json_array_get(json_object_get(c, "ops"), 0);
        struct dr_err err = {0};
        struct keyring *k = NULL;
        if (strcmp(vec_str(c, "on"), "store") != 0 ||
            json_array_size(json_object_get(c, "ops")) != 1 ||
            strcmp(vec_str(op, "file"), "keyring.json") != 0 ||
            strcmp(vec_str(op, "op"), "copy") == 0)
            continue;
        struct bytes b = vec_read(VECTORS, "store/keyring.json");
        vec_op(op, &b);
        enum dr_rc rc = keyring_open(b.data, b.len, NULL, &secret, &k, &err);
        if (!rc || strcmp(err.reason, vec_str(c, "expect")) != 0 ||
            dr_rc_exit(rc) != (int)vec_int(c, "exit"))
            fail_msg("%s: '%s', not '%s'", vec_str(c, "case"), err.reason, vec_str(c, "expect"));
        free(b.data);
        count++;
    }
    assert_true(count >= 12);
    dr_secret_free(&secret);
    json_decref(all);
}

/* Bad bounds are refused without a derivation: 10,000,000 rounds would take seconds. */
static void test_bounds_come_first(void **state)
{
    struct bytes b = vec_read(VECTORS, "store/keyring.json");
    struct dr_secret secret = {0};
    struct keyring *k = NULL;
    struct dr_err err = {0};
    char *p = strstr((char *)b.data, "\"iter\": 100000,");
    (void)state;
    assert_non_null(p);
    memcpy(p, "\"iter\":9999999,", 15);
    p = strstr(p, "\"iter\": 100000,");
    assert_non_null(p);
    memcpy(p, "\"iter\": 10000 ,", 15);
    vec_secret("DRK1-not a code at all", &secret);
    assert_int_equal(keyring_open(b.data, b.len, NULL, &secret, &k, &err), DR_E_INTEGRITY);
    assert_string_equal(err.reason, "kdf-iter");
    dr_secret_free(&secret);
    free(b.data);
}

static void test_other_store(void **state)
{
    struct bytes b = vec_read(VECTORS, "store/keyring.json");
    struct dr_secret secret = {0};
    struct keyring *k = NULL;
    struct dr_err err = {0};
    (void)state;
    vec_secret(secret_text("passphrase"), &secret);
    assert_int_equal(
        keyring_open(b.data, b.len, "00000000000000000000000000000000", &secret, &k, &err),
        DR_E_KEY);
    assert_string_equal(err.reason, "keyring-store");
    dr_secret_free(&secret);
    free(b.data);
}

static void reopen(const struct keyring *k, const struct dr_secret *secret, enum dr_rc want)
{
    struct keyring *again = NULL;
    struct dr_buf out;
    struct dr_err err = {0};
    dr_buf_init(&out, KEYRING_JSON_MAX);
    assert_int_equal(keyring_write(k, &out, NULL), DR_OK);
    assert_int_equal(keyring_open(out.data, out.len, keyring_store(k), secret, &again, &err), want);
    if (!want) {
        assert_memory_equal(again->keys.bytes, k->keys.bytes, k->keys.len);
    } else {
        assert_string_equal(err.reason, "wrong-secret");
    }
    keyring_free(again);
    dr_buf_fini(&out);
}

static enum dr_rc renew(const struct keyring *k, const struct keyring *from, size_t flip,
                        struct keyring **out, struct dr_err *err)
{
    struct dr_buf b;
    dr_buf_init(&b, KEYRING_JSON_MAX);
    assert_int_equal(keyring_write(from, &b, NULL), DR_OK);
    b.data[flip] ^= flip ? 1 : 0;
    enum dr_rc rc = keyring_renew(k, b.data, b.len, out, err);
    dr_buf_fini(&b);
    return rc;
}

/* What another process changed is believed by the keys alone, and nothing else is. */
static void test_renew(void **state)
{
    struct dr_secret first = {0}, second = {0};
    struct keyring *k = NULL, *changed = NULL, *renewed = NULL, *other = NULL, *g2;
    unsigned char block[KEYRING_BLOCK];
    struct dr_err err = {0};
    (void)state;
    vec_secret("the first passphrase", &first);
    vec_secret("the second passphrase", &second);
    assert_int_equal(keyring_create("00112233445566778899aabbccddeeff", &first, 100000, &k, NULL),
                     DR_OK);
    assert_int_equal(
        keyring_create("00112233445566778899aabbccddeeff", &first, 100000, &other, NULL), DR_OK);
    assert_int_equal(keyring_change_passphrase(k, &second, 100000, "new", &changed, NULL), DR_OK);
    assert_int_equal(keyring_header_block(changed, block, NULL), DR_OK);
    assert_false(keyring_knows_block(k, block));
    assert_int_equal(renew(k, changed, 0, &renewed, NULL), DR_OK);
    assert_true(keyring_knows_block(renewed, block));
    assert_memory_equal(renewed->keys.bytes, k->keys.bytes, k->keys.len);
    reopen(renewed, &second, DR_OK);
    reopen(renewed, &first, DR_E_KEY);
    keyring_free(changed); /* the slot it was opened with is gone: the newest one is replaced */
    assert_int_equal(keyring_change_passphrase(renewed, &first, 100000, "back", &changed, NULL),
                     DR_OK);
    assert_int_equal(keyring_slots(changed), 1);
    reopen(changed, &first, DR_OK);
    assert_int_equal(renew(k, other, 0, &g2, &err), DR_E_KEY);
    assert_string_equal(err.reason, "keyring-mac");
    dr_err_clear(&err);
    assert_int_equal(renew(k, changed, 140, &g2, &err), DR_E_KEY); /* a letter of the slot */
    g2 = golden("passphrase");
    dr_err_clear(&err);
    assert_int_equal(renew(k, g2, 0, &other, &err), DR_E_KEY);
    assert_string_equal(err.reason, "keyring-store");
    keyring_free(g2);
    keyring_free(k);
    keyring_free(other);
    keyring_free(renewed);
    keyring_free(changed);
    dr_secret_free(&first);
    dr_secret_free(&second);
}

static void test_life_of_a_keyring(void **state)
{
    struct dr_secret first = {0}, second = {0}, code = {0}, weak = {0};
    struct keyring *k = NULL, *with_code = NULL, *changed = NULL, *none = NULL;
    struct keyring_slot_view view;
    struct dr_err err = {0};
    unsigned char block[KEYRING_BLOCK];
    (void)state;
    vec_secret("the first passphrase", &first);
    vec_secret("the second passphrase", &second);
    vec_secret("too short 123", &weak);
    assert_int_equal(keyring_create("00112233445566778899aabbccddeeff", &weak, 100000, &none, &err),
                     DR_E_REFUSED);
    vec_secret("drk1-begins like a code", &weak);
    dr_err_clear(&err);
    assert_int_equal(keyring_create("00112233445566778899aabbccddeeff", &weak, 100000, &none, &err),
                     DR_E_REFUSED);
    assert_int_equal(keyring_create("00112233445566778899aabbccddeeff", &first, 100000, &k, NULL),
                     DR_OK);
    reopen(k, &first, DR_OK);
    reopen(k, &second, DR_E_KEY);
    assert_int_equal(keyring_add_recovery(k, "paper \"1\" \\ \xc3\xa9", &code, &with_code, NULL),
                     DR_OK);
    assert_int_equal(code.len, strlen(secret_text("recovery_code")));
    assert_int_equal(keyring_slots(k), 1);
    reopen(with_code, &code, DR_OK);
    reopen(with_code, &first, DR_OK);
    assert_int_equal(keyring_header_block(with_code, block, NULL), DR_OK);
    assert_int_equal(keyring_change_passphrase(with_code, &second, 100000, "new", &changed, NULL),
                     DR_OK);
    reopen(changed, &second, DR_OK);
    reopen(changed, &code, DR_OK);
    reopen(changed, &first, DR_E_KEY);
    assert_true(keyring_knows_block(changed, block)); /* old files are still ours */
    assert_int_equal(keyring_retired(changed), 1);
    keyring_slot_view(changed, 1, &view);
    assert_string_equal(view.kind, "passphrase");
    assert_string_equal(view.label, "new");
    assert_true(view.opened);
    keyring_free(k);
    keyring_free(with_code);
    keyring_free(changed);
    dr_secret_free(&first);
    dr_secret_free(&second);
    dr_secret_free(&code);
    dr_secret_free(&weak);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pbkdf2),
                                       cmocka_unit_test(test_derive),
                                       cmocka_unit_test(test_codes),
                                       cmocka_unit_test(test_code_typos),
                                       cmocka_unit_test(test_open_and_write),
                                       cmocka_unit_test(test_slots_sealed),
                                       cmocka_unit_test(test_public_and_series),
                                       cmocka_unit_test(test_signatures),
                                       cmocka_unit_test(test_blocks),
                                       cmocka_unit_test(test_negatives),
                                       cmocka_unit_test(test_bounds_come_first),
                                       cmocka_unit_test(test_other_store),
                                       cmocka_unit_test(test_renew),
                                       cmocka_unit_test(test_life_of_a_keyring)};
    return cmocka_run_group_tests(tests, load, unload);
}
