/* Key names. */
#include "common/keys.h"

#include <stdio.h>
#include <string.h>

static bool name_byte(char c, bool colon)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || (colon && c == ':');
}

static bool name_valid(const char *s, unsigned long len, unsigned long max, bool colon)
{
    if (len == 0 || len > max || !name_byte(s[0], false) || strchr("._-", s[0]))
        return false;
    for (unsigned long i = 0; i < len; i++)
        if (!name_byte(s[i], colon))
            return false;
    return true;
}

enum dr_rc dr_keys_init(struct dr_keys *k, const char *ns, struct dr_err *err)
{
    if (!name_valid(ns, strlen(ns), DR_NAMESPACE_MAX, false)) {
        (void)dr_fail(err, DR_E_CONFIG, "DR_NAMESPACE: not [A-Za-z0-9][A-Za-z0-9._-]{0,63}");
        return dr_err_field(err, "DR_NAMESPACE", ns, strlen(ns));
    }
    (void)snprintf(k->ns, sizeof k->ns, "%s", ns);
    (void)snprintf(k->prefix, sizeof k->prefix, "{%s}:", ns);
    return DR_OK;
}

const char *dr_key(const struct dr_keys *k, char out[DR_KEY_MAX], const char *kind,
                   const char *name)
{
    (void)snprintf(out, DR_KEY_MAX, "%s%s%s", k->prefix, kind, name);
    return out;
}

bool dr_job_id_valid(const char *id, unsigned long len)
{
    return name_valid(id, len, DR_JOB_ID_MAX, true);
}
