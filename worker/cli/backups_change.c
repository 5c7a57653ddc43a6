/* drworker backups --pin ID --reason TEXT [--until TIME], --unpin ID, --give-up ID --reason TEXT,
 * --undelete ID, --acknowledge ID: what a person decides about one backup. May be repeated. */
#include "worker/cli/backups.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/str.h"
#include "common/who.h"
#include "worker/backup/store.h"
#include "worker/backup/trash.h"
#include "worker/cli/args.h"
#include "worker/recovery/held.h"

struct change {
    const char *id, *reason, *until;
    struct store_pin pin;
    char actor[DR_WHO_MAX];
    struct store *store;
    bool done;
};

static enum dr_rc set_pin(struct change *x, struct dr_err *err)
{
    return store_set_pin(x->store, x->id, &x->pin, &x->done, err);
}

static enum dr_rc unpin(struct change *x, struct dr_err *err)
{
    return store_unpin(x->store, x->id, x->actor, &x->done, err);
}

static enum dr_rc not_held(void *arg, const char *backup_id, struct dr_err *err)
{
    const struct change *x = arg;
    struct held held;
    if (held_read(store_dirfd(x->store), &held, err))
        return err->rc;
    bool needed = held_names(&held, backup_id);
    held_free(&held);
    return needed ? dr_fail(err, DR_E_REFUSED, "an open recovery needs backup %s", backup_id)
                  : DR_OK;
}

static enum dr_rc give_up(struct change *x, struct dr_err *err)
{
    const struct trash_grounds why = {
        .actor = x->actor, .reason = x->pin.reason, .still = not_held, .arg = x};
    return store_tombstone(x->store, x->id, &why, &x->done, err);
}

static enum dr_rc undelete(struct change *x, struct dr_err *err)
{
    return store_undelete(x->store, x->id, x->actor, &x->done, err);
}

static enum dr_rc acknowledge(struct change *x, struct dr_err *err)
{
    return store_acknowledge(x->store, x->id, x->actor, &x->done, err);
}

static const struct kind {
    const char *option, *action, *done, *already;
    enum dr_rc (*fn)(struct change *x, struct dr_err *err);
    bool reason;
} kinds[] = {
    {"--pin", "backups --pin", "pinned: retention keeps it", "is pinned so already", set_pin, true},
    {"--unpin", "backups --unpin", "not pinned any more", "is not pinned", unpin, false},
    {"--give-up", "backups --give-up",
     "given up: --undelete brings it back until retention purges it", "is given up already",
     give_up, true},
    {"--undelete", "backups --undelete", "brought back from trash/", "is not given up", undelete,
     false},
    {"--acknowledge", "backups --acknowledge", "acknowledged: its time no longer stops retention",
     "is acknowledged already", acknowledge, false},
};

static enum dr_rc refuse(struct dr_err *err, const char *option, const char *value, const char *why)
{
    (void)dr_fail(err, DR_E_USAGE, "%s: %s", option, why);
    return dr_err_field(err, option, value, strlen(value));
}

static enum dr_rc read_reason(struct change *x, const struct kind *k, struct dr_err *err)
{
    const char *reason = x->reason;
    if (!k->reason)
        return reason ? dr_fail(err, DR_E_USAGE, "%s takes no --reason", k->option) : DR_OK;
    if (!reason)
        return dr_fail(err, DR_E_USAGE, "%s needs --reason TEXT: who comes later wants to know",
                       k->option);
    size_t len = strlen(reason);
    if (len < 1 || len >= sizeof x->pin.reason || strspn(reason, " ") == len)
        return refuse(err, "--reason", reason, "not 1..256 bytes of text");
    if (!dr_utf8_valid(reason, len))
        return refuse(err, "--reason", reason, "not UTF-8");
    for (const char *p = reason; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return refuse(err, "--reason", reason, "holds a control character");
    (void)snprintf(x->pin.reason, sizeof x->pin.reason, "%s", reason);
    return DR_OK;
}

static enum dr_rc read_until(struct change *x, const struct kind *k, struct dr_err *err)
{
    if (x->until && k->fn != set_pin)
        return dr_fail(err, DR_E_USAGE, "--until belongs to --pin");
    if (x->until && !dr_parse_time(x->until, &x->pin.until_ms))
        return refuse(err, "--until", x->until, "not a time as 2026-01-02T03:04:05Z");
    if (x->until && x->pin.until_ms <= dr_wall_ms())
        return refuse(err, "--until", x->until, "that time is over");
    (void)snprintf(x->pin.actor, sizeof x->pin.actor, "%s", x->actor);
    return DR_OK;
}

static enum dr_rc change(struct change *x, const struct kind *k, const char *config_file,
                         struct dr_err *err)
{
    struct dr_config *config = NULL;
    dr_who(x->actor);
    if (!names_is_backup_id(x->id))
        return refuse(err, k->option, x->id, "not the id of a backup (`drworker backups`)");
    if (read_reason(x, k, err) || read_until(x, k, err))
        return err->rc;
    enum dr_rc rc = dr_config_load(config_file, &config, err);
    if (!rc)
        rc = store_open(config, STORE_READ, &x->store, err);
    if (!rc)
        rc = k->fn(x, err);
    if (!rc && x->done)
        cli_changed(x->store, k->action, x->id, x->pin.reason);
    store_close(x->store);
    dr_config_free(config);
    return rc;
}

bool backups_change(struct cli *c, int *code)
{
    struct change x = {0};
    struct dr_err err = {0};
    const struct kind *chosen = NULL;
    unsigned found = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *id = args_option(c, kinds[i].option);
        if (!id)
            continue;
        found++;
        chosen = &kinds[i];
        x.id = id;
    }
    if (!chosen)
        return false;
    x.reason = args_option(c, "--reason");
    x.until = args_option(c, "--until");
    *code = 2;
    if (!args_only(c, "backups", 0))
        return true;
    if (found > 1)
        (void)dr_fail(&err, DR_E_USAGE, "backups: one change at a time");
    else
        (void)change(&x, chosen, c->config_file, &err);
    if (err.rc)
        *code = cli_fail(&err);
    else if (c->json)
        *code =
            printf("{\"backup_id\":\"%s\",\"changed\":%s}\n", x.id, x.done ? "true" : "false") < 0;
    else
        *code = x.done ? printf("%s: %s\n", x.id, chosen->done) < 0
                       : printf("%s %s\n", x.id, chosen->already) < 0;
    return true;
}
