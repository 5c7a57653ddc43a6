/* fuzz: drwire. Any text as the JSON arguments of a command line. */
#include <stdint.h>

#include "common/wire/args.h"
#include "common/wire/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dr_buf pairs;
    struct dr_err err = {0};
    size_t n = 0;
    dr_buf_init(&pairs, 1 << 20);
    if (dr_json_pairs((const char *)data, size, &pairs, &n, &err) ||
        dr_args_check("noop", pairs.data, pairs.len, n, &err))
        dr_err_clear(&err);
    dr_buf_fini(&pairs);
    return 0;
}
