/* See drill_target.h. */
#include "worker/recovery/drill_target.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/pg_url.h"
#include "common/str.h"

static enum dr_rc refuse(struct dr_err *err, const char *option, const char *value, const char *why,
                         const char *what)
{
    (void)dr_fail(err, DR_E_CONFIG, "%s: %s%s", option, why, what);
    return dr_err_field(err, option, value, strlen(value));
}

/* ---- a database ---- */

static enum dr_rc apart_from_url(const struct dr_config *config, const char *option,
                                 const char *name, struct dr_err *err)
{
    const struct dr_secret *url = dr_config_secret(config, option);
    struct dr_pg_url parsed;
    if (url->len == 0)
        return DR_OK;
    if (dr_pg_url_parse((const char *)url->bytes, &parsed, err))
        return dr_wrap(err, "%s", option);
    bool same = strcmp(parsed.dbname, name) == 0;
    dr_pg_url_free(&parsed);
    return same ? refuse(err, "DR_EXERCISE_DATABASE", name, "this is the database of ", option)
                : DR_OK;
}

enum dr_rc drill_target_database(const struct dr_config *config, const char *name,
                                 struct dr_err *err)
{
    static const char *const option = "DR_EXERCISE_DATABASE";
    if (apart_from_url(config, "DATABASE_URL", name, err) ||
        apart_from_url(config, "DATABASE_ADMIN_URL", name, err))
        return err->rc;
    if (strcmp(name, dr_config_str(config, "PG_MAINTENANCE_DATABASE")) == 0)
        return refuse(err, option, name, "this is PG_MAINTENANCE_DATABASE", "");
    if (strcmp(name, "template0") == 0 || strcmp(name, "template1") == 0)
        return refuse(err, option, name, "this is a template", "");
    if (strstr(name, "__dr_") || strstr(name, "__before_"))
        return refuse(err, option, name, "recoveries name what is theirs so", "");
    return DR_OK;
}

/* ---- a folder ---- */

/* Of a path that is not there yet: the real one of what is, and the rest behind it. */
static char *real_path(const char *path)
{
    char *up = dr_xstrdup(path), *real = NULL;
    size_t len = strlen(up);
    while (!(real = realpath(len ? up : "/", NULL)) && errno == ENOENT && len > 0) {
        while (len > 0 && up[len - 1] == '/')
            up[--len] = 0;
        while (len > 0 && up[len - 1] != '/')
            up[--len] = 0;
        while (len > 0 && up[len - 1] == '/')
            up[--len] = 0;
    }
    if (!real)
        real = dr_xstrdup(path); /* it cannot be looked at: as it is written */
    else if (len < strlen(path)) {
        char *whole = dr_xasprintf("%s%s", strcmp(real, "/") == 0 ? "" : real, path + len);
        free(real);
        real = whole;
    }
    for (len = strlen(real); len > 1 && real[len - 1] == '/'; len--)
        real[len - 1] = 0;
    free(up);
    return real;
}

static bool lies_in(const char *path, const char *folder)
{
    size_t len = strlen(folder);
    return strncmp(path, folder, len) == 0 &&
           (path[len] == '/' || !path[len] || (len && folder[len - 1] == '/'));
}

enum dr_rc drill_target_apart(const char *directory, const char *what, const char *other,
                              struct dr_err *err)
{
    char *a = real_path(directory), *b = real_path(other), *named = NULL;
    const char *how = lies_in(a, b) ? "it lies in " : lies_in(b, a) ? "it lies above " : NULL;
    enum dr_rc rc = DR_OK;
    if (how) {
        named = dr_xasprintf("%s %s", what, other);
        rc = refuse(err, "DR_EXERCISE_DIRECTORY", directory, how, named);
    }
    free(named);
    free(a);
    free(b);
    return rc;
}

static enum dr_rc apart_from_all(const struct dr_config *config, const char *option,
                                 const char *directory, struct dr_err *err)
{
    char *list = dr_xstrdup(dr_config_str(config, option)), *save = NULL;
    enum dr_rc rc = DR_OK;
    for (char *p = strtok_r(list, ":", &save); p && !rc; p = strtok_r(NULL, ":", &save))
        rc = drill_target_apart(directory, option, p, err);
    free(list);
    return rc;
}

enum dr_rc drill_check_targets(const struct dr_config *config, struct dr_err *err)
{
    static const char *const lists[] = {"BACKUP_FILES_PATHS", "BACKUP_CONFIG_PATHS"};
    static const char *const folders[] = {"BACKUP_DIRECTORY", "DR_WORK_DIRECTORY",
                                          "DR_DRILL_DIRECTORY"};
    const char *name = dr_config_str(config, "DR_EXERCISE_DATABASE"),
               *directory = dr_config_str(config, "DR_EXERCISE_DIRECTORY");
    /* The journal is JSON: another worker has to find there what this one meant. */
    if (!dr_utf8_valid(name, strlen(name)))
        return refuse(err, "DR_EXERCISE_DATABASE", name, "this is no UTF-8", "");
    if (!dr_utf8_valid(directory, strlen(directory)))
        return refuse(err, "DR_EXERCISE_DIRECTORY", directory, "this is no UTF-8", "");
    enum dr_rc rc = name[0] ? drill_target_database(config, name, err) : DR_OK;
    for (size_t i = 0; directory[0] && !rc && i < sizeof lists / sizeof *lists; i++)
        rc = apart_from_all(config, lists[i], directory, err);
    for (size_t i = 0; directory[0] && !rc && i < sizeof folders / sizeof *folders; i++) {
        const char *other = dr_config_str(config, folders[i]);
        if (other[0])
            rc = drill_target_apart(directory, folders[i], other, err);
    }
    return rc;
}
