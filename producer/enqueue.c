/* Commands that enqueue: arguments are checked against fields.def before anything is sent. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/embedded.h"
#include "common/str.h"
#include "common/wire/json.h"
#include "common/wire/scan.h"
#include "producer/cmd.h"

extern const struct dr_embedded producer_scripts[];

enum { DAY_MS = 86400000, RECORD_DAYS = 14, LATEST_DAYS = 366 };

/* command = lane; the word behind it is this argument; options that become arguments. */
static const struct {
    const char *lane, *word, *options;
} shapes[] = {
    {"backup", "kind", "class"},
    {"verify", "backup_id", "all"},
    {"execute", "procedure_id", "backup before dry-run no-swap keep-newer reason"},
    {"test-recovery", "procedure_id", "level backup before"},
    {"retention", NULL, "dry-run plan"},
    {"sync", NULL, "dry-run backup"},
    {"health", NULL, ""},
    {"log-cleanup", NULL, "older-than"},
    {"noop", NULL, "sleep"},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

struct order {
    const char *lane;
    struct dr_buf args;
    size_t pairs;
    char id[DR_JOB_ID_MAX + 1];
    int64_t nbf_ms, exp_ms; /* 0: left out */
};

bool cmd_is_enqueue(const char *name)
{
    for (int i = 0; i < SHAPES; i++)
        if (strcmp(shapes[i].lane, name) == 0)
            return true;
    return strcmp(name, "enqueue") == 0;
}

static enum dr_rc put(struct order *o, const char *name, const char *value, struct dr_err *err)
{
    o->pairs++;
    return dr_args_pack_text(o->lane, name, value, &o->args, err);
}

/* --dry-run -> dry_run; a few have other names. */
static void field_of(const char *option, char out[64])
{
    static const char *const other[][2] = {
        {"backup", "backup_id"}, {"older-than", "older_than_days"}, {"sleep", "sleep_ms"}};
    (void)snprintf(out, 64, "%s", option);
    for (char *p = out; *p; p++)
        if (*p == '-')
            *p = '_';
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
        if (strcmp(option, other[i][0]) == 0)
            (void)snprintf(out, 64, "%s", other[i][1]);
}

/* Options of every order, which are no arguments. */
static bool of_sending(const char *option)
{
    static const char *const names[] = {"id", "in", "wait", "timeout"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(option, names[i]) == 0)
            return true;
    return false;
}

static enum dr_rc shaped(struct cmd *c, struct order *o, int shape, struct dr_err *err)
{
    char allowed[256], field[64];
    (void)snprintf(allowed, sizeof allowed, "id in wait timeout %s", shapes[shape].options);
    if (cmd_only(c, allowed, err))
        return err->rc;
    if (c->argc > (shapes[shape].word ? 1 : 0))
        return dr_fail(err, DR_E_USAGE, "%s: one word too many: %s", c->name, c->argv[c->argc - 1]);
    if (c->argc == 1 && put(o, shapes[shape].word, c->argv[0], err))
        return err->rc;
    for (int i = 0; i < c->options; i++) {
        const char *name = c->option[i][0];
        if (of_sending(name))
            continue;
        field_of(name, field);
        if (put(o, field, c->option[i][1], err))
            return err->rc;
    }
    return DR_OK;
}

static enum dr_rc free_form(struct cmd *c, struct order *o, struct dr_err *err)
{
    const char *json = cmd_option(c, "args-json");
    if (cmd_only(c, "id in wait timeout unique args-json", err))
        return err->rc;
    if (cmd_option(c, "unique"))
        return dr_fail(err, DR_E_REFUSED, "--unique: not yet");
    for (int i = 1; i < c->argc; i++) {
        char name[64];
        const char *eq = strchr(c->argv[i], '=');
        size_t len = eq ? (size_t)(eq - c->argv[i]) : 0;
        if (!eq || len >= sizeof name)
            return dr_fail(err, DR_E_USAGE, "enqueue: '%s' is not KEY=VALUE", c->argv[i]);
        memcpy(name, c->argv[i], len);
        name[len] = 0;
        if (put(o, name, eq + 1, err))
            return err->rc;
    }
    size_t pairs = 0;
    if (json && dr_json_pairs(json, strlen(json), &o->args, &pairs, err))
        return dr_wrap(err, "--args-json");
    o->pairs += pairs;
    return DR_OK;
}

static enum dr_rc read_order(struct cmd *c, struct order *o, struct dr_err *err)
{
    const char *id = cmd_option(c, "id"), *in = cmd_option(c, "in");
    uint64_t ms = 0;
    bool free_shape = strcmp(c->name, "enqueue") == 0;
    o->lane = free_shape ? (c->argc ? c->argv[0] : "") : c->name;
    if (!dr_lane_find(o->lane, strlen(o->lane)))
        return dr_fail(err, DR_E_USAGE, "no such lane: '%s'", o->lane);
    if (free_shape && free_form(c, o, err))
        return err->rc;
    for (int i = 0; i < SHAPES && !free_shape; i++)
        if (strcmp(shapes[i].lane, c->name) == 0 && shaped(c, o, i, err))
            return err->rc;
    if (dr_args_check(o->lane, o->args.data, o->args.len, o->pairs, err))
        return err->rc;
    if (id && !dr_job_id_valid(id, strlen(id))) {
        (void)dr_fail(err, DR_E_USAGE, "--id: not [A-Za-z0-9][A-Za-z0-9._:-]{0,63}");
        return dr_err_field(err, "id", id, strlen(id));
    }
    if (in && (!dr_parse_duration_ms(in, &ms) || ms > (uint64_t)LATEST_DAYS * DAY_MS))
        return dr_fail(err, DR_E_USAGE, "--in: not a duration up to %dd: %s", LATEST_DAYS, in);
    if (in) { /* a day to start in from then on, not from now */
        o->nbf_ms = dr_wall_ms() + (int64_t)ms;
        o->exp_ms = o->nbf_ms + DAY_MS;
    }
    if (id) {
        (void)snprintf(o->id, sizeof o->id, "%s", id);
    } else { /* UUIDv7: sorts by time */
        unsigned char u[16];
        char hex[33];
        dr_random_bytes(u, sizeof u);
        dr_put_u32be(u, (uint32_t)((uint64_t)dr_wall_ms() >> 16));
        dr_put_u16be(u + 4, (uint16_t)dr_wall_ms());
        u[6] = (unsigned char)((u[6] & 0x0f) | 0x70);
        u[8] = (unsigned char)((u[8] & 0x3f) | 0x80);
        dr_hex(u, 16, hex);
        (void)snprintf(o->id, sizeof o->id, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12,
                       hex + 16, hex + 20);
    }
    return DR_OK;
}

static enum dr_rc send_order(struct cmd *c, const struct order *o, const struct dr_buf *raw,
                             const char *dig, struct dr_err *err)
{
    char q[DR_KEY_MAX], job[DR_KEY_MAX], ev[DR_KEY_MAX], ttl[24];
    const char *text = NULL;
    redisReply *r = NULL;
    for (const struct dr_embedded *e = producer_scripts; e->name; e++)
        if (strcmp(e->name, "enqueue") == 0)
            text = e->text;
    int64_t wait_ms = o->exp_ms ? o->exp_ms - dr_wall_ms() : 0;
    (void)snprintf(ttl, sizeof ttl, "%lld", (long long)RECORD_DAYS * DAY_MS + wait_ms);
    const char *argv[] = {"EVAL",
                          text,
                          "3",
                          dr_key(&c->keys, q, "q:", o->lane),
                          dr_key(&c->keys, job, "job:", o->id),
                          dr_key(&c->keys, ev, "ev", ""),
                          (const char *)raw->data,
                          o->id,
                          o->lane,
                          dig,
                          ttl};
    size_t len[11];
    for (int i = 0; i < 11; i++)
        len[i] = i == 6 ? raw->len : strlen(argv[i]);
    if (link_call(c->link, 5000, &r, err, 11, argv, len))
        return err->rc;
    bool collision = r->elements > 0 && strcmp(r->element[0]->str, "COLLISION") == 0;
    freeReplyObject(r);
    if (collision) {
        (void)dr_fail(err, DR_E_EXISTS, "another job has this id");
        return dr_err_field(err, "id", o->id, strlen(o->id));
    }
    return DR_OK;
}

int cmd_enqueue(struct cmd *c)
{
    struct order o = {0};
    struct dr_buf raw;
    struct dr_err err = {0};
    char dig[DR_DIG_TEXT];
    int code = 0;
    dr_buf_init(&o.args, DR_WIRE_RAW_MAX);
    dr_buf_init(&raw, DR_WIRE_RAW_MAX);
    if (read_order(c, &o, &err)) {
        bool ours = err.rc == DR_E_INVALID || err.rc == DR_E_MALFORMED; /* words of this call */
        code = ours ? 2 : dr_rc_exit(err.rc);
        (void)cmd_fail(&err);
        goto out;
    }
    const struct dr_envelope_spec spec = {.ns = c->keys.ns,
                                          .lane = o.lane,
                                          .id = o.id,
                                          .iat_ms = dr_wall_ms(),
                                          .nbf_ms = o.nbf_ms,
                                          .exp_ms = o.exp_ms,
                                          .args = o.args.data,
                                          .args_len = o.args.len,
                                          .args_pairs = o.pairs,
                                          .key = c->signer};
    if (dr_envelope_build(&spec, &raw, dig, &err) || send_order(c, &o, &raw, dig, &err)) {
        code = cmd_fail(&err);
        goto out;
    }
    if (c->json)
        (void)printf("{\"job\":\"%s\",\"lane\":\"%s\"}\n", o.id, o.lane);
    else
        (void)printf("%s\n", o.id);
    (void)fflush(stdout);
    if (c->wait)
        code = cmd_watch_job(c, o.id);
out:
    dr_buf_fini(&o.args);
    dr_buf_fini(&raw);
    return code;
}
