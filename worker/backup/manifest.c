/* The manifest as a struct, and writing it. */
#include "worker/backup/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/keyring.h"
#include "worker/backup/manifest_internal.h"

static const char *const roles[] = {"database", "globals", "files", "config", "index"};
static const char *const classes[] = {"scheduled", "manual", "emergency", "critical"};

static bool among(const char *s, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(s, list[i]) == 0)
            return true;
    return false;
}

bool manifest_is_role(const char *s)
{
    return among(s, roles, sizeof roles / sizeof roles[0]);
}

bool manifest_is_class(const char *s)
{
    return among(s, classes, sizeof classes / sizeof classes[0]);
}

struct manifest *manifest_new(void)
{
    return dr_xalloc(sizeof(struct manifest));
}

static void pairs_free(struct manifest_pair *p, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        free(p[i].name);
        free(p[i].value);
    }
    free(p);
}

void manifest_free(struct manifest *m)
{
    if (!m)
        return;
    pairs_free(m->tools, m->tool_count);
    pairs_free(m->server, m->server_count);
    free(m->containers);
    free(m);
}

static void pair_add(struct manifest_pair **list, unsigned *count, const char *name,
                     const char *value)
{
    if (*count >= MANIFEST_PAIRS_MAX)
        return;
    *list = dr_xrealloc(*list, (*count + 1) * sizeof **list);
    (*list)[(*count)++] = (struct manifest_pair){dr_xstrdup(name), dr_xstrdup(value)};
}

void manifest_tool(struct manifest *m, const char *name, const char *value)
{
    pair_add(&m->tools, &m->tool_count, name, value);
}

void manifest_server(struct manifest *m, const char *name, const char *value)
{
    pair_add(&m->server, &m->server_count, name, value);
}

const struct manifest_object *manifest_object(const struct manifest *m, const char *role)
{
    for (unsigned i = 0; i < m->object_count; i++)
        if (strcmp(m->objects[i].role, role) == 0)
            return &m->objects[i];
    return NULL;
}

enum dr_rc manifest_add_object(struct manifest *m, const char *role, uint64_t plain_bytes,
                               uint64_t stored_bytes, const unsigned char root[32],
                               const unsigned char sha256_payload[32], struct dr_err *err)
{
    if (!manifest_is_role(role) || manifest_object(m, role) || manifest_object(m, "index"))
        return dr_fail(err, DR_E_INVALID, "manifest: no place for an object %s", role);
    struct manifest_object *o = &m->objects[m->object_count++];
    (void)snprintf(o->role, sizeof o->role, "%s", role);
    (void)snprintf(o->name, sizeof o->name, "%s.drb", role);
    o->plain_bytes = plain_bytes;
    o->stored_bytes = stored_bytes;
    memcpy(o->root, root, sizeof o->root);
    memcpy(o->sha256_payload, sha256_payload, sizeof o->sha256_payload);
    if (strcmp(role, "index") == 0)
        return DR_OK;
    m->containers = dr_xrealloc(m->containers, (m->container_count + 1) * sizeof *m->containers);
    struct manifest_container *c = &m->containers[m->container_count++];
    memset(c, 0, sizeof *c);
    memcpy(c->backup_id, m->backup_id, sizeof c->backup_id);
    memcpy(c->name, o->name, sizeof c->name);
    memcpy(c->sha256_payload, sha256_payload, sizeof c->sha256_payload);
    return DR_OK;
}

/* Text from outside (a tool's banner, a database name): control characters become spaces, bytes
 * that are no UTF-8 question marks. */
static json_t *text(const char *s)
{
    char *copy = dr_xstrdup(s);
    size_t len = strlen(copy);
    for (size_t i = 0; i < len;) {
        size_t n = dr_utf8_len((const unsigned char *)copy + i, len - i);
        if (n == 0)
            copy[i] = '?';
        else if ((unsigned char)copy[i] < 0x20)
            copy[i] = ' ';
        i += n ? n : 1;
    }
    json_t *v = json_string(copy);
    free(copy);
    return v;
}

static json_t *hex(const unsigned char *bytes, size_t len)
{
    char out[65];
    dr_hex(bytes, len, out);
    return json_string(out);
}

static json_t *when(int64_t ms)
{
    char out[DR_TIME_TEXT];
    dr_format_time(ms, out);
    return json_string(out);
}

static json_t *number(uint64_t v)
{
    return json_integer((json_int_t)v);
}

static json_t *pairs(const struct manifest_pair *p, unsigned count)
{
    json_t *v = json_object();
    for (unsigned i = 0; i < count; i++)
        (void)json_object_set_new(v, p[i].name, text(p[i].value));
    return v;
}

static json_t *objects(const struct manifest *m)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < m->object_count; i++) {
        const struct manifest_object *o = &m->objects[i];
        json_t *v = json_object();
        (void)json_object_set_new(v, "name", json_string(o->name));
        (void)json_object_set_new(v, "role", json_string(o->role));
        (void)json_object_set_new(v, "index", number(i));
        (void)json_object_set_new(v, "plain_bytes", number(o->plain_bytes));
        (void)json_object_set_new(v, "stored_bytes", number(o->stored_bytes));
        (void)json_object_set_new(v, "root", hex(o->root, 32));
        (void)json_object_set_new(v, "sha256_payload", hex(o->sha256_payload, 32));
        (void)json_object_set_new(v, "key_generation", number(m->key_generation));
        (void)json_array_append_new(list, v);
    }
    return list;
}

static json_t *containers(const struct manifest *m)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < m->container_count; i++) {
        json_t *v = json_object();
        (void)json_object_set_new(v, "backup_id", json_string(m->containers[i].backup_id));
        (void)json_object_set_new(v, "name", json_string(m->containers[i].name));
        (void)json_object_set_new(v, "sha256_payload", hex(m->containers[i].sha256_payload, 32));
        (void)json_array_append_new(list, v);
    }
    return list;
}

static json_t *document(const struct manifest *m)
{
    json_t *v = json_object();
    (void)json_object_set_new(v, "v", number(1));
    (void)json_object_set_new(v, "backup_id", json_string(m->backup_id));
    (void)json_object_set_new(v, "job_id", json_string(m->job_id));
    (void)json_object_set_new(v, "series", json_string(m->series));
    (void)json_object_set_new(v, "seq", number(m->seq));
    (void)json_object_set_new(v, "class", json_string(m->class));
    (void)json_object_set_new(v, "kind", json_string(m->kind));
    (void)json_object_set_new(v, "t_start", when(m->t_start_ms));
    (void)json_object_set_new(v, "t_point", when(m->t_point_ms));
    (void)json_object_set_new(v, "t_end", when(m->t_end_ms));
    (void)json_object_set_new(v, "tools", pairs(m->tools, m->tool_count));
    (void)json_object_set_new(v, "server", pairs(m->server, m->server_count));
    (void)json_object_set_new(v, "objects", objects(m));
    (void)json_object_set_new(v, "containers", containers(m));
    (void)json_object_set_new(v, "prev_sha256", hex(m->prev_sha256, 32));
    return v;
}

enum dr_rc manifest_write(const struct manifest *m, const struct keyring *keys, struct dr_buf *json,
                          unsigned char sig[MANIFEST_SIG_LEN], struct dr_err *err)
{
    struct manifest *again = NULL;
    json_t *v = document(m);
    char *dump = json_dumps(v, JSON_INDENT(1));
    enum dr_rc rc = DR_OK;
    json_decref(v);
    if (!dump)
        return dr_fail(err, DR_E_INVALID, "manifest of %s: not to be written as JSON",
                       m->backup_id);
    dr_buf_reset(json);
    dr_buf_str(json, dump);
    dr_buf_str(json, "\n");
    free(dump);
    if (json->failed)
        return dr_fail(err, DR_E_TOO_BIG, "manifest of %s: over %d bytes", m->backup_id,
                       MANIFEST_BYTES_MAX);
    /* What no reader would take must not become a backup. */
    rc = manifest_parse(json->data, json->len, m->backup_id, &again, err);
    manifest_free(again);
    if (!rc)
        rc = keyring_sign(keys, KEYRING_MANIFEST, m->key_generation, json->data, json->len, sig,
                          err);
    return rc;
}
