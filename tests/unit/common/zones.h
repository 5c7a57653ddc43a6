/* Zones of tests/vectors/zoneinfo (tzdata, public domain): a government changes its mind, the
 * tests' expectations stay. */
#ifndef DR_TESTS_UNIT_COMMON_ZONES_H
#define DR_TESTS_UNIT_COMMON_ZONES_H

#include <stdio.h>
#include <string.h>

#include "common/zone.h"
#include "tests/unit/cm.h"

static inline struct dr_zone *test_zone(const char *name)
{
    struct dr_zone *z = NULL;
    struct dr_err err = {0};
    char path[128], bytes[8192];
    size_t len = 0;
    (void)snprintf(path, sizeof path, "tests/vectors/zoneinfo/%s", name);
    FILE *f = fopen(path, "rb");
    if (f) {
        len = fread(bytes, 1, sizeof bytes, f);
        (void)fclose(f);
    }
    if (strcmp(name, "UTC") == 0 ? dr_zone_open(name, &z, &err)
                                 : dr_zone_parse(bytes, len, &z, &err))
        fail_msg("%s: %s", name, err.msg);
    return z;
}

#endif
