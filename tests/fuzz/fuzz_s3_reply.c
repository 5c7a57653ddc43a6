/* fuzz: drstorage. Replies of an S3 store, headers and XML: whatever comes, the class and the error
 * agree, and a success has what it promises. Input: operation, status, "Name: value" lines up to an
 * empty one, body. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/mem.h"
#include "worker/storage/dialect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char head[2048], values[8][2048];
static unsigned turn;

static const char *field(const void *arg, const char *name)
{
    size_t n = strlen(name);
    (void)arg;
    for (const char *line = head; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncasecmp(line, name, n) == 0 && strncmp(line + n, ": ", 2) == 0) {
            char *out = values[turn++ % 8];
            size_t len = strcspn(line + n + 2, "\n");
            memcpy(out, line + n + 2, len);
            out[len] = 0;
            return out;
        }
    }
    return NULL;
}

static void check_lists(const struct storage_call *c, const struct storage_answer *a)
{
    for (size_t i = 1; i < a->part_count; i++)
        if (a->parts[i - 1].number >= a->parts[i].number)
            abort();
    for (size_t i = 0; i < a->entry_count; i++)
        if (!a->entries[i].key || strncmp(a->entries[i].key, "a", 1) != 0 ||
            (c->op == STORAGE_LIST_UPLOADS && !a->entries[i].upload_id))
            abort();
    if (a->next && (!*a->next || (c->after && strcmp(a->next, c->after) == 0)))
        abort();
}

static void check_success(const struct storage_call *c, const struct storage_answer *a)
{
    bool tells_etag = c->op == STORAGE_PUT || c->op == STORAGE_PART || c->op == STORAGE_COMPLETE;
    if (c->op == STORAGE_BEGIN && (!a->upload_id || !*a->upload_id))
        abort();
    if (tells_etag && !a->etag[0])
        abort();
    if ((c->op == STORAGE_HEAD || c->op == STORAGE_GET) && !a->has_size)
        abort();
    check_lists(c, a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned statuses[] = {200, 204, 206, 301, 307, 400, 403, 404, 412, 416, 500, 503};
    static unsigned char access[] = "A", secret[] = "S";
    static const struct storage_route route;
    struct storage_part part = {.number = 1};
    struct storage_target t = {.endpoint = "https://h",
                               .bucket = "bkt",
                               .prefix = "p/",
                               .access_key = {access, 1},
                               .secret_key = {secret, 1}};
    if (size < 2)
        return 0;
    struct storage_call c = {.op = (enum storage_op)(data[0] % STORAGE_AUTHORISE),
                             .target = &t,
                             .route = &route,
                             .key = "a",
                             .length = data[0] & 0x80 ? 5 : 0,
                             .after = data[0] & 0x40 ? "t" : NULL,
                             .create_only = data[0] & 0x20,
                             .upload_id = "u",
                             .parts = &part,
                             .part_count = 1};
    struct storage_reply r = {.status = statuses[data[1] % 12], .field = field};
    data += 2;
    size -= 2;
    const uint8_t *end = memmem(data, size, "\n\n", 2);
    size_t len = end ? (size_t)(end - data) : 0;
    if (len >= sizeof head)
        return 0;
    memcpy(head, data, len);
    head[len] = 0;
    r.body = end ? end + 2 : data;
    r.body_len = end ? size - len - 2 : size;
    struct storage_answer a;
    struct dr_err err = {0};
    enum storage_class class = storage_dialect_find("aws_s3")->parse(&c, &r, &a, &err);
    if (err.rc != storage_class_rc(class))
        abort();
    if (class == STORAGE_OK && r.status < 300)
        check_success(&c, &a);
    if (class == STORAGE_NO_KEY && c.op != STORAGE_HEAD &&
        !memmem(r.body, r.body_len, "NoSuchKey", 9))
        abort(); /* an absence that nobody told */
    storage_answer_fini(&a);
    return 0;
}
