/* fuzz: drbackup. Any bytes as keyring.json and as a recovery code. Nothing is derived: form,
 * bounds and text only. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/backup/keyring_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char key[DERIVE_KEY];
    char text[DERIVE_CODE_TEXT];
    struct dr_err err = {0};
    struct dr_buf out;
    static const unsigned char keys[KEYRING_GENERATIONS_MAX * KEYRING_KEY];
    struct keyring *k = dr_xalloc(sizeof *k);
    if (keyring_parse(data, size, k, &err) == DR_OK) {
        struct keyring *again = dr_xalloc(sizeof *again);
        dr_secret_set(&k->keys, keys, (size_t)k->generations * KEYRING_KEY);
        dr_buf_init(&out, 4 * KEYRING_JSON_MAX);
        if (keyring_write(k, &out, &err) || keyring_parse(out.data, out.len, again, &err) ||
            memcmp(again->slots, k->slots, sizeof k->slots) != 0)
            abort(); /* what is read is written as it was */
        dr_buf_fini(&out);
        keyring_free(again);
    } else if (!err.reason[0]) {
        abort();
    }
    keyring_free(k);
    dr_err_clear(&err);
    if (derive_code_read(data, size, key, &err) == DR_OK &&
        derive_code_text(key, text, &err) != DR_OK)
        abort();
    return 0;
}
