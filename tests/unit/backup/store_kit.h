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

#endif
