/* fuzz: drcore. The head of an HTTP request: no byte beyond its end is read, and what is accepted
 * names a path. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/core/httpd_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct httpd_request q;
    unsigned status = httpd_read_head((const char *)data, size, &q);
    if (status == 200 && (q.path[0] != '/' || strchr(q.path, '?')))
        abort();
    if (status < 200 || status > 505)
        abort();
    return 0;
}
