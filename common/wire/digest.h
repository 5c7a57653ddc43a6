/* Hashes that name things. Any thread. */
#ifndef DR_COMMON_WIRE_DIGEST_H
#define DR_COMMON_WIRE_DIGEST_H

#include <stddef.h>

enum { DR_RUN_TEXT = 17 };

/* `run` of a job, which names its staging, journal, scratch and kept result: the first 16
 * characters of lower-case base32(SHA-256("dr-run" 00 namespace 00 job id)). */
void dr_run_name(const char *ns, const char *job_id, char out[DR_RUN_TEXT]);
void dr_sha256_hex(const void *bytes, size_t len, char out[65]);
struct dr_secret;
void dr_hmac_sha256_hex(const struct dr_secret *key, const void *bytes, size_t len, char out[65]);

#endif
