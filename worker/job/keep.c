/* Results over 64 KiB: the store keeps them, Redis gets their short form. In the delivery's fiber;
 * the file is written in a pool thread. */
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/wire/digest.h"
#include "common/wire/pack.h"
#include "common/wire/scan.h"
#include "worker/core/pool.h"
#include "worker/job/dispatch_internal.h"

enum { INLINE_MAX_BYTES = 65536 };

struct kept {
    const struct job_services *services;
    char run[DR_RUN_TEXT], uri[64], sha256[65];
    const struct dr_buf *res;
};

static enum dr_rc keep(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct kept *k = item;
    (void)cancel;
    dr_sha256_hex(k->res->data, k->res->len, k->sha256);
    return k->services->keep_result(k->services->store, k->run, k->res->data, k->res->len, err);
}

/* The pairs that every result has, as they stand in the long one, then those of `more`. */
static void shorten(const struct dr_buf *res, const char *const more[][2], struct dr_buf *out)
{
    static const char *const kept[] = {"outcome", "summary", "error", "steps"};
    const unsigned char *span[4];
    size_t len[4] = {0}, pairs = 0, extra = 0;
    for (size_t i = 0; i < 4; i++) {
        span[i] = dr_wire_span(res->data, res->len, kept[i], &len[i]);
        pairs += span[i] && len[i] < INLINE_MAX_BYTES / 4;
    }
    while (more[extra][0])
        extra++;
    dr_pack_map(out, pairs + extra);
    for (size_t i = 0; i < 4; i++)
        if (span[i] && len[i] < INLINE_MAX_BYTES / 4) {
            dr_pack_text(out, kept[i]);
            dr_buf_add(out, span[i], len[i]);
        }
    for (size_t i = 0; i < extra; i++)
        dr_pack_pair(out, more[i][0], more[i][1]);
}

const struct dr_buf *keep_in_redis(struct delivery *x, const struct dr_buf *res,
                                   struct dr_buf *small)
{
    const struct job_services *s = x->lane->dispatch->o.services;
    struct kept k = {.services = s, .res = res};
    struct dr_err err = {0};
    char note[256];
    if (!res || res->len <= INLINE_MAX_BYTES)
        return res;
    dr_run_name(s->ns, x->envelope->id, k.run);
    (void)snprintf(k.uri, sizeof k.uri, "results/%s.msgpack", k.run);
    if (!s->keep_result) {
        (void)snprintf(note, sizeof note, "cut: %zu bytes, and there is no store to keep them",
                       res->len);
    } else if (pool_run_long(s->pool, keep, &k, NULL, &err)) {
        dr_log_err(DR_LOG_ERROR, "job.result", &err, "job", x->envelope->id, NULL);
        (void)snprintf(note, sizeof note, "cut: %zu bytes could not be kept: %s", res->len,
                       err.msg);
    } else {
        const char *const where[][2] = {{"uri", k.uri}, {"sha256", k.sha256}, {NULL, NULL}};
        shorten(res, where, small);
        return small;
    }
    const char *const why[][2] = {{"note", note}, {NULL, NULL}};
    shorten(res, why, small);
    return small;
}
