/* A mail, by a thread of the pool. On the loop it could not be: when libcurl closes an SMTP
 * connection it says QUIT and waits for the answer there and then. */
#include "worker/core/http_internal.h"

#include <string.h>

#include "worker/core/pool.h"

enum { ADDRESS_MAX = 254, QUIT_S = 10 };

struct mail {
    const struct http_mail *what;
    struct cancel *cancel;
};

bool http_mail_address(const char *text, size_t len)
{
    size_t ats = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] > '~' || strchr("<>()[]\\,;:\"", text[i]))
            return false;
        ats += text[i] == '@';
    }
    return len > 2 && len <= ADDRESS_MAX && ats == 1 && text[0] != '@' && text[len - 1] != '@' &&
           text[0] != '-';
}

static int on_progress(void *arg, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                       curl_off_t ul)
{
    const struct mail *m = arg;
    (void)dl_total;
    (void)dl;
    (void)ul_total;
    (void)ul;
    return cancel_pending(m->cancel) ? 1 : 0;
}

static enum dr_rc prepare(struct http_easy *e, struct mail *m, struct dr_err *err)
{
    const struct http_mail *w = m->what;
    if (http_easy_init(e, w->url, "smtp,smtps", w->ca_file, 0, w->deadline_ms, err))
        return err->rc;
    for (const char *const *to = w->to; *to; to++)
        if (!http_mail_address(*to, strlen(*to)) || http_easy_line(e, *to, err))
            return dr_fail(err, DR_E_INVALID, "not a mail address");
    if (!e->list || !http_mail_address(w->from, strlen(w->from)))
        return dr_fail(err, DR_E_INVALID, "not a mail address");
    CURL *c = e->curl;
    http_easy_body(e, w->message, w->message_len);
    (void)curl_easy_setopt(c, CURLOPT_USE_SSL, (long)CURLUSESSL_ALL);
    (void)curl_easy_setopt(c, CURLOPT_MAIL_FROM, w->from);
    (void)curl_easy_setopt(c, CURLOPT_MAIL_RCPT, e->list);
    (void)curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
    (void)curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)w->message_len);
    (void)curl_easy_setopt(c, CURLOPT_SERVER_RESPONSE_TIMEOUT, (long)QUIT_S);
    (void)curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(c, CURLOPT_XFERINFODATA, m);
    (void)curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    if (w->user && w->user[0]) {
        (void)curl_easy_setopt(c, CURLOPT_USERNAME, w->user);
        (void)curl_easy_setopt(c, CURLOPT_PASSWORD, w->password ? w->password : "");
    }
    return DR_OK;
}

/* What the server said no with; libcurl's own words do not always have it. */
static enum dr_rc judge(const struct http_easy *e, CURLcode code, struct dr_err *err)
{
    long reply = 0;
    (void)curl_easy_getinfo(e->curl, CURLINFO_RESPONSE_CODE, &reply);
    if (code == CURLE_SEND_ERROR && reply >= 400) /* 7.88 says so of a refused recipient */
        return dr_fail(err, DR_E_PROTOCOL, "the server answered %ld", reply);
    return http_easy_judge(e, code, err);
}

static enum dr_rc send_mail(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct mail *m = item;
    struct http_easy e = {0};
    m->cancel = cancel;
    enum dr_rc rc = prepare(&e, m, err);
    if (!rc)
        rc = judge(&e, curl_easy_perform(e.curl), err);
    http_easy_fini(&e);
    return rc;
}

enum dr_rc http_mail_send(struct pool *p, const struct http_mail *m, struct cancel *cancel,
                          struct dr_err *err)
{
    struct dr_err own = {0}, why = {0};
    struct mail mail = {.what = m};
    enum dr_rc rc = pool_run_long(p, send_mail, &mail, cancel, &why);
    if (!rc)
        return DR_OK;
    if (cancel_fired(cancel)) /* whatever libcurl made of it */
        return dr_fail(err ? err : &own, cancel_fired(cancel), "%s", cancel_reason(cancel));
    if (err && !err->rc)
        *err = why;
    return rc;
}
