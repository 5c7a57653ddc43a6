/* The golden store, and every mutation of it that must be refused: exact class, exact exit code. */
#include "tests/unit/backup/store_kit.h"

#include <jansson.h>

#include "common/str.h"
#include "worker/backup/handle.h"
#include "worker/backup/keyring.h"
#include "worker/backup/prove.h"

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static size_t number(const json_t *o, const char *key)
{
    return (size_t)json_integer_value(json_object_get(o, key));
}

static unsigned char *slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    unsigned char *out = calloc(1, 1 << 20);
    if (!f || !out)
        fail_msg("cannot open %s", path);
    *len = fread(out, 1, 1 << 20, f);
    assert_int_equal(fclose(f), 0);
    return out;
}

static void spill(const char *path, const unsigned char *bytes, size_t len)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, len, f) != len || fclose(f) != 0)
        fail_msg("cannot write %s", path);
}

static size_t put_hex(unsigned char *at, const char *hex)
{
    size_t n = strlen(hex) / 2;
    assert_true(dr_unhex(hex, n * 2, at, n));
    return n;
}

/* Ops as the vectors define them; see `ops` in negatives.json. */
static void apply(const char *root, const json_t *op)
{
    char *path = dr_xasprintf("%s/%s", root, text(op, "file"));
    const char *what = text(op, "op");
    size_t len = 0, at = number(op, "at");
    if (strcmp(what, "remove") == 0) {
        assert_int_equal(unlink(path), 0);
        free(path);
        return;
    }
    unsigned char *b;
    if (strcmp(what, "copy") == 0) {
        char *from = dr_xasprintf(KIT_VECTORS "/%s", text(op, "from"));
        b = slurp(from, &len);
        free(from);
    } else {
        b = slurp(path, &len);
    }
    if (strcmp(what, "xor") == 0) {
        unsigned char with;
        assert_int_equal(put_hex(&with, text(op, "with")), 1);
        assert_true(at < len);
        b[at] ^= with;
    } else if (strcmp(what, "cut") == 0) {
        len = number(op, "to");
    } else if (strcmp(what, "append") == 0) {
        len += put_hex(b + len, text(op, "bytes"));
    } else if (strcmp(what, "put") == 0) {
        (void)put_hex(b + at, text(op, "bytes"));
    } else if (strcmp(what, "swap") == 0) {
        for (size_t i = 0; i < number(op, "length"); i++) {
            unsigned char x = b[at + i];
            b[at + i] = b[number(op, "and") + i];
            b[number(op, "and") + i] = x;
        }
    } else if (strcmp(what, "delete") == 0) {
        size_t n = number(op, "length");
        memmove(b + at, b + at + n, len - at - n);
        len -= n;
    } else {
        assert_string_equal(what, "copy");
    }
    spill(path, b, len);
    free(b);
    free(path);
}

static enum dr_rc verify_one(struct store *s, const char *id, struct dr_err *err)
{
    const struct prove_options o = {0};
    struct prove_sums sums;
    struct backup_handle *h = NULL;
    enum dr_rc rc = handle_open(s, id, &h, err);
    if (!rc)
        rc = prove_backup(h, &o, &sums, err);
    if (!rc)
        rc = handle_recorded(h, err);
    handle_close(h);
    return rc;
}

/* As `verify` goes about it: the store, the catalog, then each backup. */
static enum dr_rc verify(const char *path, unsigned *unrecorded, struct dr_err *err)
{
    struct store *s = NULL;
    struct store_entry *list = NULL;
    size_t count = 0;
    enum dr_rc rc = kit_try(path, KIT_PASSPHRASE, STORE_READ, &s, err);
    if (!rc)
        rc = store_audit(s, unrecorded, err);
    if (!rc)
        rc = store_list(s, &list, &count, err);
    for (size_t i = count; !rc && i-- > 0;)
        rc = verify_one(s, list[i].backup_id, err);
    free(list);
    store_close(s);
    return rc;
}

static void test_golden(void **state)
{
    (void)state;
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_READ);
    struct store_entry *list = NULL;
    struct dr_err err = {0};
    size_t count = 0;
    unsigned unrecorded;
    struct catalog_head head;
    assert_string_equal(store_id(s), "058d10edb1d52ee9f187a106d321fc00");
    assert_int_equal(keyring_generation(store_keys(s)), 2);
    store_head(s, &head);
    assert_int_equal(head.seq, 4);
    assert_int_equal(head.generation, 2);
    assert_int_equal(store_list(s, &list, &count, &err), DR_OK);
    assert_int_equal(count, 3);
    assert_string_equal(list[0].backup_id, "20260103T040000Z-database-fnnkcvuu");
    assert_string_equal(list[1].backup_id, "20260103T030405Z-files-x5umaroa");
    assert_string_equal(list[2].backup_id, "20260102T030405Z-database-jpfikvy7");
    assert_int_equal(list[0].seq, 2);
    assert_string_equal(list[0].series, "database:shop");
    assert_string_equal(list[1].class, "manual");
    assert_int_equal(list[2].stored_bytes, 54235 + 432 + 1034);
    assert_int_equal(list[2].verified_at_ms, 1767412809000); /* the `verified` record's */
    assert_int_equal(list[1].verified_at_ms, 1767409446900); /* verified_at of `added` */
    for (size_t i = 0; i < count; i++)
        assert_true(list[i].recorded && list[i].verified_ok && !list[i].bad[0]);
    free(list);
    store_close(s);
    assert_int_equal(verify(path, &unrecorded, &err), DR_OK);
    assert_int_equal(unrecorded, 0);
    kit_shell("diff -r '%s' " KIT_VECTORS "/store", path); /* only read */
    kit_remove(path);
}

static void test_work_keeps_the_golden_store(void **state)
{
    (void)state;
    char *path = kit_golden();
    struct dr_err err = {0};
    unsigned unrecorded;
    store_close(kit_open(path, STORE_WORK));
    store_close(kit_open(path, STORE_WORK));
    kit_shell("diff -r '%s/backups' " KIT_VECTORS "/store/backups && "
              "diff -r -x lock '%s/catalog' " KIT_VECTORS "/store/catalog",
              path, path);
    assert_int_equal(verify(path, &unrecorded, &err), DR_OK);
    kit_remove(path);
}

static void test_manifests_are_written_byte_for_byte(void **state)
{
    (void)state;
    static const char *const ids[] = {"20260102T030405Z-database-jpfikvy7",
                                      "20260103T030405Z-files-x5umaroa",
                                      "20260103T040000Z-database-fnnkcvuu"};
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_READ);
    for (size_t i = 0; i < CM_COUNT(ids); i++) {
        struct dr_err err = {0};
        struct manifest *m = NULL;
        struct dr_buf out;
        unsigned char sig[MANIFEST_SIG_LEN];
        size_t len, sig_len;
        char *json_path = dr_xasprintf("%s/backups/%s/manifest.json", path, ids[i]);
        char *sig_path = dr_xasprintf("%s/backups/%s/manifest.sig", path, ids[i]);
        unsigned char *json = slurp(json_path, &len), *want = slurp(sig_path, &sig_len);
        dr_buf_init(&out, MANIFEST_BYTES_MAX);
        assert_int_equal(manifest_read(json, len, want, sig_len, ids[i], store_keys(s), &m, &err),
                         DR_OK);
        assert_int_equal(manifest_write(m, store_keys(s), &out, sig, &err), DR_OK);
        assert_int_equal(out.len, len);
        assert_memory_equal(out.data, json, len);
        assert_memory_equal(sig, want, sizeof sig); /* Ed25519 draws nothing */
        manifest_free(m);
        dr_buf_fini(&out);
        free(json);
        free(want);
        free(json_path);
        free(sig_path);
    }
    store_close(s);
    kit_remove(path);
}

static void test_negatives(void **state)
{
    (void)state;
    json_t *doc = json_load_file(KIT_VECTORS "/negatives.json", 0, NULL), *c, *op;
    size_t i, k, ran = 0, wrong = 0;
    assert_non_null(doc);
    json_array_foreach(json_object_get(doc, "cases"), i, c)
    {
        struct dr_err err = {0};
        unsigned unrecorded = 0;
        const char *expect = text(c, "expect");
        if (strcmp(text(c, "on"), "store") != 0)
            continue;
        char *path = kit_golden();
        json_array_foreach(json_object_get(c, "ops"), k, op)
        {
            apply(path, op);
        }
        enum dr_rc rc = verify(path, &unrecorded, &err);
        int code = dr_rc_exit(rc);
        bool right = expect ? strcmp(err.reason, expect) == 0 && code == (int)number(c, "exit")
                            : rc == DR_OK && unrecorded > 0;
        if (!right) {
            print_error("%s: want %s, got '%s' exit %d: %s\n", text(c, "case"),
                        expect ? expect : "nothing", err.reason, code, err.msg);
            wrong++;
        }
        kit_remove(path);
        ran++;
    }
    json_decref(doc);
    assert_true(ran >= 100);
    assert_int_equal(wrong, 0);
}

/* Opening to work cuts off what nobody signed, and adopts what nobody recorded. */
static void test_work_heals(void **state)
{
    (void)state;
    struct dr_err err = {0};
    unsigned unrecorded;
    struct catalog_head head;
    char *path = kit_golden();
    kit_shell("printf '%%s' '{\"seq\":5,\"pre' >> '%s/catalog/log/000001.jsonl'; "
              "echo x > '%s/catalog/log/000002.jsonl'",
              path, path);
    assert_int_equal(verify(path, &unrecorded, &err), DR_E_INTEGRITY);
    assert_string_equal(err.reason, "catalog-ahead");
    store_close(kit_open(path, STORE_WORK));
    dr_err_clear(&err);
    assert_int_equal(verify(path, &unrecorded, &err), DR_OK);
    kit_shell("diff -r -x lock '%s/catalog' " KIT_VECTORS "/store/catalog", path);
    kit_remove(path);

    json_t *doc = json_load_file(KIT_VECTORS "/negatives.json", 0, NULL), *c, *op;
    size_t i, k;
    path = kit_golden();
    json_array_foreach(json_object_get(doc, "cases"), i, c)
    {
        if (!text(c, "expect") && strcmp(text(c, "on"), "store") == 0)
            json_array_foreach(json_object_get(c, "ops"), k, op)
            {
                apply(path, op);
            }
    }
    assert_int_equal(verify(path, &unrecorded, &err), DR_OK);
    assert_int_equal(unrecorded, 1);
    struct store *s = kit_open(path, STORE_WORK);
    store_head(s, &head);
    assert_int_equal(head.seq, 3); /* 2 were left, one backup was adopted */
    store_close(s);
    assert_int_equal(verify(path, &unrecorded, &err), DR_OK);
    assert_int_equal(unrecorded, 0);
    json_decref(doc);
    kit_remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_work_keeps_the_golden_store),
        cmocka_unit_test(test_manifests_are_written_byte_for_byte),
        cmocka_unit_test(test_negatives),
        cmocka_unit_test(test_work_heals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
