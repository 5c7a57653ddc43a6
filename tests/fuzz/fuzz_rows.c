/* fuzz: drpipe. COPY text gives the same count and sum however it is cut, and as a plain reader of
 * lines finds it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/pipe/digest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const unsigned char key[32] = {3};

/* Line by line, each through the other entrance. */
static void plain(struct digest_rows *d, const uint8_t *p, size_t len)
{
    while (len) {
        const uint8_t *nl = memchr(p, '\n', len);
        size_t n = nl ? (size_t)(nl - p) : len;
        if (n == 2 && p[0] == '\\' && p[1] == '.')
            return;
        digest_rows_open(d);
        digest_rows_part(d, p, n);
        digest_rows_close(d);
        n += nl != NULL;
        p += n;
        len -= n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct digest_rows a, b;
    unsigned char x[16], y[16];
    uint64_t m, n;
    size_t step = 0;

    if (size < 4)
        return 0;
    digest_rows_init(&a, key);
    digest_rows_init(&b, key);
    for (size_t i = 4, k = 0; i < size; i += step, k++) {
        step = 1 + data[k % 4] % 97u;
        if (step > size - i)
            step = size - i;
        digest_rows_feed(&a, data + i, step);
    }
    plain(&b, data + 4, size - 4);
    digest_rows_sums(&a, &m, x);
    digest_rows_sums(&b, &n, y);
    if (m != n || memcmp(x, y, sizeof x))
        abort();
    return 0;
}
