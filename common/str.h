/* Strict parsing and encoding of text. Nothing here accepts leading blanks, signs it does not
 * mention, or trailing bytes. Any thread. */
#ifndef DR_COMMON_STR_H
#define DR_COMMON_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool dr_parse_u64(const char *s, uint64_t min, uint64_t max,
                  uint64_t *out);                                         /* decimal digits only */
bool dr_parse_i64(const char *s, int64_t min, int64_t max, int64_t *out); /* one '-' allowed */
bool dr_parse_bool(const char *s, bool *out); /* true|false|1|0|yes|no|on|off, any case */
/* "90", "90s", "15m", "3h", "2d", "250ms" -> milliseconds; a bare number is seconds. */
bool dr_parse_duration_ms(const char *s, uint64_t *out_ms);

/* Time as text: 2026-01-02T03:04:05.678Z (24 bytes and NUL). */
#define DR_TIME_TEXT 32
void dr_format_time(int64_t unix_ms, char out[DR_TIME_TEXT]);
/* RFC 3339 with Z or an offset, fraction optional. */
bool dr_parse_time(const char *s, int64_t *out_unix_ms);

void dr_hex(const void *bytes, size_t len, char *out); /* 2*len and NUL, lower case */
/* %XX of a URL. false: a bad escape, a NUL, or over size bytes with its own NUL. */
bool dr_percent_decode(const char *s, size_t len, char *out, size_t size);
bool dr_unhex(const char *s, size_t len, void *out,
              size_t out_len); /* lower case, len == 2*out_len */
/* RFC 4648 without padding, lower case; out holds (len*8+4)/5 and NUL. */
void dr_base32(const void *bytes, size_t len, char *out);

/* Length of the valid UTF-8 character at p (1..4), 0 if there is none. */
size_t dr_utf8_len(const unsigned char *p, size_t left);
bool dr_utf8_valid(const void *p, size_t len);
bool dr_starts(const char *s, const char *prefix);
/* Levenshtein distance, stops counting above max (returns max + 1). */
unsigned dr_edit_distance(const char *a, const char *b, unsigned max);

static inline void dr_put_u16be(unsigned char *p, uint16_t v)
{
    p[0] = (unsigned char)(v >> 8);
    p[1] = (unsigned char)v;
}
static inline void dr_put_u32be(unsigned char *p, uint32_t v)
{
    for (int i = 3; i >= 0; i--, v >>= 8)
        p[i] = (unsigned char)v;
}
static inline void dr_put_u64be(unsigned char *p, uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        p[i] = (unsigned char)v;
}
static inline uint16_t dr_get_u16be(const unsigned char *p)
{
    return (uint16_t)((p[0] << 8) | p[1]);
}
static inline uint32_t dr_get_u32be(const unsigned char *p)
{
    return ((uint32_t)p[0] << 24) | ((uint32_t)p[1] << 16) | ((uint32_t)p[2] << 8) | p[3];
}
static inline uint64_t dr_get_u64be(const unsigned char *p)
{
    return ((uint64_t)dr_get_u32be(p) << 32) | dr_get_u32be(p + 4);
}

#endif
