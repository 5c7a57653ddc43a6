/* fuzz: drwire. Any bytes as a message on any lane: refused or understood, never a crash. */
#include <stdint.h>
#include <stdlib.h>

#include "common/wire/envelope.h"
#include "common/wire/pack.h"
#include "common/wire/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const struct dr_lane *lane = &dr_lanes[data[0] % 10];
    const struct dr_envelope_ctx ctx = {
        .ns = "dr", .lane = lane->name, .allow_unsigned = true, .now_ms = 1767323045000};
    struct dr_envelope *e = NULL;
    struct dr_refusal refusal;
    struct dr_err err = {0};
    struct dr_buf out;
    char id[DR_JOB_ID_MAX + 1], dig[DR_DIG_TEXT];
    if (dr_envelope_check(&ctx, data + 1, size - 1, &e, &refusal, &err) == DR_OK)
        dr_envelope_free(e);
    else if (!refusal.reason)
        abort();
    (void)dr_envelope_peek(data + 1, size - 1, id, dig);
    dr_buf_init(&out, 1 << 20);
    struct dr_err scan_err = {0}, json_err = {0};
    if (dr_wire_scan(data + 1, size - 1, &scan_err) == DR_OK &&
        dr_wire_to_json(data + 1, size - 1, &out, &json_err) == DR_E_MALFORMED)
        abort(); /* the scan let something pass that the library refuses */
    dr_buf_fini(&out);
    return 0;
}
