/* Envelopes: the checks a message passes before anything runs, and building one. Any thread. */
#ifndef DR_COMMON_WIRE_ENVELOPE_H
#define DR_COMMON_WIRE_ENVELOPE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/keys.h"
#include "common/wire/args.h"
#include "common/wire/keyfile.h"
#include "common/wire/lanes.h"

enum { DR_DIG_TEXT = 33, DR_MID_TEXT = 41, DR_ACTOR_MAX = 163, DR_MAC_BYTES = 32 };

struct dr_envelope_ctx {
    const char *ns, *lane;
    const struct dr_keyfile *keys;     /* NULL: no key file is set */
    const struct dr_secret *sched_key; /* NULL: scheduled messages are refused */
    bool allow_unsigned;
    bool accepted; /* this very message has run before: who signed it, and when, was checked then */
    int64_t now_ms;
};

struct dr_envelope {
    char id[DR_JOB_ID_MAX + 1];
    const struct dr_lane *lane;
    char kid[DR_KID_MAX + 1]; /* "" when bare */
    char actor[DR_ACTOR_MAX + 1];
    char claimed_actor[129];
    char dig[DR_DIG_TEXT];          /* of type and arguments */
    int64_t iat_ms, exp_ms, nbf_ms; /* 0: none; exp is iat + 24 h where only iat is there */
    uint64_t hard_s, soft_s, result_ttl_s;
    unsigned attempts;
    uint64_t backoff_base_ms, backoff_cap_ms;
    struct dr_args *args;
};

/* Why a message was refused. reason: of the dead letter; kind, field, value: of the record's err.
 */
struct dr_refusal {
    const char *reason;
    char id[DR_JOB_ID_MAX + 1]; /* "" when it has no valid id */
    char dig[DR_DIG_TEXT];
    bool record; /* auth, wrong-lane and reserved-id never make a record */
    /* Of whom it is, as in the envelope: kid and actor only once the signature was good (a bare
     * message's actor is `unsigned`); what a message says of itself is claimed_actor. */
    char kid[DR_KID_MAX + 1], actor[DR_ACTOR_MAX + 1], claimed_actor[129];
};

/* All checks of the protocol in their order, but for expiry: a job that has started may be older
 * (dr_envelope_expired; the start script decides). On refusal err has kind (reason), field, value,
 * message. */
enum dr_rc dr_envelope_check(const struct dr_envelope_ctx *ctx, const void *raw, size_t len,
                             struct dr_envelope **out, struct dr_refusal *refusal,
                             struct dr_err *err) DR_MUST_CHECK;
void dr_envelope_free(struct dr_envelope *e);
bool dr_envelope_expired(const struct dr_envelope *e, int64_t now_ms);

/* Id and digest of a message that may be anything; false when it has no valid id. */
bool dr_envelope_peek(const void *raw, size_t len, char id[DR_JOB_ID_MAX + 1],
                      char dig[DR_DIG_TEXT]);
/* When a message that may be anything says it was ordered; 0: it does not, or not credibly. */
int64_t dr_envelope_iat(const void *raw, size_t len);
/* Hex of the first half of SHA-256 over the bytes of `t` and `a`: what makes two orders with one id
 * the same order. */
void dr_envelope_dig(const void *body, size_t len, char out[DR_DIG_TEXT]);
void dr_wire_mid(const void *raw, size_t len, char out[DR_MID_TEXT]); /* hex SHA-1 */

/* HMAC-SHA-256(key, "dr1" 00 ns 00 lane 00 body). */
enum dr_rc dr_envelope_mac(const struct dr_secret *key, const char *ns, const char *lane,
                           const void *body, size_t len, unsigned char out[DR_MAC_BYTES],
                           struct dr_err *err) DR_MUST_CHECK;

struct dr_envelope_spec {
    const char *ns, *lane, *id;
    int64_t iat_ms, exp_ms, nbf_ms; /* 0: leave out */
    const void *args;               /* packed pairs of `a`, in order */
    size_t args_len, args_pairs;
    const struct dr_key_entry *key; /* NULL: bare */
};
enum dr_rc dr_envelope_build(const struct dr_envelope_spec *spec, struct dr_buf *raw,
                             char dig[DR_DIG_TEXT], struct dr_err *err) DR_MUST_CHECK;
/* Wraps a packed body. */
enum dr_rc dr_envelope_sign(const char *ns, const char *lane, const char *kid,
                            const struct dr_secret *key, const struct dr_buf *body,
                            struct dr_buf *raw, struct dr_err *err) DR_MUST_CHECK;

#endif
