/* Classes of answers, and the memory of requests and answers. No I/O, any thread. */
#include "worker/storage/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/storage/dialect.h"

static const struct {
    enum dr_rc rc;
    enum storage_act act;
    const char *text;
} classes[] = {
#define STORAGE_CLASS(NAME, rc, act, text) {rc, STORAGE_ACT_##act, text},
#include "worker/storage/classes.def"
#undef STORAGE_CLASS
};

const char *storage_class_text(enum storage_class c)
{
    return classes[c].text;
}

enum storage_act storage_class_act(enum storage_class c)
{
    return classes[c].act;
}

enum dr_rc storage_class_rc(enum storage_class c)
{
    return classes[c].rc;
}

enum storage_class storage_fail(struct dr_err *err, enum storage_class c, const char *fmt, ...)
{
    char text[384];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (err && err->rc == DR_OK) {
        (void)dr_fail(err, classes[c].rc, "%s", text);
        (void)dr_err_reason(err, classes[c].text);
    }
    return c;
}

const char *storage_reply_field(const struct storage_reply *r, const char *name)
{
    return r->field ? r->field(r->head, name) : NULL;
}

void storage_answer_fini(struct storage_answer *a)
{
    for (size_t i = 0; i < a->entry_count; i++) {
        free(a->entries[i].key);
        free(a->entries[i].upload_id);
    }
    free(a->entries);
    free(a->parts);
    free(a->next);
    free(a->upload_id);
    if (a->token)
        dr_wipe(a->token, strlen(a->token));
    free(a->token);
    memset(a, 0, sizeof *a);
}

void storage_request_fini(struct storage_request *r)
{
    for (size_t i = 0; i < r->field_count; i++) {
        dr_wipe(r->fields[i], strlen(r->fields[i]));
        free(r->fields[i]);
    }
    free(r->fields);
    free(r->url);
    dr_buf_fini(&r->before);
    dr_buf_fini(&r->after);
    memset(r, 0, sizeof *r);
}
