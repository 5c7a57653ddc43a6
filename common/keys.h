/* Every Redis key and channel is built here and nowhere else. The namespace is one hash tag, so
 * that all keys share a slot. Strings live as long as the struct. Loop thread or one owner. */
#ifndef DR_COMMON_KEYS_H
#define DR_COMMON_KEYS_H

#include "common/err.h"

#define DR_KEY_MAX       192 /* longest key: prefix, "job:" or "ev:", an id of 64 bytes */
#define DR_NAMESPACE_MAX 64
#define DR_JOB_ID_MAX    64

struct dr_keys {
    char ns[DR_NAMESPACE_MAX + 1];
    char prefix[DR_NAMESPACE_MAX + 8]; /* "{dr}:" */
};

/* ns matches [A-Za-z0-9][A-Za-z0-9._-]{0,63}, else CONFIG. */
enum dr_rc dr_keys_init(struct dr_keys *k, const char *ns, struct dr_err *err) DR_MUST_CHECK;
/* prefix ‖ kind ‖ name into out, for example ("job:", id), ("q:", lane), ("ev", ""). */
const char *dr_key(const struct dr_keys *k, char out[DR_KEY_MAX], const char *kind,
                   const char *name);
/* [A-Za-z0-9][A-Za-z0-9._:-]{0,63}: the form of job ids. */
bool dr_job_id_valid(const char *id, unsigned long len);

#endif
