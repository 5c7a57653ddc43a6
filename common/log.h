/* Log lines on standard error: one write(2) a line, JSON or text, at most 8 KiB. Any thread.
 * Values whose key names a secret (password, secret, token, key, passphrase, mac) are starred. */
#ifndef DR_COMMON_LOG_H
#define DR_COMMON_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

enum dr_log_level { DR_LOG_DEBUG, DR_LOG_INFO, DR_LOG_WARN, DR_LOG_ERROR };

void dr_log_setup(enum dr_log_level level, bool json);
bool dr_log_parse_level(const char *s, enum dr_log_level *out);

/* Pairs of key and value (const char *) follow, ended by NULL; a NULL value is left out:
 * dr_log(DR_LOG_INFO, "job.end", "job", id, "outcome", o, NULL). event is a stable dotted name. */
void dr_log(enum dr_log_level level, const char *event, ...) __attribute__((sentinel));
/* The one line of an error's end. extra pairs as above. */
void dr_log_err(enum dr_log_level level, const char *event, const struct dr_err *err, ...)
    __attribute__((sentinel));

#endif
