/* drworker keys init|list|add-recovery|change-passphrase: the slots of the store's keyring. Secrets
 * come from the environment or files, never from arguments; a recovery code is printed once. */
#include <stdio.h>
#include <string.h>

#include "worker/backup/disk.h"
#include "worker/backup/keyring.h"
#include "worker/backup/store.h"
#include "worker/cli/args.h"

#include <fcntl.h>

enum { SECRET_MAX = 1025 };

struct keys {
    struct cli args;
    struct dr_config *config;
    const char *label, *new_file;
    bool new_store;
};

static enum dr_rc print_slots(const struct keys *k, const struct store *s, struct dr_err *err)
{
    struct keyring_slot_view v;
    struct dr_buf b;
    const struct keyring *keys = store_keys(s);
    dr_buf_init(&b, 65536);
    dr_buf_printf(&b,
                  k->args.json ? "{\"store\":\"%s\",\"generation\":%u,\"retired\":%u,\"slots\":["
                               : "store %s, generation %u, removed slots %u\n",
                  store_id(s), keyring_generation(keys), keyring_retired(keys));
    for (unsigned i = 0; i < keyring_slots(keys); i++) {
        keyring_slot_view(keys, i, &v);
        if (k->args.json) {
            dr_buf_printf(&b, "%s{\"id\":\"%s\",\"kind\":\"%s\",\"label\":", i ? "," : "", v.id,
                          v.kind);
            dr_buf_json(&b, v.label, strlen(v.label));
            dr_buf_printf(&b, ",\"created\":\"%s\",\"kdf\":\"%s\",\"rounds\":%u,\"used\":%s}",
                          v.created, v.kdf, v.rounds, v.opened ? "true" : "false");
        } else {
            dr_buf_printf(&b, "%s  %-10s  %s  %s, %u rounds  %s%s\n", v.id, v.kind, v.created,
                          v.kdf, v.rounds, v.label, v.opened ? "  (opened with it)" : "");
        }
    }
    if (k->args.json)
        dr_buf_str(&b, "]}\n");
    enum dr_rc rc = fputs((const char *)b.data, stdout) >= 0 && fflush(stdout) == 0
                        ? DR_OK
                        : dr_fail(err, DR_E_IO, "standard output");
    dr_buf_fini(&b);
    return rc;
}

static enum dr_rc init(struct keys *k, struct dr_err *err)
{
    struct store *s = NULL;
    enum dr_rc rc = store_open(k->config, k->new_store ? STORE_INIT_ANEW : STORE_INIT, &s, err);
    if (!rc)
        cli_changed(s, "keys init", store_id(s), k->new_store ? "--new-store" : "");
    if (!rc)
        rc = print_slots(k, s, err);
    store_close(s);
    return rc;
}

static enum dr_rc list(struct keys *k, struct dr_err *err)
{
    struct store *s = NULL;
    enum dr_rc rc = store_open(k->config, STORE_READ, &s, err);
    if (!rc)
        rc = print_slots(k, s, err);
    store_close(s);
    return rc;
}

static enum dr_rc add_recovery(struct keys *k, struct dr_err *err)
{
    struct store *s = NULL;
    struct keyring *changed = NULL;
    struct dr_secret code = {0};
    enum dr_rc rc = store_open(k->config, STORE_READ, &s, err);
    if (!rc)
        rc = keyring_add_recovery(store_keys(s), k->label ? k->label : "paper", &code, &changed,
                                  err);
    if (!rc)
        rc = store_change_keys(s, changed, "add-recovery", err);
    if (!rc)
        cli_changed(s, "keys add-recovery", k->label ? k->label : "paper", "");
    if (!rc && (printf("%s\n", (const char *)code.bytes) < 0 || fflush(stdout) != 0))
        rc = dr_fail(err, DR_E_IO, "standard output: the code is lost, add another one");
    if (!rc)
        (void)fprintf(stderr, "Write it down now: it is not stored and not shown again.\n");
    dr_secret_free(&code);
    keyring_free(changed);
    store_close(s);
    return rc;
}

/* The file's bytes without its last newline. */
static enum dr_rc read_secret(const char *path, struct dr_secret *out, struct dr_err *err)
{
    struct dr_buf b;
    dr_buf_init(&b, SECRET_MAX);
    enum dr_rc rc = disk_read(AT_FDCWD, path, &b, err);
    if (!rc)
        dr_secret_set(out, b.data, b.len - (b.len > 0 && b.data[b.len - 1] == '\n'));
    if (b.data)
        dr_wipe(b.data, b.len);
    dr_buf_fini(&b);
    return rc ? dr_wrap(err, "--new-file") : DR_OK;
}

static enum dr_rc change_passphrase(struct keys *k, struct dr_err *err)
{
    struct store *s = NULL;
    struct keyring *changed = NULL;
    struct dr_secret secret = {0};
    unsigned rounds = (unsigned)dr_config_int(k->config, "DR_PBKDF2_ROUNDS");
    if (!k->new_file)
        return dr_fail(err, DR_E_USAGE, "keys change-passphrase needs --new-file PATH");
    enum dr_rc rc = read_secret(k->new_file, &secret, err);
    if (!rc)
        rc = store_open(k->config, STORE_READ, &s, err);
    if (!rc)
        rc = keyring_change_passphrase(store_keys(s), &secret, rounds,
                                       k->label ? k->label : "changed", &changed, err);
    if (!rc)
        rc = store_change_keys(s, changed, "change-passphrase", err);
    if (!rc)
        cli_changed(s, "keys change-passphrase", k->label ? k->label : "changed", "");
    if (!rc)
        (void)fprintf(stderr, "Restart the workers with the new passphrase. Files written before "
                              "still open with the old one.\n");
    dr_secret_free(&secret);
    keyring_free(changed);
    store_close(s);
    return rc;
}

static const struct {
    const char *name;
    enum dr_rc (*fn)(struct keys *k, struct dr_err *err);
} verbs[] = {{"init", init},
             {"list", list},
             {"add-recovery", add_recovery},
             {"change-passphrase", change_passphrase}};

int cli_keys(const struct cli *c)
{
    struct keys k = {.args = *c};
    struct dr_err err = {0};
    k.label = args_option(&k.args, "--label");
    k.new_file = args_option(&k.args, "--new-file");
    k.new_store = args_flag(&k.args, "--new-store");
    if (!args_only(&k.args, "keys", 1))
        return 2;
    for (size_t i = 0; k.args.argc == 1 && i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(k.args.argv[0], verbs[i].name) == 0) {
            if (!dr_config_load(c->config_file, &k.config, &err))
                (void)verbs[i].fn(&k, &err);
            dr_config_free(k.config);
            return err.rc ? cli_fail(&err) : 0;
        }
    (void)fprintf(stderr, "usage: drworker keys init [--new-store] | list [--json] |\n"
                          "       add-recovery [--label TEXT] |\n"
                          "       change-passphrase --new-file PATH [--label TEXT]\n");
    return 2;
}
