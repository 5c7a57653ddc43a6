/* Expat with bounds: a stack of path lengths, one text buffer for the innermost element. */
#include "worker/storage/xml.h"

#include <string.h>

#include <expat.h>

#include "common/buf.h"

struct reader {
    XML_Parser parser;
    xml_fn *fn;
    void *arg;
    char path[XML_PATH_MAX];
    size_t path_len, ends[XML_DEPTH_MAX]; /* of the path before each open element */
    unsigned depth;
    struct dr_buf text;
    enum dr_rc rc; /* why we stopped it */
    const char *why;
};

static void stop(struct reader *r, enum dr_rc rc, const char *why)
{
    if (r->rc)
        return;
    r->rc = rc;
    r->why = why;
    (void)XML_StopParser(r->parser, XML_FALSE);
}

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
    struct reader *r = arg;
    const char *colon = strrchr(name, ':');
    const char *local = colon ? colon + 1 : name;
    size_t len = strlen(local), slash = r->depth ? 1 : 0;
    (void)attributes;
    if (r->depth == XML_DEPTH_MAX || r->path_len + slash + len >= sizeof r->path) {
        stop(r, DR_E_TOO_BIG, "nested too deeply");
        return;
    }
    r->ends[r->depth++] = r->path_len;
    if (slash)
        r->path[r->path_len++] = '/';
    memcpy(r->path + r->path_len, local, len + 1);
    r->path_len += len;
    dr_buf_reset(&r->text);
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
    struct reader *r = arg;
    (void)name;
    if (r->rc)
        return;
    if (r->text.failed)
        stop(r, DR_E_TOO_BIG, "the text of an element is too long");
    else if (!r->fn(r->arg, r->path, r->text.data ? (const char *)r->text.data : ""))
        stop(r, DR_E_MALFORMED, "not what was asked for");
    r->path_len = r->ends[--r->depth];
    r->path[r->path_len] = 0;
    dr_buf_reset(&r->text);
}

static void XMLCALL on_text(void *arg, const XML_Char *s, int len)
{
    struct reader *r = arg;
    dr_buf_add(&r->text, s, (size_t)len);
}

static void XMLCALL on_doctype(void *arg, const XML_Char *name, const XML_Char *system_id,
                               const XML_Char *public_id, int internal)
{
    (void)name;
    (void)system_id;
    (void)public_id;
    (void)internal;
    stop(arg, DR_E_REFUSED, "it declares a DOCTYPE");
}

enum dr_rc xml_read(const void *bytes, size_t len, xml_fn *fn, void *arg, struct dr_err *err)
{
    struct reader r = {.fn = fn, .arg = arg};
    const char *p = bytes;
    enum dr_rc rc = DR_OK;
    if (len > XML_BYTES_MAX)
        return dr_fail(err, DR_E_TOO_BIG, "XML of %zu bytes", len);
    while (len && strchr(" \t\r\n", *p) && *p) {
        p++;
        len--;
    }
    r.parser = XML_ParserCreate(NULL);
    if (!r.parser)
        return dr_fail(err, DR_E_NOMEM, "XML parser");
    dr_buf_init(&r.text, XML_TEXT_MAX);
    XML_SetUserData(r.parser, &r);
    XML_SetElementHandler(r.parser, on_start, on_end);
    XML_SetCharacterDataHandler(r.parser, on_text);
    XML_SetStartDoctypeDeclHandler(r.parser, on_doctype);
    if (XML_Parse(r.parser, p ? p : "", (int)len, XML_TRUE) != XML_STATUS_OK || r.rc) {
        if (r.rc)
            rc = dr_fail(err, r.rc, "XML: %s", r.why);
        else
            rc = dr_fail(err, DR_E_MALFORMED, "XML: %s",
                         XML_ErrorString(XML_GetErrorCode(r.parser)));
    }
    XML_ParserFree(r.parser);
    dr_buf_fini(&r.text);
    return rc;
}
