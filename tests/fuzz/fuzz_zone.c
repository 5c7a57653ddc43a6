/* fuzz: drcommon. Any bytes as a TZif file: what is accepted answers every instant, and its wall
 * clock never shows a time before it is reached. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "common/zone.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Both headers and a type are there for half of the inputs: their counts are then the input's. */
static uint8_t *framed(const uint8_t *data, size_t size, size_t *len)
{
    static const uint8_t empty[44] = {'T', 'Z', 'i', 'f', '2'};
    uint8_t *p = calloc(1, size + 88);
    if (!p)
        return NULL;
    *len = size;
    memcpy(p, data, size);
    if (size > 5 && data[0] & 1) {
        memcpy(p, empty, 44);
        memcpy(p + 44, empty, 44);
        p[44 + 35] = data[1] % 4; /* times */
        p[44 + 39] = data[2] % 4; /* types */
        p[44 + 43] = data[3] % 8; /* letters */
        memcpy(p + 88, data + 4, size - 4);
        *len = 88 + size - 4;
    }
    return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t at[] = {INT64_MIN, -1, 0, 1743296400, 4102444800, INT64_MAX};
    struct dr_zone *z = NULL;
    size_t len;
    uint8_t *file = framed(data, size, &len);
    if (!file)
        return 0;
    if (dr_zone_parse(file, len, &z, NULL) == DR_OK)
        for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
            int64_t t = dr_zone_resolve(z, at[i]);
            if (at[i] > INT64_MIN && at[i] < INT64_MAX && t + dr_zone_offset(z, t) < at[i])
                abort();
            if (at[i] > INT64_MIN && at[i] < INT64_MAX && t - 1 + dr_zone_offset(z, t - 1) >= at[i])
                abort();
        }
    dr_zone_free(z);
    free(file);
    return 0;
}
