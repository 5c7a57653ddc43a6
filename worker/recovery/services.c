/* Services by a program of the operator's. In a fiber; nothing here owns memory. */
#include "worker/recovery/services.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/mem.h"
#include "worker/core/cancel.h"
#include "worker/core/fiber.h"
#include "worker/core/proc.h"

enum { POLL_MS = 100, OUTPUT_MAX = 65536 };

bool services_configured(const struct services *s)
{
    return s->command && s->count > 0;
}

static int find(const struct services *s, const char *name)
{
    for (unsigned i = 0; i < s->count; i++)
        if (strcmp(s->names[i], name) == 0)
            return (int)i;
    return -1;
}

static enum dr_rc add(struct services *s, const char *option, const char *name, struct dr_err *err)
{
    size_t len = strlen(name);
    if (s->count == SERVICES_MAX || len > SERVICE_NAME_MAX || name[0] == '-' ||
        find(s, name) >= 0) {
        (void)dr_fail(err, DR_E_CONFIG,
                      "%s: over %d services, a name twice, beginning with '-' or over %d bytes",
                      option, SERVICES_MAX, SERVICE_NAME_MAX);
        return dr_err_field(err, option, name, len);
    }
    memcpy(s->names[s->count++], name, len + 1);
    return DR_OK;
}

static enum dr_rc parse_list(struct services *s, const char *option, const char *text,
                             struct dr_err *err)
{
    char *copy = dr_xstrdup(text), *save = NULL;
    enum dr_rc rc = DR_OK;
    for (char *p = strtok_r(copy, ", \t", &save); p && !rc; p = strtok_r(NULL, ", \t", &save))
        rc = add(s, option, p, err);
    free(copy);
    return rc;
}

/* The names of the procedure, in the order of DR_SERVICES. */
static enum dr_rc choose(struct services *s, const struct services *wanted, const char *option,
                         struct dr_err *err)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < wanted->count; i++)
        if (find(s, wanted->names[i]) < 0) {
            (void)dr_fail(err, DR_E_CONFIG, "%s: DR_SERVICES has no such service", option);
            return dr_err_field(err, option, wanted->names[i], strlen(wanted->names[i]));
        }
    for (unsigned i = 0; i < s->count; i++)
        if (find(wanted, s->names[i]) >= 0)
            memmove(s->names[kept++], s->names[i], sizeof s->names[i]);
    s->count = kept;
    return DR_OK;
}

enum dr_rc services_load(struct services *s, struct loop *l, const struct dr_config *c,
                         const char *option, struct dr_err *err)
{
    const char *command = dr_config_str(c, "DR_SERVICE_COMMAND"), *list = dr_config_str(c, option);
    struct services *wanted = dr_xalloc(sizeof *wanted);
    s->loop = l;
    s->command = command[0] ? command : NULL;
    s->timeout_ms = (uint64_t)dr_config_int(c, "DR_SERVICE_TIMEOUT_S") * 1000;
    s->count = 0;
    enum dr_rc rc = parse_list(s, "DR_SERVICES", dr_config_str(c, "DR_SERVICES"), err);
    if (!rc && list[0])
        rc = s->count ? parse_list(wanted, option, list, err) : parse_list(s, option, list, err);
    if (!rc && wanted->count)
        rc = choose(s, wanted, option, err);
    free(wanted);
    return rc;
}

static enum dr_rc call(struct services *s, const char *verb, const char *name,
                       struct cancel *cancel, int *exit_code, struct dr_err *err)
{
    const char *path = getenv("PATH"), *tz = getenv("TZ");
    char path_var[4096], tz_var[64], fence[48], run[32], label[SERVICE_NAME_MAX + 16];
    (void)snprintf(path_var, sizeof path_var, "PATH=%s", path ? path : "/usr/bin:/bin");
    (void)snprintf(tz_var, sizeof tz_var, "TZ=%s", tz ? tz : "UTC");
    (void)snprintf(fence, sizeof fence, "DR_FENCE=%s", s->fence);
    (void)snprintf(run, sizeof run, "DR_RUN=%s", s->run);
    (void)snprintf(label, sizeof label, "service %s %s", verb, name);
    const char *const argv[] = {s->command, verb, name, NULL};
    const char *const env[] = {path_var, tz_var, "LANG=C.UTF-8", fence, run, NULL};
    const struct proc_spec spec = {.argv = argv,
                                   .env = env,
                                   .stdin_fd = -1,
                                   .stdout_fd = -1,
                                   .capture_max_bytes = OUTPUT_MAX,
                                   .deadline_ms = s->timeout_ms,
                                   .name = label};
    struct proc_result result = {0};
    struct dr_err why = {0};
    enum dr_rc rc = proc_run(s->loop, &spec, cancel, &result, &why);
    *exit_code = result.exit_code;
    dr_buf_fini(&result.out);
    if (!rc || (exit_code && rc == DR_E_TOOL && result.term_signal == 0 && result.exit_code > 0 &&
                result.exit_code <= 3 && strcmp(verb, "status") == 0))
        return DR_OK;
    *err = why;
    return rc;
}

static enum dr_rc status(struct services *s, const char *name, struct cancel *cancel, bool *up,
                         struct dr_err *err)
{
    int code = 0;
    if (call(s, "status", name, cancel, &code, err))
        return err->rc;
    *up = code == 0;
    return DR_OK;
}

enum dr_rc services_observe(struct services *s, struct cancel *cancel, struct dr_err *err)
{
    int64_t began = dr_clock_ms();
    enum dr_rc rc = DR_OK;
    if (!services_configured(s))
        return DR_OK;
    for (unsigned i = 0; i < s->count && !rc; i++)
        rc = status(s, s->names[i], cancel, &s->up[i], err);
    s->ms += (uint64_t)(dr_clock_ms() - began);
    return rc;
}

static enum dr_rc until(struct services *s, const char *name, bool want_up, struct cancel *cancel,
                        struct dr_err *err)
{
    int64_t end = dr_clock_ms() + (int64_t)s->timeout_ms;
    for (;;) {
        bool up = false;
        if (status(s, name, cancel, &up, err))
            return err->rc;
        if (up == want_up)
            return DR_OK;
        if (dr_clock_ms() > end)
            return dr_fail(err, DR_E_TIMEOUT, "service %s is still %s after %llu s", name,
                           up ? "up" : "down", (unsigned long long)(s->timeout_ms / 1000));
        enum dr_rc rc = fiber_sleep(POLL_MS, cancel);
        if (rc)
            return dr_fail(err, rc, "%s", cancel_reason(cancel));
    }
}

enum dr_rc services_stop(struct services *s, struct cancel *cancel, struct dr_err *err)
{
    int64_t began = dr_clock_ms();
    enum dr_rc rc = DR_OK;
    int code;
    if (!services_configured(s))
        return DR_OK;
    for (unsigned i = s->count; i-- > 0 && !rc;) {
        if (!s->up[i])
            continue;
        rc = call(s, "stop", s->names[i], cancel, &code, err);
        if (!rc)
            rc = until(s, s->names[i], false, cancel, err);
    }
    s->ms += (uint64_t)(dr_clock_ms() - began);
    return rc;
}

static enum dr_rc start_one(struct services *s, const char *name, struct cancel *cancel,
                            struct dr_err *err)
{
    bool up = false;
    int code;
    if (status(s, name, cancel, &up, err) || up)
        return err->rc;
    if (call(s, "start", name, cancel, &code, err))
        return err->rc;
    return until(s, name, true, cancel, err);
}

enum dr_rc services_start(struct services *s, struct cancel *cancel, struct dr_err *err)
{
    int64_t began = dr_clock_ms();
    if (!services_configured(s))
        return DR_OK;
    for (unsigned i = 0; i < s->count; i++) {
        struct dr_err why = {0};
        if (s->up[i] && start_one(s, s->names[i], cancel, &why) && !err->rc)
            *err = why;
    }
    s->ms += (uint64_t)(dr_clock_ms() - began);
    return err->rc;
}

json_t *services_to_json(const struct services *s)
{
    json_t *names = json_array();
    for (unsigned i = 0; i < s->count; i++)
        if (s->up[i])
            (void)json_array_append_new(names, json_string(s->names[i]));
    return names;
}

enum dr_rc services_from_json(struct services *s, const json_t *names, struct dr_err *err)
{
    memset(s->up, 0, sizeof s->up);
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (!name)
            return dr_fail(err, DR_E_NEEDS_HUMAN, "journal: a service that is no text");
        int at = find(s, name);
        if (at < 0) {
            if (add(s, "journal", name, err))
                return err->rc;
            at = (int)s->count - 1;
        }
        s->up[at] = true;
    }
    return DR_OK;
}
