/* One notice as a mail. Whatever stands in it cannot become a header, a line of its own or a
 * command: the subject is ASCII without controls or encoded words (RFC 2047), the body base64. */
#include "worker/watch/alert_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/str.h"

enum {
    MESSAGE_MAX = 32768,
    DEADLINE_MS = 30000,
    LINE_BYTES = 57, /* 76 characters of base64 */
    WORD_BYTES = 42, /* of an encoded word: at most 75 characters with its marks */
};

static void put_base64(struct dr_buf *b, const unsigned char *p, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16;
        char four[4];
        v |= i + 1 < len ? (uint32_t)p[i + 1] << 8 : 0;
        v |= i + 2 < len ? p[i + 2] : 0;
        for (int k = 0; k < 4; k++)
            four[k] = digits[v >> (18 - 6 * k) & 63];
        if (i + 1 >= len)
            four[2] = '=';
        if (i + 2 >= len)
            four[3] = '=';
        dr_buf_add(b, four, 4);
    }
}

static bool is_plain(const char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text > '~')
            return false;
    return true;
}

/* The text is valid UTF-8 without controls; no word ends inside a character. */
static void put_words(struct dr_buf *b, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t left = strlen(text);
    while (left > 0) {
        size_t n = 0, len;
        while (n < left && (len = dr_utf8_len(p + n, left - n)) > 0 && n + len <= WORD_BYTES)
            n += len;
        if (n == 0)
            n = 1; /* not UTF-8, which cannot be */
        dr_buf_str(b, "=?utf-8?B?");
        put_base64(b, p, n);
        dr_buf_str(b, left > n ? "?=\r\n " : "?=");
        p += n;
        left -= n;
    }
}

static void put_subject(struct dr_buf *b, const struct alert_config *c,
                        const struct queue_notice *n)
{
    char text[400], kind[sizeof n->kind], line[400];
    (void)snprintf(kind, sizeof kind, "%s", n->kind);
    for (char *k = kind; *k; k++)
        *k = (char)toupper((unsigned char)*k);
    (void)snprintf(text, sizeof text, "[%s] %s: %s", c->ns, kind, n->summary);
    queue_alert_line(line, sizeof line, text);
    dr_buf_str(b, "Subject: ");
    if (is_plain(line) && strlen(line) < 200)
        dr_buf_str(b, line);
    else
        put_words(b, line);
    dr_buf_str(b, "\r\n");
}

static void put_body(struct dr_buf *b, const struct alert_config *c, const struct queue_notice *n)
{
    struct dr_buf text;
    char at[DR_TIME_TEXT], since[DR_TIME_TEXT];
    dr_format_time(n->at_ms, at);
    dr_format_time(n->since_ms, since);
    dr_buf_init(&text, MESSAGE_MAX);
    dr_buf_printf(&text, "%s\r\n\r\n", n->summary);
    if (n->details[0])
        dr_buf_printf(&text, "%s\r\n\r\n", n->details);
    dr_buf_printf(&text,
                  "rule      %s\r\nsubject   %s\r\nstate     %s (%s)\r\nseverity  %s\r\n"
                  "at        %s\r\nsince     %s\r\ncount     %llu\r\nnamespace %s\r\n"
                  "sent by   %s\r\nid        %s\r\n",
                  n->rule, n->subject, n->state, n->kind, n->severity, at, since,
                  (unsigned long long)n->count, c->ns, c->host, n->id);
    for (size_t i = 0; i < text.len; i += LINE_BYTES) {
        put_base64(b, text.data + i, text.len - i < LINE_BYTES ? text.len - i : LINE_BYTES);
        dr_buf_str(b, "\r\n");
    }
    dr_buf_fini(&text);
}

/* A Message-ID's right side must look like a host. */
static void put_message_id(struct dr_buf *b, const struct alert_config *c,
                           const struct queue_notice *n)
{
    dr_buf_str(b, "Message-ID: <");
    for (const char *p = n->id; *p; p++)
        if (isalnum((unsigned char)*p) || *p == '-')
            dr_buf_add(b, p, 1);
    dr_buf_str(b, "@");
    for (const char *p = c->host; *p; p++)
        dr_buf_add(b, isalnum((unsigned char)*p) || *p == '.' ? p : "-", 1);
    dr_buf_str(b, ">\r\n");
}

static void put_date(struct dr_buf *b, int64_t ms)
{
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t s = (time_t)(ms / 1000);
    struct tm t = {0};
    (void)gmtime_r(&s, &t);
    dr_buf_printf(b, "Date: %s, %d %s %d %02d:%02d:%02d +0000\r\n", days[t.tm_wday % 7], t.tm_mday,
                  months[t.tm_mon % 12], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

void alert_mail_message(const struct alert_config *c, const struct queue_notice *n, int64_t now_ms,
                        struct dr_buf *out)
{
    dr_buf_printf(out, "From: <%s>\r\nTo: ", c->from);
    for (unsigned i = 0; c->to[i]; i++)
        dr_buf_printf(out, "%s<%s>", i ? ",\r\n " : "", c->to[i]);
    dr_buf_str(out, "\r\n");
    put_subject(out, c, n);
    put_date(out, now_ms);
    put_message_id(out, c, n);
    dr_buf_str(out, "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
                    "Content-Type: text/plain; charset=utf-8\r\n"
                    "Content-Transfer-Encoding: base64\r\n\r\n");
    put_body(out, c, n);
}

enum dr_rc alert_mail_send(struct alerts *a, const struct queue_notice *n, uint64_t *retry_after_s,
                           struct dr_err *err)
{
    const struct alert_config *c = &a->config;
    struct dr_buf message;
    (void)retry_after_s;
    dr_buf_init(&message, MESSAGE_MAX);
    alert_mail_message(c, n, dr_wall_ms(), &message);
    const struct http_mail m = {.url = c->smtp_url,
                                .user = c->smtp_user,
                                .password = (const char *)c->smtp_password->bytes,
                                .from = c->from,
                                .to = c->to,
                                .message = message.data,
                                .message_len = message.len,
                                .ca_file = c->ca_file,
                                .deadline_ms = DEADLINE_MS};
    enum dr_rc rc = message.failed ? dr_fail(err, DR_E_TOO_BIG, "the mail")
                                   : http_mail_send(a->services->pool, &m, &a->stop, err);
    dr_buf_fini(&message);
    return rc;
}
