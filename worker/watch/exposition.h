/* Prometheus text exposition, format 0.0.4, into a caller's buffer; and the cumulative histogram.
 * Pure; any one thread. Names are static text of ours; label values may hold any bytes: they are
 * escaped, and what is not UTF-8 becomes U+FFFD.
 * Source: prometheus.io/docs/instrumenting/exposition_formats. */
#ifndef DR_WORKER_WATCH_EXPOSITION_H
#define DR_WORKER_WATCH_EXPOSITION_H

#include <stdint.h>

#include "common/buf.h"

#define EXPOSITION_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum { EXPOSITION_BUCKETS_MAX = 16 };

/* Upper bounds in seconds, rising, ended by 0; the bucket +Inf is implied. */
struct exposition_histogram {
    const double *bounds;
    uint64_t counts[EXPOSITION_BUCKETS_MAX + 1]; /* not cumulative; the last one is +Inf */
    double sum;
};
void exposition_observe(struct exposition_histogram *h, double seconds);

/* # HELP and # TYPE; type is counter, gauge or histogram. Samples of that family must follow. */
void exposition_family(struct dr_buf *b, const char *name, const char *type, const char *help);
/* One sample; then pairs of label name and value, ended by NULL. */
void exposition_uint(struct dr_buf *b, const char *name, uint64_t value, ...)
    __attribute__((sentinel));
void exposition_real(struct dr_buf *b, const char *name, double value, ...)
    __attribute__((sentinel));
/* _bucket, _sum and _count of one histogram; label NULL: it has none but `le`. */
void exposition_buckets(struct dr_buf *b, const char *name, const struct exposition_histogram *h,
                        const char *label, const char *value);

#endif
