/* Log lines into a fixed line buffer; a line that does not fit ends with "truncated":true. */
#include "common/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/str.h"

enum { LINE_MAX_BYTES = 8192, PAIR_ROOM = 64 };

static _Atomic int log_level = DR_LOG_INFO;
static _Atomic bool log_json = true;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void dr_log_setup(enum dr_log_level level, bool json)
{
    log_level = (int)level;
    log_json = json;
}

bool dr_log_parse_level(const char *s, enum dr_log_level *out)
{
    for (int i = 0; i < 4; i++)
        if (strcasecmp(s, level_names[i]) == 0)
            return *out = (enum dr_log_level)i, true;
    return false;
}

static bool secret_key(const char *key)
{
    static const char *const parts[] = {"password", "secret", "token", "passphrase", "mac"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strcasestr(key, parts[i]))
            return true;
    return strcmp(key, "key") == 0;
}

static void pair(struct dr_buf *b, bool json, const char *key, const char *value)
{
    if (!value)
        return;
    if (secret_key(key))
        value = "***";
    size_t before = b->len;
    dr_buf_printf(b, json ? ",\"%s\":" : " %s=", key);
    dr_buf_json(b, value, strlen(value));
    if (!b->failed)
        return;
    b->failed = false;
    b->len = before; /* a value too long for the line is left out, the line stays valid */
    dr_buf_str(b, json ? ",\"truncated\":true" : " truncated=true");
}

static void begin(struct dr_buf *b, bool json, enum dr_log_level level, const char *event)
{
    char when[DR_TIME_TEXT];
    dr_format_time(dr_wall_ms(), when);
    dr_buf_init(b, LINE_MAX_BYTES - PAIR_ROOM);
    dr_buf_printf(b, json ? "{\"at\":\"%s\",\"level\":\"%s\",\"event\":\"%s\"" : "%s %-5s %s", when,
                  level_names[level], event);
}

static void end(struct dr_buf *b, bool json)
{
    b->max = LINE_MAX_BYTES;
    dr_buf_str(b, json ? "}\n" : "\n");
    for (size_t done = 0; done < b->len;) {
        ssize_t n = write(STDERR_FILENO, b->data + done, b->len - done);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    dr_buf_fini(b);
}

static void pairs(struct dr_buf *b, bool json, va_list ap)
{
    for (const char *key = va_arg(ap, const char *); key; key = va_arg(ap, const char *)) {
        const char *value = va_arg(ap, const char *);
        pair(b, json, key, value);
    }
}

void dr_log(enum dr_log_level level, const char *event, ...)
{
    if ((int)level < log_level)
        return;
    bool json = log_json;
    struct dr_buf b;
    begin(&b, json, level, event);
    va_list ap;
    va_start(ap, event);
    pairs(&b, json, ap);
    va_end(ap);
    end(&b, json);
}

void dr_log_err(enum dr_log_level level, const char *event, const struct dr_err *err, ...)
{
    if ((int)level < log_level)
        return;
    bool json = log_json;
    struct dr_buf b;
    char origin[96];
    (void)snprintf(origin, sizeof origin, "%s:%d", err->file ? err->file : "?", err->line);
    begin(&b, json, level, event);
    pair(&b, json, "kind", dr_rc_name(err->rc));
    pair(&b, json, "reason", err->reason[0] ? err->reason : NULL);
    pair(&b, json, "field", err->field[0] ? err->field : NULL);
    pair(&b, json, "value", err->field[0] ? err->value : NULL);
    pair(&b, json, "msg", err->msg);
    pair(&b, json, "origin", origin);
    va_list ap;
    va_start(ap, err);
    pairs(&b, json, ap);
    va_end(ap);
    end(&b, json);
}
