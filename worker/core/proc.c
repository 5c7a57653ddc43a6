/* Children, the parent's side. A struct proc is owned by who started it and freed by proc_wait;
 * it is done when the child was reaped and its streams ended. Loop thread only: PR_SET_PDEATHSIG
 * follows the thread that forks. */
#include "worker/core/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/str.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"
#include "worker/core/proc_internal.h"

enum {
    GRACE_MS = 5000,
    EOF_GRACE_MS = 250, /* after exit, for a stream that a grandchild holds */
    POLL_MS = 20,       /* without pidfd_open: how often we look */
    READ_BYTES = 32768,
    DRAIN_READS = 64, /* a pipe holds 64 KiB, 1 MiB at the most */
    TAIL_BYTES = 4096,
};

enum phase {
    RUNNING,
    STOPPING, /* TERM was sent */
    KILLED,
    EXITED, /* reaped; streams may be open */
    DONE,
};

enum stream_kind { STDOUT, STDERR, STATUS, STREAMS };

struct stream {
    struct proc *proc;
    int fd; /* -1: ended, or never there */
    struct event *event;
};

struct proc {
    struct loop *loop;
    char name[64];
    pid_t pid;
    int pidfd; /* -1: polled */
    struct event *exit_event;
    struct loop_timer *poll, *timer; /* timer: deadline, then grace, then end of streams */
    struct stream streams[STREAMS];
    int our_stdin, our_stdout; /* ends for proc_take */
    enum phase phase;
    int wait_status;
    bool lost; /* somebody else reaped it */
    int exec_errno;
    uint64_t grace_ms, deadline_ms;
    int64_t began_ms, ended_ms;
    struct dr_err stopped; /* why we ended it */
    struct dr_buf out;
    char tail[TAIL_BYTES]; /* ring of stderr */
    size_t tail_total;
    struct fiber *fiber;
    struct cancel *cancel;
    struct cancel_hook hook;
};

static void stream_close(struct stream *s)
{
    if (s->event)
        event_free(s->event);
    s->event = NULL;
    if (s->fd >= 0)
        (void)close(s->fd);
    s->fd = -1;
}

static void close_untaken(struct proc *p)
{
    if (p->our_stdin >= 0)
        (void)close(p->our_stdin);
    if (p->our_stdout >= 0)
        (void)close(p->our_stdout);
    p->our_stdin = p->our_stdout = -1;
}

static void proc_free(struct proc *p)
{
    close_untaken(p);
    for (int i = 0; i < STREAMS; i++)
        stream_close(&p->streams[i]);
    if (p->exit_event)
        event_free(p->exit_event);
    if (p->pidfd >= 0)
        (void)close(p->pidfd);
    loop_timer_free(p->poll);
    loop_timer_free(p->timer);
    dr_buf_fini(&p->out);
    free(p);
}

/* Only while it is not reaped: until then the number is its own. */
static void signal_group(struct proc *p, int sig)
{
    (void)kill(-p->pid, sig);
    (void)kill(p->pid, sig); /* should it have left its group */
}

static void stop(struct proc *p, enum dr_rc why, const char *reason)
{
    if (p->phase >= EXITED || p->stopped.rc)
        return;
    (void)dr_fail(&p->stopped, why, "%s: %s", p->name, reason);
    p->phase = STOPPING;
    signal_group(p, SIGTERM);
    loop_timer_arm(p->timer, p->grace_ms);
}

void proc_stop(struct proc *p)
{
    stop(p, DR_E_CANCELLED, "stopped");
}

static void finish_if_done(struct proc *p)
{
    if (p->phase != EXITED)
        return;
    for (int i = 0; i < STREAMS; i++)
        if (p->streams[i].fd >= 0)
            return;
    p->phase = DONE;
    loop_timer_stop(p->timer);
    if (p->fiber)
        fiber_wake(p->fiber);
}

static void take_bytes(struct proc *p, enum stream_kind kind, const char *bytes, size_t len)
{
    if (kind == STDOUT) {
        dr_buf_add(&p->out, bytes, len);
        if (p->out.failed)
            stop(p, DR_E_TOO_BIG, "prints more than it may");
    } else if (kind == STATUS) {
        if (len == sizeof p->exec_errno)
            memcpy(&p->exec_errno, bytes, sizeof p->exec_errno);
    } else {
        for (size_t i = 0; i < len; i++)
            p->tail[p->tail_total++ % TAIL_BYTES] = bytes[i];
    }
}

/* One read; false: nothing more for now, or the end. */
static bool stream_read(struct stream *s)
{
    char bytes[READ_BYTES];
    ssize_t n = read(s->fd, bytes, sizeof bytes);
    if (n > 0) {
        take_bytes(s->proc, (enum stream_kind)(s - s->proc->streams), bytes, (size_t)n);
        return true;
    }
    if (n < 0 && errno == EINTR)
        return true;
    if (n == 0 || errno != EAGAIN)
        stream_close(s);
    return false;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct stream *s = arg;
    struct proc *p = s->proc;
    (void)fd;
    (void)what;
    (void)stream_read(s);
    finish_if_done(p);
}

/* What lies in the pipes is ours; who still holds them has had his time. */
static void give_up_streams(struct proc *p)
{
    for (int i = 0; i < STREAMS; i++) {
        struct stream *s = &p->streams[i];
        for (int n = 0; n < DRAIN_READS && s->fd >= 0 && stream_read(s); n++)
            continue;
        stream_close(s);
    }
}

static void on_timer(void *arg)
{
    struct proc *p = arg;
    if (p->phase == RUNNING) {
        stop(p, DR_E_TIMEOUT, "deadline passed");
    } else if (p->phase == STOPPING) {
        p->phase = KILLED;
        signal_group(p, SIGKILL);
    } else if (p->phase == EXITED) {
        give_up_streams(p);
        finish_if_done(p);
    }
}

/* Reaps it if it has ended. Its group is killed before, while the number cannot be another's:
 * but only when we ended it, for a service control script leaves its service behind. */
static bool reap(struct proc *p)
{
    siginfo_t info = {0};
    int rc;
    while ((rc = waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT)) != 0 &&
           errno == EINTR)
        continue;
    if (rc == 0 && info.si_pid == 0)
        return false;
    if (rc == 0 && p->stopped.rc)
        (void)kill(-p->pid, SIGKILL);
    while ((rc = waitpid(p->pid, &p->wait_status, 0)) < 0 && errno == EINTR)
        continue;
    p->lost = rc < 0;
    p->phase = EXITED;
    p->ended_ms = dr_clock_ms();
    loop_timer_arm(p->timer, EOF_GRACE_MS);
    finish_if_done(p);
    return true;
}

static void on_exit_event(evutil_socket_t fd, short what, void *arg)
{
    struct proc *p = arg;
    (void)fd;
    (void)what;
    if (!reap(p))
        (void)event_add(p->exit_event, NULL);
}

static void on_poll(void *arg)
{
    struct proc *p = arg;
    if (!reap(p))
        loop_timer_arm(p->poll, POLL_MS);
}

/* A container's filter may forbid pidfd_open: then we ask every 20 ms. (SIGCHLD would have to be
 * shared with whoever else starts children in this process.) */
static void watch_exit(struct proc *p)
{
    p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (p->pidfd >= 0) {
        (void)fcntl(p->pidfd, F_SETFD, FD_CLOEXEC);
        (void)fcntl(p->pidfd, F_SETFL, O_NONBLOCK);
        p->exit_event = event_new(loop_base(p->loop), p->pidfd, EV_READ, on_exit_event, p);
        if (p->exit_event && event_add(p->exit_event, NULL) == 0)
            return;
    }
    p->poll = loop_timer_new(p->loop, on_poll, p);
    loop_timer_arm(p->poll, POLL_MS);
}

static void ends_close(const struct proc_ends *e)
{
    const int all[] = {e->in, e->out, e->err, e->status};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i] >= 0)
            (void)close(all[i]);
}

/* A pipe that we read on the loop. */
static bool watched_pipe(struct proc *p, enum stream_kind kind, int *child_end)
{
    struct stream *s = &p->streams[kind];
    int fd[2];
    if (pipe2(fd, O_CLOEXEC) != 0)
        return false;
    s->fd = fd[0];
    *child_end = fd[1];
    if (fcntl(fd[0], F_SETFL, O_NONBLOCK) != 0)
        return false;
    s->event = event_new(loop_base(p->loop), s->fd, EV_READ | EV_PERSIST, on_readable, s);
    return s->event && event_add(s->event, NULL) == 0;
}

static bool lent_or_null(int fd, int flags, int *child_end)
{
    *child_end = fd > 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : open("/dev/null", flags | O_CLOEXEC);
    return *child_end >= 0;
}

static bool open_ends(struct proc *p, const struct proc_spec *spec, struct proc_ends *e)
{
    int fd[2];
    if (spec->pipe_stdin) {
        if (pipe2(fd, O_CLOEXEC) != 0)
            return false;
        e->in = fd[0];
        p->our_stdin = fd[1];
    } else if (!lent_or_null(spec->stdin_fd, O_RDONLY, &e->in)) {
        return false;
    }
    if (spec->pipe_stdout) {
        if (pipe2(fd, O_CLOEXEC) != 0)
            return false;
        e->out = fd[1];
        p->our_stdout = fd[0];
    } else if (spec->stdout_fd <= 0 && spec->capture_max_bytes) {
        if (!watched_pipe(p, STDOUT, &e->out))
            return false;
    } else if (!lent_or_null(spec->stdout_fd, O_WRONLY, &e->out)) {
        return false;
    }
    return watched_pipe(p, STDERR, &e->err) && watched_pipe(p, STATUS, &e->status);
}

static void on_cancel(void *arg)
{
    struct proc *p = arg;
    stop(p, cancel_fired(p->cancel), cancel_reason(p->cancel));
}

static void heed(struct proc *p, struct cancel *cancel)
{
    if (!cancel || cancel == p->cancel)
        return;
    cancel_hook_remove(&p->hook);
    p->cancel = cancel;
    if (cancel_fired(cancel))
        on_cancel(p);
    else
        cancel_hook_add(cancel, &p->hook, on_cancel, p);
}

static enum dr_rc check_spec(const struct proc_spec *spec, struct dr_err *err)
{
    for (const int *fd = spec->keep_fds; fd && *fd >= 0; fd++)
        if (*fd < 3 || fcntl(*fd, F_GETFD) < 0)
            return dr_fail(err, DR_E_BUG, "%s: descriptor %d cannot be inherited", spec->argv[0],
                           *fd);
    if (cancel_fired(spec->cancel))
        return dr_fail(err, cancel_fired(spec->cancel), "%s", cancel_reason(spec->cancel));
    return DR_OK;
}

enum dr_rc proc_start(struct loop *l, const struct proc_spec *spec, struct proc **out,
                      struct dr_err *err)
{
    *out = NULL;
    enum dr_rc rc = check_spec(spec, err);
    if (rc)
        return rc;
    struct proc_ends e = {-1, -1, -1, -1};
    struct proc *p = dr_xalloc(sizeof *p);
    const char *slash = strrchr(spec->argv[0], '/');
    const char *name = spec->name ? spec->name : slash ? slash + 1 : spec->argv[0];
    p->loop = l;
    p->pidfd = p->our_stdin = p->our_stdout = -1;
    for (int i = 0; i < STREAMS; i++)
        p->streams[i] = (struct stream){.proc = p, .fd = -1};
    (void)snprintf(p->name, sizeof p->name, "%s", name);
    p->grace_ms = spec->grace_ms ? spec->grace_ms : GRACE_MS;
    p->deadline_ms = spec->deadline_ms;
    dr_buf_init(&p->out, spec->capture_max_bytes);
    p->began_ms = dr_clock_ms();
    if (!open_ends(p, spec, &e) || (p->pid = proc_child_fork(spec, &e)) < 0) {
        rc = dr_fail_errno(err, DR_E_IO, "%s: cannot start a process", p->name);
        ends_close(&e);
        proc_free(p);
        return rc;
    }
    ends_close(&e);
    (void)setpgid(p->pid, p->pid); /* both sides: whoever comes first */
    p->timer = loop_timer_new(l, on_timer, p);
    if (p->deadline_ms)
        loop_timer_arm(p->timer, p->deadline_ms);
    watch_exit(p);
    heed(p, spec->cancel);
    *out = p;
    return DR_OK;
}

static int take(int *fd)
{
    int out = *fd;
    *fd = -1;
    return out;
}

int proc_take_stdout(struct proc *p)
{
    return take(&p->our_stdout);
}

int proc_take_stdin(struct proc *p)
{
    return take(&p->our_stdin);
}

int proc_pid(const struct proc *p)
{
    return p->pid;
}

static void put(char **at, const char *end, const char *bytes, size_t len)
{
    if ((size_t)(end - *at) <= len)
        return;
    memcpy(*at, bytes, len);
    *at += len;
    **at = 0;
}

/* The tail of stderr as one printable line, from the first whole line that fits. */
static void last_words(const struct proc *p, char out[512])
{
    char raw[TAIL_BYTES];
    size_t n = p->tail_total < TAIL_BYTES ? p->tail_total : TAIL_BYTES, begin = 0;
    for (size_t i = 0; i < n; i++)
        raw[i] = p->tail[(p->tail_total - n + i) % TAIL_BYTES];
    while (n && (raw[n - 1] == '\n' || raw[n - 1] == ' '))
        n--;
    if (n > 400) { /* room for separators */
        begin = n - 400;
        const char *line = memchr(raw + begin, '\n', n - begin);
        if (line)
            begin = (size_t)(line - raw) + 1;
    }
    char *at = out, *end = out + 512;
    *at = 0;
    for (size_t i = begin; i < n;) {
        size_t len = dr_utf8_len((const unsigned char *)raw + i, n - i);
        if (raw[i] == '\n')
            put(&at, end, " | ", 3);
        else if (len == 0 || (unsigned char)raw[i] < 0x20 || raw[i] == 0x7f)
            put(&at, end, len ? " " : "?", 1);
        else
            put(&at, end, raw + i, len);
        i += len ? len : 1;
    }
}

static enum dr_rc verdict(const struct proc *p, const struct proc_result *r, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    const char *sep = r->last_words[0] ? ": " : "";
    int detail = 0;
    if (p->stopped.rc) {
        rc = dr_fail(err, p->stopped.rc, "%s%s%s", p->stopped.msg, sep, r->last_words);
    } else if (p->exec_errno) {
        errno = detail = p->exec_errno;
        rc = dr_fail_errno(err, DR_E_TOOL, "%s: cannot be run", p->name);
        (void)dr_err_reason(err, "exec");
    } else if (p->lost) {
        rc = dr_fail(err, DR_E_BUG, "%s: reaped by somebody else", p->name);
    } else if (r->term_signal) {
        detail = 128 + r->term_signal;
        rc = dr_fail(err, DR_E_TOOL, "%s: died of signal %d (%s)%s%s", p->name, r->term_signal,
                     sigdescr_np(r->term_signal), sep, r->last_words);
    } else if (r->exit_code) {
        detail = r->exit_code;
        rc = dr_fail(err, DR_E_TOOL, "%s: exit code %d%s%s", p->name, r->exit_code, sep,
                     r->last_words);
    }
    if (err && detail && err->rc == rc)
        err->detail = detail;
    return rc;
}

enum dr_rc proc_wait(struct proc *p, struct cancel *cancel, struct proc_result *out,
                     struct dr_err *err)
{
    struct proc_result own;
    struct proc_result *r = out ? out : &own;
    close_untaken(p);
    heed(p, cancel);
    if (p->phase != DONE) {
        p->fiber = fiber_self();
        fiber_suspend();
    }
    cancel_hook_remove(&p->hook);
    memset(r, 0, sizeof *r);
    bool exited = !p->lost && !p->exec_errno && WIFEXITED(p->wait_status);
    r->exit_code = exited ? WEXITSTATUS(p->wait_status) : -1;
    r->term_signal = !p->lost && WIFSIGNALED(p->wait_status) ? WTERMSIG(p->wait_status) : 0;
    r->ms = (uint64_t)(p->ended_ms - p->began_ms);
    last_words(p, r->last_words);
    enum dr_rc rc = verdict(p, r, err);
    if (!rc) {
        r->out = p->out;
        p->out = (struct dr_buf){0};
    }
    if (!out)
        dr_buf_fini(&own.out);
    proc_free(p);
    return rc;
}

enum dr_rc proc_run(struct loop *l, const struct proc_spec *spec, struct cancel *cancel,
                    struct proc_result *out, struct dr_err *err)
{
    struct proc *p;
    if (out)
        memset(out, 0, sizeof *out);
    if (cancel_fired(cancel))
        return dr_fail(err, cancel_fired(cancel), "%s", cancel_reason(cancel));
    enum dr_rc rc = proc_start(l, spec, &p, err);
    return rc ? rc : proc_wait(p, cancel, out, err);
}
