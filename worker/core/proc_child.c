/* From fork to exec. Other threads of the parent may have held any lock, so between the two nothing
 * allocates or takes one: all is prepared before, and only async-signal-safe calls are made. */
#include "worker/core/proc_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/mem.h"

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

enum { EXIT_NOT_RUN = 127, FD_GUESS_MAX = 65536, NSIG_ALL = 65 };

struct plan {
    const struct proc_spec *spec;
    const struct proc_ends *ends;
    const char *const *env;
    pid_t parent;
};

struct dirent64_raw { /* of getdents64(2); readdir would allocate */
    uint64_t ino;
    int64_t off;
    unsigned short reclen;
    unsigned char type;
    char name[];
};

static _Noreturn void fail(int status, int why)
{
    ssize_t ignored = write(status, &why, sizeof why);
    (void)ignored;
    _exit(EXIT_NOT_RUN);
}

static int number(const char *s)
{
    int n = 0;
    for (; *s >= '0' && *s <= '9' && n < INT32_MAX / 10 - 1; s++)
        n = n * 10 + (*s - '0');
    return *s ? -1 : n;
}

static void close_on_exec(int fd)
{
    if (fd > 2)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* Where close_range is missing or forbidden: what /proc lists; without /proc, a range of numbers.
 * (Counting up to the limit takes minutes where containers set it to a thousand million.) */
static void close_listed_on_exec(void)
{
    _Alignas(struct dirent64_raw) char buf[4096];
    int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        for (int fd = 3; fd < FD_GUESS_MAX; fd++)
            close_on_exec(fd);
        return;
    }
    for (;;) {
        long n = syscall(SYS_getdents64, dir, buf, sizeof buf);
        if (n <= 0)
            break;
        for (long at = 0; at < n;) {
            const struct dirent64_raw *d = (const void *)(buf + at);
            close_on_exec(number(d->name));
            at += d->reclen;
        }
    }
    (void)close(dir);
}

/* Handlers would run on the parent's pipes; an ignored SIGPIPE would be inherited. */
static void default_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;
    (void)sigemptyset(&action.sa_mask);
    for (int s = 1; s < NSIG_ALL; s++)
        (void)sigaction(s, &action, NULL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Above 2 first, so that no move overwrites the source of another. */
static void standard_streams(const struct proc_ends *ends, int status)
{
    const int wanted[3] = {ends->in, ends->out, ends->err};
    int above[3];
    for (int i = 0; i < 3; i++)
        if ((above[i] = fcntl(wanted[i], F_DUPFD_CLOEXEC, 3)) < 0)
            fail(status, errno);
    for (int i = 0; i < 3; i++)
        if (dup2(above[i], i) < 0)
            fail(status, errno);
}

static _Noreturn void become(const struct plan *plan)
{
    int status = fcntl(plan->ends->status, F_DUPFD_CLOEXEC, 3);
    if (status < 0)
        _exit(EXIT_NOT_RUN);
    (void)setpgid(0, 0);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        fail(status, errno);
    if (getppid() != plan->parent) /* it died before the line above */
        _exit(EXIT_NOT_RUN);
    standard_streams(plan->ends, status);
    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
        close_listed_on_exec();
    for (const int *fd = plan->spec->keep_fds; fd && *fd >= 0; fd++)
        if (fcntl(*fd, F_SETFD, 0) != 0)
            fail(status, errno);
    default_signals();
    (void)execve(plan->spec->argv[0], (char *const *)plan->spec->argv, (char *const *)plan->env);
    fail(status, errno);
}

/* PATH, LANG and TZ: what a tool needs and no secret has. */
static void default_env(char *env[4])
{
    const char *path = getenv("PATH"), *tz = getenv("TZ");
    env[0] = dr_xasprintf("PATH=%s", path ? path : "/usr/bin:/bin");
    env[1] = dr_xstrdup("LANG=C.UTF-8");
    env[2] = tz ? dr_xasprintf("TZ=%s", tz) : NULL;
    env[3] = NULL;
}

pid_t proc_child_fork(const struct proc_spec *spec, const struct proc_ends *ends)
{
    char *env[4] = {0};
    struct plan plan = {.spec = spec, .ends = ends, .env = spec->env, .parent = getpid()};
    if (!plan.env) {
        default_env(env);
        plan.env = (const char *const *)env;
    }
    sigset_t all, old; /* no handler of ours may run in the child */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = fork();
    if (pid == 0)
        become(&plan);
    int saved = errno;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    for (unsigned i = 0; i < 3; i++)
        free(env[i]);
    errno = saved;
    return pid;
}
