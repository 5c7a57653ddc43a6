/* What workers of one store say alike: scheduled messages, and the key that seals settings for
 * them. Any thread. */
#ifndef DR_COMMON_WIRE_SCHED_H
#define DR_COMMON_WIRE_SCHED_H

#include <stdint.h>

#include "common/wire/envelope.h"

enum { DR_SEAL_PUB_BYTES = 32 };

struct dr_sched_spec {
    const char *ns, *lane, *name; /* of the schedule; with its slot it makes the id */
    int64_t slot_ms, late_ms;     /* UTC; late_ms: after the slot it may still start */
    const char *const (*args)[2]; /* name and value as text, in any order; ended by {NULL, NULL} */
    const struct dr_secret *key;  /* derive(RK_1, "sched-sign", 32) */
};

/* The same bytes from every worker (formats-bytes 6), signed with kid `sched`. INVALID names the
 * argument, or the lane that no schedule may order: execute and configure. */
enum dr_rc dr_sched_build(const struct dr_sched_spec *spec, struct dr_buf *raw,
                          char id[DR_JOB_ID_MAX + 1], char dig[DR_DIG_TEXT],
                          struct dr_err *err) DR_MUST_CHECK;

/* Field `seal_pub` of info: {pub, mac: {kid: HMAC}} over every key of the file, so that a client
 * with any of them knows another's public key from ours. */
enum dr_rc dr_seal_pub_pack(const char *ns, const unsigned char pub[DR_SEAL_PUB_BYTES],
                            const struct dr_keyfile *keys, struct dr_buf *out,
                            struct dr_err *err) DR_MUST_CHECK;

#endif
