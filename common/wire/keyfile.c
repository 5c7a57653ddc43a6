/* Key file. */
#include "common/wire/keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/str.h"

enum { KEYS_MAX = 64, FILE_MAX_BYTES = 65536, FIELDS = 5 };

struct dr_keyfile {
    unsigned count;
    struct dr_key_entry at[KEYS_MAX];
};

static bool kid_valid(const char *s)
{
    size_t len = strlen(s);
    if (len == 0 || len > DR_KID_MAX || strchr("._-", s[0]) || strcmp(s, "sched") == 0)
        return false;
    return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

static bool parse_types(const char *s, enum dr_role role, unsigned *lanes)
{
    *lanes = 0;
    if (strcmp(s, "*") == 0) {
        *lanes = ~0u;
        return true;
    }
    for (const char *p = s;; p++) {
        size_t n = strcspn(p, ",");
        const struct dr_lane *lane = dr_lane_find(p, n);
        if (!lane || !dr_lane_role_may(lane, role, true))
            return false;
        *lanes |= 1u << dr_lane_index(lane);
        p += n;
        if (!*p)
            return true;
    }
}

static bool parse_key(struct dr_key_entry *e, const char *hex)
{
    unsigned char key[DR_KEY_BYTES];
    bool ok = dr_unhex(hex, strlen(hex), key, sizeof key);
    if (ok)
        dr_secret_set(&e->key, key, sizeof key);
    dr_wipe(key, sizeof key);
    return ok;
}

static enum dr_rc parse_line(struct dr_keyfile *f, char *line, unsigned number, struct dr_err *err)
{
    char *field[FIELDS + 1], *save = NULL;
    unsigned n = 0;
    const char *why = NULL;
    for (char *p = strtok_r(line, " \t\r", &save); p && n <= FIELDS;
         p = strtok_r(NULL, " \t\r", &save))
        field[n++] = p;
    if (n == 0 || field[0][0] == '#')
        return DR_OK;
    struct dr_key_entry *e = &f->at[f->count];
    if (f->count == KEYS_MAX)
        why = "too many keys";
    else if (n != FIELDS)
        why = "not five fields";
    else if (!kid_valid(field[0]))
        why = "kid";
    else if (dr_keyfile_find(f, field[0]))
        why = "kid stands twice";
    else if (!dr_role_parse(field[1], &e->role))
        why = "role";
    else if (!parse_types(field[2], e->role, &e->lanes))
        why = "types";
    else if (strcmp(field[3], "-") != 0 && !dr_parse_time(field[3], &e->not_after_ms))
        why = "not-after";
    else if (!parse_key(e, field[4]))
        why = "key";
    if (why)
        return dr_fail(err, DR_E_CONFIG, "line %u: %s", number, why);
    if (strcmp(field[3], "-") == 0)
        e->not_after_ms = INT64_MAX;
    (void)snprintf(e->kid, sizeof e->kid, "%s", field[0]);
    f->count++;
    return DR_OK;
}

enum dr_rc dr_keyfile_parse(const char *text, struct dr_keyfile **out, struct dr_err *err)
{
    struct dr_keyfile *f = dr_xalloc(sizeof *f);
    size_t len = strlen(text);
    char *copy = dr_xstrdup(text), *next = copy;
    enum dr_rc rc = DR_OK;
    for (unsigned number = 1; next && !rc; number++) {
        char *line = next;
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        rc = parse_line(f, line, number, err);
    }
    if (!rc && f->count == 0)
        rc = dr_fail(err, DR_E_CONFIG, "no key");
    dr_wipe(copy, len);
    free(copy);
    if (rc) {
        dr_keyfile_free(f);
        return rc;
    }
    *out = f;
    return DR_OK;
}

enum dr_rc dr_keyfile_load(const char *path, struct dr_keyfile **out, struct dr_err *err)
{
    enum dr_rc rc;
    struct stat st;
    size_t len = 0;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = dr_fail_errno(err, DR_E_CONFIG, "%s", path);
        goto out;
    }
    if (st.st_mode & (S_IWGRP | S_IWOTH)) {
        rc = dr_fail(err, DR_E_CONFIG, "%s: group or others may write it", path);
        goto out;
    }
    text = dr_xalloc(FILE_MAX_BYTES + 1);
    for (ssize_t n = 1; n != 0 && len < FILE_MAX_BYTES; len += (size_t)n) {
        n = read(fd, text + len, FILE_MAX_BYTES - len);
        if (n < 0 && errno == EINTR) {
            n = 0;
            continue;
        }
        if (n < 0) {
            rc = dr_fail_errno(err, DR_E_CONFIG, "%s", path);
            goto out;
        }
        if (n == 0)
            break;
    }
    if (len == FILE_MAX_BYTES || memchr(text, 0, len)) {
        rc = dr_fail(err, DR_E_CONFIG, "%s: too long, or holds a NUL byte", path);
        goto out;
    }
    rc = dr_keyfile_parse(text, out, err);
    if (rc)
        (void)dr_wrap(err, "%s", path);
out:
    if (text)
        dr_wipe(text, FILE_MAX_BYTES);
    free(text);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

void dr_keyfile_free(struct dr_keyfile *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < KEYS_MAX; i++)
        dr_secret_free(&f->at[i].key);
    free(f);
}

const struct dr_key_entry *dr_keyfile_at(const struct dr_keyfile *f, unsigned i)
{
    return f && i < f->count ? &f->at[i] : NULL;
}

const struct dr_key_entry *dr_keyfile_find(const struct dr_keyfile *f, const char *kid)
{
    for (unsigned i = 0; f && i < f->count; i++)
        if (strcmp(f->at[i].kid, kid) == 0)
            return &f->at[i];
    return NULL;
}
