/* drworker audit show|verify: who ordered what and what came of it, and whether the log is whole.
 * They only read it; what other commands changed is written for them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/backup/audit.h"
#include "worker/cli/args.h"

struct show {
    bool json;
    const char *job; /* NULL: any */
    int64_t since_ms;
    uint64_t last;  /* only so many; 0: all */
    uint64_t shown; /* that fit, so far */
    uint64_t fit;   /* in the first pass: how many there are */
    bool counting;
};

void cli_changed(struct store *s, const char *action, const char *subject, const char *reason)
{
    struct dr_err err = {0};
    if (audit_changed(s, action, subject, reason, &err))
        (void)fprintf(stderr, "warning: not in the audit log: %s\n", err.msg);
}

static void print_text(const struct catalog_record *r)
{
    struct dr_buf b;
    dr_buf_init(&b, 2 * AUDIT_DATA_MAX);
    audit_text(r, &b);
    (void)printf("%s\n", (const char *)b.data);
    dr_buf_fini(&b);
}

static void print_json(const struct catalog_record *r)
{
    char at[DR_TIME_TEXT], sha[65];
    dr_format_time(r->at_ms, at);
    dr_hex(r->sha256, 32, sha);
    (void)printf("{\"seq\":%" PRIu64
                 ",\"at\":\"%s\",\"type\":\"%s\",\"sha256\":\"%s\",\"data\":%s}\n",
                 r->seq, at, r->type, sha, r->data_json);
}

static enum dr_rc show_one(void *arg, const struct catalog_record *r, struct dr_err *err)
{
    struct show *s = arg;
    (void)err;
    bool fits = r->at_ms >= s->since_ms && (!s->job || audit_is_of_job(r, s->job));
    if (fits && s->counting) {
        s->fit++;
    } else if (fits && (!s->last || s->shown++ + s->last >= s->fit)) {
        if (s->json)
            print_json(r);
        else
            print_text(r);
    }
    return DR_OK;
}

/* What was read before a break is shown too; the break is told behind it. */
static enum dr_rc show(struct store *store, struct show *s, struct dr_err *err)
{
    struct audit_state state;
    struct dr_err ignored = {0};
    s->counting = true;
    enum dr_rc rc = s->last ? audit_verify(store, show_one, s, &state, &ignored) : DR_OK;
    (void)rc; /* told by the second pass */
    s->counting = false;
    return audit_verify(store, show_one, s, &state, err);
}

static enum dr_rc verify(struct store *store, bool json, struct dr_err *err)
{
    struct audit_state state;
    char sha[65];
    enum dr_rc rc = audit_verify(store, NULL, NULL, &state, err);
    dr_hex(state.sha256, 32, sha);
    if (json)
        (void)printf("{\"ok\":%s,\"records\":%" PRIu64 ",\"sha256\":\"%s\",\"witnessed\":%" PRIu64
                     ",\"generation\":%u,\"class\":\"%s\"}\n",
                     rc ? "false" : "true", state.records, sha, state.witnessed, state.generation,
                     rc ? err->reason : "");
    else if (!rc)
        (void)printf("%" PRIu64 " records, none changed, removed or moved; head %s, signed by "
                     "generation %u; the catalog witnesses record %" PRIu64 "%s\n",
                     state.records, sha, state.generation, state.witnessed,
                     state.ahead ? "; a writer was cut off behind it" : "");
    return rc;
}

static int usage(void)
{
    (void)fputs("usage: drworker audit show [--job ID] [--since TIME] [--last N] [--json]\n"
                "       drworker audit verify [--json]\n",
                stderr);
    return 2;
}

int cli_audit(const struct cli *c)
{
    struct cli args = *c;
    struct show s = {.json = c->json};
    struct dr_config *config = NULL;
    struct store *store = NULL;
    struct dr_err err = {0};
    s.job = args_option(&args, "--job");
    const char *since = args_option(&args, "--since"), *last = args_option(&args, "--last");
    if (!args_only(&args, "audit", 1) || args.argc != 1)
        return usage();
    bool showing = strcmp(args.argv[0], "show") == 0;
    if ((!showing && strcmp(args.argv[0], "verify") != 0) ||
        (!showing && (s.job || since || last)) || (since && !dr_parse_time(since, &s.since_ms)) ||
        (last && !dr_parse_u64(last, 1, 1000000000, &s.last)))
        return usage();
    if (!dr_config_load(c->config_file, &config, &err) &&
        !store_open(config, STORE_READ, &store, &err))
        (void)(showing ? show(store, &s, &err) : verify(store, c->json, &err));
    store_close(store);
    dr_config_free(config);
    if (fflush(stdout) != 0 && !err.rc)
        (void)dr_fail(&err, DR_E_IO, "standard output");
    return err.rc ? cli_fail(&err) : 0;
}
