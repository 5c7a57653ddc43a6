/* Opening the store: what lies in BACKUP_DIRECTORY is looked at in an order that writes nothing
 * before the keyring was opened, and never makes a new keyring next to existing data. */
#include "worker/backup/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/sha.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/catalog_internal.h"
#include "worker/backup/disk.h"
#include "worker/backup/keyring.h"
#include "worker/backup/lock.h"
#include "worker/backup/nfs.h"
#include "worker/backup/store_internal.h"

enum { ID_FILE_LEN = 33 };

void store_close(struct store *s)
{
    if (!s)
        return;
    if (s->dirfd >= 0)
        (void)close(s->dirfd);
    (void)pthread_mutex_destroy(&s->mutex);
    keyring_free(s->keys);
    for (unsigned i = 0; i < s->former_count; i++)
        keyring_free(s->former[i]);
    store_forget(s);
    free(s->items);
    free(s->slots);
    free(s->path);
    free(s);
}

const char *store_id(const struct store *s)
{
    return s->id;
}

const char *store_path(const struct store *s)
{
    return s->path;
}

int store_dirfd(const struct store *s)
{
    return s->dirfd;
}

const struct keyring *store_keys(const struct store *s)
{
    return s->keys;
}

void store_head(struct store *s, struct catalog_head *out)
{
    (void)pthread_mutex_lock(&s->mutex);
    *out = s->head;
    (void)pthread_mutex_unlock(&s->mutex);
}

enum dr_rc store_head_now(struct store *s, struct catalog_head *out, struct dr_err *err)
{
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    *out = s->head;
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}

enum dr_rc store_lock_catalog(struct store *s, int *fd, struct dr_err *err)
{
    return lock_take(s->dirfd, "catalog/lock", LOCK_ALONE_MAKE, STORE_LOCK_WAIT_MS, fd, err);
}

static enum dr_rc missing(struct dr_err *err, const char *name)
{
    (void)dr_fail(err, DR_E_INTEGRITY,
                  "%s is missing beside existing data: lay it back from the off-site copy "
                  "(`drworker recover --adopt --from ...`); a new one is never made there",
                  name);
    return dr_err_reason(err, "missing-file");
}

static enum dr_rc open_directory(struct store *s, bool write, struct dr_err *err)
{
    struct stat st;
    if (s->path[0] != '/') {
        (void)dr_fail(err, DR_E_CONFIG, "BACKUP_DIRECTORY: %s",
                      s->path[0] ? "not an absolute path" : "not set");
        return dr_err_field(err, "BACKUP_DIRECTORY", s->path, strlen(s->path));
    }
    s->dirfd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dirfd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        (void)dr_fail(err, DR_E_CONFIG, "BACKUP_DIRECTORY: there is no such directory");
        return dr_err_field(err, "BACKUP_DIRECTORY", s->path, strlen(s->path));
    }
    if (s->dirfd < 0)
        return dr_fail_errno(err, DR_E_IO, "BACKUP_DIRECTORY %s: open as user %u", s->path,
                             (unsigned)geteuid());
    if (faccessat(s->dirfd, ".", R_OK | X_OK | (write ? W_OK : 0), AT_EACCESS) != 0 &&
        fstat(s->dirfd, &st) == 0)
        return dr_fail_errno(err, DR_E_IO,
                             "BACKUP_DIRECTORY %s: user %u needs to read%s there; owner %u:%u, "
                             "mode %04o",
                             s->path, (unsigned)geteuid(), write ? " and write" : "",
                             (unsigned)st.st_uid, (unsigned)st.st_gid,
                             (unsigned)(st.st_mode & 07777));
    return nfs_check(s->dirfd, s->path, err);
}

/* formats.md 1: a lost+found does not count. */
static bool is_empty(const struct store *s)
{
    return !disk_exists(s->dirfd, "keyring.json") && !disk_exists(s->dirfd, "backups") &&
           !disk_exists(s->dirfd, "catalog");
}

static enum dr_rc read_id(struct store *s, struct dr_err *err)
{
    unsigned char raw[16];
    struct dr_err why = {0};
    struct dr_buf b;
    dr_buf_init(&b, ID_FILE_LEN);
    enum dr_rc rc = disk_read(s->dirfd, "store.id", &b, &why);
    if (rc == DR_E_NOT_FOUND) {
        rc = missing(err, "store.id");
    } else if (rc && rc != DR_E_TOO_BIG) {
        rc = dr_fail(err, rc, "%s", why.msg);
    } else if (rc || b.len != ID_FILE_LEN || b.data[32] != '\n' ||
               !dr_unhex((const char *)b.data, 32, raw, sizeof raw)) {
        (void)dr_fail(err, rc = DR_E_INTEGRITY, "store.id is not 32 hex digits and a newline");
        (void)dr_err_reason(err, "store-id");
    } else {
        memcpy(s->id, b.data, 32);
    }
    dr_buf_fini(&b);
    return rc;
}

/* Killed before the keyring is there, the directory still counts as empty. */
static enum dr_rc make_keyring(struct store *s, const struct dr_secret *secret, unsigned rounds,
                               struct dr_err *err)
{
    unsigned char raw[16];
    struct keyring *keys = NULL;
    struct dr_buf b;
    enum dr_rc rc = DR_OK;
    dr_buf_init(&b, KEYRING_JSON_MAX);
    if (disk_exists(s->dirfd, "store.id")) {
        rc = read_id(s, err);
    } else {
        dr_random_bytes(raw, sizeof raw);
        dr_hex(raw, sizeof raw, s->id);
        dr_buf_printf(&b, "%s\n", s->id);
    }
    if (!rc && !(rc = keyring_create(s->id, secret, rounds, &keys, err)) && b.len > 0)
        rc = disk_replace(s->dirfd, "store.id", b.data, b.len, err);
    dr_buf_reset(&b);
    if (!rc && !(rc = keyring_write(keys, &b, err)))
        rc = disk_replace(s->dirfd, "keyring.json", b.data, b.len, err);
    keyring_free(keys);
    dr_buf_fini(&b);
    return rc;
}

static enum dr_rc first_start(struct store *s, const struct dr_secret *secret, unsigned rounds,
                              struct dr_err *err)
{
    int lock = -1;
    enum dr_rc rc = lock_take(s->dirfd, "lock", LOCK_ALONE_MAKE, STORE_LOCK_WAIT_MS, &lock, err);
    if (!rc && is_empty(s)) /* else another worker was first */
        rc = make_keyring(s, secret, rounds, err);
    lock_drop(&lock);
    return rc;
}

static enum dr_rc open_keyring(struct store *s, const struct dr_secret *secret, struct dr_err *err)
{
    struct keyring *keys = NULL;
    struct dr_err why = {0};
    struct dr_buf b;
    dr_buf_init(&b, KEYRING_JSON_MAX);
    enum dr_rc rc = disk_read(s->dirfd, "keyring.json", &b, &why);
    if (rc == DR_E_NOT_FOUND) {
        rc = missing(err, "keyring.json");
    } else if (rc) {
        rc = dr_fail(err, rc, "%s", why.msg);
    } else if (!(rc = keyring_open(b.data, b.len, s->id, secret, &keys, err))) {
        s->keys = keys;
        (void)SHA256(b.data, b.len, s->keyring_sha256);
    }
    dr_buf_fini(&b);
    return rc;
}

static enum dr_rc make_layout(struct store *s, struct dr_err *err)
{
    static const char *const folders[] = {"backups", "catalog", "catalog/log", "trash",
                                          "journal", "results", "staging"};
    bool created, any = false;
    enum dr_rc rc = DR_OK;
    for (size_t i = 0; !rc && i < sizeof folders / sizeof folders[0]; i++) {
        rc = disk_mkdir(s->dirfd, folders[i], &created, err);
        any |= !rc && created;
    }
    if (!rc && any && !(rc = disk_sync(s->dirfd, s->path, err)))
        rc = disk_sync_dir(s->dirfd, "catalog", err);
    return rc;
}

static enum dr_rc found_one(void *arg, const char *name, struct dr_err *err)
{
    (void)name;
    (void)err;
    *(bool *)arg = true;
    return DR_OK;
}

/* No head, no backup and at most one line (of a first start that was killed before its head). */
static bool is_fresh(struct store *s)
{
    const struct catalog_log log = catalog_log(s->dirfd);
    struct catalog_lines l = {.log = &log, .fd = -1};
    bool backups = false, fresh;
    const char *line;
    size_t len;
    if (disk_exists(s->dirfd, "catalog/head.json") ||
        (disk_exists(s->dirfd, "backups") &&
         (disk_each(s->dirfd, "backups", found_one, &backups, NULL) || backups)))
        return false;
    l.piece = dr_xalloc(CATALOG_LINE_MAX);
    fresh = !catalog_lines_open(&l, 1, NULL) &&
            (l.fd < 0 || (!catalog_lines_next(&l, &line, &len, NULL) &&
                          (!line || (!catalog_lines_next(&l, &line, &len, NULL) && !line))));
    if (l.fd >= 0)
        (void)close(l.fd);
    free(l.piece);
    return fresh;
}

/* The lock is held. */
static enum dr_rc settle(struct store *s, struct dr_err *err)
{
    const struct catalog_log log = catalog_log(s->dirfd);
    enum dr_rc rc = DR_OK;
    if (is_fresh(s))
        rc = catalog_cut(&log, &s->head, err)
                 ? err->rc
                 : catalog_append(&log, s->keys, &s->head, "keys", "", dr_wall_ms(),
                                  "{\"g\":1,\"slots\":1,\"change\":\"init\"}", err);
    memset(&s->head, 0, sizeof s->head);
    if (!rc)
        rc = store_refresh(s, err);
    if (!rc && s->head.generation < keyring_generation(s->keys) &&
        !(rc = store_check_generation(s, err)))
        rc = catalog_sign(&log, s->keys, &s->head, err);
    return rc ? rc : catalog_cut(&log, &s->head, err);
}

static enum dr_rc open_to_work(struct store *s, struct dr_err *err)
{
    int lock = -1;
    enum dr_rc rc = make_layout(s, err);
    if (!rc)
        rc = store_lock_catalog(s, &lock, err);
    if (!rc && !(rc = settle(s, err)) && !(rc = store_adopt_all(s, err)))
        store_settle_folders(s);
    lock_drop(&lock);
    return rc;
}

static enum dr_rc open_to_read(struct store *s, struct dr_err *err)
{
    if (is_fresh(s))
        return DR_OK;
    enum dr_rc rc = store_refresh(s, err);
    if (!rc && s->head.generation < keyring_generation(s->keys))
        rc = store_check_generation(s, err);
    return rc;
}

static enum dr_rc open_store(struct store *s, const struct dr_config *config,
                             enum store_open_mode mode, struct dr_err *err)
{
    const struct dr_secret *secret = dr_config_secret(config, "BACKUP_ENCRYPTION_PASSWORD");
    enum dr_rc rc = open_directory(s, mode != STORE_READ, err);
    if (rc)
        return rc;
    if (secret->len == 0) {
        (void)dr_fail(err, DR_E_CONFIG,
                      "BACKUP_ENCRYPTION_PASSWORD (or BACKUP_ENCRYPTION_PASSWORD_FILE) is not set");
        return dr_err_field(err, "BACKUP_ENCRYPTION_PASSWORD", "", 0);
    }
    if (is_empty(s)) {
        if (mode == STORE_READ)
            return dr_fail(err, DR_E_NOT_FOUND,
                           "%s holds no store yet: the first `drworker run` makes it", s->path);
        if (mode != STORE_INIT_ANEW &&
            strcmp(dr_config_str(config, "OFFSITE_STORAGE_PROVIDER"), "none") != 0)
            return dr_fail(err, DR_E_REFUSED,
                           "%s is empty but an off-site store is configured: `drworker recover "
                           "--adopt` continues that one, `drworker keys init --new-store` begins "
                           "a new one",
                           s->path);
        if ((rc = first_start(s, secret, (unsigned)dr_config_int(config, "DR_PBKDF2_ROUNDS"), err)))
            return rc;
    } else if (mode == STORE_INIT || mode == STORE_INIT_ANEW) {
        return dr_fail(err, DR_E_EXISTS, "%s holds a store already", s->path);
    }
    if ((rc = read_id(s, err)) || (rc = open_keyring(s, secret, err)))
        return rc;
    return mode == STORE_READ ? open_to_read(s, err) : open_to_work(s, err);
}

enum dr_rc store_open(const struct dr_config *config, enum store_open_mode mode, struct store **out,
                      struct dr_err *err)
{
    struct dr_err why = {0};
    struct store *s = dr_xalloc(sizeof *s);
    s->dirfd = -1;
    s->path = dr_xstrdup(dr_config_str(config, "BACKUP_DIRECTORY"));
    if (pthread_mutex_init(&s->mutex, NULL) != 0)
        (void)dr_fail(&why, DR_E_NOMEM, "store: no mutex");
    else if (open_store(s, config, mode, &why) && !strstr(why.msg, s->path))
        (void)dr_wrap(&why, "store %s", s->path);
    if (!why.rc) {
        *out = s;
        return DR_OK;
    }
    store_close(s);
    if (err && !err->rc)
        *err = why;
    return why.rc;
}
