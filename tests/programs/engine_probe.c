/* worker/storage/engine over HTTP as a program, for tests/integration/test_engine.py:
 *   dr_engine_probe put KEY FILE SHA256 [JOURNAL] | get KEY FILE SIZE SHA256 | head KEY | list
 * PREFIX | uploads PREFIX | delete KEY The target comes from OFFSITE_STORAGE_*. One line on
 * standard output: kind, reason or -, then name=value of what it came to. JOURNAL: "ID PART_BYTES",
 * read before and kept while there is an upload. Exit: of the error. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/str.h"
#include "worker/core/fiber.h"
#include "worker/core/http.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/storage/engine.h"

static struct loop *loop;
static struct engine *engine;
static char **words;
static int count;
static enum dr_rc result;
static struct dr_err error;
static char told[8192];

static const char *setting(const char *name)
{
    char full[64];
    (void)snprintf(full, sizeof full, "OFFSITE_STORAGE_%s", name);
    return getenv(full);
}

static void secret(struct dr_secret *s, const char *name)
{
    const char *text = setting(name);
    if (text)
        dr_secret_set(s, text, strlen(text));
}

static void tell(const char *name, const char *value)
{
    size_t n = strlen(told);
    (void)snprintf(told + n, sizeof told - n, " %s=%s", name, value);
}

static void tell_number(const char *name, uint64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, value);
    tell(name, text);
}

static enum dr_rc begun(void *arg, const char *id, uint64_t part_bytes, struct dr_err *err)
{
    FILE *f = fopen(arg, "w");
    if (!f)
        return dr_fail_errno(err, DR_E_IO, "journal");
    (void)fprintf(f, "%s %" PRIu64, id, part_bytes);
    return fclose(f) == 0 ? DR_OK : dr_fail_errno(err, DR_E_IO, "journal");
}

static void ended(void *arg)
{
    (void)unlink(arg);
}

static void put(const char *key, const char *file, const char *sha256, char *journal)
{
    unsigned char sum[32];
    char id[1024];
    struct stat st;
    struct engine_journal j = {journal, begun, ended};
    struct engine_stored s;
    struct engine_put p = {.key = key,
                           .label = "probe",
                           .fd = open(file, O_RDONLY | O_CLOEXEC),
                           .sha256 = sum,
                           .create_only = true,
                           .journal = journal ? &j : NULL};
    FILE *f = journal ? fopen(journal, "r") : NULL;
    if (fstat(p.fd, &st) != 0 || !dr_unhex(sha256, 64, sum, sizeof sum))
        abort();
    p.size = (uint64_t)st.st_size;
    if (f && fscanf(f, "%1023s %" SCNu64, id, &p.resume_part_bytes) == 2)
        p.resume_id = id;
    if (f)
        (void)fclose(f);
    result = engine_put(engine, &p, NULL, &s, &error);
    tell_number("already", s.already);
    tell_number("resumed", s.resumed);
    tell_number("parts", s.parts);
    tell_number("kept", s.kept_parts);
    (void)close(p.fd);
}

static void get(const char *key, const char *file, const char *size, const char *sha256)
{
    unsigned char sum[32];
    uint64_t bytes;
    int fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || !dr_parse_u64(size, 0, INT64_MAX, &bytes) ||
        !dr_unhex(sha256, 64, sum, sizeof sum))
        abort();
    result = engine_get(engine, key, fd, bytes, sum, NULL, &error);
    (void)close(fd);
}

static void head(const char *key)
{
    struct storage_answer a;
    char hex[65];
    result = engine_head(engine, key, NULL, &a, &error);
    if (!result) {
        dr_hex(a.sha256, 32, hex);
        tell_number("size", a.size);
        tell("sha256", a.has_sha256 ? hex : "-");
        tell("label", a.label);
    }
    storage_answer_fini(&a);
}

static enum dr_rc entry(void *arg, const struct storage_entry *e, struct dr_err *err)
{
    (void)arg;
    (void)err;
    tell(e->key, e->upload_id ? e->upload_id : "object");
    return DR_OK;
}

static void run(void *arg)
{
    const char *what = words[1], *key = words[2];
    (void)arg;
    if (strcmp(what, "put") == 0 && count >= 5)
        put(key, words[3], words[4], count > 5 ? words[5] : NULL);
    else if (strcmp(what, "get") == 0 && count == 6)
        get(key, words[3], words[4], words[5]);
    else if (strcmp(what, "head") == 0)
        head(key);
    else if (strcmp(what, "delete") == 0)
        result = engine_delete(engine, key, NULL, &error);
    else if (strcmp(what, "list") == 0)
        result = engine_list(engine, key, NULL, entry, NULL, &error);
    else if (strcmp(what, "uploads") == 0)
        result = engine_list_uploads(engine, key, NULL, entry, NULL, &error);
    else
        result = dr_fail(&error, DR_E_USAGE, "usage");
    loop_stop(loop);
}

int main(int argc, char **argv)
{
    struct pool *pool = NULL;
    struct http *http = NULL;
    struct engine_numbers n;
    const char *style = setting("PATH_STYLE");
    struct storage_target t = {.provider = "aws_s3",
                               .endpoint = setting("ENDPOINT"),
                               .bucket = setting("BUCKET"),
                               .region = setting("REGION"),
                               .prefix = setting("PREFIX"),
                               .ca_file = setting("CA_FILE"),
                               .path_style = style && strcmp(style, "true") == 0};
    words = argv;
    count = argc;
    secret(&t.access_key, "ACCESS_KEY");
    secret(&t.secret_key, "SECRET_KEY");
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc < 3 || loop_new(&loop, &error) || pool_new(loop, 4, &pool, &error) ||
        http_new(loop, &http, &error))
        abort();
    struct engine_options o = {.loop = loop,
                               .pool = pool,
                               .http = http,
                               .dialect = storage_dialect_find("aws_s3"),
                               .target = &t,
                               .whole_bytes = 1 << 20,
                               .part_bytes = 5 << 20,
                               .tries = 4,
                               .backoff_ms = 10,
                               .backoff_cap_ms = 50,
                               .slow_cap_ms = 50};
    result = engine_new(&o, &engine, &error);
    if (!result) {
        fiber_start(loop, run, NULL);
        (void)loop_run(loop);
        engine_look(engine, &n);
        tell_number("requests", n.requests);
        tell_number("repeats", n.repeats);
        tell_number("sent", n.sent_bytes);
    }
    printf("%s %s%s\n", dr_rc_name(result), error.reason[0] ? error.reason : "-", told);
    if (result)
        fprintf(stderr, "%s\n", error.msg);
    engine_free(engine);
    http_free(http);
    pool_free(pool);
    loop_free(loop);
    fiber_cache_drop();
    dr_secret_free(&t.access_key);
    dr_secret_free(&t.secret_key);
    return dr_rc_exit(result);
}
