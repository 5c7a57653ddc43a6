/* Pins, and what else retention asks of the catalog. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/lock.h"
#include "worker/backup/store_internal.h"
#include "worker/backup/trash.h"

enum { DATA_MAX = 2048 };

/* The catalog lock is held; a copy of what is known of it now. */
static enum dr_rc find_live(struct store *s, const char *id, struct store_entry *out,
                            struct store_pin *pin, struct dr_err *err)
{
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    const struct store_item *it = rc ? NULL : store_find(s, id);
    if (it && !it->purged) {
        *out = it->entry;
        *pin = it->pin ? *it->pin : (struct store_pin){0};
        out->pinned = it->pin != NULL;
    } else if (!rc) {
        (void)dr_fail(err, rc = DR_E_NOT_FOUND,
                      it ? "backup %s is purged" : "the catalog has no backup %s", id);
        (void)dr_err_field(err, "backup_id", id, strlen(id));
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}

static void actor_json(struct dr_buf *data, const char *actor)
{
    dr_buf_init(data, DATA_MAX);
    dr_buf_str(data, "{\"actor\":");
    dr_buf_json(data, actor, strlen(actor));
    dr_buf_str(data, "}");
}

static enum dr_rc append(struct store *s, const char *type, const char *id,
                         const struct dr_buf *data, struct dr_err *err)
{
    if (data->failed)
        return dr_fail(err, DR_E_INVALID, "record %s: too long", type);
    return store_append_locked(s, s->keys, type, id, (const char *)data->data, err);
}

static enum dr_rc record_pin(struct store *s, const char *id, const struct store_pin *pin,
                             struct dr_err *err)
{
    char until[DR_TIME_TEXT];
    struct dr_buf data;
    dr_buf_init(&data, DATA_MAX);
    dr_buf_str(&data, "{\"actor\":");
    dr_buf_json(&data, pin->actor, strlen(pin->actor));
    dr_buf_str(&data, ",\"reason\":");
    dr_buf_json(&data, pin->reason, strlen(pin->reason));
    if (pin->until_ms) {
        dr_format_time(pin->until_ms, until);
        dr_buf_printf(&data, ",\"until\":\"%s\"", until);
    }
    dr_buf_str(&data, "}");
    enum dr_rc rc = append(s, "pinned", id, &data, err);
    dr_buf_fini(&data);
    return rc;
}

enum dr_rc store_set_pin(struct store *s, const char *backup_id, const struct store_pin *pin,
                         bool *done, struct dr_err *err)
{
    struct store_entry e;
    struct store_pin was;
    int lock = -1;
    *done = false;
    enum dr_rc rc = store_lock_catalog(s, &lock, err);
    if (!rc)
        rc = find_live(s, backup_id, &e, &was, err);
    if (!rc && e.tombstoned_at_ms)
        rc = dr_fail(err, DR_E_REFUSED,
                     "backup %s is given up: `drworker backups --undelete %s` first", backup_id,
                     backup_id);
    if (!rc &&
        !(e.pinned && strcmp(was.reason, pin->reason) == 0 && was.until_ms == pin->until_ms) &&
        !(rc = record_pin(s, backup_id, pin, err)))
        *done = true;
    lock_drop(&lock);
    return rc;
}

enum dr_rc store_unpin(struct store *s, const char *backup_id, const char *actor, bool *done,
                       struct dr_err *err)
{
    struct store_entry e;
    struct store_pin was;
    struct dr_buf data;
    int lock = -1;
    *done = false;
    enum dr_rc rc = store_lock_catalog(s, &lock, err);
    if (!rc)
        rc = find_live(s, backup_id, &e, &was, err);
    if (!rc && e.pinned) {
        actor_json(&data, actor);
        rc = append(s, "unpinned", backup_id, &data, err);
        dr_buf_fini(&data);
        *done = !rc;
    }
    lock_drop(&lock);
    return rc;
}

bool store_pin_of(struct store *s, const char *backup_id, struct store_pin *out)
{
    (void)pthread_mutex_lock(&s->mutex);
    const struct store_item *it = store_find(s, backup_id);
    bool pinned = it && !it->purged && store_is_pinned(it, dr_wall_ms());
    if (pinned)
        *out = *it->pin;
    (void)pthread_mutex_unlock(&s->mutex);
    return pinned;
}

enum dr_rc store_acknowledge(struct store *s, const char *backup_id, const char *actor, bool *done,
                             struct dr_err *err)
{
    struct store_entry e;
    struct store_pin pin;
    struct dr_buf data;
    int lock = -1;
    *done = false;
    enum dr_rc rc = store_lock_catalog(s, &lock, err);
    if (!rc)
        rc = find_live(s, backup_id, &e, &pin, err);
    if (!rc && !e.acknowledged) {
        actor_json(&data, actor);
        rc = append(s, "acknowledged", backup_id, &data, err);
        dr_buf_fini(&data);
        *done = !rc;
    }
    lock_drop(&lock);
    return rc;
}

/* A record is one line: blanks stand for the ends of lines. */
static void swap_ends(char *text, char from, char to)
{
    for (; *text; text++)
        if (*text == from)
            *text = to;
}

enum dr_rc store_last_policy(struct store *s, char out[STORE_POLICY_MAX], struct dr_err *err)
{
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    (void)snprintf(out, STORE_POLICY_MAX, "%s", s->policy);
    (void)pthread_mutex_unlock(&s->mutex);
    swap_ends(out, ' ', '\n');
    return rc;
}

enum dr_rc store_note_policy(struct store *s, const char *policy, const char *plan,
                             struct dr_err *err)
{
    char text[STORE_POLICY_MAX];
    struct dr_buf data;
    if (strlen(policy) >= sizeof text)
        return dr_fail(err, DR_E_BUG, "the policy's text is too long");
    (void)snprintf(text, sizeof text, "%s", policy);
    swap_ends(text, '\n', ' ');
    dr_buf_init(&data, DATA_MAX);
    dr_buf_printf(&data, "{\"plan\":\"%s\",\"policy\":", plan);
    dr_buf_json(&data, text, strlen(text));
    dr_buf_str(&data, "}");
    enum dr_rc rc = data.failed ? dr_fail(err, DR_E_BUG, "record policy: too long")
                                : store_append(s, "policy", "", (const char *)data.data, err);
    dr_buf_fini(&data);
    return rc;
}

void store_bases(struct store *s, const char *backup_id, char (**out)[64], unsigned *count)
{
    *out = NULL;
    *count = 0;
    (void)pthread_mutex_lock(&s->mutex);
    const struct store_item *it = store_find(s, backup_id);
    if (it && it->base_count) {
        *out = dr_xarray(it->base_count, sizeof **out);
        memcpy(*out, it->bases, it->base_count * sizeof **out);
        *count = it->base_count;
    }
    (void)pthread_mutex_unlock(&s->mutex);
}
