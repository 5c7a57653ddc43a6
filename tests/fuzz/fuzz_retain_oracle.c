/* fuzz: drbackup */
/* A hostile list of backups: refused with a reason, or answered in whole; what is answered keeps at
 * least one, and says of each why. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/backup/retain_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct retain_policy p = {.daily_days = 7,
                                    .weekly_weeks = 4,
                                    .monthly_months = 12,
                                    .yearly_years = 3,
                                    .keep_oldest = size % 2};
    struct dr_err err = {0};
    struct dr_buf out;
    char *text = malloc(size ? size : 1); /* not a byte longer: what is read behind it is seen */
    if (!text)
        return 0;
    memcpy(text, data, size);
    dr_buf_init(&out, 1 << 24);
    if (retain_oracle(&p, 1767323045678, text, size, &out, &err)) {
        if (!err.rc || !err.msg[0])
            abort();
    } else if (!out.data || out.data[0] != '[' ||
               strstr((const char *)out.data, "\"reasons\":[]") ||
               (strstr((const char *)out.data, "\"id\":") &&
                !strstr((const char *)out.data, "true"))) {
        abort();
    }
    dr_buf_fini(&out);
    free(text);
    return 0;
}
