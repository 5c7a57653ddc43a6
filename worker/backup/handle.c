/* A backup opened for reading, and those its chain refers to. */
#include "worker/backup/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "common/mem.h"
#include "worker/backup/container.h"
#include "worker/backup/disk.h"
#include "worker/backup/lock.h"
#include "worker/backup/store_internal.h"

enum { LOCK_WAIT_MS = 10000 };

struct part { /* one backup folder */
    char backup_id[64];
    int dirfd, lockfd;
    struct manifest *manifest; /* owned unless borrowed */
    bool borrowed;
    unsigned char sha256[32];
};

struct backup_handle {
    struct store *store;
    struct part own;
    struct part *others; /* of the chain, as they were needed */
    unsigned other_count;
};

static enum dr_rc missing(struct dr_err *err, const char *backup_id, const char *name)
{
    (void)dr_fail(err, DR_E_INTEGRITY, "%s: %s is missing", backup_id, name);
    return dr_err_reason(err, "missing-file");
}

static enum dr_rc pass_on(struct dr_err *err, struct dr_err *why, const char *backup_id)
{
    (void)dr_wrap(why, "%s", backup_id);
    if (err && !err->rc)
        *err = *why;
    return why->rc;
}

static void part_close(struct part *p)
{
    if (!p->borrowed)
        manifest_free(p->manifest);
    p->manifest = NULL;
    lock_drop(&p->lockfd);
    lock_drop(&p->dirfd);
}

static enum dr_rc open_folder(struct store *s, const char *folder, const char *backup_id, int *fd,
                              struct dr_err *err)
{
    char path[96];
    (void)snprintf(path, sizeof path, "%s/%s", folder, backup_id);
    return disk_open_dir(s->dirfd, path, fd, err);
}

/* Where it lies at this moment: retention may move it while we look, and a reader that got hold of
 * it keeps it from being purged. Whether it may still be used is the catalog's to say. */
static enum dr_rc find_folder(struct store *s, const char *backup_id, int *fd, struct dr_err *err)
{
    static const char *const folders[] = {"backups", "trash", "backups"};
    struct dr_err why = {0};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        dr_err_clear(&why);
        if (open_folder(s, folders[i], backup_id, fd, &why) != DR_E_NOT_FOUND)
            break;
    }
    if (why.rc && err && !err->rc)
        *err = why;
    return why.rc;
}

/* manifest.json by fd (-1: by name) and manifest.sig: read and verified. */
static enum dr_rc read_signed(struct store *s, int dirfd, int fd, const char *backup_id,
                              struct manifest **out, unsigned char sha256[32], struct dr_err *err)
{
    struct dr_err why = {0};
    struct dr_buf json, sig;
    const char *name = "manifest.json";
    dr_buf_init(&json, MANIFEST_BYTES_MAX);
    dr_buf_init(&sig, 4096);
    enum dr_rc rc =
        fd >= 0 ? disk_read_fd(fd, name, &json, &why) : disk_read(dirfd, name, &json, &why);
    if (!rc) {
        name = "manifest.sig";
        rc = disk_read(dirfd, name, &sig, &why);
    }
    if (rc == DR_E_NOT_FOUND)
        rc = missing(err, backup_id, name);
    else if (rc == DR_E_TOO_BIG)
        rc = manifest_read("", 0, "", 0, backup_id, s->keys, out, err); /* no such signature */
    else if (rc)
        rc = pass_on(err, &why, backup_id);
    else
        rc = manifest_read(json.data ? (const void *)json.data : "", json.len,
                           sig.data ? (const void *)sig.data : "", sig.len, backup_id, s->keys, out,
                           err);
    if (!rc)
        (void)SHA256(json.data, json.len, sha256);
    dr_buf_fini(&json);
    dr_buf_fini(&sig);
    return rc;
}

enum dr_rc handle_read_manifest(struct store *s, const char *folder, const char *backup_id,
                                struct manifest **out, unsigned char sha256[32], struct dr_err *err)
{
    int dirfd;
    enum dr_rc rc = open_folder(s, folder, backup_id, &dirfd, err);
    if (rc)
        return rc;
    rc = read_signed(s, dirfd, -1, backup_id, out, sha256, err);
    (void)close(dirfd);
    return rc;
}

static enum dr_rc part_open(struct store *s, const char *backup_id, struct part *p,
                            struct dr_err *err)
{
    struct dr_err why = {0};
    p->dirfd = p->lockfd = -1;
    p->borrowed = false;
    p->manifest = NULL;
    (void)snprintf(p->backup_id, sizeof p->backup_id, "%s", backup_id);
    enum dr_rc rc = find_folder(s, backup_id, &p->dirfd, err);
    if (rc)
        return rc;
    rc = lock_take(p->dirfd, "manifest.json", LOCK_SHARED, LOCK_WAIT_MS, &p->lockfd, &why);
    if (rc == DR_E_NOT_FOUND)
        rc = missing(err, backup_id, "manifest.json");
    else if (rc)
        rc = pass_on(err, &why, backup_id);
    else
        rc = read_signed(s, p->dirfd, p->lockfd, backup_id, &p->manifest, p->sha256, err);
    if (rc)
        part_close(p);
    return rc;
}

enum dr_rc handle_open(struct store *s, const char *backup_id, struct backup_handle **out,
                       struct dr_err *err)
{
    struct backup_handle *h;
    if (!names_is_backup_id(backup_id))
        return dr_fail(err, DR_E_NOT_FOUND, "there is no backup of that name");
    h = dr_xalloc(sizeof *h);
    h->store = s;
    enum dr_rc rc = part_open(s, backup_id, &h->own, err);
    if (rc)
        free(h);
    else
        *out = h;
    return rc;
}

enum dr_rc handle_staged(struct store *s, struct staging *g, const struct manifest *m,
                         struct backup_handle **out, struct dr_err *err)
{
    int fd = fcntl(staging_dirfd(g), F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return dr_fail_errno(err, DR_E_IO, "staging folder");
    struct backup_handle *h = dr_xalloc(sizeof *h);
    h->store = s;
    h->own.dirfd = fd;
    h->own.lockfd = -1;
    h->own.borrowed = true;
    h->own.manifest = (struct manifest *)m; /* borrowed: never changed, never freed */
    (void)snprintf(h->own.backup_id, sizeof h->own.backup_id, "%s", m->backup_id);
    *out = h;
    return DR_OK;
}

void handle_close(struct backup_handle *h)
{
    if (!h)
        return;
    for (unsigned i = 0; i < h->other_count; i++)
        part_close(&h->others[i]);
    free(h->others);
    part_close(&h->own);
    free(h);
}

const struct manifest *handle_manifest(const struct backup_handle *h)
{
    return h->own.manifest;
}

const unsigned char *handle_sha256(const struct backup_handle *h)
{
    return h->own.sha256;
}

struct store *handle_store(const struct backup_handle *h)
{
    return h->store;
}

/* A header with an unknown slot may be younger than our keyring: another worker, started with a new
 * passphrase, wrote it. fd is taken. */
static enum dr_rc open_container(struct store *s, int fd, const struct container_expect *expect,
                                 struct container **out, struct dr_err *err)
{
    struct dr_err why = {0};
    bool renewed = false;
    int again = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    enum dr_rc rc = container_open(fd, s->keys, expect, out, &why);
    if (rc && again >= 0 && strcmp(why.reason, "header-slot") == 0 &&
        store_renew_keys(s, &renewed, NULL) == DR_OK && renewed)
        return container_open(again, s->keys, expect, out, err);
    if (again >= 0)
        (void)close(again);
    if (rc && err && !err->rc)
        *err = why;
    return rc;
}

static enum dr_rc open_object(struct store *s, const struct part *p, unsigned index,
                              struct container **out, struct dr_err *err)
{
    const struct manifest *m = p->manifest;
    const struct manifest_object *o = &m->objects[index];
    const struct container_expect expect = {
        .backup_id = m->backup_id, .series = m->series, .index = index};
    struct stat st;
    int fd = openat(p->dirfd, o->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return missing(err, m->backup_id, o->name);
    if (fd < 0 || fstat(fd, &st) != 0) {
        enum dr_rc rc = dr_fail_errno(err, DR_E_IO, "%s: open %s", m->backup_id, o->name);
        if (fd >= 0)
            (void)close(fd);
        return rc;
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != o->stored_bytes) {
        (void)close(fd);
        (void)dr_fail(err, DR_E_INTEGRITY, "%s: %s has %lld bytes, the manifest says %llu",
                      m->backup_id, o->name, (long long)st.st_size,
                      (unsigned long long)o->stored_bytes);
        return dr_err_reason(err, "stored-bytes");
    }
    if (open_container(s, fd, &expect, out, err))
        return dr_wrap(err, "%s: %s", m->backup_id, o->name);
    if (container_generation(*out) < m->key_generation) { /* re-keying only raises it */
        container_close(*out);
        *out = NULL;
        (void)dr_fail(err, DR_E_INTEGRITY, "%s: %s is of generation below the manifest's",
                      m->backup_id, o->name);
        return dr_err_reason(err, "generation");
    }
    return DR_OK;
}

enum dr_rc handle_object(struct backup_handle *h, unsigned index, struct container **out,
                         struct dr_err *err)
{
    if (index >= h->own.manifest->object_count)
        return dr_fail(err, DR_E_BUG, "%s has no object %u", h->own.backup_id, index);
    return open_object(h->store, &h->own, index, out, err);
}

static enum dr_rc other_part(struct backup_handle *h, const char *backup_id, struct part **out,
                             struct dr_err *err)
{
    struct dr_err why = {0};
    for (unsigned i = 0; i < h->other_count; i++)
        if (strcmp(h->others[i].backup_id, backup_id) == 0) {
            *out = &h->others[i];
            return DR_OK;
        }
    h->others = dr_xrealloc(h->others, (h->other_count + 1) * sizeof *h->others);
    *out = &h->others[h->other_count];
    enum dr_rc rc = part_open(h->store, backup_id, *out, &why);
    if (rc == DR_E_NOT_FOUND)
        return missing(err, backup_id, "the folder its chain needs");
    if (rc) {
        if (err && !err->rc)
            *err = why;
        return rc;
    }
    h->other_count++;
    return DR_OK;
}

enum dr_rc handle_container(struct backup_handle *h, unsigned number, struct container **out,
                            struct dr_err *err)
{
    const struct manifest *m = h->own.manifest;
    struct part *p = NULL;
    if (number >= m->container_count)
        return dr_fail(err, DR_E_BUG, "%s has no container %u", m->backup_id, number);
    const struct manifest_container *c = &m->containers[number];
    if (number + 1 < m->object_count)
        return open_object(h->store, &h->own, number, out, err);
    enum dr_rc rc = other_part(h, c->backup_id, &p, err);
    if (rc)
        return rc;
    for (unsigned i = 0; i + 1 < p->manifest->object_count; i++) {
        const struct manifest_object *o = &p->manifest->objects[i];
        if (strcmp(o->name, c->name) == 0 && strcmp(p->manifest->series, m->series) == 0 &&
            CRYPTO_memcmp(o->sha256_payload, c->sha256_payload, 32) == 0)
            return open_object(h->store, p, i, out, err);
    }
    (void)dr_fail(err, DR_E_INTEGRITY, "%s: %s of %s is not the container its chain was built on",
                  m->backup_id, c->name, c->backup_id);
    return dr_err_reason(err, "chain");
}

enum dr_rc handle_recorded(struct backup_handle *h, struct dr_err *err)
{
    struct store *s = h->store;
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    const struct store_item *it = rc ? NULL : store_find(s, h->own.backup_id);
    if (it && memcmp(it->entry.manifest_sha256, h->own.sha256, 32) != 0) {
        (void)dr_fail(err, rc = DR_E_INTEGRITY, "%s: its manifest is not the one the catalog added",
                      h->own.backup_id);
        (void)dr_err_reason(err, "catalog-manifest");
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return rc;
}
