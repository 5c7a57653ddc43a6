/* POSIX TZ strings. */
#include "common/zone_internal.h"

#include <string.h>

/* Days since 1970-01-01 of 1 January; proleptic Gregorian. */
static int64_t year_begin(int64_t y)
{
    int64_t p = y - 1, leaps = (p >= 0 ? p / 4 - p / 100 + p / 400
                                       : (p - 3) / 4 - (p - 99) / 100 + (p - 399) / 400);
    return (y - 1970) * 365 + leaps - 477;
}

static bool leap(int64_t y)
{
    return y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
}

static int64_t year_of(int64_t utc_s)
{
    int64_t day = utc_s / ZONE_DAY - (utc_s % ZONE_DAY < 0);
    int64_t y = 1970 + day / 366; /* never too late after 1970, never too early before */
    while (year_begin(y) > day)
        y--;
    while (year_begin(y + 1) <= day)
        y++;
    return y;
}

static int64_t rule_day(const struct zone_when *w, int64_t year)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365};
    int64_t first = year_begin(year);
    if (w->kind == ZONE_DAY_OF_YEAR)
        return first + w->day;
    if (w->kind == ZONE_JULIAN)
        return first + w->day - 1 + (leap(year) && w->day > 59);
    int64_t month = first + before[w->month - 1] + (leap(year) && w->month > 2);
    int64_t next = first + before[w->month] + (leap(year) && w->month > 1);
    int weekday = (int)(((month + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
    int64_t day = month + (w->day - weekday + 7) % 7 + 7 * (w->week - 1);
    return day < next ? day : day - 7; /* week 5: the last one */
}

static int64_t begins(const struct zone_rule *r, int64_t year)
{
    return rule_day(&r->begin, year) * ZONE_DAY + r->begin.time - r->standard;
}

static int64_t ends(const struct zone_rule *r, int64_t year)
{
    return rule_day(&r->end, year) * ZONE_DAY + r->end.time - r->daylight;
}

int32_t zone_rule_offset(const struct zone_rule *r, int64_t utc_s)
{
    if (!r->summer)
        return r->standard;
    int64_t year = year_of(utc_s), on = INT64_MIN, off = INT64_MIN;
    for (int64_t y = year - 1; y <= year + 1; y++) {
        int64_t b = begins(r, y), e = ends(r, y);
        if (b <= utc_s && b > on)
            on = b;
        if (e <= utc_s && e > off)
            off = e;
    }
    /* Where the end of one year is the beginning of the next, it never ends. */
    return on >= off ? r->daylight : r->standard;
}

int64_t zone_rule_next(const struct zone_rule *r, int64_t utc_s)
{
    int64_t next = INT64_MAX;
    if (!r->summer)
        return next;
    int64_t year = year_of(utc_s);
    for (int64_t y = year - 1; y <= year + 2; y++) {
        int64_t at[2] = {begins(r, y), ends(r, y)};
        for (int i = 0; i < 2; i++)
            if (at[i] > utc_s && at[i] < next)
                next = at[i];
    }
    return next;
}

static bool number(const char **p, int min, int max, int *out)
{
    int v = 0, digits = 0;
    for (; **p >= '0' && **p <= '9'; (*p)++, digits++) {
        v = v * 10 + (**p - '0');
        if (digits > 3)
            return false;
    }
    *out = v;
    return digits > 0 && v >= min && v <= max;
}

/* [+-]hh[:mm[:ss]] */
static bool clock_text(const char **p, int hours_max, int32_t *out)
{
    int part[3] = {0, 0, 0}, sign = 1;
    if (**p == '+' || **p == '-')
        sign = *(*p)++ == '-' ? -1 : 1;
    if (!number(p, 0, hours_max, &part[0]))
        return false;
    for (int i = 1; i < 3 && **p == ':'; i++) {
        (*p)++;
        if (!number(p, 0, 59, &part[i]))
            return false;
    }
    *out = sign * (part[0] * 3600 + part[1] * 60 + part[2]);
    return true;
}

static bool alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool abbreviation(const char **p)
{
    const char *from = *p;
    if (*from == '<') {
        from = ++*p;
        while (alpha(**p) || (**p >= '0' && **p <= '9') || **p == '+' || **p == '-')
            (*p)++;
        return *p - from >= 3 && *(*p)++ == '>';
    }
    while (alpha(**p))
        (*p)++;
    return *p - from >= 3;
}

static bool when(const char **p, struct zone_when *w)
{
    if (*(*p)++ != ',')
        return false;
    bool ok;
    if (**p == 'M') {
        (*p)++;
        w->kind = ZONE_WEEKDAY;
        ok = number(p, 1, 12, &w->month) && *(*p)++ == '.' && number(p, 1, 5, &w->week) &&
             *(*p)++ == '.' && number(p, 0, 6, &w->day);
    } else {
        bool julian = **p == 'J';
        *p += julian;
        w->kind = julian ? ZONE_JULIAN : ZONE_DAY_OF_YEAR;
        ok = number(p, julian, 365, &w->day);
    }
    w->time = 2 * 3600;
    if (ok && **p == '/') {
        (*p)++;
        ok = clock_text(p, 167, &w->time);
    }
    return ok;
}

bool zone_rule_parse(const char *p, struct zone_rule *out)
{
    memset(out, 0, sizeof *out);
    if (!*p)
        return true;
    if (!abbreviation(&p) || !clock_text(&p, 24, &out->standard))
        return false;
    out->set = true;
    out->standard = -out->standard; /* POSIX counts to the west */
    if (!*p)
        return true;
    if (!abbreviation(&p))
        return false;
    out->summer = true;
    out->daylight = out->standard + 3600;
    if (*p != ',') {
        if (!clock_text(&p, 24, &out->daylight))
            return false;
        out->daylight = -out->daylight;
    }
    return when(&p, &out->begin) && when(&p, &out->end) && !*p;
}
