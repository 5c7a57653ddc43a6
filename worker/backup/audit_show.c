/* Records of the audit log as a person reads them. Any thread. */
#include "worker/backup/audit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/str.h"
#include "worker/backup/strict.h"

static const char *text_of(const json_t *data, const char *key)
{
    const char *s = NULL;
    return strict_text(data, key, 0, AUDIT_DATA_MAX, &s) ? s : "";
}

bool audit_is_of_job(const struct catalog_record *r, const char *job_id)
{
    json_t *data = strict_parse(r->data_json, strlen(r->data_json), NULL);
    bool is = data && strcmp(text_of(data, "job"), job_id) == 0;
    json_decref(data);
    return is;
}

static void add_args(const json_t *data, struct dr_buf *out)
{
    const char *key;
    json_t *value, *args = json_object_get(data, "args");
    json_object_foreach(args, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        dr_buf_printf(out, " %s=%s", key, text ? text : "?");
        free(text);
    }
}

static void add_member(const json_t *data, const char *key, const char *before, struct dr_buf *out)
{
    const char *text = text_of(data, key);
    if (text[0]) {
        dr_buf_str(out, before);
        dr_buf_str(out, text);
    }
}

static const char *first_of(const json_t *data, const char *const *keys)
{
    while (keys[1] && !text_of(data, keys[0])[0])
        keys++;
    return text_of(data, keys[0]);
}

void audit_text(const struct catalog_record *r, struct dr_buf *out)
{
    static const char *const what[] = {"lane", "procedure", "action", NULL}, *const whom[] = {
                                                                                 "job", "subject",
                                                                                 NULL};
    char at[DR_TIME_TEXT];
    json_t *data = strict_parse(r->data_json, strlen(r->data_json), NULL);
    dr_format_time(r->at_ms, at);
    dr_buf_printf(out, "%6" PRIu64 "  %s  %-8s  %-13s  %s", r->seq, at, r->type,
                  first_of(data, what), first_of(data, whom));
    add_args(data, out);
    add_member(data, "actor", "  by ", out);
    add_member(data, "outcome", "  ", out);
    add_member(data, "cancelled_by", " by ", out);
    add_member(data, "reason", "  ", out);
    add_member(data, "field", " ", out);
    add_member(data, "value", "=", out);
    add_member(data, "message", ": ", out);
    json_decref(data);
}
