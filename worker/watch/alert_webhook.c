/* One notice as JSON to a webhook, signed together with the time of the try. */
#include "worker/watch/alert_internal.h"

#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "common/wire/digest.h"
#include "worker/queue/queue.h"

enum { BODY_MAX = 16384, CONNECT_MS = 5000, DEADLINE_MS = 15000, ANSWER_MAX = 65536 };

static void put(struct dr_buf *b, const char *name, const char *value)
{
    dr_buf_printf(b, ",\"%s\":", name);
    dr_buf_json(b, value, strlen(value));
}

void alert_webhook_body(const struct alert_config *c, const struct queue_notice *n,
                        struct dr_buf *out)
{
    char at[DR_TIME_TEXT], since[DR_TIME_TEXT];
    dr_format_time(n->at_ms, at);
    dr_format_time(n->since_ms, since);
    dr_buf_str(out, "{\"event\":\"alert\"");
    put(out, "id", n->id);
    put(out, "kind", n->kind);
    put(out, "state", n->state);
    put(out, "rule", n->rule);
    put(out, "subject", n->subject);
    put(out, "severity", n->severity);
    put(out, "summary", n->summary);
    put(out, "details", n->details);
    put(out, "at", at);
    put(out, "since", since);
    dr_buf_printf(out, ",\"count\":%llu", (unsigned long long)n->count);
    put(out, "namespace", c->ns);
    put(out, "host", c->host);
    put(out, "version", DR_VERSION);
    dr_buf_str(out, "}");
}

/* Over "TIMESTAMP.BODY": what was recorded cannot be sent again later as if it were new. */
static void sign(const struct dr_secret *key, const char *timestamp, const struct dr_buf *body,
                 char *out, size_t size)
{
    struct dr_buf signed_text;
    char mac[65];
    dr_buf_init(&signed_text, BODY_MAX + 64);
    dr_buf_printf(&signed_text, "%s.", timestamp);
    dr_buf_add(&signed_text, body->data, body->len);
    dr_hmac_sha256_hex(key, signed_text.data, signed_text.len, mac);
    (void)snprintf(out, size, "X-DR-Signature: sha256=%s", mac);
    dr_buf_fini(&signed_text);
}

enum dr_rc alert_webhook_send(struct alerts *a, const struct queue_notice *n,
                              uint64_t *retry_after_s, struct dr_err *err)
{
    const struct alert_config *c = &a->config;
    char timestamp[24], stamp[64], id[64], signature[96];
    const char *headers[] = {"Content-Type: application/json", stamp, id, signature, NULL};
    struct http_response response;
    struct dr_buf body;
    dr_buf_init(&body, BODY_MAX);
    alert_webhook_body(c, n, &body);
    (void)snprintf(timestamp, sizeof timestamp, "%lld", (long long)(queue_now_ms(a->queue) / 1000));
    (void)snprintf(stamp, sizeof stamp, "X-DR-Timestamp: %s", timestamp);
    (void)snprintf(id, sizeof id, "X-DR-Delivery: %s", n->id);
    if (c->webhook_key->len)
        sign(c->webhook_key, timestamp, &body, signature, sizeof signature);
    else
        headers[3] = NULL;
    const struct http_request r = {.url = (const char *)c->webhook->bytes,
                                   .method = "POST",
                                   .headers = headers,
                                   .body = body.data,
                                   .body_len = body.len,
                                   .ca_file = c->ca_file,
                                   .plain = c->allow_private,
                                   .public_only = !c->allow_private,
                                   .response_max_bytes = ANSWER_MAX,
                                   .connect_ms = CONNECT_MS,
                                   .deadline_ms = DEADLINE_MS};
    enum dr_rc rc = http_perform(a->http, &r, &a->stop, &response, err);
    if (!rc && (response.status < 200 || response.status > 299)) {
        *retry_after_s = response.retry_after_s;
        rc = dr_fail(err, DR_E_PROTOCOL, "answered %u", response.status);
    }
    http_response_fini(&response);
    dr_buf_fini(&body);
    return rc;
}
