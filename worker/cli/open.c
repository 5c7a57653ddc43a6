/* drworker open FILE [-o OUT]: the plain bytes of one container, by the passphrase alone. Nothing
 * is printed and no output file appears before every byte was authenticated: standard output gets
 * the bytes in a second pass, OUT is a nameless file until the first pass has ended. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "worker/backup/container.h"
#include "worker/cli/args.h"
#include "worker/pipe/rw.h"

enum { SPOOL_PIECE = 1 << 18 };

/* A nameless file in dir; where that is not possible, one whose name is gone at once. */
static enum dr_rc nameless(const char *dir, int *fd, struct dr_err *err)
{
    char *path = dr_xasprintf("%s/.drworker-XXXXXX", dir);
    *fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (*fd < 0) {
        *fd = mkostemp(path, O_CLOEXEC);
        if (*fd >= 0)
            (void)unlink(path);
    }
    free(path);
    return *fd >= 0 ? DR_OK : dr_fail_errno(err, DR_E_IO, "%s: no temporary file", dir);
}

/* A pipe is copied first (as it is: encrypted), since it is read twice. */
static enum dr_rc spool(int *fd, struct dr_err *err)
{
    const char *dir = getenv("TMPDIR");
    unsigned char *piece = dr_xalloc(SPOOL_PIECE);
    int copy = -1;
    enum dr_rc rc = nameless(dir && dir[0] ? dir : "/tmp", &copy, err);
    while (!rc) {
        ssize_t n = read(*fd, piece, SPOOL_PIECE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = dr_fail_errno(err, DR_E_IO, "reading the input");
        if (n <= 0)
            break;
        rc = rw_write(copy, piece, (size_t)n, "temporary copy", err);
    }
    free(piece);
    (void)close(*fd);
    *fd = copy;
    return rc;
}

static enum dr_rc open_input(const char *path, int *fd, struct dr_err *err)
{
    struct stat st;
    *fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (*fd < 0 || fstat(*fd, &st) != 0)
        return dr_fail_errno(err, errno == ENOENT ? DR_E_NOT_FOUND : DR_E_IO, "%s", path);
    return S_ISREG(st.st_mode) ? DR_OK : spool(fd, err);
}

/* One pass over everything; fd -1: only proves. */
static enum dr_rc pass(struct container *c, int fd, const char *what, struct dr_err *err)
{
    const struct container_reader_spec spec = {
        .containers = &c, .count = 1, .threads = container_threads()};
    struct container_reader *r = NULL;
    const void *bytes = NULL;
    size_t len = 0;
    enum dr_rc rc = container_reader_new(&spec, &r, err);
    while (!rc && !(rc = container_read(r, &bytes, &len, err)) && len > 0)
        if (fd >= 0)
            rc = rw_write(fd, bytes, len, what, err);
    container_reader_free(r);
    return rc;
}

/* The proven file gets a name beside out, then out's. */
static enum dr_rc put_in_place(int fd, int dir, const char *name, const char *out,
                               struct dr_err *err)
{
    char proc[64], temp[64];
    (void)snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
    (void)snprintf(temp, sizeof temp, ".drworker-%016llx", (unsigned long long)dr_random_u64());
    if (fsync(fd) != 0 || linkat(AT_FDCWD, proc, dir, temp, AT_SYMLINK_FOLLOW) != 0)
        return dr_fail_errno(err, DR_E_IO, "%s", out);
    if (renameat(dir, temp, dir, name) != 0) {
        enum dr_rc rc = dr_fail_errno(err, DR_E_IO, "%s", out);
        (void)unlinkat(dir, temp, 0);
        return rc;
    }
    return fsync(dir) == 0 ? DR_OK : dr_fail_errno(err, DR_E_IO, "%s: its directory", out);
}

/* Where files cannot be nameless: under a temporary name, removed again unless all is proven. */
static enum dr_rc write_named(struct container *c, int dir, const char *name, const char *out,
                              struct dr_err *err)
{
    char temp[64];
    (void)snprintf(temp, sizeof temp, ".drworker-%016llx", (unsigned long long)dr_random_u64());
    int fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return dr_fail_errno(err, DR_E_IO, "%s", out);
    enum dr_rc rc = pass(c, fd, out, err);
    if (!rc && (fsync(fd) != 0 || renameat(dir, temp, dir, name) != 0 || fsync(dir) != 0))
        rc = dr_fail_errno(err, DR_E_IO, "%s", out);
    if (rc)
        (void)unlinkat(dir, temp, 0);
    (void)close(fd);
    return rc;
}

static enum dr_rc write_file(struct container *c, const char *out, struct dr_err *err)
{
    char *for_dir = dr_xstrdup(out), *for_name = dr_xstrdup(out);
    const char *folder = dirname(for_dir), *name = basename(for_name);
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
    enum dr_rc rc = DR_OK;
    if (dir < 0) {
        rc = dr_fail_errno(err, DR_E_IO, "%s", folder);
        goto out;
    }
    fd = openat(dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = write_named(c, dir, name, out, err);
        goto out;
    }
    rc = pass(c, fd, out, err);
    if (!rc)
        rc = put_in_place(fd, dir, name, out, err);
out:
    if (fd >= 0)
        (void)close(fd);
    if (dir >= 0)
        (void)close(dir);
    free(for_dir);
    free(for_name);
    return rc;
}

static enum dr_rc run(const char *file, const char *out, const struct dr_secret *secret,
                      struct dr_err *err)
{
    struct container *c = NULL;
    int fd = -1;
    enum dr_rc rc = DR_OK;
    if (secret->len == 0)
        return dr_fail(
            err, DR_E_CONFIG,
            "BACKUP_ENCRYPTION_PASSWORD (or BACKUP_ENCRYPTION_PASSWORD_FILE) is not set");
    rc = open_input(file, &fd, err);
    if (rc) {
        if (fd >= 0)
            (void)close(fd);
        return rc;
    }
    rc = container_open_secret(fd, secret, &c, err);
    if (!rc && out)
        rc = write_file(c, out, err);
    else if (!rc && !(rc = pass(c, -1, file, err)))
        rc = pass(c, STDOUT_FILENO, "standard output", err);
    container_close(c);
    return rc ? dr_wrap(err, "%s", file) : DR_OK;
}

int cli_open(const struct cli *c)
{
    struct cli args = *c;
    struct dr_config *config = NULL;
    struct dr_err err = {0};
    const char *out = args_option(&args, "-o");
    (void)signal(SIGPIPE, SIG_DFL); /* whoever reads may stop, as with cat */
    if (!args_only(&args, "open", 1))
        return 2;
    if (args.argc != 1) {
        (void)fprintf(stderr, "usage: drworker open FILE [-o OUT]\n");
        return 2;
    }
    if (!dr_config_load(c->config_file, &config, &err))
        (void)run(args.argv[0], out, dr_config_secret(config, "BACKUP_ENCRYPTION_PASSWORD"), &err);
    dr_config_free(config);
    return err.rc ? cli_fail(&err) : 0;
}
