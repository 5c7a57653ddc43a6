/* drproducer: enqueues jobs and shows what became of them. Needs Redis and nothing else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/str.h"
#include "producer/cmd.h"

static const char usage_text[] =
    "usage: drproducer [--redis URL] [--namespace NS] [--key-file FILE --kid KID] [--json] "
    "COMMAND\n"
    "  noop [--sleep MS]                       a job that only waits\n"
    "  backup [database|files|config|full] [--class scheduled|manual|critical]\n"
    "  verify [ID | --all]   retention [--dry-run | --plan HASH]   sync [--dry-run]   health\n"
    "  execute PROCEDURE [--backup ID] [--before TIME] [--dry-run] [--no-swap] [--keep-newer]\n"
    "          [--reason TEXT]\n"
    "  test-recovery [PROCEDURE] [--level plan|drill|exercise]   log-cleanup [--older-than DAYS]\n"
    "  enqueue LANE [KEY=VALUE...] [--args-json TEXT]   any task type, checked before it is sent\n"
    "      each of these: [--id ID] [--in DURATION] [--wait [--timeout DURATION]]\n"
    "  status JOB   watch JOB [--timeout DURATION]   cancel JOB   jobs [--lane L] [--state S]   "
    "workers   schedule\n"
    "  keys new KID ROLE [--types LIST] [--not-after TIME]   a line for the key file\n"
    "  alert-test [--wait [--timeout DURATION]]   a test alert to every target; 0 if all took it\n"
    "Environment: REDIS_URL (else CELERY_BROKER_URL), DR_NAMESPACE, DR_SIGN_KEYS_FILE, "
    "DR_SIGN_KID\n";

static const struct {
    const char *name;
    int (*fn)(struct cmd *c);
    bool needs_link;
} commands[] = {
    {"status", cmd_status, true},     {"watch", cmd_watch, true},
    {"jobs", cmd_jobs, true},         {"cancel", cmd_cancel, true},
    {"workers", cmd_workers, true},   {"keys", cmd_keys, false},
    {"schedule", cmd_schedule, true}, {"alert-test", cmd_alert_test, true},
};

const char *cmd_option(const struct cmd *c, const char *name)
{
    for (int i = 0; i < c->options; i++)
        if (strcmp(c->option[i][0], name) == 0)
            return c->option[i][1];
    return NULL;
}

int cmd_fail(const struct dr_err *err)
{
    (void)fprintf(stderr, "drproducer: %s", err->msg);
    if (err->field[0])
        (void)fprintf(stderr, " [%s=%s]", err->field, err->value);
    (void)fputc('\n', stderr);
    return dr_rc_exit(err->rc);
}

enum dr_rc cmd_only(const struct cmd *c, const char *names, struct dr_err *err)
{
    for (int i = 0; i < c->options; i++) {
        const char *name = c->option[i][0], *p = names;
        bool known = false;
        while (*p && !known) {
            size_t n = strcspn(p, " ");
            known = n == strlen(name) && memcmp(p, name, n) == 0;
            p += n + (p[n] == ' ');
        }
        if (!known)
            return dr_fail(err, DR_E_USAGE, "%s knows no option --%s", c->name, name);
    }
    return DR_OK;
}

int cmd_keys(struct cmd *c)
{
    struct dr_err err = {0};
    enum dr_role role;
    unsigned char key[DR_KEY_BYTES];
    char hex[2 * DR_KEY_BYTES + 1], line[512];
    struct dr_keyfile *check = NULL;
    const char *types = cmd_option(c, "types"), *until = cmd_option(c, "not-after");
    if (cmd_only(c, "types not-after", &err))
        return cmd_fail(&err);
    if (c->argc != 3 || strcmp(c->argv[0], "new") != 0 || !dr_role_parse(c->argv[2], &role)) {
        (void)dr_fail(&err, DR_E_USAGE, "keys new KID viewer|app|operator|admin");
        return cmd_fail(&err);
    }
    dr_random_bytes(key, sizeof key);
    dr_hex(key, sizeof key, hex);
    (void)snprintf(line, sizeof line, "%s %s %s %s %s\n", c->argv[1], c->argv[2],
                   types ? types : "*", until ? until : "-", hex);
    if (dr_keyfile_parse(line, &check, &err)) {
        err.rc = DR_E_USAGE;
        return cmd_fail(&err);
    }
    dr_keyfile_free(check);
    if (c->json)
        (void)printf("{\"kid\":\"%s\",\"role\":\"%s\",\"types\":\"%s\",\"not_after\":\"%s\","
                     "\"key\":\"%s\"}\n",
                     c->argv[1], c->argv[2], types ? types : "*", until ? until : "-", hex);
    else
        (void)fputs(line, stdout);
    dr_wipe(hex, sizeof hex);
    dr_wipe(key, sizeof key);
    dr_wipe(line, sizeof line);
    return 0;
}

struct globals {
    const char *redis, *ns, *key_file, *kid;
};

static bool takes_value(const char *name)
{
    static const char *const flags[] = {"json", "wait", "dry-run", "no-swap", "keep-newer", "all"};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (strcmp(flags[i], name) == 0)
            return false;
    return true;
}

static bool global(struct globals *g, const char *name, const char *value)
{
    if (strcmp(name, "redis") == 0)
        g->redis = value;
    else if (strcmp(name, "namespace") == 0)
        g->ns = value;
    else if (strcmp(name, "key-file") == 0)
        g->key_file = value;
    else if (strcmp(name, "kid") == 0)
        g->kid = value;
    else
        return false;
    return true;
}

static enum dr_rc parse_words(struct cmd *c, struct globals *g, int argc, char **argv,
                              struct dr_err *err)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strncmp(word, "--", 2) != 0 || word[2] == 0) {
            if (!c->name)
                c->name = word;
            else if (c->argc < CMD_WORDS_MAX)
                c->argv[c->argc++] = word;
            else
                return dr_fail(err, DR_E_USAGE, "too many words");
            continue;
        }
        const char *name = word + 2, *value = "true";
        if (takes_value(name)) {
            if (i + 1 == argc)
                return dr_fail(err, DR_E_USAGE, "%s needs a value", word);
            value = argv[++i];
        }
        if (global(g, name, value))
            continue;
        if (strcmp(name, "json") == 0)
            c->json = true;
        else if (c->options == CMD_WORDS_MAX)
            return dr_fail(err, DR_E_USAGE, "too many options");
        else {
            c->wait = c->wait || strcmp(name, "wait") == 0;
            c->option[c->options][0] = name;
            c->option[c->options++][1] = value;
        }
    }
    return DR_OK;
}

static const char *from_env(const char *given, const char *name)
{
    return given ? given : getenv(name);
}

static enum dr_rc connect_redis(struct cmd *c, const struct globals *g, struct dr_err *err)
{
    const char *url = from_env(g->redis, "REDIS_URL");
    if (!url)
        url = from_env(NULL, "CELERY_BROKER_URL");
    if (dr_redis_url_parse(url ? url : "redis://127.0.0.1:6379/0", &c->url, err))
        return err->rc;
    return link_open(&c->url, &c->link, err);
}

static int run(struct cmd *c, const struct globals *g, struct dr_keyfile **keys)
{
    struct dr_err err = {0};
    const char *ns = from_env(g->ns, "DR_NAMESPACE"), *kid = from_env(g->kid, "DR_SIGN_KID");
    const char *file = from_env(g->key_file, "DR_SIGN_KEYS_FILE");
    bool enqueue = cmd_is_enqueue(c->name);
    if (dr_keys_init(&c->keys, ns ? ns : "dr", &err))
        return cmd_fail(&err);
    if (enqueue && file && kid) {
        if (dr_keyfile_load(file, keys, &err))
            return cmd_fail(&err);
        c->signer = dr_keyfile_find(*keys, kid);
        if (!c->signer && dr_fail(&err, DR_E_CONFIG, "%s: no key %s", file, kid) != DR_OK)
            return cmd_fail(&err);
    }
    if (enqueue)
        return connect_redis(c, g, &err) ? cmd_fail(&err) : cmd_enqueue(c);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, c->name) == 0) {
            if (commands[i].needs_link && connect_redis(c, g, &err))
                return cmd_fail(&err);
            return commands[i].fn(c);
        }
    (void)fprintf(stderr, "drproducer: unknown command '%s'\n%s", c->name, usage_text);
    return 2;
}

int main(int argc, char **argv)
{
    struct cmd *c = dr_xalloc(sizeof *c);
    struct globals g = {0};
    struct dr_err err = {0};
    struct dr_keyfile *keys = NULL;
    int code = 2;
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        code = fputs(usage_text, stdout) < 0;
    else if (argc > 1 && strcmp(argv[1], "--version") == 0)
        code = printf("drproducer %s\n", DR_VERSION) < 0;
    else if (parse_words(c, &g, argc, argv, &err))
        code = cmd_fail(&err);
    else if (!c->name)
        (void)fputs(usage_text, stderr);
    else
        code = run(c, &g, &keys);
    link_close(c->link);
    dr_redis_url_free(&c->url);
    dr_keyfile_free(keys);
    free(c);
    return code;
}
