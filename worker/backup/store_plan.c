/* Retention plans that wait to be confirmed, named by their hash. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/str.h"
#include "common/wire/digest.h"
#include "worker/backup/disk.h"
#include "worker/backup/lock.h"
#include "worker/backup/store_internal.h"

enum { PLAN_MAX_BYTES = 16 << 20, NAME_BYTES = 80, HASH_LEN = 64, LISTED_MAX = 4096 };

static const char first_line[] = "plan-v1\n";

static bool is_plan(const char *name)
{
    unsigned char raw[32];
    return dr_starts(name, "plan-") && strlen(name) == 5 + HASH_LEN &&
           dr_unhex(name + 5, HASH_LEN, raw, sizeof raw);
}

struct kept {
    char name[NAME_BYTES];
    struct timespec at;
};

struct kept_list {
    int dirfd;
    struct kept *plans;
    size_t count;
};

static enum dr_rc note_plan(void *arg, const char *name, struct dr_err *err)
{
    struct kept_list *l = arg;
    struct stat st;
    (void)err;
    if (!is_plan(name) || l->count == LISTED_MAX ||
        fstatat(l->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return DR_OK;
    l->plans = dr_xrealloc(l->plans, (l->count + 1) * sizeof *l->plans);
    struct kept *k = &l->plans[l->count++];
    (void)snprintf(k->name, sizeof k->name, "%s", name);
    k->at = st.st_mtim;
    return DR_OK;
}

static int newest_first(const void *a, const void *b)
{
    const struct kept *x = a, *y = b;
    if (x->at.tv_sec != y->at.tv_sec)
        return x->at.tv_sec < y->at.tv_sec ? 1 : -1;
    if (x->at.tv_nsec != y->at.tv_nsec)
        return x->at.tv_nsec < y->at.tv_nsec ? 1 : -1;
    return strcmp(x->name, y->name);
}

/* Whoever may order a dry run may make plans: they must not fill the disk. */
static enum dr_rc bound(int dirfd, struct dr_err *err)
{
    struct kept_list l = {.dirfd = dirfd};
    enum dr_rc rc = disk_each(dirfd, ".", note_plan, &l, err);
    if (!rc && l.count)
        qsort(l.plans, l.count, sizeof *l.plans, newest_first);
    for (size_t i = STORE_PLANS_MAX; !rc && i < l.count; i++)
        if (unlinkat(dirfd, l.plans[i].name, 0) != 0 && errno != ENOENT)
            rc = dr_fail_errno(err, DR_E_IO, "remove results/%s", l.plans[i].name);
    free(l.plans);
    return rc;
}

static enum dr_rc write_plan(struct store *s, const struct dr_buf *text, const char *hash,
                             struct dr_err *err)
{
    char name[NAME_BYTES];
    int lock = -1, fd = -1;
    bool created;
    (void)snprintf(name, sizeof name, "plan-%.64s", hash);
    enum dr_rc rc = store_lock_catalog(s, &lock, err);
    if (!rc)
        rc = disk_mkdir(s->dirfd, "results", &created, err);
    if (!rc)
        rc = disk_open_dir(s->dirfd, "results", &fd, err);
    if (!rc)
        rc = disk_replace(fd, name, text->data, text->len, err);
    if (!rc)
        rc = bound(fd, err);
    lock_drop(&fd);
    lock_drop(&lock);
    return rc;
}

enum dr_rc store_keep_plan(struct store *s, const char *policy, const char *const *ids, size_t n,
                           const char *hash, struct dr_err *err)
{
    char check[HASH_LEN + 1];
    struct dr_buf text;
    enum dr_rc rc;
    dr_buf_init(&text, PLAN_MAX_BYTES);
    dr_buf_str(&text, first_line);
    dr_buf_str(&text, policy);
    for (size_t i = 0; i < n; i++) {
        dr_buf_str(&text, ids[i]);
        dr_buf_str(&text, "\n");
    }
    if (text.failed) {
        rc = dr_fail(err, DR_E_TOO_BIG, "a plan over %d bytes", PLAN_MAX_BYTES);
    } else {
        dr_sha256_hex(text.data, text.len, check);
        rc = strcmp(check, hash) == 0 ? write_plan(s, &text, hash, err)
                                      : dr_fail(err, DR_E_BUG, "a plan that is not its hash's");
    }
    dr_buf_fini(&text);
    return rc ? dr_wrap(err, "results") : DR_OK;
}

static enum dr_rc read_text(struct store *s, const char *hash, struct dr_buf *text,
                            struct dr_err *err)
{
    char path[NAME_BYTES + 16], check[HASH_LEN + 1];
    struct dr_err why = {0};
    (void)snprintf(path, sizeof path, "results/plan-%.64s", hash);
    enum dr_rc rc = is_plan(path + 8) ? disk_read(s->dirfd, path, text, &why) : DR_E_NOT_FOUND;
    if (!rc) {
        dr_sha256_hex(text->data ? (const void *)text->data : "", text->len, check);
        rc = strcmp(check, hash) == 0 ? DR_OK : DR_E_NOT_FOUND;
    }
    if (rc == DR_E_NOT_FOUND) {
        (void)dr_fail(err, DR_E_REFUSED,
                      "no plan of this hash is kept in the store (the newest %d are): order a "
                      "`retention --dry-run` and confirm the hash that it tells",
                      STORE_PLANS_MAX);
        return dr_err_field(err, "a.plan", hash, strlen(hash));
    }
    return rc ? dr_fail(err, rc, "%s", why.msg) : DR_OK;
}

enum dr_rc store_read_plan(struct store *s, const char *policy, const char *hash, char (**out)[64],
                           size_t *n, struct dr_err *err)
{
    struct dr_buf text;
    size_t prefix = strlen(first_line) + strlen(policy);
    *out = NULL;
    *n = 0;
    dr_buf_init(&text, PLAN_MAX_BYTES);
    enum dr_rc rc = read_text(s, hash, &text, err);
    const char *p = (const char *)text.data;
    if (!rc && (text.len < prefix || strncmp(p + strlen(first_line), policy, strlen(policy)))) {
        (void)dr_fail(err, rc = DR_E_REFUSED,
                      "that plan was made under other values of RETENTION_*: order a `retention "
                      "--dry-run` and confirm the hash that it tells");
        (void)dr_err_field(err, "a.plan", hash, strlen(hash));
    }
    const char *at = rc ? NULL : p + prefix;
    for (const char *end; at && (end = strchr(at, '\n')); at = end + 1) {
        int len = end - at < 64 ? (int)(end - at) : 63;
        *out = dr_xrealloc(*out, (*n + 1) * sizeof **out);
        (void)snprintf((*out)[(*n)++], sizeof **out, "%.*s", len, at);
    }
    dr_buf_fini(&text);
    return rc;
}
