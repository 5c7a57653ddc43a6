/* The key-loss rehearsal: the keyring opened by the recovery code and nothing else has to hold the
 * keys that the store works with. In a pool thread. */
#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/disk.h"
#include "worker/backup/keyring.h"
#include "worker/backup/store.h"
#include "worker/recovery/drill.h"

#define AGAIN_MS (INT64_C(28) * 86400000)

struct proven { /* newest proof of a slot that is still there */
    const struct keyring *keys;
    int64_t at_ms;
    char slot[40];
};

static enum dr_rc note_proven(void *arg, const struct catalog_record *rec, struct dr_err *err)
{
    struct proven *p = arg;
    struct keyring_slot_view v;
    json_t *o = json_loads(rec->data_json ? rec->data_json : "{}", 0, NULL);
    const char *change = json_string_value(json_object_get(o, "change"));
    const char *slot = json_string_value(json_object_get(o, "slot"));
    (void)err;
    for (unsigned i = 0; change && slot && i < keyring_slots(p->keys); i++) {
        keyring_slot_view(p->keys, i, &v);
        if (strcmp(change, "proven") != 0 || strcmp(slot, v.id) != 0)
            continue;
        p->at_ms = rec->at_ms;
        (void)snprintf(p->slot, sizeof p->slot, "%s", slot);
    }
    json_decref(o);
    return DR_OK;
}

/* The newest proof of a slot that keyring.json holds now: slots come and go while we run. */
static enum dr_rc last_proof(struct store *s, const struct dr_buf *json, struct proven *out,
                             struct dr_err *err)
{
    struct keyring *now = NULL;
    if (keyring_renew(store_keys(s), json->data, json->len, &now, err))
        return err->rc;
    out->keys = now;
    enum dr_rc rc = store_each_record(s, "keys", note_proven, out, err);
    out->keys = NULL;
    keyring_free(now);
    return rc;
}

/* Every generation's keys, as the store has them. */
static enum dr_rc same_keys(const struct keyring *a, const struct keyring *b, struct dr_err *err)
{
    unsigned char x[32], y[32];
    enum dr_rc rc = keyring_generation(a) == keyring_generation(b)
                        ? DR_OK
                        : dr_fail(err, DR_E_KEY, "the recovery code opens another generation");
    for (unsigned g = 1; !rc && g <= keyring_generation(a); g++) {
        if (keyring_derive(a, g, "file-wrap", x, sizeof x, err) ||
            keyring_derive(b, g, "file-wrap", y, sizeof y, err))
            rc = err->rc;
        else if (memcmp(x, y, sizeof x) != 0)
            rc = dr_fail(err, DR_E_KEY, "the recovery code opens other keys");
    }
    dr_wipe(x, sizeof x);
    dr_wipe(y, sizeof y);
    return rc;
}

static enum dr_rc record(struct drill *d, struct store *s, const struct keyring *k,
                         struct dr_err *err)
{
    char data[160];
    struct keyring_slot_view v = {0};
    for (unsigned i = 0; i < keyring_slots(k); i++) {
        keyring_slot_view(k, i, &v);
        if (v.opened)
            break;
    }
    if (!v.opened || strcmp(v.kind, "recovery") != 0)
        return dr_fail(err, DR_E_KEY, "DR_RECOVERY_CODE is no recovery code: it opens slot %s",
                       v.id ? v.id : "?");
    (void)snprintf(data, sizeof data,
                   "{\"change\":\"proven\",\"slot\":\"%s\",\"kind\":\"recovery\"}", v.id);
    if (store_append(s, "keys", "", data, err))
        return err->rc;
    (void)snprintf(d->recovery_code, sizeof d->recovery_code, "opened slot %s and the store's keys",
                   v.id);
    return DR_OK;
}

static enum dr_rc open_code(struct drill *d, const struct dr_buf *json,
                            const struct dr_secret *code, struct dr_err *err)
{
    struct store *s = d->env->store;
    struct proven last = {0};
    struct keyring *k = NULL;
    char t[DR_TIME_TEXT];
    if (last_proof(s, json, &last, err))
        return err->rc;
    if (last.at_ms && dr_wall_ms() - last.at_ms < AGAIN_MS) {
        dr_format_time(last.at_ms, t);
        (void)snprintf(d->recovery_code, sizeof d->recovery_code, "slot %s was opened at %s",
                       last.slot, t);
        return DR_OK;
    }
    enum dr_rc rc = keyring_open(json->data, json->len, store_id(s), code, &k, err);
    if (!rc)
        rc = same_keys(k, store_keys(s), err);
    if (!rc)
        rc = record(d, s, k, err);
    keyring_free(k);
    return rc;
}

enum dr_rc drill_open_code(void *drill, struct cancel *cancel, struct dr_err *err)
{
    struct drill *d = drill;
    const struct dr_secret *code = dr_config_secret(d->env->config, "DR_RECOVERY_CODE");
    struct dr_buf json;
    (void)cancel;
    if (code->len == 0) {
        (void)snprintf(d->recovery_code, sizeof d->recovery_code, "not configured");
        return DR_OK;
    }
    dr_buf_init(&json, KEYRING_JSON_MAX);
    enum dr_rc rc = disk_read(store_dirfd(d->env->store), "keyring.json", &json, err);
    if (!rc)
        rc = open_code(d, &json, code, err);
    dr_buf_fini(&json);
    if (rc)
        (void)snprintf(d->recovery_code, sizeof d->recovery_code, "failed: %.200s", err->msg);
    return rc;
}
