/* Error records. No allocation, so that running out of memory can be reported too. */
#include "common/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    enum dr_rc rc;
    enum dr_err_class class;
    int exit_code;
    const char *text;
} rows[] = {
#define DR_ERR(name, number, class, exit, text) {DR_E_##name, DR_CLASS_##class, exit, text},
#include "common/err_codes.def"
#undef DR_ERR
};

static void DR_PRINTF(5, 0) record(struct dr_err *err, enum dr_rc rc, const char *file, int line,
                                   const char *fmt, va_list ap)
{
    memset(err, 0, sizeof *err);
    err->rc = rc;
    err->file = file;
    err->line = line;
    (void)vsnprintf(err->msg, sizeof err->msg, fmt, ap);
}

enum dr_rc dr_err_set(struct dr_err *err, enum dr_rc rc, const char *file, int line,
                      const char *fmt, ...)
{
    if (!err)
        return rc;
    if (err->rc != DR_OK)
        return err->rc;
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    record(err, rc, file, line, fmt, ap);
    va_end(ap);
    errno = saved;
    return rc;
}

enum dr_rc dr_err_set_errno(struct dr_err *err, enum dr_rc rc, const char *file, int line,
                            const char *fmt, ...)
{
    int saved = errno;
    if (saved == ENOSPC || saved == EDQUOT)
        rc = DR_E_NO_SPACE;
    if (!err)
        return rc;
    if (err->rc != DR_OK)
        return err->rc;
    va_list ap;
    va_start(ap, fmt);
    record(err, rc, file, line, fmt, ap);
    va_end(ap);
    err->detail = saved;
    char text[128];
    const char *why = strerror_r(saved, text, sizeof text);
    size_t used = strlen(err->msg);
    (void)snprintf(err->msg + used, sizeof err->msg - used, ": %s", why);
    errno = saved;
    return rc;
}

enum dr_rc dr_wrap(struct dr_err *err, const char *fmt, ...)
{
    if (!err || err->rc == DR_OK)
        return err ? err->rc : DR_OK;
    char head[sizeof err->msg], old[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(old, err->msg, sizeof old);
    size_t used = strlen(head);
    if (used > sizeof err->msg / 2)
        used = sizeof err->msg / 2;
    memcpy(err->msg, head, used);
    (void)snprintf(err->msg + used, sizeof err->msg - used, ": %s", old);
    return err->rc;
}

enum dr_rc dr_err_reason(struct dr_err *err, const char *reason)
{
    if (!err)
        return DR_OK;
    if (!err->reason[0])
        (void)snprintf(err->reason, sizeof err->reason, "%s", reason);
    return err->rc;
}

enum dr_rc dr_err_field(struct dr_err *err, const char *field, const void *value, unsigned long len)
{
    if (!err)
        return DR_OK;
    if (err->field[0])
        return err->rc;
    (void)snprintf(err->field, sizeof err->field, "%s", field);
    const unsigned char *p = value;
    size_t n = 0;
    for (unsigned long i = 0; value && i < len && n + 1 < sizeof err->value; i++)
        err->value[n++] = p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '?';
    err->value[n] = 0;
    return err->rc;
}

void dr_err_clear(struct dr_err *err)
{
    memset(err, 0, sizeof *err);
}

const char *dr_rc_name(enum dr_rc rc)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].rc == rc)
            return rows[i].text;
    return rc == DR_OK ? "ok" : "unknown";
}

enum dr_err_class dr_rc_class(enum dr_rc rc)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].rc == rc)
            return rows[i].class;
    return rc == DR_OK ? DR_CLASS_NONE : DR_CLASS_BUG;
}

const char *dr_rc_class_name(enum dr_rc rc)
{
    static const char *const names[] = {"none", "retry", "permanent", "cancelled", "bug"};
    return names[dr_rc_class(rc)];
}

int dr_rc_exit(enum dr_rc rc)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].rc == rc)
            return rows[i].exit_code;
    return rc == DR_OK ? 0 : 1;
}
