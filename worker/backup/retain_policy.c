/* RETENTION_* as numbers, and as the text that the plan hash holds. */
#include <stdio.h>
#include <string.h>

#include "worker/backup/retain.h"

static enum dr_rc refuse(struct dr_err *err, const char *name, const char *value, const char *why)
{
    (void)dr_fail(err, DR_E_CONFIG, "%s: %s", name, why);
    return dr_err_field(err, name, value, strlen(value));
}

static void useless(const struct retain_policy *p, char warning[160])
{
    warning[0] = 0;
    if (p->weekly_weeks > 0 && p->daily_days >= 7 * p->weekly_weeks)
        (void)snprintf(warning, 160,
                       "RETENTION_DAILY_DAYS=%d reaches as far as RETENTION_WEEKLY_WEEKS=%d: the "
                       "weekly rule keeps nothing more",
                       p->daily_days, p->weekly_weeks);
    else if (p->monthly_months > 0 && p->weekly_weeks * 7 >= 31 * p->monthly_months)
        (void)snprintf(warning, 160,
                       "RETENTION_WEEKLY_WEEKS=%d reaches as far as RETENTION_MONTHLY_MONTHS=%d: "
                       "the monthly rule keeps little more",
                       p->weekly_weeks, p->monthly_months);
    else if (p->yearly_years > 0 && p->monthly_months >= 12 * p->yearly_years)
        (void)snprintf(warning, 160,
                       "RETENTION_MONTHLY_MONTHS=%d reaches as far as RETENTION_YEARLY_YEARS=%d: "
                       "the yearly rule keeps nothing more",
                       p->monthly_months, p->yearly_years);
}

enum dr_rc retain_policy_read(const struct dr_config *c, struct retain_policy *out,
                              char warning[160], struct dr_err *err)
{
    struct retain_policy p = {.hourly_hours = (int)dr_config_int(c, "RETENTION_HOURLY_HOURS"),
                              .daily_days = (int)dr_config_int(c, "RETENTION_DAILY_DAYS"),
                              .weekly_weeks = (int)dr_config_int(c, "RETENTION_WEEKLY_WEEKS"),
                              .monthly_months = (int)dr_config_int(c, "RETENTION_MONTHLY_MONTHS"),
                              .yearly_years = (int)dr_config_int(c, "RETENTION_YEARLY_YEARS"),
                              .critical_days = (int)dr_config_int(c, "RETENTION_CRITICAL_DAYS"),
                              .min_keep = (int)dr_config_int(c, "RETENTION_MIN_KEEP"),
                              .grace_hours = (int)dr_config_int(c, "RETENTION_GRACE_HOURS"),
                              .max_delete = (int)dr_config_int(c, "RETENTION_MAX_DELETE"),
                              .clock_skew_s = (int)dr_config_int(c, "RETENTION_CLOCK_SKEW_S"),
                              .keep_oldest = dr_config_bool(c, "RETENTION_KEEP_OLDEST")};
    const char *tz = dr_config_str(c, "RETENTION_TZ");
    if (!tz[0] || strchr(tz, '\n'))
        return refuse(err, "RETENTION_TZ", tz, "not the name of a zone");
    (void)snprintf(p.tz, sizeof p.tz, "%s", tz);
    if (!p.hourly_hours && !p.daily_days && !p.weekly_weeks && !p.monthly_months && !p.yearly_years)
        return refuse(err, "RETENTION_DAILY_DAYS", "0",
                      "0, as are the hourly, weekly, monthly and yearly rule: a policy without a "
                      "rule is refused (1..3650)");
    if (warning)
        useless(&p, warning);
    *out = p;
    return DR_OK;
}

void retain_policy_text(const struct retain_policy *p, struct dr_buf *out)
{
    dr_buf_printf(out,
                  "RETENTION_CLOCK_SKEW_S=%d\nRETENTION_CRITICAL_DAYS=%d\nRETENTION_DAILY_DAYS=%d\n"
                  "RETENTION_GRACE_HOURS=%d\nRETENTION_HOURLY_HOURS=%d\nRETENTION_KEEP_OLDEST=%s\n",
                  p->clock_skew_s, p->critical_days, p->daily_days, p->grace_hours, p->hourly_hours,
                  p->keep_oldest ? "true" : "false");
    dr_buf_printf(out,
                  "RETENTION_MAX_DELETE=%d\nRETENTION_MIN_KEEP=%d\nRETENTION_MONTHLY_MONTHS=%d\n"
                  "RETENTION_TZ=%s\nRETENTION_WEEKLY_WEEKS=%d\nRETENTION_YEARLY_YEARS=%d\n",
                  p->max_delete, p->min_keep, p->monthly_months, p->tz, p->weekly_weeks,
                  p->yearly_years);
}
