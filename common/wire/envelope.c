/* The checks of an envelope, in the order of the protocol. */
#include "common/wire/envelope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <msgpack.h>

#include "common/mem.h"
#include "common/wire/body.h"
#include "common/wire/scan.h"

struct check {
    const struct dr_envelope_ctx *ctx;
    msgpack_unpacked outer, inner;
    const msgpack_object_map *body;
    const void *body_bytes;
    size_t body_len;
    char kid[DR_KID_MAX + 1];
    const unsigned char *mac;
    bool is_signed;
    struct dr_refusal *refusal;
    struct dr_err *err;
};

static enum dr_rc refuse(struct check *c, enum dr_rc rc, const char *reason, const char *kind,
                         const char *field, const char *value)
{
    c->refusal->reason = reason;
    (void)dr_fail(c->err, rc, "message refused: %s (%s%s%s)", reason, kind, field ? " " : "",
                  field ? field : "");
    (void)dr_err_reason(c->err, kind);
    if (field)
        (void)dr_err_field(c->err, field, value ? value : "", value ? strlen(value) : 0);
    return rc;
}

/* A failure of the pre-scan or of a field: the kind already stands in err. */
static enum dr_rc refuse_as(struct check *c, const char *reason)
{
    c->refusal->reason = reason;
    return c->err->rc;
}

static enum dr_rc unpack(struct check *c, const void *raw, size_t len, msgpack_unpacked *u)
{
    size_t used = 0;
    if (dr_wire_scan(raw, len, c->err))
        return refuse_as(c, c->err->rc == DR_E_TOO_BIG ? "too-big" : "malformed");
    if (msgpack_unpack_next(u, raw, len, &used) != MSGPACK_UNPACK_SUCCESS || used != len)
        return refuse(c, DR_E_MALFORMED, "malformed", "type", NULL, NULL);
    return DR_OK;
}

static enum dr_rc open_signed(struct check *c, const msgpack_object_map *m)
{
    const msgpack_object *v = dr_body_get(m, "v"), *kid = dr_body_get(m, "kid"),
                         *b = dr_body_get(m, "b"), *mac = dr_body_get(m, "mac");
    if (v->type != MSGPACK_OBJECT_POSITIVE_INTEGER || v->via.u64 != 1)
        return refuse(c, DR_E_MALFORMED, "malformed", "version", "v", "");
    if (m->size != 4 || !kid || !b || !mac)
        return refuse(c, DR_E_MALFORMED, "malformed", "envelope-keys", NULL, NULL);
    if (kid->type != MSGPACK_OBJECT_STR || kid->via.str.size > DR_KID_MAX ||
        b->type != MSGPACK_OBJECT_BIN || mac->type != MSGPACK_OBJECT_BIN ||
        mac->via.bin.size != DR_MAC_BYTES)
        return refuse(c, DR_E_MALFORMED, "malformed", "envelope-types", NULL, NULL);
    c->is_signed = true;
    memcpy(c->kid, kid->via.str.ptr, kid->via.str.size);
    c->mac = (const unsigned char *)mac->via.bin.ptr;
    c->body_bytes = b->via.bin.ptr;
    c->body_len = b->via.bin.size;
    if (unpack(c, c->body_bytes, c->body_len, &c->inner))
        return c->err->rc;
    c->body = &c->inner.data.via.map;
    return DR_OK;
}

static enum dr_rc check_lane(struct check *c)
{
    const msgpack_object *t = dr_body_get(c->body, "t");
    const char *lane = c->ctx->lane;
    char shown[64];
    if (!t)
        return refuse(c, DR_E_INVALID, "bad-field", "required", "t", "");
    if (t->type != MSGPACK_OBJECT_STR)
        return refuse(c, DR_E_INVALID, "bad-field", "type", "t", "");
    if (t->via.str.size == strlen(lane) && memcmp(t->via.str.ptr, lane, strlen(lane)) == 0)
        return DR_OK;
    (void)snprintf(shown, sizeof shown, "%.*s", (int)(t->via.str.size > 60 ? 60 : t->via.str.size),
                   t->via.str.ptr);
    c->refusal->record = false;
    return refuse(c, DR_E_INVALID, "wrong-lane", "lane", "t", shown);
}

static bool reserved_id(const struct check *c)
{
    const msgpack_object *id = dr_body_get(c->body, "id");
    return id && id->type == MSGPACK_OBJECT_STR && id->via.str.size >= 6 &&
           memcmp(id->via.str.ptr, "sched:", 6) == 0;
}

static bool harmless(const struct check *c)
{
    const msgpack_object *a = dr_body_get(c->body, "a"), *o;
    if (!a || a->type != MSGPACK_OBJECT_MAP)
        return false;
    if (strcmp(c->ctx->lane, "retention") == 0) {
        o = dr_body_get(&a->via.map, "dry_run");
        return o && o->type == MSGPACK_OBJECT_BOOLEAN && o->via.boolean;
    }
    if (strcmp(c->ctx->lane, "test-recovery") == 0) {
        o = dr_body_get(&a->via.map, "level");
        return !o || o->type != MSGPACK_OBJECT_STR || o->via.str.size != 8 ||
               memcmp(o->via.str.ptr, "exercise", 8) != 0;
    }
    return false;
}

static enum dr_rc no_auth(struct check *c, const char *kind, const char *field)
{
    c->refusal->record = false;
    return refuse(c, DR_E_AUTH, "auth", kind, field, field && *field == 'k' ? c->kid : NULL);
}

/* kid "": a bare message. */
static void name_actor(char actor[DR_ACTOR_MAX + 1], const char *kid, const char *claimed)
{
    if (kid[0])
        (void)snprintf(actor, DR_ACTOR_MAX + 1, "%s/%s", kid, claimed);
    else
        (void)snprintf(actor, DR_ACTOR_MAX + 1, "unsigned");
}

static enum dr_rc check_signature(struct check *c, const struct dr_lane *lane)
{
    bool sched = strcmp(c->kid, "sched") == 0;
    const struct dr_key_entry *entry = sched ? NULL : dr_keyfile_find(c->ctx->keys, c->kid);
    const struct dr_secret *key = sched ? c->ctx->sched_key : entry ? &entry->key : NULL;
    unsigned char mac[DR_MAC_BYTES];
    if (!key)
        return no_auth(c, "unknown-kid", "kid");
    if (dr_envelope_mac(key, c->ctx->ns, c->ctx->lane, c->body_bytes, c->body_len, mac, c->err))
        return refuse_as(c, "auth");
    if (!dr_mac_equal(mac, c->mac))
        return no_auth(c, "bad-mac", "mac");
    (void)snprintf(c->refusal->kid, sizeof c->refusal->kid, "%s", c->kid);
    name_actor(c->refusal->actor, c->kid, c->refusal->claimed_actor);
    if (entry && c->ctx->now_ms > entry->not_after_ms)
        return no_auth(c, "key-expired", "kid");
    bool allowed = sched ? strcmp(lane->name, "execute") != 0 &&
                               strcmp(lane->name, "configure") != 0 && reserved_id(c)
                         : (entry->lanes & (1u << dr_lane_index(lane))) &&
                               dr_lane_role_may(lane, entry->role, harmless(c));
    return allowed ? DR_OK : no_auth(c, "not-allowed", "kid");
}

static enum dr_rc check_auth(struct check *c, const struct dr_lane *lane)
{
    if (reserved_id(c) && (!c->is_signed || strcmp(c->kid, "sched") != 0)) {
        c->refusal->record = false;
        return refuse(c, DR_E_AUTH, "reserved-id", "kid", "id", "sched:");
    }
    if (c->is_signed)
        return check_signature(c, lane);
    if (!dr_lane_wants_signature(lane, harmless(c)))
        return DR_OK;
    if (strcmp(lane->name, "configure") == 0 || c->ctx->keys || !c->ctx->allow_unsigned)
        return no_auth(c, "unsigned", NULL);
    return DR_OK;
}

static enum dr_rc read_body(struct check *c, struct dr_envelope *e)
{
    if (dr_body_read(c->body, c->is_signed, e, c->err))
        return refuse_as(c, "bad-field");
    if (c->is_signed && !c->ctx->accepted && e->iat_ms > c->ctx->now_ms + 300000)
        return refuse(c, DR_E_INVALID, "bad-field", "future", "iat", "");
    if (dr_args_read(e->lane->name, dr_body_get(c->body, "a"), &e->args, c->err))
        return refuse_as(c, "bad-field");
    (void)snprintf(e->kid, sizeof e->kid, "%s", c->kid);
    const char *claimed = dr_args_str(e->args, "actor");
    (void)snprintf(e->claimed_actor, sizeof e->claimed_actor, "%s", claimed ? claimed : "");
    name_actor(e->actor, c->kid, e->claimed_actor);
    if (!e->exp_ms && e->iat_ms)
        e->exp_ms = e->iat_ms + 86400000;
    return DR_OK;
}

static void remember_id(struct check *c)
{
    const msgpack_object *id = dr_body_get(c->body, "id");
    dr_envelope_dig(c->body_bytes, c->body_len, c->refusal->dig);
    if (id && id->type == MSGPACK_OBJECT_STR && dr_job_id_valid(id->via.str.ptr, id->via.str.size))
        memcpy(c->refusal->id, id->via.str.ptr, id->via.str.size);
}

/* Not the arguments as they are read: these may be what is wrong. */
static void remember_claim(struct check *c)
{
    const msgpack_object *a = dr_body_get(c->body, "a"), *o = NULL;
    char *out = c->refusal->claimed_actor;
    if (a && a->type == MSGPACK_OBJECT_MAP)
        o = dr_body_get(&a->via.map, "actor");
    if (o && o->type == MSGPACK_OBJECT_STR && o->via.str.size < sizeof c->refusal->claimed_actor)
        memcpy(out, o->via.str.ptr, o->via.str.size);
    if (!c->is_signed)
        name_actor(c->refusal->actor, "", out);
}

static enum dr_rc run_checks(struct check *c, const void *raw, size_t len, struct dr_envelope *e)
{
    if (unpack(c, raw, len, &c->outer))
        return c->err->rc;
    c->body = &c->outer.data.via.map;
    c->body_bytes = raw;
    c->body_len = len;
    if (dr_body_get(c->body, "v") && open_signed(c, c->body))
        return c->err->rc;
    c->refusal->record = true;
    remember_id(c);
    remember_claim(c);
    memcpy(e->dig, c->refusal->dig, sizeof e->dig);
    if (check_lane(c) || (!c->ctx->accepted && check_auth(c, e->lane)))
        return c->err->rc;
    return read_body(c, e);
}

enum dr_rc dr_envelope_check(const struct dr_envelope_ctx *ctx, const void *raw, size_t len,
                             struct dr_envelope **out, struct dr_refusal *refusal,
                             struct dr_err *err)
{
    struct check c = {.ctx = ctx, .refusal = refusal, .err = err};
    struct dr_envelope *e = dr_xalloc(sizeof *e);
    memset(refusal, 0, sizeof *refusal);
    e->lane = dr_lane_find(ctx->lane, strlen(ctx->lane));
    if (!e->lane)
        abort(); /* a worker serves no lane that it does not know */
    msgpack_unpacked_init(&c.outer);
    msgpack_unpacked_init(&c.inner);
    enum dr_rc rc = run_checks(&c, raw, len, e);
    msgpack_unpacked_destroy(&c.outer);
    msgpack_unpacked_destroy(&c.inner);
    if (rc)
        dr_envelope_free(e);
    else
        *out = e;
    return rc;
}

void dr_envelope_free(struct dr_envelope *e)
{
    if (!e)
        return;
    dr_args_free(e->args);
    free(e);
}

bool dr_envelope_expired(const struct dr_envelope *e, int64_t now_ms)
{
    return e->exp_ms && now_ms > e->exp_ms;
}

/* The body of a bare or signed message, unchecked; false: there is none. */
static bool open_any(struct check *c, const void *raw, size_t len)
{
    if (unpack(c, raw, len, &c->outer))
        return false;
    c->body = &c->outer.data.via.map;
    c->body_bytes = raw;
    c->body_len = len;
    return !dr_body_get(c->body, "v") || open_signed(c, c->body) == DR_OK;
}

bool dr_envelope_peek(const void *raw, size_t len, char id[DR_JOB_ID_MAX + 1],
                      char dig[DR_DIG_TEXT])
{
    struct dr_err err = {0};
    struct dr_refusal refusal = {0};
    struct check c = {.refusal = &refusal, .err = &err};
    id[0] = 0;
    msgpack_unpacked_init(&c.outer);
    msgpack_unpacked_init(&c.inner);
    if (open_any(&c, raw, len)) {
        remember_id(&c);
        memcpy(id, refusal.id, sizeof refusal.id);
        memcpy(dig, refusal.dig, sizeof refusal.dig);
    }
    msgpack_unpacked_destroy(&c.outer);
    msgpack_unpacked_destroy(&c.inner);
    return id[0] != 0;
}

int64_t dr_envelope_iat(const void *raw, size_t len)
{
    struct dr_err err = {0};
    struct dr_refusal refusal = {0};
    struct check c = {.refusal = &refusal, .err = &err};
    int64_t iat = 0;
    msgpack_unpacked_init(&c.outer);
    msgpack_unpacked_init(&c.inner);
    if (open_any(&c, raw, len)) {
        const msgpack_object *o = dr_body_get(c.body, "iat");
        if (o && o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= INT64_MAX)
            iat = (int64_t)o->via.u64;
    }
    msgpack_unpacked_destroy(&c.outer);
    msgpack_unpacked_destroy(&c.inner);
    return iat;
}
