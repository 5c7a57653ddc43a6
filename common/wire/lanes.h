/* The lanes, and what a key's role may do on them. */
#ifndef DR_COMMON_WIRE_LANES_H
#define DR_COMMON_WIRE_LANES_H

#include <stdbool.h>
#include <stddef.h>

enum dr_role { DR_ROLE_VIEWER, DR_ROLE_APP, DR_ROLE_OPERATOR, DR_ROLE_ADMIN };

struct dr_lane {
    const char *name;
    unsigned attempts;     /* default mx */
    unsigned lost_allowed; /* deliveries without an end before a message is poison */
    const char *roles;
};

extern const struct dr_lane dr_lanes[]; /* ended by a row without a name */
const struct dr_lane *dr_lane_find(const char *name, size_t len); /* NULL: unknown */
int dr_lane_index(const struct dr_lane *lane);
/* harmless: retention with dry_run, test-recovery below exercise. */
bool dr_lane_role_may(const struct dr_lane *lane, enum dr_role role, bool harmless);
/* With a key file such an order must be signed; without one it needs DR_ALLOW_UNSIGNED. */
bool dr_lane_wants_signature(const struct dr_lane *lane, bool harmless);
bool dr_role_parse(const char *s, enum dr_role *out);

#endif
