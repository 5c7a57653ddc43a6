/* Strict text parsing and encoding. */
#include "common/str.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/civil.h"

enum { DAY_MS = 86400000 };

bool dr_parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (!s || !*s)
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9')
            return false;
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    }
    if (v < min || v > max)
        return false;
    *out = v;
    return true;
}

bool dr_parse_i64(const char *s, int64_t min, int64_t max, int64_t *out)
{
    bool negative = s && *s == '-';
    uint64_t v;
    if (!dr_parse_u64(s ? s + negative : s, 0, (uint64_t)INT64_MAX + negative, &v))
        return false;
    int64_t i = negative ? (int64_t)(0 - v) : (int64_t)v;
    if (i < min || i > max)
        return false;
    *out = i;
    return true;
}

bool dr_parse_bool(const char *s, bool *out)
{
    static const char *const yes[] = {"true", "1", "yes", "on"};
    static const char *const no[] = {"false", "0", "no", "off"};
    for (size_t i = 0; i < 4; i++) {
        if (strcasecmp(s, yes[i]) == 0)
            return *out = true, true;
        if (strcasecmp(s, no[i]) == 0)
            return *out = false, true;
    }
    return false;
}

bool dr_parse_duration_ms(const char *s, uint64_t *out_ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {"", 1000}};
    char digits[24];
    size_t n = s ? strspn(s, "0123456789") : 0;
    if (n == 0 || n >= sizeof digits)
        return false;
    memcpy(digits, s, n);
    digits[n] = 0;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        uint64_t v;
        if (strcmp(s + n, units[i].unit) != 0)
            continue;
        if (!dr_parse_u64(digits, 0, UINT64_MAX, &v))
            return false;
        return !__builtin_mul_overflow(v, units[i].ms, out_ms);
    }
    return false;
}

void dr_format_time(int64_t unix_ms, char out[DR_TIME_TEXT])
{
    int64_t days = dr_floor_div(unix_ms, DAY_MS);
    unsigned ms = (unsigned)(unix_ms - days * DAY_MS);
    struct dr_civil c = dr_civil_from_days(days);
    if (c.year < 0 || c.year > 9999) {
        (void)snprintf(out, DR_TIME_TEXT, "0000-00-00T00:00:00.000Z");
        return;
    }
    (void)snprintf(out, DR_TIME_TEXT, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
                   (unsigned)c.year % 10000u, (unsigned)c.month % 100u, (unsigned)c.day % 100u,
                   ms / 3600000u % 100u, ms / 60000u % 60u, ms / 1000u % 60u, ms % 1000u);
}

/* Reads exactly n digits at *s; false when one is none. */
static bool digits(const char **s, int n, int *out)
{
    *out = 0;
    for (int i = 0; i < n; i++, (*s)++) {
        if (**s < '0' || **s > '9')
            return false;
        *out = *out * 10 + (**s - '0');
    }
    return true;
}

static bool literal(const char **s, char c)
{
    if (**s != c)
        return false;
    (*s)++;
    return true;
}

static bool fraction_and_zone(const char *s, int *ms, int *offset_min)
{
    *ms = 0;
    *offset_min = 0;
    if (*s == '.') {
        int scale = 100;
        const char *start = ++s;
        for (; *s >= '0' && *s <= '9'; s++, scale /= 10)
            *ms += (*s - '0') * scale;
        if (s == start || s - start > 9)
            return false;
    }
    if (*s == 'Z' || *s == 'z')
        return s[1] == 0;
    int sign = *s == '-' ? -1 : 1, h, m;
    if (*s != '+' && *s != '-')
        return false;
    s++;
    if (!digits(&s, 2, &h) || !literal(&s, ':') || !digits(&s, 2, &m) || h > 23 || m > 59)
        return false;
    *offset_min = sign * (h * 60 + m);
    return *s == 0;
}

static bool clock_part(const char **s, int *h, int *mi, int *sec)
{
    return digits(s, 2, h) && literal(s, ':') && digits(s, 2, mi) && literal(s, ':') &&
           digits(s, 2, sec) && *h <= 23 && *mi <= 59 && *sec <= 60;
}

bool dr_parse_time(const char *s, int64_t *out_unix_ms)
{
    int y, mo, d, h, mi, sec, ms, offset;
    if (!s || !digits(&s, 4, &y) || !literal(&s, '-') || !digits(&s, 2, &mo) || !literal(&s, '-') ||
        !digits(&s, 2, &d) || (*s != 'T' && *s != 't' && *s != ' '))
        return false;
    s++;
    if (!clock_part(&s, &h, &mi, &sec) || !fraction_and_zone(s, &ms, &offset) ||
        !dr_civil_exists(y, mo, d))
        return false;
    *out_unix_ms =
        (((dr_days_from_civil(y, mo, d) * 24 + h) * 60 + mi - offset) * 60 + sec) * 1000 + ms;
    return true;
}

void dr_hex(const void *bytes, size_t len, char *out)
{
    static const char set[] = "0123456789abcdef";
    const unsigned char *p = bytes;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = set[p[i] >> 4];
        out[2 * i + 1] = set[p[i] & 15];
    }
    out[2 * len] = 0;
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool dr_unhex(const char *s, size_t len, void *out, size_t out_len)
{
    unsigned char *p = out;
    if (len != 2 * out_len)
        return false;
    for (size_t i = 0; i < out_len; i++) {
        int a = nibble(s[2 * i]), b = nibble(s[2 * i + 1]);
        if (a < 0 || b < 0)
            return false;
        p[i] = (unsigned char)(a * 16 + b);
    }
    return true;
}

bool dr_percent_decode(const char *s, size_t len, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (c == '%') {
            int a = i + 2 < len ? nibble((char)tolower((unsigned char)s[i + 1])) : -1;
            int b = i + 2 < len ? nibble((char)tolower((unsigned char)s[i + 2])) : -1;
            if (a < 0 || b < 0)
                return false;
            c = (char)(a * 16 + b);
            i += 2;
        }
        if (c == 0 || n + 1 >= size)
            return false;
        out[n++] = c;
    }
    out[n] = 0;
    return true;
}

void dr_base32(const void *bytes, size_t len, char *out)
{
    static const char set[] = "abcdefghijklmnopqrstuvwxyz234567";
    const unsigned char *p = bytes;
    unsigned acc = 0, bits = 0;
    for (size_t i = 0; i < len; i++) {
        acc = ((acc << 8) | p[i]) & 0xfffu;
        for (bits += 8; bits >= 5; bits -= 5)
            *out++ = set[(acc >> (bits - 5)) & 31];
    }
    if (bits)
        *out++ = set[(acc << (5 - bits)) & 31];
    *out = 0;
}

size_t dr_utf8_len(const unsigned char *p, size_t left)
{
    if (left == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    /* overlong forms, surrogates, beyond U+10FFFF */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

bool dr_utf8_valid(const void *p, size_t len)
{
    const unsigned char *s = p;
    for (size_t i = 0; i < len;) {
        size_t n = dr_utf8_len(s + i, len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

bool dr_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

unsigned dr_edit_distance(const char *a, const char *b, unsigned max)
{
    enum { MOST = 64 };
    size_t la = strlen(a), lb = strlen(b);
    unsigned row[MOST + 1];
    if (la > MOST || lb > MOST)
        return max + 1;
    for (size_t j = 0; j <= lb; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned corner = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            unsigned change = corner + (a[i - 1] != b[j - 1]);
            corner = row[j];
            unsigned least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = least < change ? least : change;
        }
    }
    return row[lb] > max ? max + 1 : row[lb];
}
