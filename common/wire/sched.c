/* Scheduled messages and the sealing key's entry. */
#include "common/wire/sched.h"

#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "common/wire/pack.h"
#include "common/wire/scan.h"

enum { ARGS_MAX = 16 };

/* `a`: keys sorted by bytes. */
static enum dr_rc pack_args(const struct dr_sched_spec *s, struct dr_buf *out, size_t *pairs,
                            struct dr_err *err)
{
    const char *const *sorted[ARGS_MAX];
    size_t n = 0;
    for (; s->args && s->args[n][0]; n++) {
        size_t at = n;
        if (n == ARGS_MAX)
            return dr_fail(err, DR_E_INVALID, "schedule %s: too many arguments", s->name);
        for (; at > 0 && strcmp(sorted[at - 1][0], s->args[n][0]) > 0; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = s->args[n];
    }
    for (size_t i = 0; i < n; i++)
        if (dr_args_pack_text(s->lane, sorted[i][0], sorted[i][1], out, err))
            return dr_wrap(err, "schedule %s", s->name);
    *pairs = n;
    return DR_OK;
}

enum dr_rc dr_sched_build(const struct dr_sched_spec *s, struct dr_buf *raw,
                          char id[DR_JOB_ID_MAX + 1], char dig[DR_DIG_TEXT], struct dr_err *err)
{
    struct dr_buf args;
    struct dr_key_entry sched = {.kid = "sched", .key = *s->key};
    char text[2 * DR_JOB_ID_MAX];
    size_t pairs = 0;
    int n = snprintf(text, sizeof text, "sched:%s:%lld", s->name, (long long)s->slot_ms);
    if (n < 0 || (size_t)n >= sizeof text || !dr_job_id_valid(text, (unsigned long)n))
        return dr_fail(err, DR_E_INVALID, "schedule %.64s: the name makes no job id", s->name);
    if (strcmp(s->lane, "execute") == 0 || strcmp(s->lane, "configure") == 0)
        return dr_fail(err, DR_E_INVALID, "schedule %s: %s is never scheduled", s->name, s->lane);
    dr_buf_init(&args, DR_WIRE_RAW_MAX);
    enum dr_rc rc = pack_args(s, &args, &pairs, err);
    memcpy(id, text, (size_t)n + 1);
    const struct dr_envelope_spec spec = {.ns = s->ns,
                                          .lane = s->lane,
                                          .id = id,
                                          .iat_ms = s->slot_ms,
                                          .exp_ms = s->slot_ms + s->late_ms,
                                          .args = args.data,
                                          .args_len = args.len,
                                          .args_pairs = pairs,
                                          .key = &sched};
    if (!rc)
        rc = dr_envelope_build(&spec, raw, dig, err);
    dr_buf_fini(&args);
    return rc;
}

enum dr_rc dr_seal_pub_pack(const char *ns, const unsigned char pub[DR_SEAL_PUB_BYTES],
                            const struct dr_keyfile *keys, struct dr_buf *out, struct dr_err *err)
{
    struct dr_buf text;
    const struct dr_key_entry *k;
    unsigned count = 0;
    bool ok = true;
    dr_buf_init(&text, 512);
    dr_buf_add(&text, "dr1-seal", 9);
    dr_buf_add(&text, ns, strlen(ns) + 1);
    dr_buf_add(&text, pub, DR_SEAL_PUB_BYTES);
    while (dr_keyfile_at(keys, count))
        count++;
    dr_pack_map(out, 2);
    dr_pack_text(out, "pub");
    dr_pack_bin(out, pub, DR_SEAL_PUB_BYTES);
    dr_pack_text(out, "mac");
    dr_pack_map(out, count);
    for (unsigned i = 0; ok && (k = dr_keyfile_at(keys, i)); i++) {
        unsigned char mac[DR_MAC_BYTES];
        size_t n = 0;
        ok = !text.failed &&
             EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, k->key.bytes, k->key.len, text.data,
                       text.len, mac, sizeof mac, &n) &&
             n == sizeof mac;
        dr_pack_text(out, k->kid);
        dr_pack_bin(out, mac, sizeof mac);
    }
    dr_buf_fini(&text);
    if (!ok)
        return dr_fail(err, DR_E_CRYPTO, "HMAC failed");
    return out->failed ? dr_fail(err, DR_E_TOO_BIG, "too many keys to seal for") : DR_OK;
}
