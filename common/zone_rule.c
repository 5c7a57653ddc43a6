/* POSIX TZ strings. */
#include "common/zone_internal.h"

#include <string.h>

#include "common/civil.h"

static int64_t year_of(int64_t utc_s)
{
    return dr_civil_from_days(dr_floor_div(utc_s, ZONE_DAY)).year;
}

static int64_t rule_day(const struct zone_when *w, int64_t year)
{
    if (w->kind == ZONE_DAY_OF_YEAR)
        return dr_days_from_civil(year, 1, 1) + w->day;
    if (w->kind == ZONE_JULIAN) /* 60 is always 1 March */
        return dr_days_from_civil(year, 1, 1) + w->day - 1 +
               (w->day > 59 && dr_civil_exists(year, 2, 29));
    int64_t month = dr_days_from_civil(year, w->month, 1);
    int sunday_first = (dr_weekday(month) + 1) % 7;
    int64_t day = month + (w->day - sunday_first + 7) % 7 + 7 * (w->week - 1);
    return day < dr_days_from_civil(year, w->month + 1, 1) ? day : day - 7; /* 5: the last one */
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
    /* A change of last year's rule may lie in this one, still to come: the one before it counts. */
    for (int64_t y = year - 2; y <= year + 1; y++) {
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
