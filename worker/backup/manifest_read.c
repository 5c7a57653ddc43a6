/* Reading a manifest: the signature first, then the form, strictly. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/keyring.h"
#include "worker/backup/manifest.h"
#include "worker/backup/manifest_internal.h"
#include "worker/backup/names.h"
#include "worker/backup/strict.h"

enum { GENERATION_MAX = 1 << 20 };

static enum dr_rc malformed(struct dr_err *err, const char *id, const char *what)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "manifest of %s: %s", id, what);
    return dr_err_reason(err, "manifest-form");
}

static const char *read_pairs(const json_t *root, const char *key, struct manifest *m,
                              void (*add)(struct manifest *, const char *, const char *))
{
    json_t *obj = json_object_get(root, key), *v;
    const char *name;
    if (!json_is_object(obj) || json_object_size(obj) > MANIFEST_PAIRS_MAX)
        return key;
    json_object_foreach(obj, name, v)
    {
        if (!json_is_string(v))
            return key;
        add(m, name, json_string_value(v));
    }
    return NULL;
}

static const char *read_head(const json_t *root, struct manifest *m)
{
    uint64_t v;
    if (!strict_uint(root, "v", 1, 1, &v))
        return "v: not 1";
    if (!strict_copy(root, "backup_id", m->backup_id, sizeof m->backup_id))
        return "backup_id";
    if (!strict_copy(root, "job_id", m->job_id, sizeof m->job_id))
        return "job_id";
    if (!strict_copy(root, "series", m->series, sizeof m->series))
        return "series";
    if (!strict_uint(root, "seq", 1, STRICT_INT_MAX, &m->seq))
        return "seq";
    if (!strict_copy(root, "class", m->class, sizeof m->class) || !manifest_is_class(m->class))
        return "class";
    if (!strict_copy(root, "kind", m->kind, sizeof m->kind) || !names_is_kind(m->kind))
        return "kind";
    if (!strict_time(root, "t_start", &m->t_start_ms) ||
        !strict_time(root, "t_point", &m->t_point_ms) || !strict_time(root, "t_end", &m->t_end_ms))
        return "a time";
    if (!strict_hex(root, "prev_sha256", m->prev_sha256, 32))
        return "prev_sha256";
    return NULL;
}

static const char *read_object(const json_t *v, struct manifest *m)
{
    struct manifest_object *o = &m->objects[m->object_count];
    uint64_t index, generation;
    char name[sizeof o->name];
    if (!strict_copy(v, "role", o->role, sizeof o->role) || !manifest_is_role(o->role))
        return "role of an object";
    (void)snprintf(name, sizeof name, "%s.drb", o->role);
    if (!strict_copy(v, "name", o->name, sizeof o->name) || strcmp(o->name, name) != 0)
        return "name of an object is not its role and .drb";
    if (manifest_object(m, o->role) || manifest_object(m, "index"))
        return "an object twice, or one behind the index";
    if (!strict_uint(v, "index", m->object_count, m->object_count, &index))
        return "index of an object is not its position";
    if (!strict_uint(v, "plain_bytes", 0, STRICT_INT_MAX, &o->plain_bytes) ||
        !strict_uint(v, "stored_bytes", 0, STRICT_INT_MAX, &o->stored_bytes))
        return "size of an object";
    if (!strict_hex(v, "root", o->root, 32) ||
        !strict_hex(v, "sha256_payload", o->sha256_payload, 32))
        return "hash of an object";
    if (!strict_uint(v, "key_generation", 1, GENERATION_MAX, &generation) ||
        (m->object_count > 0 && generation != m->key_generation))
        return "key_generation of an object";
    m->key_generation = (unsigned)generation;
    m->object_count++;
    return NULL;
}

static const char *read_objects(const json_t *root, struct manifest *m)
{
    json_t *list = strict_array(root, "objects", MANIFEST_OBJECTS_MAX), *v;
    const char *why;
    size_t i;
    if (!list)
        return "objects";
    json_array_foreach(list, i, v)
    {
        if ((why = read_object(v, m)))
            return why;
    }
    if (m->object_count < 2 || strcmp(m->objects[m->object_count - 1].role, "index") != 0)
        return "index.drb is not the last object";
    if (strcmp(m->kind, "full") != 0 && !manifest_object(m, m->kind))
        return "the object of its kind is missing";
    return NULL;
}

/* Own objects but the index first, in their order; then those of other backups. */
static const char *check_container(const struct manifest *m, unsigned i)
{
    const struct manifest_container *c = &m->containers[i];
    bool own = strcmp(c->backup_id, m->backup_id) == 0;
    char role[sizeof c->name];
    size_t len = strlen(c->name);
    if (i + 1 < m->object_count)
        return own && strcmp(c->name, m->objects[i].name) == 0 &&
                       memcmp(c->sha256_payload, m->objects[i].sha256_payload, 32) == 0
                   ? NULL
                   : "containers do not begin with its own objects";
    if (own || !names_is_backup_id(c->backup_id))
        return "backup_id of a container";
    if (len < 5 || strcmp(c->name + len - 4, ".drb") != 0)
        return "name of a container";
    (void)snprintf(role, sizeof role, "%.*s", (int)(len - 4), c->name);
    return manifest_is_role(role) && strcmp(role, "index") != 0 ? NULL : "name of a container";
}

static const char *read_containers(const json_t *root, struct manifest *m)
{
    json_t *list = strict_array(root, "containers", MANIFEST_CONTAINERS_MAX), *v;
    const char *why;
    size_t i;
    if (!list || json_array_size(list) + 1 < m->object_count)
        return "containers";
    m->containers = dr_xarray(json_array_size(list), sizeof *m->containers);
    json_array_foreach(list, i, v)
    {
        struct manifest_container *c = &m->containers[m->container_count++];
        if (!strict_copy(v, "backup_id", c->backup_id, sizeof c->backup_id) ||
            !strict_copy(v, "name", c->name, sizeof c->name) ||
            !strict_hex(v, "sha256_payload", c->sha256_payload, 32))
            return "a container";
        if ((why = check_container(m, (unsigned)i)))
            return why;
    }
    return NULL;
}

static const char *check_names(const struct manifest *m, const char *expect_id)
{
    char id[64];
    size_t kind = strlen(m->kind);
    names_backup_id(m->t_start_ms, m->kind, m->job_id, id);
    if (strcmp(m->backup_id, id) != 0)
        return "backup_id does not follow from time, kind and job";
    if (expect_id && strcmp(m->backup_id, expect_id) != 0)
        return "backup_id is not the folder's name";
    if (strncmp(m->series, m->kind, kind) != 0 || m->series[kind] != ':' || !m->series[kind + 1])
        return "series is not of its kind";
    return NULL;
}

enum dr_rc manifest_parse(const void *json, size_t len, const char *expect_id,
                          struct manifest **out, struct dr_err *err)
{
    const char *id = expect_id ? expect_id : "a backup", *why;
    struct manifest *m = NULL;
    char text[96];
    json_t *root = len > MANIFEST_BYTES_MAX ? NULL : strict_parse(json, len, text);
    if (!root)
        return malformed(err, id, len > MANIFEST_BYTES_MAX ? "too big" : text);
    m = manifest_new();
    if ((why = read_head(root, m)) || (why = read_pairs(root, "tools", m, manifest_tool)) ||
        (why = read_pairs(root, "server", m, manifest_server)) ||
        (why = check_names(m, expect_id)) || (why = read_objects(root, m)) ||
        (why = read_containers(root, m)))
        (void)malformed(err, id, why);
    json_decref(root);
    if (why) {
        manifest_free(m);
        return DR_E_INTEGRITY;
    }
    *out = m;
    return DR_OK;
}

enum dr_rc manifest_read(const void *json, size_t len, const void *sig, size_t sig_len,
                         const char *expect_id, const struct keyring *keys, struct manifest **out,
                         struct dr_err *err)
{
    unsigned signer = sig_len == MANIFEST_SIG_LEN
                          ? keyring_verify_any(keys, KEYRING_MANIFEST, json, len, sig)
                          : 0;
    struct manifest *m = NULL;
    if (!signer) {
        (void)dr_fail(err, DR_E_INTEGRITY, "manifest of %s: its signature does not verify",
                      expect_id ? expect_id : "a backup");
        return dr_err_reason(err, "manifest-sig");
    }
    enum dr_rc rc = manifest_parse(json, len, expect_id, &m, err);
    if (rc)
        return rc;
    if (m->key_generation != signer) {
        rc = malformed(err, m->backup_id, "signed by another generation than its objects'");
        manifest_free(m);
        return rc;
    }
    *out = m;
    return DR_OK;
}
