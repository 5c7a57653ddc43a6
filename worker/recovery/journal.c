/* The journal file: lock, chain, torn end, append with fsync. Owner: whoever opened it; blocking.
 */
#include "worker/recovery/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/str.h"
#include "common/wire/digest.h"

enum { HASH_HEX = 64, TAIL_BYTES = 65536, RUNS_MAX = 100000 };

struct entry {
    struct journal_record record;
    json_t *root; /* owns record.type and record.data */
};

struct journal {
    char run[JOURNAL_RUN_BYTES + 1];
    int fd;
    char prev[HASH_HEX + 1]; /* of the last line */
    struct entry *entries;
    size_t count, cap;
    bool broken;  /* an append failed */
    bool looking; /* not locked */
};

static bool run_valid(const char *run, size_t len)
{
    if (len != JOURNAL_RUN_BYTES)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!((run[i] >= 'a' && run[i] <= 'z') || (run[i] >= '2' && run[i] <= '7')))
            return false;
    return true;
}

static void add_entry(struct journal *j, json_t *root)
{
    int64_t at = 0;
    if (j->count == j->cap) {
        j->cap = j->cap ? j->cap * 2 : 32;
        j->entries = dr_xrealloc(j->entries, j->cap * sizeof *j->entries);
    }
    (void)dr_parse_time(json_string_value(json_object_get(root, "at")), &at);
    j->entries[j->count++] =
        (struct entry){.root = root,
                       .record = {.seq = (uint64_t)json_integer_value(json_object_get(root, "seq")),
                                  .at_ms = at,
                                  .type = json_string_value(json_object_get(root, "type")),
                                  .data = json_object_get(root, "data")}};
}

/* NULL: no JSON at all, as a power cut leaves it. */
static json_t *parse_line(const char *line, size_t len)
{
    json_error_t why;
    return json_loadb(line, len, JSON_REJECT_DUPLICATES, &why);
}

static enum dr_rc check_line(const struct journal *j, const json_t *root, struct dr_err *err)
{
    const char *prev = json_string_value(json_object_get(root, "prev"));
    const char *at = json_string_value(json_object_get(root, "at"));
    const json_t *seq = json_object_get(root, "seq");
    int64_t ms;
    if (!prev || !at || !dr_parse_time(at, &ms) || !json_is_integer(seq) ||
        !json_is_string(json_object_get(root, "type")) ||
        !json_is_object(json_object_get(root, "data")) || strcmp(prev, j->prev) != 0 ||
        json_integer_value(seq) != (json_int_t)j->count + 1)
        return dr_fail(err, DR_E_NEEDS_HUMAN,
                       "journal/%s.log: record %zu does not follow from the one before it", j->run,
                       j->count + 1);
    return DR_OK;
}

/* Reads the lines of a whole file; *good: bytes up to which it is believed. */
static enum dr_rc read_lines(struct journal *j, const char *text, size_t len, size_t *good,
                             struct dr_err *err)
{
    *good = 0;
    while (*good < len) {
        const char *line = text + *good, *end = memchr(line, '\n', len - *good);
        if (!end)
            return DR_OK; /* torn: nobody acted on it */
        size_t n = (size_t)(end - line);
        json_t *root = n <= JOURNAL_LINE_MAX ? parse_line(line, n) : NULL;
        bool last = *good + n + 1 == len;
        if (!root && last)
            return DR_OK;
        if (check_line(j, root, err)) {
            json_decref(root);
            return err->rc;
        }
        dr_sha256_hex(line, n, j->prev);
        add_entry(j, root);
        *good += n + 1;
    }
    return DR_OK;
}

static enum dr_rc load(struct journal *j, struct dr_err *err)
{
    struct stat st;
    size_t have = 0, good = 0;
    if (fstat(j->fd, &st) != 0)
        return dr_fail_errno(err, DR_E_IO, "journal/%s.log", j->run);
    if (st.st_size > JOURNAL_MAX)
        return dr_fail(err, DR_E_NEEDS_HUMAN, "journal/%s.log: longer than %d bytes", j->run,
                       (int)JOURNAL_MAX);
    char *text = dr_try_alloc((size_t)st.st_size + 1);
    if (!text)
        return dr_fail(err, DR_E_NOMEM, "journal/%s.log: no memory for %lld bytes", j->run,
                       (long long)st.st_size);
    while (have < (size_t)st.st_size) {
        ssize_t n = pread(j->fd, text + have, (size_t)st.st_size - have, (off_t)have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            free(text);
            return dr_fail_errno(err, DR_E_IO, "journal/%s.log", j->run);
        }
        have += (size_t)n;
    }
    enum dr_rc rc = read_lines(j, text, have, &good, err);
    free(text);
    if (rc)
        return rc;
    if (j->looking)
        j->broken = true;
    else if (good < have && (ftruncate(j->fd, (off_t)good) != 0 || fsync(j->fd) != 0))
        return dr_fail_errno(err, DR_E_IO, "journal/%s.log: cutting a torn line", j->run);
    return DR_OK;
}

static enum dr_rc open_folder(int store_dirfd, bool create, int *out, struct dr_err *err)
{
    if (create && mkdirat(store_dirfd, "journal", 0700) == 0 && fsync(store_dirfd) != 0)
        return dr_fail_errno(err, DR_E_IO, "journal: fsync of the store");
    *out = openat(store_dirfd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*out < 0)
        return dr_fail_errno(err, errno == ENOENT ? DR_E_NOT_FOUND : DR_E_IO, "journal");
    return DR_OK;
}

static enum dr_rc lock_file(struct journal *j, int folder, const char *name, struct dr_err *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat held, there;
    if (fcntl(j->fd, F_OFD_SETLK, &lock) != 0) {
        if (errno == EAGAIN || errno == EACCES)
            return dr_fail(err, DR_E_LOCKED, "journal/%s: another delivery works on this run",
                           name);
        return dr_fail_errno(err, DR_E_IO, "journal/%s: lock", name);
    }
    if (fstat(j->fd, &held) != 0 || fstatat(folder, name, &there, 0) != 0 ||
        held.st_ino != there.st_ino)
        return dr_fail(err, DR_E_LOCKED, "journal/%s: removed while it was being locked", name);
    return DR_OK;
}

static enum dr_rc open_file(struct journal *j, int folder, bool create, struct dr_err *err)
{
    char name[JOURNAL_RUN_BYTES + 8];
    int flags = j->looking ? O_RDONLY : O_RDWR | O_APPEND | (create ? O_CREAT : 0);
    (void)snprintf(name, sizeof name, "%s.log", j->run);
    j->fd = openat(folder, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (j->fd < 0)
        return dr_fail_errno(err, errno == ENOENT ? DR_E_NOT_FOUND : DR_E_IO, "journal/%s", name);
    if (!j->looking && lock_file(j, folder, name, err))
        return err->rc;
    if (create && fsync(folder) != 0)
        return dr_fail_errno(err, DR_E_IO, "journal: fsync");
    return DR_OK;
}

static enum dr_rc open_journal(int store_dirfd, const char *run, bool create, bool looking,
                               struct journal **out, struct dr_err *err)
{
    int folder = -1;
    if (!run_valid(run, strlen(run)))
        return dr_fail(err, DR_E_INVALID, "no name of a run");
    if (open_folder(store_dirfd, create, &folder, err))
        return err->rc;
    struct journal *j = dr_xalloc(sizeof *j);
    memcpy(j->run, run, JOURNAL_RUN_BYTES);
    memset(j->prev, '0', HASH_HEX);
    j->fd = -1;
    j->looking = looking;
    enum dr_rc rc = open_file(j, folder, create, err);
    if (!rc)
        rc = load(j, err);
    (void)close(folder);
    if (rc) {
        journal_free(j);
        return rc;
    }
    *out = j;
    return DR_OK;
}

enum dr_rc journal_open(int store_dirfd, const char *run, bool create, struct journal **out,
                        struct dr_err *err)
{
    return open_journal(store_dirfd, run, create, false, out, err);
}

enum dr_rc journal_peek(int store_dirfd, const char *run, struct journal **out, struct dr_err *err)
{
    return open_journal(store_dirfd, run, false, true, out, err);
}

void journal_free(struct journal *j)
{
    if (!j)
        return;
    for (size_t i = 0; i < j->count; i++)
        json_decref(j->entries[i].root);
    free(j->entries);
    if (j->fd >= 0)
        (void)close(j->fd);
    free(j);
}

static enum dr_rc write_line(struct journal *j, const struct dr_buf *line, struct dr_err *err)
{
    size_t sent = 0;
    while (sent < line->len) {
        ssize_t n = write(j->fd, line->data + sent, line->len - sent);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return dr_fail_errno(err, DR_E_IO, "journal/%s.log", j->run);
        sent += (size_t)n;
    }
    if (fdatasync(j->fd) != 0)
        return dr_fail_errno(err, DR_E_IO, "journal/%s.log: fdatasync", j->run);
    return DR_OK;
}

enum dr_rc journal_append(struct journal *j, const char *type, json_t *data, struct dr_err *err)
{
    char at[DR_TIME_TEXT];
    struct dr_buf line;
    char *text = NULL;
    if (!data)
        data = json_object();
    dr_buf_init(&line, JOURNAL_LINE_MAX);
    dr_format_time(dr_wall_ms(), at);
    if (j->broken) {
        (void)dr_fail(err, DR_E_IO, "journal/%s.log: an earlier record could not be written",
                      j->run);
        goto out;
    }
    text = json_dumps(data, JSON_COMPACT);
    if (!text) {
        (void)dr_fail(err, DR_E_BUG, "journal record %s: no JSON", type);
        goto out;
    }
    dr_buf_printf(&line, "{\"seq\":%zu,\"prev\":\"%s\",\"at\":\"%s\",\"type\":\"%s\",\"data\":",
                  j->count + 1, j->prev, at, type);
    dr_buf_str(&line, text);
    dr_buf_str(&line, "}\n");
    if (line.failed) {
        (void)dr_fail(err, DR_E_TOO_BIG, "journal record %s: over %d bytes", type,
                      (int)JOURNAL_LINE_MAX);
        goto out;
    }
    j->broken = true; /* until it is known to stand on disk */
    if (write_line(j, &line, err))
        goto out;
    dr_sha256_hex(line.data, line.len - 1, j->prev);
    j->broken = false;
    add_entry(j, json_pack("{s:I,s:s,s:s,s:O}", "seq", (json_int_t)j->count + 1, "at", at, "type",
                           type, "data", data));
out:
    free(text);
    json_decref(data);
    dr_buf_fini(&line);
    return err->rc;
}

size_t journal_count(const struct journal *j)
{
    return j->count;
}

const struct journal_record *journal_at(const struct journal *j, size_t i)
{
    return i < j->count ? &j->entries[i].record : NULL;
}

const json_t *journal_last(const struct journal *j, const char *type, const char *step)
{
    for (size_t i = j->count; i-- > 0;) {
        const struct journal_record *r = &j->entries[i].record;
        const char *of = json_string_value(json_object_get(r->data, "step"));
        if (strcmp(r->type, type) == 0 && (!step || (of && strcmp(of, step) == 0)))
            return r->data;
    }
    return NULL;
}

/* The record that closed it; NULL: it is open. */
static const struct journal_record *closing(const struct journal *j)
{
    size_t i = j->count;
    while (i > 0 && strncmp(j->entries[i - 1].record.type, "leftover-", 9) == 0)
        i--;
    const struct journal_record *r = i > 0 ? &j->entries[i - 1].record : NULL;
    return r && strcmp(r->type, "run-closed") == 0 ? r : NULL;
}

bool journal_is_closed(const struct journal *j)
{
    return closing(j) != NULL;
}

int64_t journal_closed_ms(const struct journal *j)
{
    const struct journal_record *r = closing(j);
    return r ? r->at_ms : 0;
}

bool journal_says(const struct journal *j, const char *type, const char *what)
{
    const struct journal_record *r = closing(j);
    for (size_t i = r ? (size_t)r->seq : j->count; i < j->count; i++) {
        const struct journal_record *later = &j->entries[i].record;
        const char *of = json_string_value(json_object_get(later->data, "what"));
        if (strcmp(later->type, type) == 0 && of && strcmp(of, what) == 0)
            return true;
    }
    return false;
}

const char *journal_run(const struct journal *j)
{
    return j->run;
}

/* The list goes first: as long as the journal is there, somebody looks for it. */
enum dr_rc journal_remove(struct journal *j, int store_dirfd, struct dr_err *err)
{
    char name[JOURNAL_RUN_BYTES + 8];
    int folder;
    if (open_folder(store_dirfd, false, &folder, err))
        return err->rc;
    static const char *const parts[] = {"pairs", "log"};
    for (size_t i = 0; i < 2 && !err->rc; i++) {
        (void)snprintf(name, sizeof name, "%s.%s", j->run, parts[i]);
        if (unlinkat(folder, name, 0) != 0 && errno != ENOENT)
            (void)dr_fail_errno(err, DR_E_IO, "remove journal/%s", name);
    }
    if (!err->rc && fsync(folder) != 0)
        (void)dr_fail_errno(err, DR_E_IO, "journal: fsync");
    (void)close(folder);
    return err->rc;
}

/* By its end alone: a journal is read whole only by whoever has its lock. */
static bool ends_closed(int folder, const char *name)
{
    static const char mark[] = "\"type\":\"run-closed\"", after[] = "\"type\":\"leftover-";
    struct stat st;
    bool closed = false;
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char *tail = dr_xalloc(TAIL_BYTES + 1);
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0) {
        off_t from = st.st_size > TAIL_BYTES ? st.st_size - TAIL_BYTES : 0;
        ssize_t n = pread(fd, tail, TAIL_BYTES, from);
        if (n > 0 && tail[n - 1] == '\n') {
            tail[n - 1] = 0;
            const char *line = memrchr(tail, '\n', (size_t)n - 1);
            line = line ? line + 1 : tail;
            closed = strstr(line, mark) || strstr(line, after);
        }
    }
    if (fd >= 0)
        (void)close(fd);
    free(tail);
    return closed;
}

static enum dr_rc list_runs(int store_dirfd, bool closed, char ***out, struct dr_err *err)
{
    int folder = -1;
    size_t count = 0, cap = 8;
    struct dr_err missing = {0};
    *out = NULL;
    if (open_folder(store_dirfd, false, &folder, &missing)) {
        if (missing.rc != DR_E_NOT_FOUND) {
            *err = missing;
            return err->rc;
        }
        *out = dr_xarray(1, sizeof **out);
        return DR_OK;
    }
    DIR *d = fdopendir(folder);
    if (!d) {
        (void)close(folder);
        return dr_fail_errno(err, DR_E_IO, "journal");
    }
    char **runs = dr_xarray(cap, sizeof *runs);
    for (struct dirent *e = readdir(d); e && count < RUNS_MAX; e = readdir(d)) {
        size_t len = strlen(e->d_name);
        if (len != JOURNAL_RUN_BYTES + 4 || !run_valid(e->d_name, len - 4) ||
            strcmp(e->d_name + len - 4, ".log") != 0 || (!closed && ends_closed(folder, e->d_name)))
            continue;
        if (count + 2 > cap)
            runs = dr_xrealloc(runs, (cap *= 2) * sizeof *runs);
        runs[count++] = dr_xstrndup(e->d_name, JOURNAL_RUN_BYTES);
        runs[count] = NULL;
    }
    (void)closedir(d);
    *out = runs;
    return DR_OK;
}

enum dr_rc journal_list_open(int store_dirfd, char ***out, struct dr_err *err)
{
    return list_runs(store_dirfd, false, out, err);
}

enum dr_rc journal_list_all(int store_dirfd, char ***out, struct dr_err *err)
{
    return list_runs(store_dirfd, true, out, err);
}

void journal_list_free(char **runs)
{
    for (char **r = runs; r && *r; r++)
        free(*r);
    free(runs);
}
