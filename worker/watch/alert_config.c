/* The targets as configured: read once at the start; what could not work is refused by name. */
#include "worker/watch/alert_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/str.h"

enum { REPEAT_MIN_MS = 1000, HOST_SHOWN = 256 };
static const int64_t repeat_max_ms = (int64_t)30 * 86400000;

static enum dr_rc bad(struct dr_err *err, const char *name, const char *value, const char *why)
{
    (void)dr_fail(err, DR_E_CONFIG, "%s: %s", name, why);
    return dr_err_field(err, name, value, strlen(value));
}

/* Behind the scheme: something, and nothing that ends a line or hides. */
static bool has_host(const char *rest)
{
    for (const unsigned char *p = (const unsigned char *)rest; *p; p++)
        if (*p <= ' ' || *p == 0x7f)
            return false;
    return strcspn(rest, "/?#") > 0;
}

static enum dr_rc read_webhook(const struct dr_config *c, struct alert_config *a,
                               struct dr_err *err)
{
    static const char *const name = "DR_ALERT_WEBHOOK_URL";
    const struct dr_secret *url = dr_config_secret(c, name);
    a->webhook_key = dr_config_secret(c, "DR_ALERT_WEBHOOK_SECRET");
    a->allow_private = dr_config_bool(c, "DR_ALERT_ALLOW_PRIVATE");
    if (url->len == 0)
        return a->webhook_key->len == 0
                   ? DR_OK
                   : bad(err, name, "", "missing, but there is a secret for it");
    const char *text = (const char *)url->bytes;
    bool plain = dr_starts(text, "http://");
    if (plain && !a->allow_private)
        return bad(err, name, "***", "http:// only with DR_ALERT_ALLOW_PRIVATE=true");
    if (!plain && !dr_starts(text, "https://"))
        return bad(err, name, "***", "not an https:// URL");
    if (!has_host(text + (plain ? 7 : 8)))
        return bad(err, name, "***", "no host, or a blank in it");
    a->webhook = url;
    return DR_OK;
}

static enum dr_rc read_recipients(const char *text, struct alert_config *a, struct dr_err *err)
{
    char *save = NULL;
    unsigned n = 0;
    a->recipients = dr_xstrdup(text);
    for (char *p = strtok_r(a->recipients, ", ", &save); p; p = strtok_r(NULL, ", ", &save)) {
        if (!http_mail_address(p, strlen(p)))
            return bad(err, "DR_ALERT_MAIL_TO", p, "not a bare mail address");
        if (n == ALERT_RECIPIENTS_MAX)
            return bad(err, "DR_ALERT_MAIL_TO", p, "more than 32 addresses");
        a->to[n++] = p;
    }
    return n > 0 ? DR_OK
                 : bad(err, "DR_ALERT_MAIL_TO", text, "missing, but there is DR_ALERT_SMTP_URL");
}

static enum dr_rc read_mail(const struct dr_config *c, struct alert_config *a, struct dr_err *err)
{
    a->smtp_url = dr_config_str(c, "DR_ALERT_SMTP_URL");
    a->smtp_user = dr_config_str(c, "DR_ALERT_SMTP_USER");
    a->smtp_password = dr_config_secret(c, "DR_ALERT_SMTP_PASSWORD");
    a->from = dr_config_str(c, "DR_ALERT_MAIL_FROM");
    const char *url = a->smtp_url, *to = dr_config_str(c, "DR_ALERT_MAIL_TO");
    if (url[0] == 0) {
        if (a->from[0] || to[0] || a->smtp_user[0] || a->smtp_password->len)
            return bad(err, "DR_ALERT_SMTP_URL", "",
                       "missing, but the rest of the mail settings is there");
        return DR_OK;
    }
    if (strchr(url, '@'))
        return bad(err, "DR_ALERT_SMTP_URL", "***",
                   "holds a login: that goes into DR_ALERT_SMTP_USER and _PASSWORD");
    bool tls = dr_starts(url, "smtps://");
    if (!tls && !dr_starts(url, "smtp://"))
        return bad(err, "DR_ALERT_SMTP_URL", url, "not smtps://host[:port] or smtp://host[:port]");
    const char *host = url + (tls ? 8 : 7);
    if (!has_host(host) ||
        (host[strcspn(host, "/?#")] && strcmp(host + strcspn(host, "/?#"), "/") != 0))
        return bad(err, "DR_ALERT_SMTP_URL", url, "not smtps://host[:port] or smtp://host[:port]");
    if (a->smtp_password->len && !a->smtp_user[0])
        return bad(err, "DR_ALERT_SMTP_USER", "", "missing, but there is a password for it");
    if (!http_mail_address(a->from, strlen(a->from)))
        return bad(err, "DR_ALERT_MAIL_FROM", a->from, "not a bare mail address");
    return read_recipients(to, a, err);
}

enum dr_rc alert_config_read(const struct dr_config *c, struct alert_config *out,
                             struct dr_err *err)
{
    const char *repeat = dr_config_str(c, "DR_ALERT_REPEAT"), *ca;
    uint64_t ms = 0;
    memset(out, 0, sizeof *out);
    if (read_webhook(c, out, err) || read_mail(c, out, err))
        return err->rc;
    if (!dr_parse_duration_ms(repeat, &ms) || ms < REPEAT_MIN_MS || ms > (uint64_t)repeat_max_ms)
        return bad(err, "DR_ALERT_REPEAT", repeat, "not a duration 1s..30d");
    out->repeat_ms = (int64_t)ms;
    out->tries = (unsigned)dr_config_int(c, "DR_ALERT_TRIES");
    ca = dr_config_str(c, "DR_ALERT_CA_FILE");
    out->ca_file = ca[0] ? ca : NULL;
    if (out->ca_file && access(ca, R_OK) != 0)
        return bad(err, "DR_ALERT_CA_FILE", ca, "cannot be read");
    out->ns = dr_config_str(c, "DR_NAMESPACE");
    if (gethostname(out->host, sizeof out->host - 1) != 0)
        (void)snprintf(out->host, sizeof out->host, "localhost");
    return DR_OK;
}

void alert_config_fini(struct alert_config *c)
{
    free(c->recipients);
}

/* The path and a login of a webhook may be its secret: only the host is shown. */
static void show_host(struct dr_buf *out, const char *url)
{
    const char *host = strstr(url, "://") + 3;
    size_t len = strcspn(host, "/?#");
    const char *at = memchr(host, '@', len);
    if (at) {
        len -= (size_t)(at + 1 - host);
        host = at + 1;
    }
    dr_buf_printf(out, "%.*s", (int)(len < HOST_SHOWN ? len : HOST_SHOWN), host);
}

enum dr_rc alert_describe(const struct dr_config *c, bool *any, struct dr_buf *out,
                          struct dr_err *err)
{
    struct alert_config a;
    unsigned n = 0;
    enum dr_rc rc = alert_config_read(c, &a, err);
    if (!rc) {
        dr_buf_str(out, a.webhook ? "webhook at " : "webhook not configured");
        if (a.webhook) {
            show_host(out, (const char *)a.webhook->bytes);
            dr_buf_printf(out, ", %s", a.webhook_key->len ? "signed" : "NOT signed");
        }
        while (a.to[n])
            n++;
        if (a.smtp_url[0])
            dr_buf_printf(out, "; mail by %s to %u", a.smtp_url, n);
        else
            dr_buf_str(out, "; mail not configured");
        *any = a.webhook || a.smtp_url[0];
    }
    alert_config_fini(&a);
    return rc;
}
