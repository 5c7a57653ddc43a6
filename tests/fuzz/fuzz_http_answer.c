/* fuzz: drcore. Heads of answers, line by line as libcurl hands them on: the table stays whole,
 * and what is read of it within its bounds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/core/http_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct http_response r = {.status = 206};
    const char *p = (const char *)data, *end = p + len, *name, *value;
    uint64_t first, last, total;
    bool open = false;
    size_t at = 0, names = 0;
    dr_buf_init(&r.head, 65536);
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t line = nl ? (size_t)(nl - p) + 1 : (size_t)(end - p);
        http_head_line(&r.head, &open, true, p, line);
        p += line;
    }
    while (!r.head.failed && http_header_next(&r, &at, &name, &value)) {
        names++;
        if (!*name || !http_header(&r, name))
            abort();
    }
    if (!r.head.failed && at != r.head.len)
        abort();
    if (!r.head.failed) {
        http_head_read(&r);
        if (r.retry_after_s > 21600 || r.date_unix < 0)
            abort();
        if (http_content_range(&r, &first, &last, &total) && (first > last || last >= total))
            abort();
    }
    http_response_fini(&r);
    return names > len;
}
