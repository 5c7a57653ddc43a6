/* Lanes and roles. */
#include "common/wire/lanes.h"

#include <string.h>

const struct dr_lane dr_lanes[] = {
#define LANE(name, attempts, lost, roles) {name, attempts, lost, roles},
#include "common/wire/lanes.def"
#undef LANE
    {NULL, 0, 0, NULL},
};

const struct dr_lane *dr_lane_find(const char *name, size_t len)
{
    for (const struct dr_lane *l = dr_lanes; l->name; l++)
        if (strlen(l->name) == len && memcmp(l->name, name, len) == 0)
            return l;
    return NULL;
}

int dr_lane_index(const struct dr_lane *lane)
{
    return (int)(lane - dr_lanes);
}

bool dr_lane_role_may(const struct dr_lane *lane, enum dr_role role, bool harmless)
{
    switch (role) {
    case DR_ROLE_ADMIN:
        return true;
    case DR_ROLE_OPERATOR:
        return !strchr(lane->roles, 'M');
    case DR_ROLE_APP:
        return strchr(lane->roles, 'A') || (harmless && strchr(lane->roles, 'a'));
    case DR_ROLE_VIEWER:
    default:
        return false;
    }
}

bool dr_lane_wants_signature(const struct dr_lane *lane, bool harmless)
{
    return !dr_lane_role_may(lane, DR_ROLE_APP, harmless);
}

bool dr_role_parse(const char *s, enum dr_role *out)
{
    static const char *const names[] = {"viewer", "app", "operator", "admin"};
    for (int i = 0; i < 4; i++)
        if (strcmp(s, names[i]) == 0)
            return *out = (enum dr_role)i, true;
    return false;
}
