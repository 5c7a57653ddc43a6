/* Reading msgpack one value at a time, by the type that is expected: nothing is allocated, every
 * length is held against the bytes that are left. A wrong type or too few bytes sets `bad`; later
 * calls are no-ops that give zeros, so that a reader may check once at its end. Any thread. */
#ifndef DR_COMMON_WIRE_PULL_H
#define DR_COMMON_WIRE_PULL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dr_pull {
    const unsigned char *at, *end;
    bool bad;
};

void dr_pull_init(struct dr_pull *p, const void *bytes, size_t len);
/* Counts of what follows; each element is at least min_bytes long, or it is bad. */
size_t dr_pull_array(struct dr_pull *p, size_t min_bytes);
size_t dr_pull_map(struct dr_pull *p, size_t min_bytes);
/* Borrowed bytes; *len 0 when bad. */
const unsigned char *dr_pull_str(struct dr_pull *p, size_t *len);
const unsigned char *dr_pull_bin(struct dr_pull *p, size_t *len);
uint64_t dr_pull_uint(struct dr_pull *p); /* any width; a signed form that is not negative too */
int64_t dr_pull_int(struct dr_pull *p);
bool dr_pull_bool(struct dr_pull *p);
bool dr_pull_nil(struct dr_pull *p); /* true: there was a nil, taken; never bad */
/* Any one value, nested at most depth arrays and maps; ext and floats are taken too. */
void dr_pull_skip(struct dr_pull *p, unsigned depth);
bool dr_pull_done(const struct dr_pull *p); /* all was right and nothing is left */

#endif
