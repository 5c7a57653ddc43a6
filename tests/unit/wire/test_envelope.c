/* common/wire against the golden vectors: every accepted and refused message, signatures, keys. */
#include "tests/unit/cm.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/str.h"
#include "common/wire/envelope.h"
#include "common/wire/pack.h"
#include "common/wire/scan.h"
#include "common/wire/sched.h"

static json_t *vectors;
static struct dr_keyfile *keys;
static struct dr_secret sched_key;

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static unsigned char *unhex(const char *hex, size_t *len)
{
    *len = strlen(hex) / 2;
    unsigned char *out = malloc(*len + 1);
    assert_non_null(out);
    assert_true(dr_unhex(hex, strlen(hex), out, *len));
    return out;
}

static int setup(void **state)
{
    (void)state;
    struct dr_err err = {0};
    size_t len;
    vectors = json_load_file(DR_SOURCE_DIR "/tests/vectors/envelopes.json", 0, NULL);
    if (!vectors)
        return -1;
    FILE *f = fopen(DR_SOURCE_DIR "/tests/vectors/keys.txt", "r");
    char file[4096] = "";
    if (!f || fread(file, 1, sizeof file - 1, f) == 0 || fclose(f) != 0)
        return -1;
    unsigned char *key = unhex(text(vectors, "sched_key"), &len);
    dr_secret_set(&sched_key, key, len);
    free(key);
    return dr_keyfile_parse(file, &keys, &err) == DR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    dr_keyfile_free(keys);
    dr_secret_free(&sched_key);
    json_decref(vectors);
    return 0;
}

/* raw, or raw_parts of {hex} and {byte, times}. */
static unsigned char *message(const json_t *c, size_t *len)
{
    struct dr_buf b;
    size_t i;
    json_t *part;
    if (json_object_get(c, "raw"))
        return unhex(text(c, "raw"), len);
    dr_buf_init(&b, 1 << 20);
    json_array_foreach(json_object_get(c, "raw_parts"), i, part)
    {
        bool one = json_object_get(part, "byte") != NULL;
        size_t n;
        unsigned char *bytes = unhex(text(part, one ? "byte" : "hex"), &n);
        json_int_t times = one ? json_integer_value(json_object_get(part, "times")) : 1;
        for (json_int_t k = 0; k < times; k++)
            dr_buf_add(&b, bytes, n);
        free(bytes);
    }
    *len = b.len;
    return (unsigned char *)dr_buf_take(&b);
}

static struct dr_envelope_ctx context(const json_t *c)
{
    bool no_keys = json_is_false(json_object_get(c, "key_file"));
    return (struct dr_envelope_ctx){
        .ns = "dr",
        .lane = text(c, "lane"),
        .keys = no_keys ? NULL : keys,
        .sched_key = &sched_key,
        .allow_unsigned = json_is_true(json_object_get(c, "allow_unsigned")),
        .now_ms = json_integer_value(json_object_get(vectors, "now")),
    };
}

static void golden_accepts(void **state)
{
    (void)state;
    size_t i, len, count = 0;
    json_t *c;
    json_array_foreach(json_object_get(vectors, "accept"), i, c)
    {
        struct dr_envelope_ctx ctx = context(c);
        struct dr_envelope *e = NULL;
        struct dr_refusal refusal;
        struct dr_err err = {0};
        unsigned char *raw = message(c, &len);
        if (dr_envelope_check(&ctx, raw, len, &e, &refusal, &err))
            fail_msg("%s: %s", text(c, "case"), err.msg);
        assert_string_equal(e->id, text(c, "id"));
        assert_string_equal(e->kid, text(c, "kid"));
        assert_string_equal(e->actor, text(c, "actor"));
        assert_false(dr_envelope_expired(e, ctx.now_ms));
        dr_envelope_free(e);
        free(raw);
        count++;
    }
    assert_int_equal(count, 19);
}

static void golden_refusals(void **state)
{
    (void)state;
    size_t i, len, count = 0;
    json_t *c;
    json_array_foreach(json_object_get(vectors, "refuse"), i, c)
    {
        struct dr_envelope_ctx ctx = context(c);
        struct dr_envelope *e = NULL;
        struct dr_refusal refusal;
        struct dr_err err = {0};
        unsigned char *raw = message(c, &len);
        enum dr_rc rc = dr_envelope_check(&ctx, raw, len, &e, &refusal, &err);
        count++;
        if (strcmp(text(c, "reason"), "expired") == 0) {
            assert_int_equal(rc, DR_OK);
            assert_true(dr_envelope_expired(e, ctx.now_ms));
            dr_envelope_free(e);
        } else if (rc == DR_OK || strcmp(refusal.reason, text(c, "reason")) != 0 ||
                   strcmp(err.reason, text(c, "kind")) != 0 ||
                   strcmp(err.field, text(c, "field")) != 0) {
            fail_msg("%s: got %s %s %s (%s), wanted %s %s %s", text(c, "case"),
                     rc ? refusal.reason : "accept", err.reason, err.field, err.msg,
                     text(c, "reason"), text(c, "kind"), text(c, "field"));
        }
        free(raw);
    }
    assert_int_equal(count, 132);
}

static void no_record_for_strangers(void **state)
{
    (void)state;
    size_t i, len;
    json_t *c;
    json_array_foreach(json_object_get(vectors, "refuse"), i, c)
    {
        struct dr_envelope_ctx ctx = context(c);
        struct dr_envelope *e = NULL;
        struct dr_refusal refusal;
        struct dr_err err = {0};
        unsigned char *raw = message(c, &len);
        if (dr_envelope_check(&ctx, raw, len, &e, &refusal, &err) == DR_OK)
            dr_envelope_free(e);
        else if (strcmp(refusal.reason, "bad-field") == 0)
            assert_true(refusal.record);
        else if (strcmp(refusal.reason, "malformed") != 0 || !refusal.id[0])
            assert_false(refusal.record && refusal.id[0]);
        free(raw);
    }
}

static void golden_signatures(void **state)
{
    (void)state;
    size_t i, n;
    json_t *c;
    json_array_foreach(json_object_get(vectors, "signing"), i, c)
    {
        struct dr_err err = {0};
        struct dr_buf body, raw;
        struct dr_secret key = {0};
        unsigned char *bytes = unhex(text(c, "key"), &n);
        dr_secret_set(&key, bytes, n);
        free(bytes);
        dr_buf_init(&body, 1 << 20);
        dr_buf_init(&raw, 1 << 20);
        bytes = unhex(text(c, "body"), &n);
        dr_buf_add(&body, bytes, n);
        free(bytes);
        assert_int_equal(dr_envelope_sign(text(c, "ns"), text(c, "lane"), text(c, "kid"), &key,
                                          &body, &raw, &err),
                         DR_OK);
        bytes = unhex(text(c, "raw"), &n);
        assert_int_equal(n, raw.len);
        assert_memory_equal(bytes, raw.data, n);
        free(bytes);
        dr_buf_fini(&body);
        dr_buf_fini(&raw);
        dr_secret_free(&key);
    }
    assert_int_equal(i, 3);
}

/* The golden message of every schedule, whatever order its arguments are given in. */
static void golden_schedules(void **state)
{
    (void)state;
    size_t i, n;
    json_t *c, *a, *value;
    const char *name;
    json_array_foreach(json_object_get(vectors, "scheduled"), i, c)
    {
        const char *args[9][2] = {{NULL, NULL}};
        char id[DR_JOB_ID_MAX + 1], dig[DR_DIG_TEXT];
        struct dr_buf raw;
        struct dr_err err = {0};
        unsigned count = 0;
        a = json_object_get(c, "a");
        json_object_foreach(a, name, value)
        {
            args[count][0] = name;
            args[count++][1] = json_string_value(value);
        }
        const struct dr_sched_spec spec = {
            .ns = "dr",
            .lane = text(c, "t"),
            .name = text(c, "name"),
            .slot_ms = json_integer_value(json_object_get(c, "slot_ms")),
            .late_ms = json_integer_value(json_object_get(c, "late_ms")),
            .args = (const char *const(*)[2])args,
            .key = &sched_key};
        unsigned char *wanted = unhex(text(c, "raw"), &n);
        dr_buf_init(&raw, DR_WIRE_RAW_MAX);
        assert_int_equal(dr_sched_build(&spec, &raw, id, dig, &err), DR_OK);
        assert_int_equal(raw.len, n);
        assert_memory_equal(raw.data, wanted, n);
        free(wanted);
        const struct dr_envelope_ctx ctx = {
            .ns = "dr", .lane = spec.lane, .sched_key = &sched_key, .now_ms = spec.slot_ms + 1000};
        struct dr_envelope *e = NULL;
        struct dr_refusal refusal;
        assert_int_equal(dr_envelope_check(&ctx, raw.data, raw.len, &e, &refusal, &err), DR_OK);
        assert_string_equal(e->id, id);
        assert_string_equal(e->dig, dig);
        assert_int_equal(e->exp_ms, spec.slot_ms + spec.late_ms);
        dr_envelope_free(e);
        dr_buf_fini(&raw);
    }
    assert_true(i > 0);
}

static void bad_schedules(void **state)
{
    (void)state;
    static const char *const none[][2] = {{NULL, NULL}};
    static const char *const unknown[][2] = {{"nonsense", "1"}, {NULL, NULL}};
    const struct dr_sched_spec bad[] = {
        {.lane = "execute", .name = "x", .args = none},
        {.lane = "configure", .name = "x", .args = none},
        {.lane = "backup", .name = "with blank", .args = none},
        {.lane = "backup",
         .name = "a-name-that-is-far-too-long-to-be-a-part-of-a-job-id-of-64-bytes",
         .args = none},
        {.lane = "backup", .name = "x", .args = unknown},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct dr_sched_spec spec = bad[i];
        struct dr_buf raw;
        struct dr_err err = {0};
        char id[DR_JOB_ID_MAX + 1], dig[DR_DIG_TEXT];
        spec.ns = "dr";
        spec.slot_ms = 1767322800000;
        spec.key = &sched_key;
        dr_buf_init(&raw, DR_WIRE_RAW_MAX);
        assert_int_equal(dr_sched_build(&spec, &raw, id, dig, &err), DR_E_INVALID);
        assert_int_equal(raw.len, 0);
        dr_buf_fini(&raw);
    }
}

static void golden_seal_pub(void **state)
{
    (void)state;
    const json_t *c = json_object_get(vectors, "seal_pub");
    const char *kid;
    char file[1024] = "";
    json_t *one;
    size_t i, n;
    struct dr_keyfile *f = NULL;
    struct dr_err err = {0};
    struct dr_buf out;
    json_array_foreach(json_object_get(c, "macs"), i, one)
    {
        kid = text(one, "kid");
        (void)snprintf(file + strlen(file), sizeof file - strlen(file), "%s %s * - %s\n", kid,
                       strcmp(kid, "admin-1") == 0 ? "admin" : "operator",
                       text(json_object_get(vectors, "keys"), kid));
    }
    assert_int_equal(dr_keyfile_parse(file, &f, &err), DR_OK);
    unsigned char *pub = unhex(text(c, "public"), &n);
    assert_int_equal(n, DR_SEAL_PUB_BYTES);
    dr_buf_init(&out, 4096);
    assert_int_equal(dr_seal_pub_pack(text(c, "ns"), pub, f, &out, &err), DR_OK);
    free(pub);
    unsigned char *wanted = unhex(text(c, "info_field"), &n);
    assert_int_equal(out.len, n);
    assert_memory_equal(out.data, wanted, n);
    free(wanted);
    dr_buf_fini(&out);
    dr_keyfile_free(f);
}

static void bad_key_files(void **state)
{
    (void)state;
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(vectors, "bad_key_files"), i, c)
    {
        struct dr_err err = {0};
        struct dr_keyfile *f = NULL;
        if (dr_keyfile_parse(text(c, "text"), &f, &err) != DR_E_CONFIG)
            fail_msg("accepted: %s", text(c, "case"));
    }
    assert_int_equal(i, 12);
}

static void built_messages_pass(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct dr_buf args, raw;
    char dig[DR_DIG_TEXT];
    dr_buf_init(&args, 4096);
    dr_buf_init(&raw, DR_WIRE_RAW_MAX);
    assert_int_equal(dr_args_pack_text("execute", "procedure_id", "database_recovery", &args, &err),
                     DR_OK);
    assert_int_equal(dr_args_pack_text("execute", "dry_run", "yes", &args, &err), DR_OK);
    const struct dr_envelope_spec spec = {.ns = "dr",
                                          .lane = "execute",
                                          .id = "x-1",
                                          .iat_ms = 1767323045000,
                                          .args = args.data,
                                          .args_len = args.len,
                                          .args_pairs = 2,
                                          .key = dr_keyfile_find(keys, "ops-2")};
    assert_int_equal(dr_envelope_build(&spec, &raw, dig, &err), DR_OK);
    struct dr_envelope_ctx ctx = {
        .ns = "dr", .lane = "execute", .keys = keys, .now_ms = 1767323045000};
    struct dr_envelope *e = NULL;
    struct dr_refusal refusal;
    assert_int_equal(dr_envelope_check(&ctx, raw.data, raw.len, &e, &refusal, &err), DR_OK);
    assert_true(dr_args_bool(e->args, "dry_run"));
    assert_string_equal(dr_args_str(e->args, "procedure_id"), "database_recovery");
    assert_string_equal(e->dig, dig);
    assert_int_equal(e->attempts, 1);
    dr_envelope_free(e);
    dr_buf_fini(&args);
    dr_buf_fini(&raw);
    char peeked[DR_JOB_ID_MAX + 1];
    assert_false(dr_envelope_peek("\x80", 1, peeked, dig));
    dr_buf_init(&args, 4096);
    assert_int_equal(dr_args_pack_text("noop", "nonsense", "1", &args, &err), DR_E_INVALID);
    assert_string_equal(err.field, "a.nonsense");
    dr_buf_fini(&args);
}

/* Random damage: whatever the scan lets through, the library reads too, and nothing crashes. */
static void damaged_messages(void **state)
{
    (void)state;
    size_t i, len;
    json_t *c;
    uint64_t random = 88172645463325252u;
    json_array_foreach(json_object_get(vectors, "accept"), i, c)
    {
        unsigned char *raw = message(c, &len);
        for (int k = 0; k < 2000 && len < 4096; k++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            size_t at = random % len;
            unsigned char old = raw[at];
            raw[at] = (unsigned char)(random >> 32);
            struct dr_err err = {0};
            struct dr_buf out;
            dr_buf_init(&out, 1 << 20);
            if (dr_wire_scan(raw, len, &err) == DR_OK)
                assert_int_equal(dr_wire_to_json(raw, len, &out, &err), DR_OK);
            dr_buf_fini(&out);
            raw[at] = old;
        }
        free(raw);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_accepts),          cmocka_unit_test(golden_refusals),
        cmocka_unit_test(no_record_for_strangers), cmocka_unit_test(golden_signatures),
        cmocka_unit_test(bad_key_files),           cmocka_unit_test(built_messages_pass),
        cmocka_unit_test(damaged_messages),        cmocka_unit_test(golden_schedules),
        cmocka_unit_test(bad_schedules),           cmocka_unit_test(golden_seal_pub),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
