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

struct proven {
    const struct keyring *keys;
    bool slots[KEYRING_SLOTS_MAX]; /* of them */
    int64_t at_ms;                 /* newest proof of a recovery slot that is still there */
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
        p->slots[i] = true;
        p->at_ms = rec->at_ms;
        (void)snprintf(p->slot, sizeof p->slot, "%s", slot);
    }
    json_decref(o);
    return DR_OK;
}

enum dr_rc drill_slots_proven(struct store *s, unsigned *out, struct dr_err *err)
{
    struct proven p = {.keys = store_keys(s)};
    struct keyring_slot_view v;
    *out = 0;
    if (store_each_record(s, "keys", note_proven, &p, err))
        return err->rc;
    for (unsigned i = 0; i < keyring_slots(p.keys); i++) {
        keyring_slot_view(p.keys, i, &v);
        *out += v.opened || p.slots[i];
    }
    return DR_OK;
}

static enum dr_rc open_by_code(struct store *s, const struct dr_secret *code, struct keyring **out,
                               struct dr_err *err)
{
    struct dr_buf json;
    dr_buf_init(&json, KEYRING_JSON_MAX);
    enum dr_rc rc = disk_read(store_dirfd(s), "keyring.json", &json, err);
    if (!rc)
        rc = keyring_open(json.data, json.len, store_id(s), code, out, err);
    dr_buf_fini(&json);
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

enum dr_rc drill_open_code(void *drill, struct cancel *cancel, struct dr_err *err)
{
    struct drill *d = drill;
    const struct job_services *env = d->env;
    const struct dr_secret *code = dr_config_secret(env->config, "DR_RECOVERY_CODE");
    struct proven last = {.keys = store_keys(env->store)};
    struct keyring *k = NULL;
    char t[DR_TIME_TEXT];
    (void)cancel;
    if (code->len == 0) {
        (void)snprintf(d->recovery_code, sizeof d->recovery_code, "not configured");
        return DR_OK;
    }
    if (store_each_record(env->store, "keys", note_proven, &last, err))
        return err->rc;
    if (last.at_ms && dr_wall_ms() - last.at_ms < AGAIN_MS) {
        dr_format_time(last.at_ms, t);
        (void)snprintf(d->recovery_code, sizeof d->recovery_code, "slot %s was opened at %s",
                       last.slot, t);
        return DR_OK;
    }
    enum dr_rc rc = open_by_code(env->store, code, &k, err);
    if (!rc)
        rc = same_keys(k, store_keys(env->store), err);
    if (!rc)
        rc = record(d, env->store, k, err);
    keyring_free(k);
    if (rc)
        (void)snprintf(d->recovery_code, sizeof d->recovery_code, "failed: %.200s", err->msg);
    return rc;
}
