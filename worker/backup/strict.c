/* Strict JSON over jansson, which refuses duplicate keys, NUL and bad UTF-8 by itself; depth is
 * bounded before it recurses. */
#include "worker/backup/strict.h"

#include <stdio.h>
#include <string.h>

#include "common/str.h"

static bool shallow(const unsigned char *p, size_t len)
{
    unsigned depth = 0;
    bool inside = false;
    for (size_t i = 0; i < len; i++) {
        if (inside) {
            if (p[i] == '\\')
                i++;
            else if (p[i] == '"')
                inside = false;
        } else if (p[i] == '"') {
            inside = true;
        } else if (p[i] == '{' || p[i] == '[') {
            if (++depth > STRICT_DEPTH_MAX)
                return false;
        } else if ((p[i] == '}' || p[i] == ']') && depth > 0) {
            depth--;
        }
    }
    return true;
}

static bool clean_text(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < 0x20)
            return false;
    return true;
}

static const char *wrong(json_t *v)
{
    const char *key, *why = NULL;
    json_t *child;
    size_t i;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        json_object_foreach(v, key, child)
        {
            if (!clean_text(key, strlen(key)))
                return "a control character in a key";
            if ((why = wrong(child)))
                return why;
        }
        return NULL;
    case JSON_ARRAY:
        json_array_foreach(v, i, child)
        {
            if ((why = wrong(child)))
                return why;
        }
        return NULL;
    case JSON_STRING:
        return clean_text(json_string_value(v), json_string_length(v)) ? NULL
                                                                       : "a control character";
    case JSON_INTEGER:
        return json_integer_value(v) >= 0 && (uint64_t)json_integer_value(v) <= STRICT_INT_MAX
                   ? NULL
                   : "a number outside 0..2^53-1";
    case JSON_REAL:
        return "a number that is no integer";
    default:
        return NULL;
    }
}

json_t *strict_parse(const void *bytes, size_t len, char why[96])
{
    json_error_t e = {0};
    const char *text = NULL;
    json_t *root = NULL;
    if (!shallow(bytes, len))
        text = "nested too deep";
    else if (!(root = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &e)))
        text = e.text;
    else if (!json_is_object(root))
        text = "not an object";
    else
        text = wrong(root);
    if (!text)
        return root;
    if (why)
        (void)snprintf(why, 96, "%s", text);
    json_decref(root);
    return NULL;
}

bool strict_uint(const json_t *obj, const char *key, uint64_t min, uint64_t max, uint64_t *out)
{
    const json_t *v = json_object_get(obj, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return *out >= min && *out <= max;
}

bool strict_text(const json_t *obj, const char *key, size_t min_bytes, size_t max_bytes,
                 const char **out)
{
    const json_t *v = json_object_get(obj, key);
    size_t len = json_string_length(v);
    if (!json_is_string(v) || len < min_bytes || len > max_bytes)
        return false;
    *out = json_string_value(v);
    return true;
}

bool strict_copy(const json_t *obj, const char *key, char *out, size_t size)
{
    const char *s;
    if (!strict_text(obj, key, 1, size - 1, &s))
        return false;
    memcpy(out, s, strlen(s) + 1);
    return true;
}

bool strict_hex(const json_t *obj, const char *key, void *out, size_t bytes)
{
    const char *s;
    return strict_text(obj, key, bytes * 2, bytes * 2, &s) && dr_unhex(s, bytes * 2, out, bytes);
}

bool strict_time(const json_t *obj, const char *key, int64_t *out_ms)
{
    char again[DR_TIME_TEXT];
    const char *s;
    if (!strict_text(obj, key, 24, 24, &s) || !dr_parse_time(s, out_ms))
        return false;
    dr_format_time(*out_ms, again);
    return strcmp(s, again) == 0;
}

json_t *strict_array(const json_t *obj, const char *key, size_t max)
{
    json_t *v = json_object_get(obj, key);
    return json_is_array(v) && json_array_size(v) <= max ? v : NULL;
}
