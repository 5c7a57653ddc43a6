/* TZif files and what they say of an instant. */
#include "common/zone.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/str.h"
#include "common/zone_internal.h"

/* Today's files have at most 250 times, 20 types and 4 KiB. */
enum { FILE_MAX = 65536, TIMES_MAX = 2000, TYPES_MAX = 256, HEAD = 44, FOOTER_MAX = 128 };
/* Year 31,000 or so: beyond it an instant is none of ours, and sums of seconds stay exact. */
static const int64_t INSTANT_MAX = 900000000000;

struct dr_zone {
    unsigned times, types;
    int64_t at[TIMES_MAX]; /* ascending: from here on the type beside it */
    unsigned char type[TIMES_MAX];
    int32_t offset[TYPES_MAX]; /* the first one also before all times */
    struct zone_rule rule;     /* from the last time on */
};

static int64_t clamp(int64_t s)
{
    return s > INSTANT_MAX ? INSTANT_MAX : s < -INSTANT_MAX ? -INSTANT_MAX : s;
}

/* How many of the times are at or before the instant. */
static unsigned passed(const struct dr_zone *z, int64_t utc_s)
{
    unsigned low = 0, high = z->times;
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        if (z->at[mid] <= utc_s)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

int32_t dr_zone_offset(const struct dr_zone *z, int64_t utc_s)
{
    utc_s = clamp(utc_s);
    unsigned n = passed(z, utc_s);
    if (n == z->times && z->rule.set)
        return zone_rule_offset(&z->rule, utc_s);
    return z->offset[n ? z->type[n - 1] : 0];
}

int64_t dr_zone_next_change(const struct dr_zone *z, int64_t utc_s)
{
    utc_s = clamp(utc_s);
    unsigned n = passed(z, utc_s);
    if (n < z->times)
        return z->at[n];
    return z->rule.set ? zone_rule_next(&z->rule, utc_s) : INT64_MAX;
}

int64_t dr_zone_resolve(const struct dr_zone *z, int64_t local_s)
{
    /* Room for the changes behind it: an instant beyond INSTANT_MAX has no next one. */
    if (local_s > INSTANT_MAX - 2 * ZONE_OFFSET_MAX)
        local_s = INSTANT_MAX - 2 * ZONE_OFFSET_MAX;
    local_s = clamp(local_s);
    int64_t t = local_s - ZONE_OFFSET_MAX - 1; /* the wall clock shows less here, in any zone */
    for (;;) {
        int64_t there = local_s - dr_zone_offset(z, t), change = dr_zone_next_change(z, t);
        if (there <= t)
            return t; /* the clock jumped over it */
        if (there < change)
            return there;
        t = change;
    }
}

struct head {
    uint32_t utc, standard, leap, times, types, chars;
};

static bool read_head(const unsigned char *p, size_t left, struct head *h)
{
    if (left < HEAD || memcmp(p, "TZif", 4) != 0 || p[4] < '2')
        return false;
    h->utc = dr_get_u32be(p + 20);
    h->standard = dr_get_u32be(p + 24);
    h->leap = dr_get_u32be(p + 28);
    h->times = dr_get_u32be(p + 32);
    h->types = dr_get_u32be(p + 36);
    h->chars = dr_get_u32be(p + 40);
    return h->utc <= TYPES_MAX && h->standard <= TYPES_MAX && h->leap <= TIMES_MAX &&
           h->times <= TIMES_MAX && h->types <= TYPES_MAX && h->chars <= TIMES_MAX;
}

static size_t body_size(const struct head *h, size_t time_bytes)
{
    return h->times * (time_bytes + 1) + h->types * 6 + h->chars + h->leap * (time_bytes + 4) +
           h->standard + h->utc;
}

static bool read_tables(struct dr_zone *z, const unsigned char *p, const struct head *h)
{
    const unsigned char *types = p + h->times * 9;
    z->times = h->times;
    z->types = h->types;
    for (unsigned i = 0; i < h->times; i++) {
        z->at[i] = (int64_t)dr_get_u64be(p + 8 * i);
        z->type[i] = p[8 * h->times + i];
        if (z->type[i] >= h->types || (i && z->at[i] <= z->at[i - 1]))
            return false;
    }
    for (unsigned i = 0; i < h->types; i++) {
        z->offset[i] = (int32_t)dr_get_u32be(types + 6 * i);
        if (z->offset[i] < -ZONE_OFFSET_MAX || z->offset[i] > ZONE_OFFSET_MAX)
            return false;
    }
    return true;
}

static bool read_footer(struct dr_zone *z, const unsigned char *p, size_t left)
{
    char text[FOOTER_MAX];
    if (left < 2 || left - 2 >= sizeof text || p[0] != '\n' || p[left - 1] != '\n' ||
        memchr(p, 0, left))
        return false;
    memcpy(text, p + 1, left - 2);
    text[left - 2] = 0;
    return zone_rule_parse(text, &z->rule);
}

enum dr_rc dr_zone_parse(const void *bytes, size_t len, struct dr_zone **out, struct dr_err *err)
{
    const unsigned char *p = bytes, *end = p + len;
    struct head h;
    if (!read_head(p, len, &h) || (size_t)(end - p) - HEAD < body_size(&h, 4))
        return dr_fail(err, DR_E_MALFORMED, "not a TZif file of version 2 or later");
    p += HEAD + body_size(&h, 4); /* the 32-bit block is for readers of version 1 */
    if (!read_head(p, (size_t)(end - p), &h) || (size_t)(end - p) - HEAD < body_size(&h, 8))
        return dr_fail(err, DR_E_MALFORMED, "TZif: bad counts, or cut off");
    if (h.leap || !h.types)
        return dr_fail(err, DR_E_MALFORMED, "TZif: %s", h.leap ? "leap seconds" : "no types");
    struct dr_zone *z = dr_xalloc(sizeof *z);
    p += HEAD;
    if (read_tables(z, p, &h) &&
        read_footer(z, p + body_size(&h, 8), (size_t)(end - p) - body_size(&h, 8))) {
        *out = z;
        return DR_OK;
    }
    free(z);
    return dr_fail(err, DR_E_MALFORMED, "TZif: bad times, types or footer");
}

void dr_zone_free(struct dr_zone *z)
{
    free(z);
}

/* Parts of letters, digits, '_', '+' and '-', joined by single slashes: no dot, no absolute path.
 */
static bool name_ok(const char *s)
{
    bool begins = true;
    if (!*s || strlen(s) > DR_ZONE_NAME_MAX)
        return false;
    for (; *s; s++) {
        bool word =
            (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9');
        if (*s == '/' ? begins : !word && (begins || !strchr("_+-", *s)))
            return false;
        begins = *s == '/';
    }
    return !begins;
}

static enum dr_rc read_file(const char *name, unsigned char *out, size_t *len, struct dr_err *err)
{
    char path[32 + DR_ZONE_NAME_MAX];
    struct stat st;
    ssize_t n = 0;
    (void)snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? dr_fail(err, DR_E_CONFIG, "no time zone %s in /usr/share/zoneinfo", name)
                   : dr_fail_errno(err, DR_E_CONFIG, "open %s", path);
    *len = 0;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    while (regular && *len < FILE_MAX && (n = read(fd, out + *len, FILE_MAX - *len)) > 0)
        *len += (size_t)n;
    (void)close(fd);
    if (!regular || n < 0 || *len == FILE_MAX)
        return dr_fail(err, DR_E_CONFIG, "%s is no time zone", name);
    return DR_OK;
}

enum dr_rc dr_zone_open(const char *name, struct dr_zone **out, struct dr_err *err)
{
    struct dr_err why = {0};
    if (strcmp(name, "UTC") == 0) {
        *out = dr_xalloc(sizeof **out); /* no times, one type, no rule: zero for ever */
        return DR_OK;
    }
    if (!name_ok(name)) {
        (void)dr_fail(err, DR_E_CONFIG, "not the name of a time zone (UTC, Europe/Berlin, ...)");
        (void)dr_err_field(err, "zone", name, strlen(name));
        return DR_E_CONFIG;
    }
    unsigned char *bytes = dr_xalloc(FILE_MAX);
    size_t len = 0;
    enum dr_rc rc = read_file(name, bytes, &len, err);
    if (!rc && dr_zone_parse(bytes, len, out, &why))
        rc = dr_fail(err, DR_E_CONFIG, "time zone %s: %s", name, why.msg);
    free(bytes);
    if (rc)
        (void)dr_err_field(err, "zone", name, strlen(name));
    return rc;
}
