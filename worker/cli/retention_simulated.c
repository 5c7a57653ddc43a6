/* drworker retention-plan --simulate: the outcome as a person reads it, and as JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "worker/cli/retention.h"

enum { RULES = RETAIN_OLDEST + 1 };

static void head(const struct retain_sim *s, struct dr_buf *b)
{
    char first[DR_TIME_TEXT], last[DR_TIME_TEXT];
    dr_format_time(s->days[0].t_ms, first);
    dr_format_time(s->days[s->day_count - 1].t_ms, last);
    dr_buf_printf(b, "%.10s to %.10s, retention every night at %.5s UTC\n\n", first, last,
                  first + 11);
}

static void each_series(const struct retain_sim *s, struct dr_buf *b)
{
    char t[DR_TIME_TEXT];
    dr_buf_printf(b, "%-18s %7s %5s", "SERIES", "MADE", "LEFT");
    for (unsigned r = 0; r < RULES; r++)
        dr_buf_printf(b, " %7s", retain_word((enum retain_reason)r));
    dr_buf_str(b, "  OLDEST\n");
    for (int series = 0; series < RETAIN_SIM_SERIES; series++) {
        uint32_t left = 0, by[RULES] = {0};
        int64_t oldest = 0;
        for (size_t i = 0; i < s->left_count; i++) {
            if (s->left[i].series != series)
                continue;
            left++;
            oldest = s->left[i].t_ms;
            for (unsigned r = 0; r < RULES; r++)
                by[r] += (uint32_t)(s->left[i].reasons >> r & 1);
        }
        dr_format_time(oldest, t);
        dr_buf_printf(b, "%-18s %7" PRIu32 " %5" PRIu32, retain_sim_name(series), s->made[series],
                      left);
        for (unsigned r = 0; r < RULES; r++)
            dr_buf_printf(b, " %7" PRIu32, by[r]);
        dr_buf_printf(b, "  %.10s\n", left ? t : "-");
    }
}

/* The first days, then one line a month, a year in long runs. */
static bool shown(const struct retain_sim *s, size_t day, const char *date)
{
    static const size_t early[] = {0, 1, 6, 13};
    for (size_t i = 0; i < sizeof early / sizeof early[0]; i++)
        if (day == early[i])
            return true;
    if (day + 1 == s->day_count)
        return true;
    return strncmp(date + 8, "01", 2) == 0 &&
           (s->day_count < 1500 || strncmp(date + 5, "01", 2) == 0);
}

static void over_time(const struct retain_sim *s, struct dr_buf *b)
{
    char t[DR_TIME_TEXT];
    dr_buf_printf(b, "\n%-10s", "LEFT ON");
    for (int series = 0; series < RETAIN_SIM_SERIES; series++)
        dr_buf_printf(b, "  %16s", retain_sim_name(series));
    dr_buf_str(b, "\n");
    for (size_t d = 0; d < s->day_count; d++) {
        dr_format_time(s->days[d].t_ms, t);
        if (!shown(s, d, t))
            continue;
        dr_buf_printf(b, "%.10s", t);
        for (int series = 0; series < RETAIN_SIM_SERIES; series++)
            dr_buf_printf(b, "  %16" PRIu32, s->days[d].kept[series]);
        dr_buf_str(b, "\n");
    }
}

/* What only the hourly rule keeps is a number, everything else a line. */
static void what_is_left(const struct retain_sim *s, struct dr_buf *b)
{
    char t[DR_TIME_TEXT];
    for (int series = 0; series < RETAIN_SIM_SERIES; series++) {
        uint32_t hourly = 0;
        dr_buf_printf(b, "\n%s, left at the end:\n", retain_sim_name(series));
        for (size_t i = 0; i < s->left_count; i++) {
            if (s->left[i].series != series)
                continue;
            if (s->left[i].reasons == RETAIN_BIT(HOURLY)) {
                hourly++;
                continue;
            }
            dr_format_time(s->left[i].t_ms, t);
            dr_buf_printf(b, "  %.10s %.5s  ", t, t + 11);
            retention_words(s->left[i].reasons, b);
            dr_buf_str(b, "\n");
        }
        if (hourly)
            dr_buf_printf(b, "  and %" PRIu32 " that only the hourly rule keeps\n", hourly);
    }
}

void retention_simulated_text(const struct retain_sim *s, struct dr_buf *b)
{
    head(s, b);
    each_series(s, b);
    over_time(s, b);
    what_is_left(s, b);
    dr_buf_printf(b, "\nplans that would have waited for confirmation: %zu of %zu\n", s->waited,
                  s->day_count);
}

static void days_json(const struct retain_sim *s, struct dr_buf *b)
{
    char t[DR_TIME_TEXT];
    dr_buf_str(b, "\"days\":[");
    for (size_t d = 0; d < s->day_count; d++) {
        dr_format_time(s->days[d].t_ms, t);
        dr_buf_printf(b, "%s\n {\"day\":\"%.10s\",\"waited\":%s", d ? "," : "", t,
                      s->days[d].waited ? "true" : "false");
        for (int series = 0; series < RETAIN_SIM_SERIES; series++)
            dr_buf_printf(b, ",\"%s\":%" PRIu32, retain_sim_name(series), s->days[d].kept[series]);
        dr_buf_str(b, "}");
    }
    dr_buf_str(b, "],\n");
}

void retention_simulated_json(const struct retain_sim *s, struct dr_buf *b)
{
    char t[DR_TIME_TEXT];
    dr_buf_printf(b, "{\"waited\":%zu,\"made\":{", s->waited);
    for (int series = 0; series < RETAIN_SIM_SERIES; series++)
        dr_buf_printf(b, "%s\"%s\":%" PRIu32, series ? "," : "", retain_sim_name(series),
                      s->made[series]);
    dr_buf_str(b, "},\n");
    days_json(s, b);
    dr_buf_str(b, "\"left\":[");
    for (size_t i = 0; i < s->left_count; i++) {
        dr_format_time(s->left[i].t_ms, t);
        dr_buf_printf(b, "%s\n {\"series\":\"%s\",\"time\":\"%s\",\"reasons\":", i ? "," : "",
                      retain_sim_name(s->left[i].series), t);
        retain_words_json(s->left[i].reasons, b);
        dr_buf_str(b, "}");
    }
    dr_buf_str(b, "]}\n");
}
