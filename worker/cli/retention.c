/* drworker retention-plan: what retention would do, and why. Reads only. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/str.h"
#include "common/zone.h"
#include "worker/backup/retain_oracle.h"
#include "worker/cli/args.h"
#include "worker/cli/retention.h"

enum { OUTPUT_MAX = 256 << 20 };

struct options {
    const char *now, *simulate, *start;
    bool oracle, no_oldest;
};

static int32_t offset(const void *zone, int64_t utc_s)
{
    return dr_zone_offset(zone, utc_s);
}

static enum dr_rc read_time(const char *option, const char *text, int64_t *out, struct dr_err *err)
{
    if (dr_parse_time(text, out))
        return DR_OK;
    (void)dr_fail(err, DR_E_USAGE, "%s: not a time as 2026-01-02T03:04:05Z", option);
    return dr_err_field(err, option, text, strlen(text));
}

static enum dr_rc read_stdin(struct dr_buf *b, struct dr_err *err)
{
    char part[65536];
    for (;;) {
        ssize_t n = read(STDIN_FILENO, part, sizeof part);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "standard input");
        if (n == 0)
            return DR_OK;
        dr_buf_add(b, part, (size_t)n);
        if (b->failed)
            return dr_fail(err, DR_E_INVALID, "standard input: more than %d bytes",
                           RETAIN_ORACLE_BYTES);
    }
}

static enum dr_rc print(const struct dr_buf *out, struct dr_err *err)
{
    if (out->failed)
        return dr_fail(err, DR_E_NOMEM, "the answer is too long");
    if ((out->len && fwrite(out->data, 1, out->len, stdout) != out->len) || fflush(stdout) != 0)
        return dr_fail_errno(err, DR_E_IO, "standard output");
    return DR_OK;
}

static enum dr_rc oracle(const struct retention_cli *r, struct dr_err *err)
{
    struct dr_buf in, out;
    dr_buf_init(&in, RETAIN_ORACLE_BYTES);
    dr_buf_init(&out, OUTPUT_MAX);
    enum dr_rc rc = read_stdin(&in, err);
    if (!rc)
        rc = retain_oracle(&r->terms.policy, r->terms.now_ms, in.data ? (const char *)in.data : "",
                           in.len, &out, err);
    if (!rc)
        rc = print(&out, err);
    dr_buf_fini(&in);
    dr_buf_fini(&out);
    return rc;
}

static void ids_json(const struct expiry_view *v, bool keep, struct dr_buf *b)
{
    const struct retain_plan *p = v->plan;
    const char *comma = "";
    dr_buf_str(b, "[");
    for (size_t i = 0; i < p->count; i++) {
        if (p->verdicts[i].keep != keep)
            continue;
        dr_buf_str(b, comma);
        dr_buf_json(b, v->items[i].id, strlen(v->items[i].id));
        comma = ",";
    }
    dr_buf_str(b, "]");
}

static void plan_json(const struct expiry_view *v, int64_t now_ms, struct dr_buf *b)
{
    const struct retain_plan *p = v->plan;
    char now[DR_TIME_TEXT];
    dr_format_time(now_ms, now);
    dr_buf_printf(b, "{\"now\":\"%s\",\"plan_hash\":\"%s\",\"needs_confirmation\":%s,\"confirm\":",
                  now, p->hash, p->needs_confirmation ? "true" : "false");
    retain_words_json(p->confirm, b);
    dr_buf_printf(b, ",\n\"delete_bytes\":%" PRIu64 ",\n\"keep\":", p->delete_bytes);
    ids_json(v, true, b);
    dr_buf_str(b, ",\n\"delete\":");
    ids_json(v, false, b);
    dr_buf_str(b, ",\n\"reasons\":{");
    for (size_t i = 0; i < p->count; i++) {
        dr_buf_str(b, i ? ",\n " : "\n ");
        dr_buf_json(b, v->items[i].id, strlen(v->items[i].id));
        dr_buf_str(b, ":");
        retain_words_json(p->verdicts[i].reasons, b);
    }
    dr_buf_str(b, "}}\n");
}

void retention_words(retain_mask m, struct dr_buf *b)
{
    const char *blank = "";
    for (unsigned r = 0; r < RETAIN_REASONS; r++)
        if (m >> r & 1) {
            dr_buf_printf(b, "%s%s", blank, retain_word((enum retain_reason)r));
            blank = " ";
        }
}

static void plan_text(const struct expiry_view *view, struct dr_buf *b)
{
    const struct retain_plan *p = view->plan;
    char t[DR_TIME_TEXT];
    dr_buf_printf(b, "%-40s  %-16s  %12s  %-4s  %s\n", "ID", "TIME (UTC)", "BYTES", "PLAN", "WHY");
    for (size_t i = 0; i < p->count; i++) {
        const struct retain_item *it = &view->items[i];
        const struct retain_verdict *v = &p->verdicts[i];
        dr_format_time(it->t_ms, t);
        dr_buf_printf(b, "%-40s  %.10s %.5s  %12" PRIu64 "  %-4s  ", it->id, t, t + 11, it->bytes,
                      v->keep      ? "keep"
                      : v->confirm ? "ask"
                                   : "drop");
        retention_words(v->reasons, b);
        dr_buf_str(b, "\n");
    }
    dr_buf_printf(b, "\n%zu kept, %zu given up (%" PRIu64 " bytes)\nplan %s\n", p->kept,
                  p->given_up, p->delete_bytes, p->hash);
    if (!p->needs_confirmation)
        return;
    dr_buf_str(b, "waits for confirmation (");
    retention_words(p->confirm, b);
    dr_buf_printf(b, "): drproducer retention --plan %s\n", p->hash);
}

/* The plan that the task would make of this catalog now. */
static enum dr_rc plan_of_store(const struct retention_cli *r, struct dr_err *err)
{
    struct store *store = NULL;
    struct expiry_view view = {0};
    struct dr_buf out;
    dr_buf_init(&out, OUTPUT_MAX);
    enum dr_rc rc = store_open(r->config, STORE_READ, &store, err);
    if (!rc)
        rc = expiry_look(store, &r->terms, false, &view, err);
    if (!rc) {
        if (r->json)
            plan_json(&view, r->terms.now_ms, &out);
        else
            plan_text(&view, &out);
        rc = print(&out, err);
    }
    dr_buf_fini(&out);
    expiry_view_free(&view);
    store_close(store);
    return rc;
}

static enum dr_rc simulate(const struct retention_cli *r, const struct options *o,
                           struct dr_err *err)
{
    uint64_t years = 0;
    int64_t start = r->terms.now_ms;
    struct dr_buf out;
    if (!dr_parse_u64(o->simulate, 1, RETAIN_SIM_YEARS, &years)) {
        (void)dr_fail(err, DR_E_USAGE, "--simulate: not a number of years 1..%d", RETAIN_SIM_YEARS);
        return dr_err_field(err, "--simulate", o->simulate, strlen(o->simulate));
    }
    if (o->start && read_time("--start", o->start, &start, err))
        return err->rc;
    const struct retain_sim_options so = {.policy = &r->terms.policy,
                                          .offset = offset,
                                          .zone = r->terms.zone,
                                          .start_ms = start,
                                          .years = (int)years};
    struct retain_sim *s = NULL;
    enum dr_rc rc = retain_simulate(&so, &s, err);
    if (rc)
        return rc;
    dr_buf_init(&out, OUTPUT_MAX);
    if (r->json)
        retention_simulated_json(s, &out);
    else
        retention_simulated_text(s, &out);
    rc = print(&out, err);
    dr_buf_fini(&out);
    retain_sim_free(s);
    return rc;
}

static enum dr_rc set_up(const struct cli *c, const struct options *o, struct retention_cli *r,
                         struct dr_err *err)
{
    int64_t now = dr_wall_ms();
    r->json = c->json;
    if ((o->now && read_time("--now", o->now, &now, err)) ||
        dr_config_load(c->config_file, &r->config, err) ||
        expiry_terms_read(r->config, &r->terms, err))
        return err->rc;
    r->terms.now_ms = now;
    if (o->no_oldest)
        r->terms.policy.keep_oldest = false;
    if (r->terms.warning[0])
        (void)fprintf(stderr, "drworker: warning: %s\n", r->terms.warning);
    return DR_OK;
}

int cli_retention_plan(const struct cli *c)
{
    struct cli words = *c;
    struct options o = {.now = args_option(&words, "--now"),
                        .simulate = args_option(&words, "--simulate"),
                        .start = args_option(&words, "--start"),
                        .oracle = args_flag(&words, "--oracle"),
                        .no_oldest = args_flag(&words, "--no-keep-oldest")};
    struct retention_cli r = {0};
    struct dr_err err = {0};
    if (!args_only(&words, "retention-plan", 0))
        return 2;
    if ((o.oracle && o.simulate) || (o.no_oldest && !o.oracle) || (o.start && !o.simulate)) {
        (void)fprintf(stderr,
                      "drworker: retention-plan: --oracle [--no-keep-oldest], or --simulate "
                      "YEARS [--start TIME], or neither\n");
        return 2;
    }
    enum dr_rc rc = set_up(c, &o, &r, &err);
    if (!rc && o.oracle)
        rc = oracle(&r, &err);
    else if (!rc && o.simulate)
        rc = simulate(&r, &o, &err);
    else if (!rc)
        rc = plan_of_store(&r, &err);
    expiry_terms_free(&r.terms);
    dr_config_free(r.config);
    return rc ? cli_fail(&err) : 0;
}
