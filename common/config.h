/* Configuration: environment first, then --config FILE with the same NAME=value lines, then the
 * defaults of options.def. Secrets are read once and removed from the environment. One owner. */
#ifndef DR_COMMON_CONFIG_H
#define DR_COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"

struct dr_config;

/* file may be NULL. An unknown name in the file is an error; in the environment one that starts
 * with DR_ BACKUP_ OFFSITE_ RETENTION_ is an error within edit distance 2 of a known name, else one
 * warning. Errors: CONFIG with field and value. */
enum dr_rc dr_config_load(const char *file, struct dr_config **out,
                          struct dr_err *err) DR_MUST_CHECK;
void dr_config_free(struct dr_config *c);

/* The name must be in options.def with that type: anything else is a bug and aborts. */
const char *dr_config_str(const struct dr_config *c, const char *name); /* never NULL; no secrets */
int64_t dr_config_int(const struct dr_config *c, const char *name);
bool dr_config_bool(const struct dr_config *c, const char *name);
bool dr_config_is_set(const struct dr_config *c, const char *name);
/* Borrowed; len 0 when not set. NUL-terminated. */
const struct dr_secret *dr_config_secret(const struct dr_config *c, const char *name);
/* "REDIS_URL", or "CELERY_BROKER_URL" where that one serves. */
const struct dr_secret *dr_config_redis_url(const struct dr_config *c);

/* The effective configuration with each value's source (default, env, file); secrets as stars. */
void dr_config_print(const struct dr_config *c, bool json, struct dr_buf *out);

#endif
