/* fuzz: drcommon. Any text as a database URL: what is accepted is within its bounds and shown
 * without its password; what is refused leaves nothing behind. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/pg_url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char scheme[] = "postgresql://"; /* half of the inputs need not find it */
    size_t skip = size && data[0] & 1 ? sizeof scheme - 1 : 0;
    char *text = malloc(size + skip + 1), shown[512];
    struct dr_pg_url url;
    struct dr_err err = {0};
    if (!text)
        return 0;
    memcpy(text, scheme, skip);
    memcpy(text + skip, data, size);
    text[size + skip] = 0;
    if (dr_pg_url_parse(text, &url, &err) == DR_OK) {
        dr_pg_url_show(&url, shown);
        if (!url.dbname[0] || !url.port[0] || !url.sslmode[0] || strchr(url.host, ',') ||
            (url.password.bytes && strlen((char *)url.password.bytes) != url.password.len))
            abort();
        dr_pg_url_free(&url);
    } else if (url.password.bytes || err.rc != DR_E_CONFIG) {
        abort();
    }
    free(text);
    return 0;
}
