/* The table of providers. */
#include "worker/storage/dialect.h"

#include <string.h>

#define STORAGE_DIALECT(row) extern const struct storage_dialect row;
#include "worker/storage/dialects.def"
#undef STORAGE_DIALECT

static const struct storage_dialect *const dialects[] = {
#define STORAGE_DIALECT(row) &row,
#include "worker/storage/dialects.def"
#undef STORAGE_DIALECT
};

const struct storage_dialect *storage_dialect_find(const char *provider)
{
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
        if (strcmp(dialects[i]->provider, provider) == 0)
            return dialects[i];
    return NULL;
}
