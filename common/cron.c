/* Cron expressions: parsed into sets, searched month by month. */
#include "common/cron.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/civil.h"
#include "common/str.h"

enum { DAY_MINUTES = 1440, DAY_S = 86400, TEXT_MAX = 256 };
static const int64_t LAST_S = 253402300799; /* 9999-12-31T23:59:59Z */

struct field {
    const char *name;
    unsigned min, max;
    const char *words; /* three letters each, from `first` on */
    unsigned first;
};

static const struct field fields[] = {
    {"minute", 0, 59, "", 0},
    {"hour", 0, 23, "", 0},
    {"day", 1, 31, "", 0},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec", 1},
    {"weekday", 0, 7, "sunmontuewedthufrisat", 0},
};

static bool number(const char *s, unsigned min, unsigned max, unsigned *out)
{
    uint64_t v;
    if (strlen(s) > 2 || !dr_parse_u64(s, min, max, &v))
        return false;
    *out = (unsigned)v;
    return true;
}

static bool value(const struct field *f, const char *s, unsigned *out)
{
    for (unsigned i = 0; strlen(s) == 3 && f->words[i]; i += 3)
        if (strncasecmp(s, f->words + i, 3) == 0) {
            *out = f->first + i / 3;
            return true;
        }
    return number(s, f->min, f->max, out);
}

/* One of a list: `*`, n, a-b; the first and the last with /step. */
static bool item(const struct field *f, char *s, uint64_t *set)
{
    char *step_text = strchr(s, '/'), *high_text;
    unsigned low = f->min, high = f->max, step = 1;
    if (step_text)
        *step_text++ = 0;
    bool star = strcmp(s, "*") == 0;
    if (star) {
        high = f->max == 7 ? 6 : f->max; /* one Sunday */
    } else {
        if ((high_text = strchr(s, '-')))
            *high_text++ = 0;
        if (!value(f, s, &low) || (high_text && !value(f, high_text, &high)))
            return false;
        if (!high_text)
            high = low;
        else if (f->max == 7 && low > 0 && high == 0)
            high = 7; /* fri-sun */
        star = high_text != NULL;
    }
    if (low > high || (step_text && (!star || !number(step_text, 1, f->max, &step))))
        return false;
    for (unsigned v = low; v <= high; v += step)
        *set |= 1ull << v;
    return true;
}

static enum dr_rc bad(const struct field *f, const char *text, struct dr_err *err)
{
    (void)dr_fail(err, DR_E_INVALID, "cron: %s is not %u to %u, `*`, a range, a step or a list",
                  f->name, f->min, f->max);
    (void)dr_err_field(err, f->name, text, strlen(text));
    return DR_E_INVALID;
}

static enum dr_rc parse_field(const struct field *f, const char *text, uint64_t *set,
                              struct dr_err *err)
{
    char copy[TEXT_MAX], *rest = copy, *one;
    (void)snprintf(copy, sizeof copy, "%s", text);
    *set = 0;
    while ((one = strsep(&rest, ",")))
        if (!item(f, one, set))
            return bad(f, text, err);
    return DR_OK;
}

static const char *spelt_out(const char *text)
{
    static const char *const names[][2] = {
        {"@hourly", "0 * * * *"},   {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
        {"@weekly", "0 0 * * 0"},   {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
        {"@annually", "0 0 1 1 *"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(text, names[i][0]) == 0)
            return names[i][1];
    return text;
}

/* 2000 was a leap year: a date that it lacks never comes. */
static bool some_date(const struct dr_cron *c)
{
    for (int m = 1; m <= 12; m++)
        for (int d = 1; d <= 31; d++)
            if (c->months >> m & 1 && c->days >> d & 1 && dr_civil_exists(2000, m, d))
                return true;
    return false;
}

enum dr_rc dr_cron_parse(const char *text, struct dr_cron *out, struct dr_err *err)
{
    char copy[TEXT_MAX], *rest = copy, *word, *words[5];
    uint64_t sets[5];
    unsigned n = 0;
    bool fits = strlen(text) < sizeof copy;
    (void)snprintf(copy, sizeof copy, "%s", spelt_out(text));
    while (fits && (word = strsep(&rest, " \t")))
        if (*word) {
            if (n < 5)
                words[n] = word;
            n++;
        }
    if (n != 5) {
        (void)dr_fail(err, DR_E_INVALID, "cron: not the five fields minute hour day month weekday");
        (void)dr_err_field(err, "cron", text, strlen(text));
        return DR_E_INVALID;
    }
    for (unsigned i = 0; i < 5; i++)
        if (parse_field(&fields[i], words[i], &sets[i], err))
            return DR_E_INVALID;
    *out = (struct dr_cron){.minutes = sets[0],
                            .hours = (uint32_t)sets[1],
                            .days = (uint32_t)sets[2],
                            .months = (uint32_t)sets[3],
                            .weekdays = (uint32_t)((sets[4] | sets[4] >> 7) & 0x7f),
                            .every_day = words[2][0] == '*',
                            .every_weekday = words[4][0] == '*'};
    if ((out->every_day || out->every_weekday) && !some_date(out)) {
        (void)dr_fail(err, DR_E_INVALID, "cron: no such date in any year");
        (void)dr_err_field(err, "day", words[2], strlen(words[2]));
        return DR_E_INVALID;
    }
    return DR_OK;
}

static bool day_matches(const struct dr_cron *c, int64_t day, int of_month)
{
    bool date = c->days >> of_month & 1;
    bool weekday = c->weekdays >> ((dr_weekday(day) + 1) % 7) & 1; /* dr_weekday: 0 Monday */
    return c->every_day || c->every_weekday ? date && weekday : date || weekday;
}

/* The first minute of the day from `from` on; -1: none is left. */
static int minute_of_day(const struct dr_cron *c, int from)
{
    for (int h = from / 60; h < 24; h++) {
        if (!(c->hours >> h & 1))
            continue;
        for (int m = h == from / 60 ? from % 60 : 0; m < 60; m++)
            if (c->minutes >> m & 1)
                return h * 60 + m;
    }
    return -1;
}

/* The first wall clock minute from `minute` on (since 1970) that matches; INT64_MAX: none. */
static int64_t match(const struct dr_cron *c, int64_t minute)
{
    int64_t day = dr_floor_div(minute, DAY_MINUTES);
    int from = (int)(minute - day * DAY_MINUTES);
    while (day <= LAST_S / DAY_S) {
        struct dr_civil date = dr_civil_from_days(day);
        if (!(c->months >> date.month & 1)) {
            day = dr_days_from_civil(date.year, date.month + 1, 1);
        } else {
            int found = day_matches(c, day, date.day) ? minute_of_day(c, from) : -1;
            if (found >= 0)
                return day * DAY_MINUTES + found;
            day++;
        }
        from = 0;
    }
    return INT64_MAX;
}

int64_t dr_cron_next(const struct dr_cron *c, const struct dr_zone *z, int64_t after_s)
{
    if (after_s < 0)
        after_s = -1; /* nothing was scheduled before 1970 */
    if (after_s > LAST_S)
        return INT64_MAX;
    int64_t minute = dr_floor_div(after_s + dr_zone_offset(z, after_s), 60);
    /* In a repeated hour the wall clock has shown later minutes before: theirs are over. */
    while ((minute = match(c, minute + 1)) < INT64_MAX) {
        int64_t at = dr_zone_resolve(z, minute * 60);
        if (at > after_s)
            return at;
    }
    return INT64_MAX;
}
