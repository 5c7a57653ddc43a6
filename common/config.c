/* Configuration, driven by options.def. */
#include "common/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/str.h"

enum opt_type { STRING, INT, BOOL, DURATION_MS, PATH, LIST, URL };
enum { FILE_MAX_BYTES = 1 << 20, SECRET_MAX_BYTES = 8192, NEAR = 2 };

struct option_row {
    const char *name;
    enum opt_type type;
    const char *fallback;
    int64_t min, max;
    bool secret;
};

static const struct option_row rows[] = {
#define OPT(name, type, fallback, min, max, secret, help) {name, type, fallback, min, max, secret},
#include "common/options.def"
#undef OPT
};
enum { ROWS = sizeof rows / sizeof rows[0] };

enum origin { FROM_DEFAULT, FROM_FILE, FROM_ENV };
static const char *const origin_names[] = {"default", "file", "env"};

struct dr_config {
    struct {
        char *text; /* NULL for secrets */
        struct dr_secret secret;
        enum origin origin;
    } at[ROWS];
};

extern char **environ;

static int find(const char *name, size_t len)
{
    for (int i = 0; i < ROWS; i++)
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0)
            return i;
    return -1;
}

static enum dr_rc bad(struct dr_err *err, int i, const char *value, const char *why)
{
    (void)dr_fail(err, DR_E_CONFIG, "%s: %s", rows[i].name, why);
    const char *shown = rows[i].secret ? "***" : value;
    return dr_err_field(err, rows[i].name, shown, strlen(shown));
}

static enum dr_rc check(int i, const char *value, struct dr_err *err)
{
    int64_t n;
    uint64_t ms;
    bool flag;
    char why[128];
    size_t len = strlen(value);
    switch (rows[i].type) {
    case INT:
        if (dr_parse_i64(value, rows[i].min, rows[i].max, &n))
            return DR_OK;
        (void)snprintf(why, sizeof why, "not a whole number %lld..%lld", (long long)rows[i].min,
                       (long long)rows[i].max);
        return bad(err, i, value, why);
    case BOOL:
        return dr_parse_bool(value, &flag) ? DR_OK : bad(err, i, value, "neither true nor false");
    case DURATION_MS:
        return dr_parse_duration_ms(value, &ms) ? DR_OK : bad(err, i, value, "not a duration");
    case PATH:
        if (len > 0 && value[0] != '/')
            return bad(err, i, value, "not an absolute path");
        break;
    case STRING:
    case LIST:
    case URL:
        break;
    }
    if ((int64_t)len > rows[i].max)
        return bad(err, i, value, "too long");
    return DR_OK;
}

static enum dr_rc put(struct dr_config *c, int i, const char *value, enum origin origin,
                      struct dr_err *err)
{
    if (c->at[i].origin > origin)
        return DR_OK;
    if (check(i, value, err))
        return err->rc;
    if (rows[i].secret) {
        dr_secret_set(&c->at[i].secret, value, strlen(value));
    } else {
        free(c->at[i].text);
        c->at[i].text = dr_xstrdup(value);
    }
    c->at[i].origin = origin;
    return DR_OK;
}

/* The whole file, NUL-terminated, at most max bytes; owner frees. */
static enum dr_rc slurp(const char *path, size_t max, char **out, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    char *text = NULL;
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return dr_fail_errno(err, DR_E_CONFIG, "%s", path);
    text = dr_xalloc(max + 2);
    for (;;) {
        ssize_t n = read(fd, text + len, max + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = dr_fail_errno(err, DR_E_CONFIG, "%s", path);
            goto out;
        }
        len += (size_t)n;
        if (len > max) {
            rc = dr_fail(err, DR_E_CONFIG, "%s: more than %zu bytes", path, max);
            goto out;
        }
        if (n == 0)
            break;
    }
    if (memchr(text, 0, len)) {
        rc = dr_fail(err, DR_E_CONFIG, "%s: holds a NUL byte", path);
        goto out;
    }
    text[len] = 0;
    *out = text;
    text = NULL;
out:
    if (text)
        dr_wipe(text, len);
    free(text);
    (void)close(fd);
    return rc;
}

/* NAME_FILE of a secret: the file's text without its last newline. */
static enum dr_rc put_secret_file(struct dr_config *c, int i, const char *path, enum origin origin,
                                  struct dr_err *err)
{
    char *text = NULL;
    if (slurp(path, SECRET_MAX_BYTES, &text, err))
        return dr_wrap(err, "%s_FILE", rows[i].name);
    size_t len = strlen(text);
    if (len > 0 && text[len - 1] == '\n')
        text[len - 1] = 0;
    enum dr_rc rc = put(c, i, text, origin, err);
    dr_wipe(text, len);
    free(text);
    return rc;
}

/* Sets name=value when the name is known; *known says so. */
static enum dr_rc assign(struct dr_config *c, const char *name, size_t len, const char *value,
                         enum origin origin, bool *known, struct dr_err *err)
{
    int i = find(name, len);
    *known = true;
    if (i >= 0)
        return put(c, i, value, origin, err);
    if (len > 5 && memcmp(name + len - 5, "_FILE", 5) == 0) {
        i = find(name, len - 5);
        if (i >= 0 && rows[i].secret)
            return put_secret_file(c, i, value, origin, err);
    }
    *known = false;
    return DR_OK;
}

static enum dr_rc load_line(struct dr_config *c, char *line, unsigned number, struct dr_err *err)
{
    bool known;
    line += strspn(line, " \t");
    if (*line == 0 || *line == '#')
        return DR_OK;
    char *eq = strchr(line, '=');
    if (!eq)
        return dr_fail(err, DR_E_CONFIG, "line %u: no '='", number);
    char *value = eq + 1;
    size_t len = strlen(value);
    if (len >= 2 && (value[0] == '"' || value[0] == '\'') && value[len - 1] == value[0]) {
        value[len - 1] = 0;
        value++;
    }
    if (assign(c, line, (size_t)(eq - line), value, FROM_FILE, &known, err))
        return dr_wrap(err, "line %u", number);
    if (known)
        return DR_OK;
    (void)dr_fail(err, DR_E_CONFIG, "line %u: unknown name", number);
    return dr_err_field(err, "name", line, (unsigned long)(eq - line));
}

static enum dr_rc load_file(struct dr_config *c, const char *path, struct dr_err *err)
{
    char *text = NULL, *save = NULL;
    enum dr_rc rc = slurp(path, FILE_MAX_BYTES, &text, err);
    unsigned number = 0;
    if (rc)
        return rc;
    size_t len = strlen(text);
    for (char *p = text; p && !rc; p = save) {
        save = strchr(p, '\n');
        if (save)
            *save++ = 0;
        size_t n = strlen(p);
        if (n > 0 && p[n - 1] == '\r')
            p[n - 1] = 0;
        rc = load_line(c, p, ++number, err);
    }
    dr_wipe(text, len);
    free(text);
    return rc ? dr_wrap(err, "%s", path) : DR_OK;
}

static enum dr_rc unknown_in_env(const char *name, struct dr_err *err)
{
    static const char *const ours[] = {"DR_", "BACKUP_", "OFFSITE_", "RETENTION_"};
    bool mine = false;
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        mine = mine || dr_starts(name, ours[i]);
    if (!mine)
        return DR_OK;
    for (int i = 0; i < ROWS; i++)
        if (dr_edit_distance(name, rows[i].name, NEAR) <= NEAR) {
            (void)dr_fail(err, DR_E_CONFIG, "environment: unknown %s; %s is meant?", name,
                          rows[i].name);
            return dr_err_field(err, "name", name, strlen(name));
        }
    dr_log(DR_LOG_WARN, "config.unknown", "name", name, NULL);
    return DR_OK;
}

static enum dr_rc load_env(struct dr_config *c, struct dr_err *err)
{
    for (char **e = environ; e && *e; e++) {
        char name[128];
        bool known;
        const char *eq = strchr(*e, '=');
        size_t len = eq ? (size_t)(eq - *e) : 0;
        if (len == 0 || len >= sizeof name)
            continue;
        memcpy(name, *e, len);
        name[len] = 0;
        if (assign(c, name, len, eq + 1, FROM_ENV, &known, err) ||
            (!known && unknown_in_env(name, err)))
            return err->rc;
    }
    return DR_OK;
}

/* /proc/PID/environ shows the memory the process started with: overwrite it, then unset. */
static void forget_secrets(void)
{
    for (int i = 0; i < ROWS; i++) {
        char *value = rows[i].secret ? getenv(rows[i].name) : NULL;
        if (!value)
            continue;
        dr_wipe(value, strlen(value));
        (void)unsetenv(rows[i].name);
    }
}

static enum dr_rc cross_checks(struct dr_config *c, struct dr_err *err)
{
    if (!dr_config_bool(c, "OFFSITE_STORAGE_ENCRYPTION"))
        return bad(err, find("OFFSITE_STORAGE_ENCRYPTION", 26), "false",
                   "refused: what leaves the machine is always encrypted");
    return DR_OK;
}

enum dr_rc dr_config_load(const char *file, struct dr_config **out, struct dr_err *err)
{
    struct dr_config *c = dr_xalloc(sizeof *c);
    for (int i = 0; i < ROWS; i++)
        if (!rows[i].secret)
            c->at[i].text = dr_xstrdup(rows[i].fallback);
    if ((file && load_file(c, file, err)) || load_env(c, err) || cross_checks(c, err)) {
        dr_config_free(c);
        return err ? err->rc : DR_E_CONFIG;
    }
    forget_secrets();
    *out = c;
    return DR_OK;
}

void dr_config_free(struct dr_config *c)
{
    if (!c)
        return;
    for (int i = 0; i < ROWS; i++) {
        free(c->at[i].text);
        dr_secret_free(&c->at[i].secret);
    }
    free(c);
}

static int must_find(const char *name, bool secret)
{
    int i = find(name, strlen(name));
    if (i < 0 || rows[i].secret != secret)
        abort();
    return i;
}

const char *dr_config_str(const struct dr_config *c, const char *name)
{
    return c->at[must_find(name, false)].text;
}

int64_t dr_config_int(const struct dr_config *c, const char *name)
{
    int i = must_find(name, false);
    int64_t v = 0;
    uint64_t ms = 0;
    if (rows[i].type == DURATION_MS && dr_parse_duration_ms(c->at[i].text, &ms))
        return (int64_t)ms;
    if (rows[i].type != INT || !dr_parse_i64(c->at[i].text, rows[i].min, rows[i].max, &v))
        abort();
    return v;
}

bool dr_config_bool(const struct dr_config *c, const char *name)
{
    bool v = false;
    if (!dr_parse_bool(c->at[must_find(name, false)].text, &v))
        abort();
    return v;
}

bool dr_config_is_set(const struct dr_config *c, const char *name)
{
    int i = find(name, strlen(name));
    if (i < 0)
        abort();
    return c->at[i].origin != FROM_DEFAULT;
}

const struct dr_secret *dr_config_secret(const struct dr_config *c, const char *name)
{
    return &c->at[must_find(name, true)].secret;
}

const struct dr_secret *dr_config_redis_url(const struct dr_config *c)
{
    const struct dr_secret *s = dr_config_secret(c, "REDIS_URL");
    return s->len ? s : dr_config_secret(c, "CELERY_BROKER_URL");
}

static void print_row(const struct dr_config *c, int i, bool json, struct dr_buf *out)
{
    const char *value = c->at[i].text;
    if (rows[i].secret)
        value = c->at[i].secret.len ? "***" : "";
    if (!json) {
        dr_buf_printf(out, "%-28s %-8s %s\n", rows[i].name, origin_names[c->at[i].origin], value);
        return;
    }
    dr_buf_printf(out, "%s{\"name\":\"%s\",\"source\":\"%s\",\"value\":", i ? ",\n " : "[",
                  rows[i].name, origin_names[c->at[i].origin]);
    dr_buf_json(out, value, strlen(value));
    dr_buf_str(out, "}");
}

void dr_config_print(const struct dr_config *c, bool json, struct dr_buf *out)
{
    for (int i = 0; i < ROWS; i++)
        print_row(c, i, json, out);
    if (json)
        dr_buf_str(out, "]\n");
}
