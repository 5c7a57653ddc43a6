/* fuzz: drbackup */
/* Hostile text of the store: manifest.json behind its signature, a catalog line. What is taken must
 * come out of the writer again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/backup/catalog.h"
#include "worker/backup/manifest.h"
#include "worker/backup/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct catalog_record r;
    struct manifest *m = NULL;
    struct dr_err err = {0};
    char *json = NULL;
    if (size == 0)
        return 0;
    if (data[0] & 1) {
        if (manifest_parse(data + 1, size - 1, NULL, &m, &err) == DR_OK &&
            (!names_is_backup_id(m->backup_id) || m->object_count < 2 ||
             m->container_count + 1 < m->object_count || strlen(m->series) > MANIFEST_SERIES_MAX))
            abort();
        manifest_free(m);
    } else if (catalog_parse((const char *)data + 1, size - 1, &r, &json, &err) == DR_OK) {
        if (r.seq == 0 || (r.backup_id[0] && !names_is_backup_id(r.backup_id)) || json[0] != '{')
            abort();
        free(json);
    }
    if (err.rc && !err.reason[0])
        abort();
    return 0;
}
