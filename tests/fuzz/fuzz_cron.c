/* fuzz: drcommon. Any text as a cron expression: what is accepted has a next slot, later than asked
 * for, and there is no other one before it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/cron.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int64_t from[] = {-5, 0, 1743293700, 1761437700, 4102444800};
    struct dr_zone *z = NULL;
    struct dr_cron c;
    struct dr_err err = {0};
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    if (dr_cron_parse(text, &c, &err)) {
        if (!err.field[0])
            abort();
    } else if (dr_zone_open(size & 1 ? "Europe/Berlin" : "UTC", &z, NULL) == DR_OK) {
        for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
            int64_t next = dr_cron_next(&c, z, from[i]);
            if (next <= from[i] || next == INT64_MAX || dr_cron_next(&c, z, next - 1) != next)
                abort();
        }
        dr_zone_free(z);
    }
    free(text);
    return 0;
}
