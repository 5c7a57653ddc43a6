/* What the tests of the store share: copies of the golden store in folders of their own, opened as
 * a worker would. */
#ifndef DR_TESTS_STORE_KIT_H
#define DR_TESTS_STORE_KIT_H

#include "tests/unit/cm.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/mem.h"
#include "worker/backup/create.h"
#include "worker/backup/handle.h"
#include "worker/backup/prove.h"
#include "worker/backup/store.h"

#define KIT_PASSPHRASE "correct horse battery staple 2026"
#define KIT_VECTORS    DR_SOURCE_DIR "/tests/vectors"

__attribute__((format(printf, 1, 2))) static inline void kit_shell(const char *fmt, ...)
{
    char *line = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&line, fmt, ap) < 0 || system(line) != 0)
        fail_msg("%s", line);
    va_end(ap);
    free(line);
}

/* A folder that kit_remove removes; in memory where that is possible: thousands of fsyncs. */
static inline char *kit_folder(void)
{
    char *path = dr_xasprintf("%s/drstore.XXXXXX",
                              access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void kit_remove(char *path)
{
    kit_shell("chmod -R u+rwX '%s'; rm -rf '%s'", path, path);
    free(path);
}

static inline char *kit_golden(void)
{
    char *path = kit_folder();
    kit_shell("cp -r " KIT_VECTORS "/store/. '%s' && chmod -R u+w '%s'", path, path);
    return path;
}

static inline struct dr_config *kit_config(const char *path, const char *passphrase)
{
    struct dr_config *config = NULL;
    struct dr_err err = {0};
    assert_int_equal(setenv("BACKUP_DIRECTORY", path, 1), 0);
    assert_int_equal(setenv("BACKUP_ENCRYPTION_PASSWORD", passphrase, 1), 0);
    assert_int_equal(setenv("DR_PBKDF2_ROUNDS", "100000", 1), 0);
    if (dr_config_load(NULL, &config, &err))
        fail_msg("%s", err.msg);
    return config;
}

static inline enum dr_rc kit_try(const char *path, const char *passphrase,
                                 enum store_open_mode mode, struct store **out, struct dr_err *err)
{
    struct dr_config *config = kit_config(path, passphrase);
    enum dr_rc rc = store_open(config, mode, out, err);
    dr_config_free(config);
    return rc;
}

static inline struct store *kit_open(const char *path, enum store_open_mode mode)
{
    struct store *s = NULL;
    struct dr_err err = {0};
    if (kit_try(path, KIT_PASSPHRASE, mode, &s, &err))
        fail_msg("%s (%s)", err.msg, err.reason);
    return s;
}

/* A small backup of kind files, made and proven as the task does it. No assertion: for children. */
static inline enum dr_rc kit_publish(struct store *s, const char *job, const char *class,
                                     int64_t t_start_ms, unsigned ticket, bool *adopted,
                                     struct dr_err *err)
{
    char run[NAMES_RUN_SIZE], digits[16];
    struct container_writer *w = NULL;
    struct create *c = NULL;
    const struct create_spec spec = {.store = s,
                                     .kind = "files",
                                     .class = class,
                                     .job_id = job,
                                     .series = "files:default",
                                     .run = run,
                                     .ticket = digits,
                                     .t_start_ms = t_start_ms,
                                     .objects = 1,
                                     .level = 1};
    names_run("dr", job, run);
    (void)snprintf(digits, sizeof digits, "%u", ticket + 1000);
    enum dr_rc rc = create_new(&spec, &c, err);
    if (!rc)
        rc = create_object_begin(c, "files", NULL, NULL, &w, err);
    if (!rc)
        rc = container_write(w, "plain bytes", 11, err);
    if (!rc)
        rc = create_object_end(c, err);
    if (!rc)
        rc = create_seal(c, err);
    if (!rc)
        rc = create_read_back(c, NULL, NULL, err);
    if (!rc)
        rc = create_publish(c, adopted, err);
    create_free(c);
    return rc;
}

/* Every backup proven, every one recorded, nothing behind the head. */
static inline void kit_check_open(struct store *s, size_t backups)
{
    struct dr_err err = {0};
    struct store_entry *list = NULL;
    unsigned unrecorded = 0;
    size_t count = 0;
    if (store_audit(s, &unrecorded, &err) || store_list(s, &list, &count, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(unrecorded, 0);
    assert_int_equal(count, backups);
    for (size_t i = 0; i < count; i++) {
        const struct prove_options o = {0};
        struct prove_sums sums;
        struct backup_handle *h = NULL;
        if (handle_open(s, list[i].backup_id, &h, &err) || prove_backup(h, &o, &sums, &err) ||
            handle_recorded(h, &err))
            fail_msg("%s", err.msg);
        handle_close(h);
    }
    free(list);
}

static inline void kit_check(const char *path, size_t backups)
{
    struct store *s = kit_open(path, STORE_READ);
    kit_check_open(s, backups);
    store_close(s);
}

#endif
