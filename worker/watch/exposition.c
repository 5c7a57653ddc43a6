/* Prometheus text exposition. */
#include "worker/watch/exposition.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/str.h"

void exposition_observe(struct exposition_histogram *h, double seconds)
{
    unsigned i = 0;
    if (!(seconds >= 0)) /* a clock that went back, or NaN */
        seconds = 0;
    while (i < EXPOSITION_BUCKETS_MAX && h->bounds[i] > 0 && seconds > h->bounds[i])
        i++;
    if (i == EXPOSITION_BUCKETS_MAX || h->bounds[i] <= 0)
        i = EXPOSITION_BUCKETS_MAX;
    h->counts[i]++;
    h->sum += seconds;
}

/* Escapes of a label value: backslash, quote, line feed. */
static void add_escaped(struct dr_buf *b, const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t left = strlen(s);
    while (left > 0) {
        size_t n = dr_utf8_len(p, left);
        if (n == 0)
            dr_buf_add(b, "\xef\xbf\xbd", 3);
        else if (*p == '\\')
            dr_buf_add(b, "\\\\", 2);
        else if (*p == '"')
            dr_buf_add(b, "\\\"", 2);
        else if (*p == '\n')
            dr_buf_add(b, "\\n", 2);
        else
            dr_buf_add(b, p, n);
        p += n ? n : 1;
        left -= n ? n : 1;
    }
}

void exposition_family(struct dr_buf *b, const char *name, const char *type, const char *help)
{
    dr_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_labels(struct dr_buf *b, va_list ap)
{
    const char *label;
    bool any = false;
    while ((label = va_arg(ap, const char *))) {
        const char *value = va_arg(ap, const char *);
        dr_buf_str(b, any ? "," : "{");
        dr_buf_str(b, label);
        dr_buf_str(b, "=\"");
        add_escaped(b, value);
        dr_buf_str(b, "\"");
        any = true;
    }
    if (any)
        dr_buf_str(b, "}");
}

static void add_real(struct dr_buf *b, double v)
{
    if (isnan(v))
        dr_buf_str(b, " NaN\n");
    else if (isinf(v))
        dr_buf_str(b, v > 0 ? " +Inf\n" : " -Inf\n");
    else
        dr_buf_printf(b, " %.15g\n", v);
}

void exposition_uint(struct dr_buf *b, const char *name, uint64_t value, ...)
{
    va_list ap;
    dr_buf_str(b, name);
    va_start(ap, value);
    add_labels(b, ap);
    va_end(ap);
    dr_buf_printf(b, " %llu\n", (unsigned long long)value);
}

void exposition_real(struct dr_buf *b, const char *name, double value, ...)
{
    va_list ap;
    dr_buf_str(b, name);
    va_start(ap, value);
    add_labels(b, ap);
    va_end(ap);
    add_real(b, value);
}

void exposition_buckets(struct dr_buf *b, const char *name, const struct exposition_histogram *h,
                        const char *label, const char *value)
{
    char full[96], bound[32];
    uint64_t sum = 0;
    /* without a label of its own, `le` comes first and ends the list */
    (void)snprintf(full, sizeof full, "%s_bucket", name);
    for (unsigned i = 0; i < EXPOSITION_BUCKETS_MAX && h->bounds[i] > 0; i++) {
        sum += h->counts[i];
        (void)snprintf(bound, sizeof bound, "%.15g", h->bounds[i]);
        exposition_uint(b, full, sum, "le", bound, label, value, NULL);
    }
    sum += h->counts[EXPOSITION_BUCKETS_MAX];
    exposition_uint(b, full, sum, "le", "+Inf", label, value, NULL);
    (void)snprintf(full, sizeof full, "%s_sum", name);
    exposition_real(b, full, h->sum, label, value, NULL);
    (void)snprintf(full, sizeof full, "%s_count", name);
    exposition_uint(b, full, sum, label, value, NULL);
}
