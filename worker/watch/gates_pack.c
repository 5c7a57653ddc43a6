/* Limits from the configuration, checks as msgpack. */
#include "common/config.h"
#include "common/wire/pack.h"
#include "worker/watch/gates.h"

enum { DAY_S = 86400 };

void gates_limits(struct gate_limits *out, const struct dr_config *c)
{
    *out = (struct gate_limits){
        .rpo_database_s = dr_config_int(c, "DR_RPO_DATABASE_S"),
        .rpo_files_s = dr_config_int(c, "DR_RPO_FILES_S"),
        .rpo_full_s = dr_config_int(c, "DR_RPO_FULL_S"),
        .proof_max_s = dr_config_int(c, "DR_VERIFY_MAX_AGE_DAYS") * DAY_S,
        .drill_max_s = dr_config_int(c, "DR_DRILL_MAX_AGE_DAYS") * DAY_S,
        .clock_ms = 5000,
        .clock_critical_ms = 60000,
        .late_s = 300,
        .late_critical_s = 3600,
        .run_silent_s = 3600,
    };
}

static void pack_gate(const struct gate *g, struct dr_buf *map)
{
    dr_pack_map(map, g->measured ? 6 : 3);
    dr_pack_pair(map, "name", g->name);
    dr_pack_pair(map, "status", gate_status_name(g->status));
    dr_pack_pair(map, "detail", g->detail);
    if (!g->measured)
        return;
    dr_pack_text(map, "value");
    dr_pack_int(map, g->value);
    dr_pack_text(map, "limit");
    dr_pack_int(map, g->limit);
    dr_pack_pair(map, "unit", g->unit);
}

unsigned gates_pack(const struct gates *g, struct dr_buf *map)
{
    dr_pack_pair(map, "status", gate_status_name(g->status));
    dr_pack_text(map, "score");
    dr_pack_uint(map, g->score);
    dr_pack_text(map, "checks");
    dr_pack_array(map, g->count);
    for (unsigned i = 0; i < g->count; i++)
        pack_gate(&g->at[i], map);
    return 3;
}
