/* Child processes: started on the loop thread, each in a process group of its own, killed with us
 * (PR_SET_PDEATHSIG), with no descriptor but 0, 1, 2 and the listed ones. A fiber waits for exit
 * and end of the captured streams, in either order. Never a shell. Loop thread only. */
#ifndef DR_WORKER_CORE_PROC_H
#define DR_WORKER_CORE_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "worker/core/cancel.h"

struct loop;
struct proc;

struct proc_spec {            /* borrowed until proc_start returns, but for name */
    const char *const *argv;  /* NULL-ended; argv[0] is a path: PATH is not searched */
    const char *const *env;   /* the child's whole environment, NULL-ended;
                                 NULL: PATH, LANG=C.UTF-8 and TZ */
    int stdin_fd;             /* > 0: lent; 0 or -1: /dev/null */
    int stdout_fd;            /* > 0: lent; 0 or -1: captured, or /dev/null */
    const int *keep_fds;      /* inherited under the same number (> 2), ended by -1; or NULL */
    bool pipe_stdin;          /* proc_take_stdin has our end */
    bool pipe_stdout;         /* proc_take_stdout has our end */
    size_t capture_max_bytes; /* of captured stdout, more fails the child; 0: not captured */
    uint64_t deadline_ms;     /* from the start; 0: none */
    uint64_t grace_ms;        /* from TERM to KILL; 0: 5 s */
    struct cancel *cancel;    /* ends it from the start on, also while the fiber is busy with its
                                 streams in the pool; outlives the child; NULL: none */
    const char *name;         /* for messages, copied; NULL: the last part of argv[0] */
};

struct proc_result {
    int exit_code;        /* -1: died of a signal, or never ran */
    int term_signal;      /* 0: none */
    struct dr_buf out;    /* captured stdout; the caller calls dr_buf_fini. Empty on error */
    char last_words[512]; /* the last lines of stderr, printable, joined by " | " */
    uint64_t ms;
};

/* Forks and returns; what exec says is told by proc_wait. Each started child needs one proc_wait.
 * IO; BUG for a keep_fd that cannot be kept; the token's kind when it has fired. */
enum dr_rc proc_start(struct loop *l, const struct proc_spec *spec, struct proc **out,
                      struct dr_err *err) DR_MUST_CHECK;
/* Our end of the pipe, blocking and CLOEXEC, for a pool thread; the caller closes it. -1: there is
 * none, or it was taken. What was not taken proc_wait closes first. */
int proc_take_stdout(struct proc *p);
int proc_take_stdin(struct proc *p);
int proc_pid(const struct proc *p);
/* TERM, after the grace KILL, to the whole group. proc_wait is still needed and says CANCELLED. */
void proc_stop(struct proc *p);
/* In a fiber: returns once the child was reaped and its captured streams ended. A grandchild that
 * holds a stream open delays that by 250 ms at the most. Frees p. out may be NULL.
 * TOOL with the last words when it failed (detail: exit code, 128 + signal; when it could not be
 * run, errno and reason "exec"); TIMEOUT after the deadline; TOO_BIG over the cap; the token's
 * kind when cancelled. The whole group is dead then. */
enum dr_rc proc_wait(struct proc *p, struct cancel *cancel, struct proc_result *out,
                     struct dr_err *err) DR_MUST_CHECK;
/* Both in one. */
enum dr_rc proc_run(struct loop *l, const struct proc_spec *spec, struct cancel *cancel,
                    struct proc_result *out, struct dr_err *err) DR_MUST_CHECK;

/* A secret as a sealed anonymous file of mode 0600: in keep_fds, named /proc/self/fd/N in the
 * child's environment. CLOEXEC; the caller closes it. -1: failed. Any thread. */
int proc_memfd(const char *name, const void *bytes, size_t len, struct dr_err *err);

#endif
