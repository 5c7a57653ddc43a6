/* Digests, MACs, and building of envelopes. */
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/str.h"
#include "common/wire/body.h"
#include "common/wire/digest.h"
#include "common/wire/pack.h"
#include "common/wire/scan.h"

static void digest_hex(const EVP_MD *md, const void *bytes, size_t len, size_t take, char *out)
{
    unsigned char sum[EVP_MAX_MD_SIZE] = {0};
    if (EVP_Digest(bytes, len, sum, NULL, md, NULL) != 1)
        OPENSSL_die("digest", __FILE__, __LINE__);
    dr_hex(sum, take, out);
}

/* Over type and arguments: an order sent again with a new iat or another key is the same order. */
void dr_envelope_dig(const void *body, size_t len, char out[DR_DIG_TEXT])
{
    size_t t_len = 0, a_len = 0;
    const unsigned char *t = dr_wire_span(body, len, "t", &t_len);
    const unsigned char *a = dr_wire_span(body, len, "a", &a_len);
    struct dr_buf text;
    dr_buf_init(&text, DR_WIRE_RAW_MAX);
    if (t && a) {
        dr_buf_add(&text, t, t_len);
        dr_buf_add(&text, a, a_len);
    } else {
        dr_buf_add(&text, body, len);
    }
    digest_hex(EVP_sha256(), text.data ? text.data : (const unsigned char *)"", text.len, 16, out);
    dr_buf_fini(&text);
}

void dr_sha256_hex(const void *bytes, size_t len, char out[65])
{
    digest_hex(EVP_sha256(), bytes, len, 32, out);
}

void dr_hmac_sha256_hex(const struct dr_secret *key, const void *bytes, size_t len, char out[65])
{
    unsigned char mac[EVP_MAX_MD_SIZE] = {0};
    unsigned n = 0;
    if (!HMAC(EVP_sha256(), key->bytes, (int)key->len, bytes, len, mac, &n))
        OPENSSL_die("hmac", __FILE__, __LINE__);
    dr_hex(mac, 32, out);
}

void dr_run_name(const char *ns, const char *job_id, char out[DR_RUN_TEXT])
{
    unsigned char sum[EVP_MAX_MD_SIZE] = {0};
    char base32[64];
    struct dr_buf text;
    dr_buf_init(&text, 512);
    dr_buf_add(&text, "dr-run", 7);
    dr_buf_add(&text, ns, strlen(ns) + 1);
    dr_buf_str(&text, job_id);
    if (text.failed || EVP_Digest(text.data, text.len, sum, NULL, EVP_sha256(), NULL) != 1)
        OPENSSL_die("digest", __FILE__, __LINE__);
    dr_base32(sum, 32, base32);
    memcpy(out, base32, DR_RUN_TEXT - 1);
    out[DR_RUN_TEXT - 1] = 0;
    dr_buf_fini(&text);
}

void dr_wire_mid(const void *raw, size_t len, char out[DR_MID_TEXT])
{
    digest_hex(EVP_sha1(), raw, len, 20, out);
}

bool dr_mac_equal(const unsigned char *a, const unsigned char *b)
{
    return CRYPTO_memcmp(a, b, DR_MAC_BYTES) == 0;
}

enum dr_rc dr_envelope_mac(const struct dr_secret *key, const char *ns, const char *lane,
                           const void *body, size_t len, unsigned char out[DR_MAC_BYTES],
                           struct dr_err *err)
{
    struct dr_buf text;
    size_t n = 0;
    dr_buf_init(&text, DR_WIRE_RAW_MAX + 256);
    dr_buf_add(&text, "dr1", 4);
    dr_buf_add(&text, ns, strlen(ns) + 1);
    dr_buf_add(&text, lane, strlen(lane) + 1);
    dr_buf_add(&text, body, len);
    bool ok = !text.failed && EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key->bytes, key->len,
                                        text.data, text.len, out, DR_MAC_BYTES, &n);
    dr_buf_fini(&text);
    return ok && n == DR_MAC_BYTES ? DR_OK : dr_fail(err, DR_E_CRYPTO, "HMAC failed");
}

enum dr_rc dr_envelope_sign(const char *ns, const char *lane, const char *kid,
                            const struct dr_secret *key, const struct dr_buf *body,
                            struct dr_buf *raw, struct dr_err *err)
{
    unsigned char mac[DR_MAC_BYTES];
    if (dr_envelope_mac(key, ns, lane, body->data, body->len, mac, err))
        return DR_E_CRYPTO;
    dr_pack_map(raw, 4);
    dr_pack_text(raw, "v");
    dr_pack_uint(raw, 1);
    dr_pack_pair(raw, "kid", kid);
    dr_pack_text(raw, "b");
    dr_pack_bin(raw, body->data, body->len);
    dr_pack_text(raw, "mac");
    dr_pack_bin(raw, mac, sizeof mac);
    return raw->failed ? dr_fail(err, DR_E_TOO_BIG, "message over %zu bytes", raw->max) : DR_OK;
}

static void pack_time(struct dr_buf *b, const char *name, int64_t ms)
{
    if (!ms)
        return;
    dr_pack_text(b, name);
    dr_pack_uint(b, (uint64_t)ms);
}

enum dr_rc dr_envelope_build(const struct dr_envelope_spec *s, struct dr_buf *raw,
                             char dig[DR_DIG_TEXT], struct dr_err *err)
{
    struct dr_buf body;
    enum dr_rc rc = DR_OK;
    dr_buf_init(&body, DR_WIRE_RAW_MAX);
    dr_pack_map(&body, 3 + (size_t)(s->iat_ms != 0) + (s->exp_ms != 0) + (s->nbf_ms != 0));
    dr_pack_pair(&body, "id", s->id);
    dr_pack_pair(&body, "t", s->lane);
    pack_time(&body, "iat", s->iat_ms);
    pack_time(&body, "exp", s->exp_ms);
    pack_time(&body, "nbf", s->nbf_ms);
    dr_pack_text(&body, "a");
    dr_pack_map(&body, s->args_pairs);
    dr_buf_add(&body, s->args, s->args_len);
    if (body.failed) {
        rc = dr_fail(err, DR_E_TOO_BIG, "message over %d bytes", DR_WIRE_RAW_MAX);
        goto out;
    }
    dr_envelope_dig(body.data, body.len, dig);
    if (s->key)
        rc = dr_envelope_sign(s->ns, s->lane, s->key->kid, &s->key->key, &body, raw, err);
    else
        dr_buf_add(raw, body.data, body.len);
    if (!rc && raw->failed)
        rc = dr_fail(err, DR_E_TOO_BIG, "message over %zu bytes", raw->max);
out:
    dr_buf_fini(&body);
    return rc;
}
