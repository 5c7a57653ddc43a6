/* The whole plan, every rule of safety on, of many backups in 20 series over 11 years:
 * bench_retain_plan [COUNT]. Prints milliseconds and the peak of the process in MiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/zone.h"
#include "worker/backup/retain.h"

enum { SERIES = 20, ID = 48 };

static int32_t offset(const void *zone, int64_t utc_s)
{
    return dr_zone_offset(zone, utc_s);
}

static void fill(struct retain_item *items, char (*ids)[ID], char (*series)[ID], const char **bases,
                 size_t n, int64_t now_ms)
{
    int64_t step = 11ll * 365 * 86400000 * SERIES / (int64_t)n;
    for (size_t i = 0; i < n; i++) {
        size_t s = i * 7919 % SERIES, place = i / SERIES; /* series interleaved, times not sorted */
        int64_t t = now_ms - 1 - (int64_t)((place * 104729) % (n / SERIES + 1)) * step;
        (void)snprintf(ids[i], ID, "20260102T030405Z-database-%08zx",
                       i * 2654435761u % 4294967296u);
        items[i] = (struct retain_item){.id = ids[i],
                                        .series = series[s],
                                        .source = i % 3 ? "7300000000000000001/15" : NULL,
                                        .t_ms = t,
                                        .bytes = i,
                                        .class = (enum retain_class)(i % 17 ? 0 : i % 4),
                                        .proof = i % 3 ? RETAIN_DEEP : RETAIN_PROVEN,
                                        .offsite = true,
                                        .pinned = i % 1000 == 0};
        if (i > 100 && i % 5 == 0) {
            bases[i] = ids[i / 2];
            items[i].bases = &bases[i];
            items[i].base_count = 1;
        }
    }
}

static unsigned long peak_kib(void)
{
    char line[256];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lu", &kib) == 1)
            break;
    if (f)
        (void)fclose(f);
    return kib;
}

int main(int argc, char **argv)
{
    uint64_t n = 100000;
    if (argc > 1 && !dr_parse_u64(argv[1], SERIES, 10000000, &n))
        return 2;
    struct retain_policy policy;
    struct dr_config *config = NULL;
    char warning[160];
    struct retain_item *items = dr_xarray(n, sizeof *items);
    char(*ids)[ID] = dr_xarray(n, sizeof *ids), (*series)[ID] = dr_xarray(SERIES, sizeof *series);
    const char **bases = dr_xarray(n, sizeof *bases);
    struct dr_zone *zone = NULL;
    struct retain_plan *p = NULL;
    struct dr_err err = {0};
    for (size_t s = 0; s < SERIES; s++)
        (void)snprintf(series[s], ID, "database:customer%zu", s);
    int64_t now = dr_wall_ms();
    fill(items, ids, series, bases, n, now);
    if (setenv("RETENTION_TZ", "Europe/Berlin", 1) || dr_config_load(NULL, &config, &err) ||
        retain_policy_read(config, &policy, warning, &err) || dr_zone_open(policy.tz, &zone, &err))
        return fprintf(stderr, "%s\n", err.msg) > 0 ? 1 : 2;
    struct retain_input in = {.policy = &policy,
                              .items = items,
                              .count = n,
                              .now_ms = now,
                              .offset = offset,
                              .zone = zone,
                              .offsite_configured = true};
    int64_t began = dr_clock_us();
    if (retain_plan(&in, &p, &err))
        return fprintf(stderr, "%s\n", err.msg) > 0 ? 1 : 2;
    double ms = (double)(dr_clock_us() - began) / 1000;
    (void)printf("%.1f ms %.1f MiB kept %zu given-up %zu\n", ms, (double)peak_kib() / 1024, p->kept,
                 p->given_up);
    retain_plan_free(p);
    dr_zone_free(zone);
    dr_config_free(config);
    free(bases);
    free(series);
    free(ids);
    free(items);
    return 0;
}
