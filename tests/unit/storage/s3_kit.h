/* Targets, calls and replies of S3 for tests, from literal text. */
#ifndef DR_TESTS_S3_KIT_H
#define DR_TESTS_S3_KIT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/mem.h"
#include "worker/storage/dialect.h"

#define KIT_NOW 1369353600 /* 20130524T000000Z */

static inline struct dr_secret kit_secret(const char *text)
{
    static unsigned char bytes[8][32];
    static unsigned turn;
    unsigned char *out = bytes[turn++ % 8];
    size_t len = strlen(text);
    memcpy(out, text, len + 1);
    return (struct dr_secret){out, len};
}

static inline struct storage_target kit_target(const char *endpoint, bool path_style)
{
    struct storage_target t = {.provider = "aws_s3",
                               .endpoint = endpoint,
                               .bucket = "bkt",
                               .region = "eu-central-1",
                               .prefix = "pre/",
                               .path_style = path_style};
    t.access_key = kit_secret("AKIDEXAMPLE");
    t.secret_key = kit_secret("secretsecret");
    return t;
}

static const struct storage_route kit_route;

static inline struct storage_call kit_call(const struct storage_target *t, enum storage_op op)
{
    return (struct storage_call){
        .op = op, .target = t, .route = &kit_route, .now_unix_s = KIT_NOW, .key = "a/b.drb"};
}

/* head: "Name: value" lines. The value lives until four more were asked for. */
static inline const char *kit_field(const void *head, const char *name)
{
    static char values[4][512];
    static unsigned turn;
    size_t n = strlen(name);
    for (const char *line = head; line && *line; line = strchr(line, '\n') + 1) {
        if (strncasecmp(line, name, n) == 0 && strncmp(line + n, ": ", 2) == 0) {
            char *out = values[turn++ % 4];
            size_t len = strcspn(line + n + 2, "\n");
            memcpy(out, line + n + 2, len);
            out[len] = 0;
            return out;
        }
        if (!strchr(line, '\n'))
            break;
    }
    return NULL;
}

static inline struct storage_reply kit_reply(unsigned status, const char *head, const char *body)
{
    return (struct storage_reply){.status = status,
                                  .field = kit_field,
                                  .head = head,
                                  .date_unix_s = KIT_NOW,
                                  .body = body,
                                  .body_len = strlen(body)};
}

static inline const char *kit_line(const struct storage_request *r, const char *name)
{
    for (size_t i = 0; i < r->field_count; i++)
        if (strncasecmp(r->fields[i], name, strlen(name)) == 0 && r->fields[i][strlen(name)] == ':')
            return r->fields[i] + strlen(name) + 2;
    return NULL;
}

#endif
