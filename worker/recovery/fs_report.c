/* Dry run: what a run would do, how long it would take, and what of live would be lost. Reads names
 * and times of the live trees, changes nothing. In a fiber, the work in the pool. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/mem.h"
#include "common/wire/pack.h"
#include "worker/core/pool.h"
#include "worker/recovery/fs_internal.h"

enum {
    REPORT_MAX = 1 << 20,
    US_PER_ENTRY = 60, /* to make, to look at again, to swap: measured on a small machine */
    PASSES = 3,        /* restore, verification and emergency backup, each at the proof's pace */
    DAMAGE_MAX = 256
};

struct comparing {
    struct recovery *r;
    unsigned root;
    char damage[DAMAGE_MAX];
};

static void count_lost(struct fs_loss *l, const char *path, const struct stat *st, bool known)
{
    if (known)
        l->changed++;
    else
        l->added++;
    if (S_ISREG(st->st_mode))
        l->bytes += (uint64_t)st->st_size;
    if (l->name_count < FS_NAMES_MAX)
        l->names[l->name_count++] = dr_xstrdup(path);
}

static enum dr_rc visit(void *arg, const char *path, const struct stat *st, bool *into,
                        struct dr_err *err)
{
    struct comparing *c = arg;
    struct fs *f = fs_of(c->r);
    char *full = dr_xasprintf("%s/%s", f->roots[c->root].path, path);
    enum fs_match match = fs_known_find(&f->known, full + 1, st);
    (void)err;
    f->loss.live_entries++;
    *into = true;
    if (fs_index_skips(f, full) || (match == FS_UNKNOWN && c->r->order.keep_newer)) {
        f->loss.carried++;
        *into = false;
    } else if (match == FS_UNKNOWN || (match == FS_CHANGED && !S_ISDIR(st->st_mode))) {
        if (!S_ISDIR(st->st_mode))
            count_lost(&f->loss, full, st, match == FS_CHANGED);
    }
    f->loss.returning -= match != FS_UNKNOWN && f->loss.returning > 0;
    free(full);
    return DR_OK;
}

static enum dr_rc compare_item(void *item, struct cancel *cancel, struct dr_err *err)
{
    struct comparing *c = item;
    struct fs *f = fs_of(c->r);
    f->loss.returning = f->known.count;
    for (c->root = 0; c->root < f->root_count; c->root++) {
        const struct fs_walk w = {.fd = swap_root_fd(f->swap, c->root),
                                  .root = f->roots[c->root].path,
                                  .visit = visit,
                                  .arg = c,
                                  .cancel = cancel};
        struct dr_err why = {0};
        if (w.fd < 0)
            continue;
        f->loss.returning -= f->loss.returning > 0; /* the root itself */
        if (fs_walk(&w, &why) == DR_OK)
            continue;
        if (why.rc == DR_E_CANCELLED) {
            *err = why;
            return why.rc;
        }
        (void)snprintf(c->damage, sizeof c->damage, "%s", why.msg); /* no reason not to recover */
    }
    return DR_OK;
}

static void pack_step(struct dr_buf *b, const char *step, const char *does)
{
    dr_pack_map(b, 2);
    dr_pack_pair(b, "step", step);
    dr_pack_pair(b, "does", does);
}

static void list_services(const struct recovery *r, char out[256])
{
    out[0] = 0;
    for (unsigned i = 0; i < r->services.count; i++) {
        size_t used = strlen(out);
        if (r->services.up[i])
            (void)snprintf(out + used, 256 - used, "%s%s", used ? ", " : "", r->services.names[i]);
    }
    if (!out[0])
        (void)snprintf(out, 256, "no service");
}

static void pack_plan(struct recovery *r, struct dr_buf *b, const char *damage)
{
    const struct fs *f = fs_of(r);
    char text[512], services[256];
    list_services(r, services);
    dr_pack_text(b, "plan");
    dr_pack_array(b, 7);
    (void)snprintf(text, sizeof text, "restores %llu entries of %s into .dr-%s/new of %u roots",
                   (unsigned long long)f->entries, r->chosen_id, r->run, f->root_count);
    pack_step(b, "restore", text);
    (void)snprintf(text, sizeof text, "reads them again and compares content%s",
                   f->ignore_owner ? "; owners are ignored" : ", owners, modes, times, attributes");
    pack_step(b, "verify", text);
    pack_step(b, "emergency",
              f->live_lost ? "nothing: no root is there"
              : damage[0]  ? "will fail: live cannot be read; it is kept by rename, without expiry"
                           : "takes a backup of the live files");
    (void)snprintf(text, sizeof text, "stops: %s", services);
    pack_step(b, "quiesce", text);
    (void)snprintf(text, sizeof text,
                   "moves every entry of the roots to .dr-%s/before and the restored ones in; %llu "
                   "paths stay",
                   r->run, (unsigned long long)f->loss.carried);
    pack_step(b, "swap", text);
    (void)snprintf(text, sizeof text, "starts: %s", services);
    pack_step(b, "start", text);
    (void)snprintf(text, sizeof text, "keeps the old trees for %lld hours",
                   (long long)dr_config_int(r->env->config, "RECOVERY_KEEP_OLD_HOURS"));
    pack_step(b, "close", f->live_lost ? "nothing is left to keep" : text);
}

static void pack_count(struct dr_buf *b, const char *name, uint64_t count)
{
    dr_pack_text(b, name);
    dr_pack_uint(b, count);
}

static void pack_loss(struct dr_buf *b, const struct fs_loss *l, bool detail)
{
    dr_pack_text(b, "would_lose");
    dr_pack_map(b, 7);
    pack_count(b, "changed", l->changed);
    pack_count(b, "added", l->added);
    pack_count(b, "bytes", l->bytes);
    pack_count(b, "live_entries", l->live_entries);
    pack_count(b, "returning", l->returning); /* of the backup, and not in live */
    pack_count(b, "carried", l->carried);
    dr_pack_text(b, "files");
    dr_pack_array(b, detail ? l->name_count : 0);
    for (unsigned i = 0; detail && i < l->name_count; i++)
        dr_pack_text(b, l->names[i]);
}

enum dr_rc fs_report(struct recovery *r, struct dr_err *err)
{
    struct fs *f = fs_of(r);
    struct comparing c = {.r = r};
    struct dr_buf b;
    if (services_observe(&r->services, recovery_cancel(r), err) ||
        pool_run_long(r->env->pool, compare_item, &c, recovery_cancel(r), err))
        return err->rc;
    dr_buf_init(&b, REPORT_MAX);
    pack_plan(r, &b, c.damage);
    pack_loss(&b, &f->loss, dr_config_bool(r->env->config, "DR_REDIS_DETAIL"));
    pack_count(&b, "eta_ms", f->prove_ms * PASSES + f->entries * US_PER_ENTRY / 1000);
    dr_pack_pair(&b, "eta_from", "the pace of the proof just made");
    dr_pack_text(&b, "emergency_possible");
    dr_pack_bool(&b, !f->live_lost && !c.damage[0]);
    f->report_pairs = 5;
    if (c.damage[0]) {
        dr_pack_pair(&b, "live_damage", c.damage);
        f->report_pairs++;
    }
    f->report_len = b.len;
    f->report = dr_buf_take(&b);
    recovery_say(r, "dry run: %s is proven and could be recovered; %llu files of live are newer",
                 r->chosen_id, (unsigned long long)(f->loss.changed + f->loss.added));
    return DR_OK;
}
