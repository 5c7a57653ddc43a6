/* Writing a log, under its lock: line, fsync, head, fsync. Killed between them, the line lies
 * behind the head and the next writer cuts it off. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/sha.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/backup/catalog.h"
#include "worker/backup/catalog_internal.h"
#include "worker/backup/disk.h"
#include "worker/backup/keyring.h"
#include "worker/core/fault.h"

static uint64_t file_number(uint64_t seq)
{
    return seq ? (seq - 1) / CATALOG_FILE_RECORDS + 1 : 0;
}

/* Where the head's record ends in its file. */
static enum dr_rc end_of_head(const struct catalog_log *log, const struct catalog_head *head,
                              off_t *end, struct dr_err *err)
{
    struct catalog_lines l = {.log = log, .fd = -1, .piece = dr_xalloc(CATALOG_LINE_MAX)};
    unsigned char sha[32] = {0};
    const char *line = NULL;
    size_t len = 0;
    *end = 0;
    enum dr_rc rc = catalog_lines_open(&l, head->seq, err);
    for (uint64_t n = (head->seq - 1) % CATALOG_FILE_RECORDS + 1; !rc && n > 0; n--) {
        rc = catalog_lines_next(&l, &line, &len, err);
        *end += (off_t)len;
        if (!rc && !line)
            rc = catalog_refuse(log, "short", "it ends before its head", head->seq, err);
    }
    if (!rc) {
        (void)SHA256((const unsigned char *)line, len - 1, sha);
        if (memcmp(sha, head->sha256, 32) != 0)
            rc = catalog_mismatch(log, head->seq, err);
    }
    if (l.fd >= 0)
        (void)close(l.fd);
    free(l.piece);
    return rc;
}

static enum dr_rc cut_file(const struct catalog_log *log, int fd, const struct catalog_head *head,
                           struct dr_err *err)
{
    struct stat st;
    off_t end;
    enum dr_rc rc = end_of_head(log, head, &end, err);
    if (rc)
        return rc;
    if (fstat(fd, &st) != 0)
        return dr_fail_errno(err, DR_E_IO, "%s/log", log->folder);
    if (st.st_size == end)
        return DR_OK;
    if (ftruncate(fd, end) != 0)
        return dr_fail_errno(err, DR_E_IO, "cut %s/log behind its head", log->folder);
    return disk_sync(fd, log->folder, err);
}

static enum dr_rc open_log(const struct catalog_log *log, int *fd, struct dr_err *err)
{
    char path[48];
    (void)snprintf(path, sizeof path, "%s/log", log->folder);
    return disk_open_dir(log->dirfd, path, fd, err);
}

struct later {
    int logfd;
    uint64_t number; /* of the head's file */
    bool removed;
};

static enum dr_rc remove_later(void *arg, const char *name, struct dr_err *err)
{
    struct later *l = arg;
    char digits[24];
    uint64_t n;
    size_t len = strlen(name);
    if (len < 12 || len > 20 || strcmp(name + len - 6, ".jsonl") != 0)
        return DR_OK;
    (void)snprintf(digits, sizeof digits, "%.*s", (int)(len - 6), name);
    if (!dr_parse_u64(digits, 0, UINT64_MAX, &n) || n <= l->number)
        return DR_OK;
    if (unlinkat(l->logfd, name, 0) != 0)
        return dr_fail_errno(err, DR_E_IO, "remove %s from the log", name);
    l->removed = true;
    return DR_OK;
}

enum dr_rc catalog_cut(const struct catalog_log *log, const struct catalog_head *head,
                       struct dr_err *err)
{
    struct later l = {.logfd = -1, .number = file_number(head->seq)};
    char name[24];
    int fd = -1;
    enum dr_rc rc = open_log(log, &l.logfd, err);
    if (rc)
        return rc;
    if (head->seq > 0) {
        catalog_log_name(head->seq, name);
        fd = openat(l.logfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        rc = fd < 0 ? dr_fail_errno(err, DR_E_IO, "open %s/log/%s", log->folder, name)
                    : cut_file(log, fd, head, err);
    }
    if (!rc)
        rc = disk_each(l.logfd, ".", remove_later, &l, err);
    if (!rc && l.removed)
        rc = disk_sync(l.logfd, log->folder, err);
    if (fd >= 0)
        (void)close(fd);
    (void)close(l.logfd);
    return rc;
}

enum dr_rc catalog_sign(const struct catalog_log *log, const struct keyring *keys,
                        struct catalog_head *head, struct dr_err *err)
{
    unsigned char message[CATALOG_MESSAGE], sig[64];
    char text[CATALOG_HEAD_MAX], sha[65], sig_hex[129];
    int fd, n;
    catalog_head_message(head->seq, head->sha256, message);
    enum dr_rc rc = keyring_sign(keys, log->signer, 0, message, sizeof message, sig, err);
    if (rc)
        return rc;
    dr_hex(head->sha256, 32, sha);
    dr_hex(sig, 64, sig_hex);
    n = snprintf(text, sizeof text, CATALOG_HEAD_FORM, (unsigned long long)head->seq, sha, sig_hex);
    if ((rc = disk_open_dir(log->dirfd, log->folder, &fd, err)))
        return rc;
    rc = disk_replace(fd, "head.json", text, (size_t)n, err);
    (void)close(fd);
    if (!rc)
        head->generation = keyring_generation(keys);
    return rc;
}

static enum dr_rc append_line(const struct catalog_log *log, uint64_t seq,
                              const struct dr_buf *line, struct dr_err *err)
{
    char name[24];
    int logfd, fd;
    enum dr_rc rc = open_log(log, &logfd, err);
    if (rc)
        return rc;
    catalog_log_name(seq, name);
    fd = openat(logfd, name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        rc = dr_fail_errno(err, DR_E_IO, "open %s/log/%s", log->folder, name);
    for (size_t at = 0; !rc && at < line->len;) {
        ssize_t n = write(fd, line->data + at, line->len - at);
        if (n < 0 && errno != EINTR)
            rc = dr_fail_errno(err, DR_E_IO, "write %s/log/%s", log->folder, name);
        at += n > 0 ? (size_t)n : 0;
    }
    if (!rc)
        rc = disk_sync(fd, name, err);
    if (!rc && seq % CATALOG_FILE_RECORDS == 1)
        rc = disk_sync(logfd, log->folder, err);
    if (fd >= 0)
        (void)close(fd);
    (void)close(logfd);
    return rc;
}

enum dr_rc catalog_append(const struct catalog_log *log, const struct keyring *keys,
                          struct catalog_head *head, const char *type, const char *backup_id,
                          int64_t at_ms, const char *data_json, struct dr_err *err)
{
    struct catalog_head next = {.seq = head->seq + 1};
    struct catalog_record check;
    char prev[65], at[DR_TIME_TEXT], *data = NULL;
    struct dr_buf line;
    dr_hex(head->sha256, 32, prev);
    dr_format_time(at_ms, at);
    dr_buf_init(&line, CATALOG_LINE_MAX);
    dr_buf_printf(&line,
                  "{\"seq\":%llu,\"prev\":\"%s\",\"type\":\"%s\",\"backup_id\":\"%s\",\"at\":"
                  "\"%s\",\"data\":%s}",
                  (unsigned long long)next.seq, prev, type, backup_id ? backup_id : "", at,
                  data_json ? data_json : "{}");
    /* A line that no reader takes would lock everybody out for ever. */
    enum dr_rc rc =
        line.failed || memchr(line.data, '\n', line.len)
            ? dr_fail(err, DR_E_INVALID, "%s record %s: too long, or two lines", log->folder, type)
            : catalog_parse((const char *)line.data, line.len, &check, &data, err);
    free(data);
    if (!rc) {
        memcpy(next.sha256, check.sha256, 32);
        dr_buf_str(&line, "\n");
        rc = line.failed ? dr_fail(err, DR_E_INVALID, "%s record %s: too long", log->folder, type)
                         : append_line(log, next.seq, &line, err);
    }
    dr_buf_fini(&line);
    if (!rc && !(rc = fault_point("publish.line", err)) &&
        !(rc = catalog_sign(log, keys, &next, err)))
        *head = next;
    return rc ? rc : fault_point("publish.head", err);
}
