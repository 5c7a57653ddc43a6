/* Strict JSON of the store's files: no duplicate key, integers 0..2^53-1 only, depth <= 8, no
 * control character inside a string, nothing behind the value. Values are borrowed from the
 * document. Any thread. Source: formats-bytes, "Everywhere". */
#ifndef DR_WORKER_BACKUP_STRICT_H
#define DR_WORKER_BACKUP_STRICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#define STRICT_INT_MAX 9007199254740991u

enum { STRICT_DEPTH_MAX = 8 };

/* One object; NULL when it breaks a rule: why (may be NULL) then says which, static or in text. */
json_t *strict_parse(const void *bytes, size_t len, char why[96]);

/* A member of obj. false: not there, or not such a value. */
bool strict_uint(const json_t *obj, const char *key, uint64_t min, uint64_t max, uint64_t *out);
bool strict_text(const json_t *obj, const char *key, size_t min_bytes, size_t max_bytes,
                 const char **out);
bool strict_copy(const json_t *obj, const char *key, char *out, size_t size); /* 1..size-1 bytes */
bool strict_hex(const json_t *obj, const char *key, void *out, size_t bytes); /* lower case only */
bool strict_time(const json_t *obj, const char *key, int64_t *out_ms); /* three decimals and Z */
json_t *strict_array(const json_t *obj, const char *key, size_t max);  /* NULL: none, too long */

#endif
