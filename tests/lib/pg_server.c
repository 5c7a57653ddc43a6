/* A private PostgreSQL for one test program. */
#include "tests/lib/pg_server.h"

#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 20000000};
    (void)nanosleep(&t, NULL);
}

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        return -1;
    (void)close(fd);
    return ntohs(a.sin_port);
}

/* In the child: as who may run a server, dying with the test. */
static _Noreturn void become(const struct pg_server *s, char *const argv[])
{
    char path[400], log[100], *own[32] = {path}; /* by its path initdb finds its fellows */
    const struct passwd *p = getpwnam("postgres");
    for (size_t i = 1; argv[i] && i + 1 < sizeof own / sizeof own[0]; i++)
        own[i] = argv[i];
    if (getuid() == 0 &&
        (!p || setgroups(0, NULL) != 0 || setgid(p->pw_gid) != 0 || setuid(p->pw_uid) != 0))
        _exit(126);
    (void)prctl(PR_SET_PDEATHSIG, SIGQUIT);
    (void)snprintf(log, sizeof log, "%s/log", s->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir(s->dir) != 0)
        _exit(126);
    (void)snprintf(path, sizeof path, "%s/%s", s->bin, argv[0]);
    (void)execv(path, own);
    (void)execvp(argv[0], argv); /* not one of the server's */
    _exit(127);
}

static int run(const struct pg_server *s, char *const argv[])
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        become(s, argv);
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -1;
}

static int put_file(const struct pg_server *s, const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", s->dir, name);
    FILE *f = fopen(path, "w");
    if (!f)
        return -1;
    (void)fputs(text, f);
    return fclose(f) | chmod(path, 0644);
}

static int initdb(struct pg_server *s)
{
    char data[100], pwfile[100];
    char *const argv[] = {"initdb",    "-D",       data,         "-U",   "postgres",
                          "-A",        "trust",    "--encoding", "UTF8", "--no-locale",
                          "--no-sync", "--pwfile", pwfile,       NULL};
    char *const tls[] = {"openssl",
                         "req",
                         "-x509",
                         "-newkey",
                         "ec",
                         "-pkeyopt",
                         "ec_paramgen_curve:prime256v1",
                         "-nodes",
                         "-keyout",
                         "server.key",
                         "-out",
                         "server.crt",
                         "-subj",
                         "/CN=localhost",
                         "-addext",
                         "subjectAltName=DNS:localhost",
                         NULL};
    (void)snprintf(data, sizeof data, "%s/data", s->dir);
    (void)snprintf(pwfile, sizeof pwfile, "%s/pw", s->dir);
    return put_file(s, "pw", PG_SERVER_PASSWORD "\n") | run(s, argv) | run(s, tls);
}

/* "ready" is what the server writes into its pid file. */
static int wait_ready(struct pg_server *s)
{
    char path[128], text[512];
    (void)snprintf(path, sizeof path, "%s/data/postmaster.pid", s->dir);
    for (;;) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
            (void)close(fd);
        text[n < 0 ? 0 : n] = 0;
        if (strstr(text, "\nready"))
            return 0;
        if (waitpid(s->pid, NULL, WNOHANG) != 0)
            return -1;
        nap();
    }
}

int pg_server_start(struct pg_server *s)
{
    char data[100], port[16], certificate[128], key[128];
    char *const argv[] = {"postgres",
                          "-D",
                          data,
                          "-p",
                          port,
                          "-k",
                          s->dir,
                          "-c",
                          "fsync=off",
                          "-c",
                          "listen_addresses=127.0.0.1",
                          "-c",
                          "shared_buffers=16MB",
                          "-c",
                          "max_connections=20",
                          "-c",
                          "password_encryption=scram-sha-256",
                          "-c",
                          "ssl=on",
                          "-c",
                          certificate,
                          "-c",
                          key,
                          NULL};
    glob_t g = {0};
    const struct passwd *p = getpwnam("postgres");
    *s = (struct pg_server){.pid = -1};
    (void)snprintf(s->dir, sizeof s->dir, "/tmp/drpg.XXXXXX");
    if (glob("/usr/lib/postgresql/*/bin", 0, NULL, &g) != 0 || !mkdtemp(s->dir) ||
        (getuid() == 0 && (!p || chown(s->dir, p->pw_uid, p->pw_gid) != 0)))
        return -1;
    (void)snprintf(s->bin, sizeof s->bin, "%s", g.gl_pathv[g.gl_pathc - 1]);
    globfree(&g);
    (void)snprintf(data, sizeof data, "%s/data", s->dir);
    (void)snprintf(certificate, sizeof certificate, "ssl_cert_file=%s/server.crt", s->dir);
    (void)snprintf(key, sizeof key, "ssl_key_file=%s/server.key", s->dir);
    if (initdb(s) != 0 ||
        put_file(s, "data/pg_hba.conf",
                 "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n") != 0)
        return -1;
    for (int tries = 0; tries < 5; tries++) { /* somebody may have taken the port */
        s->port = free_port();
        (void)snprintf(port, sizeof port, "%d", s->port);
        s->pid = fork();
        if (s->pid == 0)
            become(s, argv);
        if (s->pid > 0 && wait_ready(s) == 0)
            return 0;
    }
    return -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void pg_server_stop(struct pg_server *s)
{
    if (s->pid > 0) {
        /* At once: PostgreSQL 17 hangs in a fast shutdown that meets a crash recovery. */
        (void)kill(s->pid, SIGQUIT);
        (void)waitpid(s->pid, NULL, 0);
    }
    if (s->dir[0])
        (void)nftw(s->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
