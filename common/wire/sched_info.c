/* Schedules as Redis has them. */
#include "common/wire/sched_info.h"

#include <string.h>

#include "common/wire/pack.h"
#include "common/wire/pull.h"

enum { DEPTH_MAX = 4 };

void dr_sched_info_pack(const struct dr_sched_info *s, const char *const (*args)[2],
                        struct dr_buf *out)
{
    size_t n = 0;
    while (args && args[n][0])
        n++;
    dr_pack_map(out, 8);
    dr_pack_pair(out, "lane", s->lane);
    dr_pack_pair(out, "cron", s->cron);
    dr_pack_pair(out, "zone", s->zone);
    dr_pack_pair(out, "misfire", s->misfire);
    dr_pack_text(out, "late_ms");
    dr_pack_uint(out, s->late_ms);
    dr_pack_pair(out, "overlap", s->overlap);
    dr_pack_text(out, "jitter_ms");
    dr_pack_uint(out, s->jitter_ms);
    dr_pack_text(out, "args");
    dr_pack_map(out, n);
    for (size_t i = 0; i < n; i++)
        dr_pack_pair(out, args[i][0], args[i][1]);
}

struct target {
    const char *name;
    char *text; /* or */
    size_t size;
    uint64_t *number;
};

static bool read_map(const void *bytes, size_t len, const struct target *targets, size_t count)
{
    struct dr_pull p;
    dr_pull_init(&p, bytes, len);
    size_t pairs = dr_pull_map(&p, 2);
    if (p.bad)
        return false;
    for (; pairs > 0 && !p.bad; pairs--) {
        size_t n, i = 0;
        const unsigned char *key = dr_pull_str(&p, &n);
        while (i < count && !p.bad &&
               (strlen(targets[i].name) != n || memcmp(targets[i].name, key, n) != 0))
            i++;
        struct dr_pull value = p;
        dr_pull_skip(&p, DEPTH_MAX);
        if (p.bad || i == count)
            continue;
        if (targets[i].number) {
            uint64_t v = dr_pull_uint(&value);
            *targets[i].number = value.bad ? 0 : v;
        } else {
            const unsigned char *s = dr_pull_str(&value, &n);
            if (!value.bad && n < targets[i].size && !memchr(s, 0, n)) {
                memcpy(targets[i].text, s, n);
                targets[i].text[n] = 0;
            }
        }
    }
    return true;
}

bool dr_sched_info_read(const void *bytes, size_t len, struct dr_sched_info *out)
{
    const struct target targets[] = {
        {"lane", out->lane, sizeof out->lane, NULL},
        {"cron", out->cron, sizeof out->cron, NULL},
        {"zone", out->zone, sizeof out->zone, NULL},
        {"misfire", out->misfire, sizeof out->misfire, NULL},
        {"late_ms", NULL, 0, &out->late_ms},
        {"overlap", out->overlap, sizeof out->overlap, NULL},
        {"jitter_ms", NULL, 0, &out->jitter_ms},
    };
    memset(out, 0, sizeof *out);
    return read_map(bytes, len, targets, sizeof targets / sizeof targets[0]);
}

bool dr_sched_last_read(const void *bytes, size_t len, struct dr_sched_last *out)
{
    const struct target targets[] = {{"slot", NULL, 0, &out->slot_ms},
                                     {"at", NULL, 0, &out->at_ms},
                                     {"jid", out->jid, sizeof out->jid, NULL},
                                     {"why", out->why, sizeof out->why, NULL}};
    memset(out, 0, sizeof *out);
    return read_map(bytes, len, targets, sizeof targets / sizeof targets[0]);
}
