/* A change of the store's keyring: recorded, then put in place, all under the catalog lock. */
#include <stdio.h>
#include <string.h>

#include <openssl/sha.h>

#include "worker/backup/disk.h"
#include "worker/backup/keyring.h"
#include "worker/backup/lock.h"
#include "worker/backup/store_internal.h"

/* What the change was made from is still what lies there. */
static enum dr_rc unchanged(struct store *s, struct dr_err *err)
{
    unsigned char digest[32];
    struct dr_buf b;
    dr_buf_init(&b, KEYRING_JSON_MAX);
    enum dr_rc rc = disk_read(s->dirfd, "keyring.json", &b, err);
    if (!rc && (!SHA256(b.data, b.len, digest) || memcmp(digest, s->keyring_sha256, 32) != 0))
        rc = dr_fail(err, DR_E_LOCKED, "keyring.json was changed meanwhile: try again");
    dr_buf_fini(&b);
    return rc;
}

enum dr_rc store_renew_keys(struct store *s, bool *renewed, struct dr_err *err)
{
    unsigned char digest[32];
    struct keyring *keys = NULL;
    struct dr_buf b;
    dr_buf_init(&b, KEYRING_JSON_MAX);
    *renewed = false;
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = disk_read(s->dirfd, "keyring.json", &b, err);
    if (rc || !SHA256(b.data, b.len, digest) || memcmp(digest, s->keyring_sha256, 32) == 0)
        goto out;
    if (s->former_count == STORE_FORMER_MAX)
        rc = dr_fail(err, DR_E_REFUSED, "keyring.json changed too often: restart the worker");
    else
        rc = keyring_renew(s->keys, b.data, b.len, &keys, err);
    if (!rc) {
        s->former[s->former_count++] = s->keys;
        s->keys = keys;
        memcpy(s->keyring_sha256, digest, sizeof digest);
        *renewed = true;
    }
out:
    (void)pthread_mutex_unlock(&s->mutex);
    dr_buf_fini(&b);
    return rc;
}

enum dr_rc store_change_keys(struct store *s, const struct keyring *changed, const char *change,
                             struct dr_err *err)
{
    char data[128];
    int lock = -1;
    struct dr_buf b;
    dr_buf_init(&b, KEYRING_JSON_MAX);
    (void)snprintf(data, sizeof data, "{\"g\":%u,\"slots\":%u,\"change\":\"%s\"}",
                   keyring_generation(changed), keyring_slots(changed), change);
    enum dr_rc rc = keyring_write(changed, &b, err);
    if (!rc)
        rc = store_lock_catalog(s, &lock, err);
    if (!rc)
        rc = unchanged(s, err);
    if (!rc)
        rc = store_append_locked(s, changed, "keys", "", data, err);
    if (!rc)
        rc = disk_replace(s->dirfd, "keyring.json", b.data, b.len, err);
    if (!rc)
        (void)SHA256(b.data, b.len, s->keyring_sha256);
    lock_drop(&lock);
    dr_buf_fini(&b);
    return rc;
}
