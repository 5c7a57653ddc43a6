/* The key file of signed orders: `kid role types not-after key`, one key a line. One owner. */
#ifndef DR_COMMON_WIRE_KEYFILE_H
#define DR_COMMON_WIRE_KEYFILE_H

#include <stdint.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/wire/lanes.h"

enum { DR_KID_MAX = 32, DR_KEY_BYTES = 32 };

struct dr_key_entry {
    char kid[DR_KID_MAX + 1];
    enum dr_role role;
    unsigned lanes;       /* bit per lane, by dr_lane_index */
    int64_t not_after_ms; /* INT64_MAX: never */
    struct dr_secret key; /* 32 bytes */
};

struct dr_keyfile;

/* Refused (CONFIG, with the line's number): group or others may write it, no key, a kid twice, one
 * bad line. */
enum dr_rc dr_keyfile_load(const char *path, struct dr_keyfile **out,
                           struct dr_err *err) DR_MUST_CHECK;
enum dr_rc dr_keyfile_parse(const char *text, struct dr_keyfile **out,
                            struct dr_err *err) DR_MUST_CHECK;
void dr_keyfile_free(struct dr_keyfile *f);
const struct dr_key_entry *dr_keyfile_at(const struct dr_keyfile *f, unsigned i); /* NULL: none */
const struct dr_key_entry *dr_keyfile_find(const struct dr_keyfile *f, const char *kid);

#endif
