/* Which backup a drill takes: the latest, and in turn with it the one whose last drill is longest
 * ago. In a pool thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "worker/backup/store.h"
#include "worker/backup/store_select.h"
#include "worker/recovery/drill.h"

/* Of the series, or a full backup, and not given up. */
static bool fits(const struct drill_choice *c, const struct store_entry *e)
{
    if (e->tombstoned_at_ms || strcmp(e->class, "emergency") == 0)
        return false;
    if (e->bad[0]) /* its manifest told nothing: the id knows the kind */
        return strcmp(e->kind, c->part->procedure->kind) == 0;
    return store_fits(e, c->part->procedure->kind, c->series);
}

static bool is_usable(const struct store_entry *e)
{
    return e->verified_at_ms && !store_is_damaged(e);
}

/* 0: no budget. */
static uint64_t budget_of(const struct drill_choice *c)
{
    return (uint64_t)dr_config_int(c->r->env->config, "DR_DRILL_BUDGET_BYTES");
}

/* A backup of which only the id is known costs nothing: its drill ends at its manifest. */
static bool is_over(const struct drill_choice *c, const struct store_entry *e)
{
    uint64_t budget = budget_of(c);
    return budget && e->plain_bytes > budget;
}

static const struct store_entry *longest_ago(const struct drill_choice *c,
                                             const struct store_entry *list, size_t count,
                                             const struct store_entry *but)
{
    const struct store_entry *found = NULL;
    for (size_t i = 0; i < count; i++) { /* newest first: the oldest of those never drilled wins */
        const struct store_entry *e = &list[i];
        if (e == but || !e->recorded || !fits(c, e))
            continue;
        c->part->passed_over += is_over(c, e);
        if (!is_over(c, e) && (!found || e->drill_tried_at_ms <= found->drill_tried_at_ms))
            found = e;
    }
    return found;
}

/* Whether the last drill of this procedure took the latest. */
static enum dr_rc is_turn(const struct drill_choice *c, bool *out, struct dr_err *err)
{
    struct drill_line *lines = NULL;
    size_t count = 0;
    enum dr_rc rc = drill_history(c->r->env->store, false, &lines, &count, err);
    *out = false;
    for (size_t i = 0; i < count; i++)
        if (strcmp(lines[i].procedure, c->part->procedure->id) == 0 &&
            strcmp(lines[i].level, "drill") == 0) {
            *out = strcmp(lines[i].chosen_by, "latest") == 0;
            break;
        }
    free(lines);
    return rc;
}

static void take(struct drill_choice *c, const char *id, const char *by)
{
    if (id != c->r->order.backup_id)
        (void)snprintf(c->r->order.backup_id, sizeof c->r->order.backup_id, "%s", id);
    (void)snprintf(c->part->chosen_by, sizeof c->part->chosen_by, "%s", by);
    if (strcmp(id, "latest") != 0)
        (void)snprintf(c->part->backup_id, sizeof c->part->backup_id, "%s", id);
}

enum dr_rc drill_choose(void *choice, struct cancel *cancel, struct dr_err *err)
{
    struct drill_choice *c = choice;
    struct store_entry *list = NULL;
    const struct store_entry *newest = NULL;
    size_t count = 0;
    bool turn = false, ordered = c->r->order.backup_id[0] || c->r->order.before_ms;
    (void)cancel;
    c->part->rpo_s = -1;
    enum dr_rc rc = store_list(c->r->env->store, &list, &count, err);
    if (!rc && !ordered && !recovery_is_exercise(c->r))
        rc = is_turn(c, &turn, err);
    for (size_t i = 0; i < count && !newest; i++)
        if (fits(c, &list[i]) && is_usable(&list[i]))
            newest = &list[i];
    if (newest) {
        int64_t age = dr_wall_ms() - newest->t_point_ms;
        c->part->rpo_s = age > 0 ? age / 1000 : 0;
    }
    const struct store_entry *other = turn ? longest_ago(c, list, count, newest) : NULL;
    if (c->r->order.backup_id[0])
        take(c, c->r->order.backup_id, "ordered");
    else if (ordered)
        take(c, "latest", "ordered");
    else if (other)
        take(c, other->backup_id, "rotation");
    else
        take(c, "latest", "latest");
    if (newest && strcmp(c->part->chosen_by, "latest") == 0 && is_over(c, newest))
        c->part->latest_over = newest->plain_bytes;
    free(list);
    return rc;
}
