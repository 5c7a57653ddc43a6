/* fuzz: drwire. Any text as a key file, a Redis URL, a time, a duration. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/redis_url.h"
#include "common/str.h"
#include "common/wire/keyfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), shown[512], when[DR_TIME_TEXT];
    struct dr_keyfile *f = NULL;
    struct dr_redis_url url;
    struct dr_err err = {0};
    uint64_t ms;
    int64_t at;
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    if (dr_keyfile_parse(text, &f, &err) == DR_OK)
        dr_keyfile_free(f);
    dr_err_clear(&err);
    if (dr_redis_url_parse(text, &url, &err) == DR_OK) {
        dr_redis_url_show(&url, shown);
        dr_redis_url_free(&url);
    }
    (void)dr_parse_duration_ms(text, &ms);
    if (dr_parse_time(text, &at))
        dr_format_time(at, when);
    free(text);
    return 0;
}
