/* alert-test: asks the workers to send a test to each target, and says what became of it. Any
 * worker takes the request at its next beat; the answer names targets, never addresses or secrets.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/str.h"
#include "producer/show.h"

enum { WAIT_MS = 60000, ASK_EVERY_MS = 100, REQUEST_KEPT_MS = 60000, CALL_MS = 5000 };

static enum dr_rc ask(struct cmd *c, const char *id, struct dr_err *err)
{
    char key[DR_KEY_MAX], ms[24];
    redisReply *r = NULL;
    (void)snprintf(ms, sizeof ms, "%d", REQUEST_KEPT_MS);
    if (link_text(c->link, CALL_MS, &r, err, "LPUSH", dr_key(&c->keys, key, "alert:test", ""), id,
                  NULL))
        return err->rc;
    freeReplyObject(r);
    r = NULL;
    if (link_text(c->link, CALL_MS, &r, err, "LTRIM", key, "0", "15", NULL))
        return err->rc;
    freeReplyObject(r);
    r = NULL;
    if (link_text(c->link, CALL_MS, &r, err, "PEXPIRE", key, ms, NULL))
        return err->rc;
    freeReplyObject(r);
    return DR_OK;
}

/* The answer once it is whole; the caller frees it. */
static enum dr_rc await(struct cmd *c, const char *id, uint64_t wait_ms, redisReply **out,
                        struct dr_err *err)
{
    const struct timespec pause = {.tv_nsec = ASK_EVERY_MS * 1000000L};
    int64_t until = dr_clock_ms() + (int64_t)wait_ms;
    for (;;) {
        if (show_read(c, "alert:test:", id, out, err))
            return err->rc;
        if (show_field(*out, "end")[0])
            return DR_OK;
        freeReplyObject(*out);
        *out = NULL;
        if (dr_clock_ms() >= until)
            return dr_fail(err, DR_E_TIMEOUT, "no worker has answered the test");
        (void)nanosleep(&pause, NULL);
    }
}

static void print_line(const char *name, const char *text)
{
    (void)printf("%-8s ", name);
    for (; *text; text++)
        (void)putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
    (void)putchar('\n');
}

/* "CODE TEXT", or "- not configured". */
static int judge(struct cmd *c, const redisReply *r, const char *id)
{
    static const char *const names[] = {"webhook", "mail", "events"};
    struct dr_buf b;
    int code = 0, configured = 0;
    dr_buf_init(&b, 16384);
    dr_buf_printf(&b, "{\"test\":\"%s\"", id);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *said = show_field(r, names[i]), *text = strchr(said, ' ');
        char number[8];
        uint64_t its = 1;
        bool is = said[0] != '-';
        (void)snprintf(number, sizeof number, "%.*s", (int)strcspn(said, " "), said);
        text = text ? text + 1 : "did not answer";
        if (is && !dr_parse_u64(number, 0, 255, &its))
            its = 1;
        configured += is && i < 2;
        code = is && its && !code ? (int)its : code;
        dr_buf_printf(&b, ",\"%s\":{\"configured\":%s,\"ok\":%s,\"text\":", names[i],
                      is ? "true" : "false", is && its == 0 ? "true" : "false");
        dr_buf_json(&b, text, strlen(text));
        dr_buf_str(&b, "}");
        if (!c->json)
            print_line(names[i], text);
    }
    dr_buf_str(&b, "}\n");
    if (c->json)
        (void)fputs((const char *)b.data, stdout);
    dr_buf_fini(&b);
    if (!configured) {
        (void)fprintf(stderr, "drproducer: no target is configured: alerts reach nobody\n");
        return 1;
    }
    return code;
}

int cmd_alert_test(struct cmd *c)
{
    struct dr_err err = {0};
    unsigned char random[16];
    char id[2 * sizeof random + 1];
    const char *timeout = cmd_option(c, "timeout");
    uint64_t wait_ms = WAIT_MS;
    redisReply *r = NULL;
    if (cmd_only(c, "wait timeout", &err))
        return cmd_fail(&err);
    if (c->argc > 0 || (timeout && !dr_parse_duration_ms(timeout, &wait_ms))) {
        (void)dr_fail(&err, DR_E_USAGE, "alert-test [--wait [--timeout DURATION]]");
        return cmd_fail(&err);
    }
    dr_random_bytes(random, sizeof random);
    dr_hex(random, sizeof random, id);
    if (ask(c, id, &err))
        return cmd_fail(&err);
    if (!c->wait) {
        (void)printf("%s\n", id);
        return 0;
    }
    if (await(c, id, wait_ms, &r, &err)) {
        int code = cmd_fail(&err);
        return err.rc == DR_E_TIMEOUT ? 11 : code;
    }
    int code = judge(c, r, id);
    freeReplyObject(r);
    return code;
}
