/* Growable byte buffer with a mandatory maximum. A failed append frees nothing and sets `failed`;
 * later appends are no-ops, so that a writer may check once at its end. One owner, any thread. */
#ifndef DR_COMMON_BUF_H
#define DR_COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dr_buf {
    unsigned char *data; /* NUL-terminated once anything was appended */
    size_t len, cap, max;
    bool failed; /* over max, or out of memory */
};

void dr_buf_init(struct dr_buf *b, size_t max_bytes);
void dr_buf_fini(struct dr_buf *b);
void dr_buf_reset(struct dr_buf *b); /* keeps the memory */
void dr_buf_add(struct dr_buf *b, const void *bytes, size_t len);
void dr_buf_str(struct dr_buf *b, const char *s);
void dr_buf_printf(struct dr_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void dr_buf_u32be(struct dr_buf *b, uint32_t v);
void dr_buf_u64be(struct dr_buf *b, uint64_t v);
/* A JSON string with quotes: control characters become spaces, bad UTF-8 U+FFFD. */
void dr_buf_json(struct dr_buf *b, const char *s, size_t len);
char *dr_buf_take(struct dr_buf *b); /* moves the bytes out (NUL-terminated); the buffer is empty */

#endif
